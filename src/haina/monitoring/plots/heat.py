"""Heat map of shares: who counted how much in which round, readable at ten clients and at thousands."""

# plotnine leaves some of its functions without types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from plotnine import (
    aes,
    element_blank,
    element_rect,
    element_text,
    geom_point,
    geom_tile,
    ggplot,
    guide_colorbar,
    guides,
    scale_fill_gradientn,
    scale_y_discrete,
    theme,
)

from haina.monitoring.history import LEFT_OUT
from haina.monitoring.plots.canvas import BLUE, RED, look, percents, rounds_axis, short, titled
from haina.monitoring.text import percent, plural
from haina.strategy.record import Outcome, RoundRecord, Verdict

#: A heat map has at most this many columns; longer runs are averaged over neighbouring rounds.
COLUMNS = 120


def shares(records: Sequence[RoundRecord], top: int = 20) -> ggplot | None:
    """Who counted how much in which round: a heat map with a row a client.

    Args:
        records: the rounds of a run, oldest first.
        top: most rows; with more clients, those ever in quarantine and those with the largest shares are shown, the others as one row.
    """
    frame = pd.DataFrame(
        [
            (record.round, client.client, client.share, client.verdict is Verdict.QUARANTINED)
            for record in records
            if record.outcome is Outcome.STEPPED
            for client in record.clients
            if client.share is not None and client.verdict not in LEFT_OUT
        ],
        columns=["round", "client", "share", "locked"],
    )
    if frame.empty:
        return None
    title = f"The largest share of a round was {percent(float(frame['share'].max()))}"
    if locked := frame.loc[frame["locked"], "client"].nunique():
        title += f"; {plural(locked, 'client')} in quarantine got nothing"
    means = frame.groupby("client")["share"].mean()
    ordered = sorted(means.index, key=lambda client: (-means[client], client))
    shown, rest = _rows(ordered, set(frame.loc[frame["locked"], "client"]), top)
    names = [short(client) for client in shown] + ([f"{plural(rest, 'other')}, mean"] if rest else [])
    place = {client: i for i, client in enumerate(shown)}
    frame["row"] = [str(place.get(client, len(shown))) for client in frame["client"]]
    step = -(-len(records) // COLUMNS)
    frame["column"] = (frame["round"] - 1) // step * step + 1 + (step - 1) / 2
    tiles = frame.groupby(["row", "column"], as_index=False).agg({"share": "mean", "locked": "mean"})
    crossed = tiles[tiles["locked"] > 0.5]
    size = min(3.0, 160.0 / max(tiles["column"].nunique(), 2 * len(names)))
    picture: ggplot = (
        ggplot(tiles, aes("column", "row"))
        + geom_tile(aes(fill="share"), width=0.94 * step, height=0.9)
        + scale_fill_gradientn(
            colors=["#FFFFFF", "#9CCBEA", BLUE, "#00233D"],
            limits=(0, max(float(tiles["share"].max()), 1e-9)),
            labels=percents,
            name="share",
        )
        + guides(fill=guide_colorbar(display="rectangles", nbin=32))
        + scale_y_discrete(limits=[str(i) for i in reversed(range(len(names)))], labels=names[::-1])
        + rounds_axis(frame["round"].min(), frame["round"].max())
        + look()
        + theme(
            panel_grid=element_blank(),
            panel_background=element_rect(fill="#EDEDED", color="#EDEDED"),
            axis_text_y=element_text(size=min(10.0, 240.0 / len(names))),
        )
        + titled(
            title,
            "Share of each client in the new model: the darker the larger, white is nought, grey took no part"
            + ("; × is in quarantine" if len(crossed) else ""),
            "round",
            "client",
        )
    )
    if len(crossed):
        picture += geom_point(data=crossed, color=RED, shape="x", size=size, stroke=0.6)
    return picture


def _rows(ordered: list[str], locked: set[str], top: int) -> tuple[list[str], int]:
    """Rows of the heat map, largest shares first, and how many clients go into the last row."""
    if len(ordered) <= top:
        return ordered, 0
    worst = [client for client in reversed(ordered) if client in locked][: (top - 1) // 2]
    best = [client for client in ordered if client not in worst][: top - 1 - len(worst)]
    shown = {*worst, *best}
    return [client for client in ordered if client in shown], len(ordered) - len(shown)
