"""`haina rounds`: what became of each round; `haina rounds show`: who was weighed how in one, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from haina.cli.reach import Where, counted, the_federation
from haina.cli.talk import data, json_line, shown, when
from haina.monitoring.explain import explain_round
from haina.monitoring.text import duration, known, number, percent, plain
from haina.strategy.record import RoundRecord
from haina.wire.messages import RoundInfo
from haina.wire.refusal import Refusal

if TYPE_CHECKING:
    from haina.node.link.api import Api

#: Rounds before the explained one that are looked at, to say since when a client is in quarantine.
_BEFORE = 20


def rounds(where: Where, federation: str | None, last: int, *, as_json: bool) -> None:
    """List the newest rounds."""
    with where.api() as api:
        found = api.rounds(the_federation(api, federation), last)
    if as_json:
        json_line([round_json(info) for info in found])
    else:
        shown(rounds_table(found))


def show(where: Where, words: Sequence[str], *, as_json: bool) -> None:
    """Explain one round.

    Args:
        where: the coordinator.
        words: the federation, if it has to be named, and the number of the round.
    """
    name, count = counted(words, "haina rounds show [FEDERATION] NUMBER")
    with where.api() as api:
        federation = the_federation(api, name)
        info = api.round(federation, count)
        if as_json:
            json_line(info.model_dump(mode="json"))
            return
        if info.record is None:
            data(_standing(info))
        else:
            data(explain_round(_records(api, info), info.number))
    for client, places in sorted(info.failures.items()):
        data(f"{client} failed here:")
        for place in places.splitlines():
            data(f"  {plain(place)}")


def rounds_table(found: Sequence[RoundInfo]) -> Table:
    """Rounds as a table for people, oldest first."""
    table = Table(header_style="bold")
    for name in ("round", "", "arrived", "failed", "accuracy", "loss", "opened", "took"):
        table.add_column(name, justify="left" if name in ("", "opened") else "right")
    table.add_column("why", overflow="fold")
    for info in found:
        numbers = metrics_of(info)
        table.add_row(
            str(info.number),
            "made a model"
            if info.state == "closed"
            else "kept the model"
            if info.state == "failed"
            else info.state,
            f"{info.arrived}/{info.invited}",
            str(info.failed or ""),
            percent(known(numbers, "accuracy")) if "accuracy" in numbers else "",
            number(known(numbers, "loss")) if "loss" in numbers else "",
            when(info.opened),
            "" if info.closed is None else duration(info.closed - info.opened),
            plain(info.reason),
            style="yellow" if info.state == "failed" else None,
        )
    return table


def metrics_of(info: RoundInfo) -> dict[str, Any]:
    """What the new model was measured to do; empty for a round that made none."""
    return dict((info.record or {}).get("metrics", {}))


def round_json(info: RoundInfo) -> dict[str, Any]:
    """A round for programs, without its record (`haina rounds show --json` has it)."""
    return {**info.model_dump(mode="json", exclude={"record"}), "metrics": metrics_of(info)}


def _standing(info: RoundInfo) -> str:
    return (
        f"Round {info.number} is {info.state}: {info.arrived} of {info.invited} updates have arrived, {info.failed} nodes failed; "
        f"{info.quorum} make a model at the deadline, {when(info.deadline)}."
    )


def _records(api: Api, info: RoundInfo) -> list[RoundRecord]:
    """The records up to this round, as far back as an explanation looks."""
    records = []
    for n in range(max(1, info.number - _BEFORE), info.number):
        try:
            earlier = api.round(info.federation, n).record
        except Refusal:
            continue
        if earlier is not None:
            records.append(RoundRecord.from_json(earlier))
    assert info.record is not None
    return [*records, RoundRecord.from_json(info.record)]
