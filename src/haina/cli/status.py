"""`haina status`: how the federations stand, once or live; `haina serve` shows the same picture of itself."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from haina.cli.nodes import nodes_table
from haina.cli.reach import Where
from haina.cli.rounds import round_json, rounds_table
from haina.cli.talk import console, json_line, shown
from haina.errors import ConfigError, Unreachable
from haina.monitoring.text import duration, known, number, percent, plain
from haina.wire.messages import FederationInfo, NodeInfo, Role, RoundInfo

if TYPE_CHECKING:
    from haina.node.link.api import Api

#: Rounds in view.
LAST = 8
_OF_NODES = ("node", "federation", "state", "examples", "doing", "last seen")
#: Seconds between two looks.
EVERY = 1.0


@dataclass(frozen=True)
class Look:
    """How things stood at a moment.

    Args:
        federations: all of them.
        rounds: the newest of each, oldest first.
        nodes: everybody with a certificate.
        now: seconds since 1970.
    """

    federations: Sequence[FederationInfo]
    rounds: Mapping[str, Sequence[RoundInfo]]
    nodes: Sequence[NodeInfo]
    now: float

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "federations": [
                {
                    **federation.model_dump(mode="json", exclude={"round"}),
                    "round": None if federation.round is None else round_json(federation.round),
                    "last_rounds": [round_json(info) for info in self.rounds[federation.name]],
                }
                for federation in self.federations
            ],
            "nodes": [node.model_dump(mode="json") for node in self.nodes],
        }


def status(where: Where, *, watch: bool, as_json: bool) -> None:
    """Show how the federations stand."""
    if watch and not as_json and not console.is_terminal:
        raise ConfigError("--watch needs a terminal", allowed="--watch --json, which writes a line a second")
    with where.api() as api:
        if not watch:
            look = _look(api)
            if as_json:
                json_line(look.to_json())
            else:
                shown(picture(look))
            return
        if as_json:
            while True:
                json_line(_look(api).to_json())
                time.sleep(EVERY)
        _watch(api)


def _watch(api: Api) -> None:
    seen: RenderableType = Text("looking ...")
    with Live(seen, console=console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                seen = picture(_look(api))
                live.update(seen, refresh=True)
            except Unreachable as error:
                # What was last seen stays in view: a coordinator that restarts is back in a moment.
                live.update(Group(seen, Text(str(error), style="yellow")), refresh=True)
            time.sleep(EVERY)


def _look(api: Api) -> Look:
    federations = api.federations()
    rounds = {federation.name: api.rounds(federation.name, LAST) for federation in federations}
    return Look(federations, rounds, api.nodes(), time.time())


def picture(look: Look) -> RenderableType:
    """A moment as a picture for a terminal."""
    parts: list[RenderableType] = []
    for federation in look.federations:
        parts.append(_heading(federation))
        if federation.round is not None and federation.state == "running":
            parts.append(_bar(federation.round, look.now))
        closed = [info for info in look.rounds[federation.name] if info.closed is not None]
        if closed:
            parts.append(rounds_table(closed))
    nodes = [node for node in look.nodes if node.role is Role.NODE]
    if nodes:
        parts.append(nodes_table(nodes, look.now, _OF_NODES))
    return Group(*parts)


def _heading(federation: FederationInfo) -> Text:
    words = [f"round {federation.closed} of {federation.rounds} closed", f"version {federation.version}"]
    words += _metrics(federation.metrics)
    if federation.model is not None:
        words.append(f"model {federation.model[:12]}")
    if federation.reason:
        words.append(plain(federation.reason))
    return Text.assemble((federation.name, "bold"), f" {federation.state}: ", ", ".join(words))


def _metrics(metrics: Mapping[str, float]) -> Iterable[str]:
    if (accuracy := known(metrics, "accuracy")) is not None:
        yield f"accuracy {percent(accuracy)}"
    if (loss := known(metrics, "loss")) is not None:
        yield f"loss {number(loss)}"


def _bar(info: RoundInfo, now: float) -> Table:
    left = info.deadline - now
    words = [f"{info.arrived}/{info.invited} arrived"]
    if info.failed:
        words.append(f"{info.failed} failed")
    words.append(f"{info.quorum} are enough")
    words.append(f"{duration(left)} left" if left > 0 else "deadline over")
    grid = Table.grid(padding=(0, 1))
    grid.add_row(
        f"round {info.number}",
        ProgressBar(total=max(1, info.invited), completed=info.arrived, width=30),
        info.state if info.state != "open" else ", ".join(words),
    )
    return grid
