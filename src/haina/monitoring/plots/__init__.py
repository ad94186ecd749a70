"""Plots: pictures of a run in the grammar of graphics (plotnine), made from round records.

Each of `accuracy`, `loss`, `shares` and `trust` gives one picture, or None where the run has nothing of the kind (no evaluation, a rule without
shares, no trust). Titles say the finding, read from the same records as the words of `haina.monitoring.story`. `draw` and `save` make files.

Needs the extra `plots`; import this room only where pictures are wanted.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from plotnine import ggplot

from haina.monitoring.plots.canvas import draw, save
from haina.monitoring.plots.course import accuracy, loss
from haina.monitoring.plots.heat import shares
from haina.monitoring.plots.trust import trust
from haina.strategy.record import RoundRecord

__all__ = ["accuracy", "draw", "loss", "pictures", "save", "shares", "trust"]


def pictures(
    records: Sequence[RoundRecord], hostile: Collection[str] = (), *, threshold: float = 0.9, window: int = 1
) -> dict[str, ggplot]:
    """Every picture that the records allow, by name; arguments as for the single ones."""
    drawn = {
        "accuracy": accuracy(records, threshold, window),
        "loss": loss(records, window),
        "shares": shares(records),
        "trust": trust(records, hostile),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}
