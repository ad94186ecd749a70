"""Trust of each client over rounds."""

# plotnine leaves some of its functions without types.
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd
from plotnine import (
    aes,
    element_blank,
    geom_line,
    geom_point,
    geom_text,
    ggplot,
    scale_color_manual,
    scale_linetype_manual,
    scale_y_continuous,
    theme,
)

from haina.monitoring.history import quarantines
from haina.monitoring.plots.canvas import BLUE, INK, RED, SKY, look, rounds_axis, short, titled
from haina.monitoring.text import known, plural
from haina.strategy.record import RoundRecord


def trust(records: Sequence[RoundRecord], hostile: Collection[str] = ()) -> ggplot | None:
    """Trust over rounds: a line a client; those ever in quarantine, and those known to be hostile, stand out.

    Args:
        records: the rounds of a run, oldest first.
        hostile: clients that a simulation knows to attack.
    """
    stays = quarantines(records)
    locked = {stay.client for stay in stays}
    styles = _styles(bool(hostile))
    steady, *marked = styles
    kinds = dict.fromkeys(locked, marked[0]) | dict.fromkeys(hostile, marked[-1])
    turns = {(stay.client, stay.start): "begins" for stay in stays}
    turns |= {(stay.client, stay.released): "ends" for stay in stays if stay.released is not None}
    frame = pd.DataFrame(
        [
            (
                record.round,
                client.client,
                value,
                kinds.get(client.client, steady),
                turns.get((client.client, record.round), ""),
            )
            for record in records
            for client in record.clients
            if (value := known(client.evidence, "trust")) is not None
        ],
        columns=["round", "client", "trust", "kind", "turn"],
    )
    if frame.empty:
        return None
    present = [kind for kind in styles if (frame["kind"] == kind).any()]
    several = frame[frame.groupby("client")["round"].transform("size") > 1]
    labels = _labels(frame[frame["kind"] != steady])
    picture: ggplot = (
        ggplot(frame, aes("round", "trust", color="kind"))
        + scale_color_manual([styles[kind][0] for kind in present], limits=present)
        + scale_linetype_manual([styles[kind][1] for kind in present], limits=present)
        + rounds_axis(frame["round"].min(), frame["round"].max(), room=0.13 if len(labels) else 0.0)
        + scale_y_continuous(limits=(0, 1), breaks=[0, 0.25, 0.5, 0.75, 1])
        + look()
        + theme(
            legend_position="top",
            legend_justification="left",
            legend_key_width=36,
            legend_title=element_blank(),
            legend_box_margin=0,
        )
        + titled(
            _caught(locked, hostile, frame["client"].nunique()),
            "Trust of each client, earned over rounds"
            + ("; × quarantine begins" if stays else "")
            + (", ○ it ends" if "ends" in turns.values() else ""),
            "round",
            "trust (0 to 1)",
        )
    )
    for kind in present:
        lines = several[several["kind"] == kind]
        bold = kind != steady and lines["client"].nunique() <= 12
        picture += geom_line(
            aes(group="client", linetype="kind"),
            data=lines,
            size=1.2 if bold else 0.7,
            alpha=0.95 if bold else 0.5,
        )
    for turn, shape in (("begins", "x"), ("ends", "o")):
        picture += geom_point(
            data=frame[frame["turn"] == turn],
            color=INK,
            fill="white",
            shape=shape,
            size=2.6,
            stroke=0.9,
            show_legend=False,
        )
    if len(labels):
        picture += geom_text(
            aes(x="x", y="y", label="name"), data=labels, color=INK, ha="left", size=9, inherit_aes=False
        )
    return picture


def _styles(informed: bool) -> dict[str, tuple[str, str]]:
    """Kinds of clients, the unremarkable first: colour and line type."""
    if informed:
        return {
            "honest": (SKY, "solid"),
            "honest, in quarantine at some time": (BLUE, "dashed"),
            "hostile": (RED, "dashdot"),
        }
    return {"never in quarantine": (SKY, "solid"), "in quarantine at some time": (RED, "dashed")}


def _caught(locked: Collection[str], hostile: Collection[str], clients: int) -> str:
    if not hostile:
        return f"{len(locked) or 'None'} of {plural(clients, 'client')} lost trust and came into quarantine"
    caught = sum(client in locked for client in hostile)
    wrongly = len(locked) - caught
    return (
        f"{caught} of {plural(len(hostile), 'hostile client')} came into quarantine, "
        f"and {wrongly or 'none'} of the {clients - len(hostile)} honest"
    )


def _labels(frame: pd.DataFrame, most: int = 10, gap: float = 0.045) -> pd.DataFrame:
    """Names at the ends of lines, moved apart; none where they are too many to read."""
    ends = (
        frame.sort_values("round").groupby("client", as_index=False).last().sort_values(["trust", "client"])
    )
    if not 0 < len(ends) <= most:
        return pd.DataFrame()
    heights: list[float] = []
    for value in ends["trust"]:
        heights.append(max(value, heights[-1] + gap) if heights else max(value, 0.0))
    over = max(0.0, heights[-1] - 1)
    reach = max(1, int(frame["round"].max() - frame["round"].min()))
    return pd.DataFrame(
        {
            "x": frame["round"].max() + 0.012 * reach,
            "y": [height - over for height in heights],
            "name": [short(client) for client in ends["client"]],
        }
    )
