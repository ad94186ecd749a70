"""Course: accuracy and loss of the shared model over rounds."""

# plotnine leaves some of its functions without types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from plotnine import aes, geom_hline, geom_line, geom_point, ggplot, scale_y_continuous

from haina.monitoring.history import measured
from haina.monitoring.plots.canvas import BLUE, RED, SKY, look, percents, rounds_axis, titled
from haina.monitoring.story import crossing
from haina.monitoring.text import number, percent
from haina.strategy.record import RoundRecord


def accuracy(records: Sequence[RoundRecord], threshold: float = 0.9, window: int = 1) -> ggplot | None:
    """Accuracy over rounds: a blue line and a red dashed threshold.

    Args:
        records: the rounds of a run, oldest first.
        threshold: where the dashed line lies, in [0, 1].
        window: evaluations in the rolling mean, >= 1; with more than one, single evaluations are drawn as dots.
    """
    points = measured(records, "accuracy")
    if not points:
        return None
    end = f"ended at {percent(points[-1][1])}"
    title = crossing(points, threshold).removesuffix(".").replace("It ", "Accuracy ", 1) + f"; it {end}"
    picture: ggplot = _course(points, window) + geom_hline(
        yintercept=threshold, color=RED, linetype="dashed", size=0.9
    )
    low = min([value for _, value in points] + [threshold])
    return (
        picture
        + scale_y_continuous(limits=(max(0.0, int(low * 10 - 1e-9) / 10), 1.0), labels=percents)
        + titled(title, f"{_measure(window)}; dashed red: {threshold:.0%}", "round", "accuracy on test rows")
    )


def loss(records: Sequence[RoundRecord], window: int = 1) -> ggplot | None:
    """Loss over rounds; arguments as for `accuracy`."""
    points = measured(records, "loss")
    if not points:
        return None
    (_, start), (_, end) = points[0], points[-1]
    way = "fell" if end < start else "rose" if end > start else "stayed"
    title = f"Loss {way} from {number(start)} to {number(end)}" if start != end else f"Loss is {number(end)}"
    return _course(points, window) + titled(title, _measure(window), "round", "loss on test rows")


def _course(points: Sequence[tuple[int, float]], window: int) -> ggplot:
    frame = pd.DataFrame(points, columns=["round", "value"])
    frame["mean"] = frame["value"].rolling(window, min_periods=1).mean()
    picture: ggplot = (
        ggplot(frame, aes("round")) + look() + rounds_axis(frame["round"].min(), frame["round"].max())
    )
    if window > 1:
        picture += geom_point(aes(y="value"), color=SKY, size=1.8)
    elif len(frame) <= 60:
        picture += geom_point(aes(y="mean"), color=BLUE, size=2.2)
    if len(frame) > 1:
        picture += geom_line(aes(y="mean"), color=BLUE, size=1.3)
    return picture


def _measure(window: int) -> str:
    if window > 1:
        return f"Line: mean of the last {window} evaluations; dots: each evaluation of the shared model"
    return "The shared model after each evaluated round"
