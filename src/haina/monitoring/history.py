"""History: what the records of a run say about its clients and its model, round after round.

Everything here is read off `RoundRecord`s, so words, tables and pictures cannot disagree.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from haina.errors import RunError
from haina.monitoring.text import known
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict

#: Nothing usable came from these clients.
LEFT_OUT = (Verdict.REFUSED, Verdict.FAILED, Verdict.ABSENT)

#: These took part with less than their prior share, or not at all.
WEIGHED_DOWN = (Verdict.DAMPED, Verdict.PROBATION, Verdict.CLIPPED, Verdict.PASSED_OVER)


@dataclass(frozen=True)
class Quarantine:
    """One stay of a client in quarantine.

    Args:
        client: its name.
        start: the first round of the stay.
        released: the round in which its update counted again; None while it stays.
    """

    client: str
    start: int
    released: int | None = None


def quarantines(records: Sequence[RoundRecord]) -> list[Quarantine]:
    """Every stay, in order of beginning. A client that sends nothing for a while is not released by that."""
    inside: dict[str, int] = {}
    stays: list[Quarantine] = []
    for record in records:
        for client in record.clients:
            if client.verdict is Verdict.QUARANTINED:
                inside.setdefault(client.client, record.round)
            elif client.client in inside and client.verdict not in LEFT_OUT:
                stays.append(Quarantine(client.client, inside.pop(client.client), record.round))
    stays += [Quarantine(client, start) for client, start in inside.items()]
    return sorted(stays, key=lambda stay: (stay.start, stay.client))


def shaped(record: RoundRecord) -> list[ClientRecord]:
    """The clients whose updates are part of the new model; nobody where the old model was kept."""
    if record.outcome is Outcome.KEPT:
        return []
    outside = (*LEFT_OUT, Verdict.QUARANTINED, Verdict.PASSED_OVER)
    return [
        client
        for client in record.clients
        if (client.verdict not in outside if client.share is None else client.share > 0)
    ]


def verdicts(records: Sequence[RoundRecord]) -> dict[Verdict, Counter[str]]:
    """Verdict -> client -> number of rounds with that verdict."""
    counts: dict[Verdict, Counter[str]] = {verdict: Counter() for verdict in Verdict}
    for record in records:
        for client in record.clients:
            counts[client.verdict][client.client] += 1
    return counts


def measured(records: Sequence[RoundRecord], metric: str) -> list[tuple[int, float]]:
    """(round, value) of each round in which a metric was evaluated."""
    values = ((record.round, known(record.metrics, metric)) for record in records)
    return [(number, value) for number, value in values if value is not None]


def merit(record: RoundRecord) -> tuple[float, float]:
    """Higher is better: accuracy first, then a low loss; what was not evaluated is worst."""
    accuracy, loss = known(record.metrics, "accuracy"), known(record.metrics, "loss")
    return (-math.inf if accuracy is None else accuracy, -math.inf if loss is None else -loss)


def best(records: Sequence[RoundRecord]) -> tuple[int, float] | None:
    """(round, value) of the best evaluated round: its accuracy, or its loss where there is no accuracy; the earliest of equals."""
    evaluated = [record for record in records if merit(record) > (-math.inf, -math.inf)]
    if not evaluated:
        return None
    top = max(evaluated, key=lambda record: (merit(record), -record.round))
    accuracy = known(top.metrics, "accuracy")
    return top.round, -merit(top)[1] if accuracy is None else accuracy


def trusting(records: Sequence[RoundRecord]) -> bool:
    """True when the run scored its clients' trust."""
    return any(
        "trust" in client.factors or "trust" in client.evidence for r in records for client in r.clients
    )


def pick(records: Sequence[RoundRecord], number: int | None = None) -> RoundRecord:
    """The record of round `number`, the newest if not given.

    Raises:
        RunError: there is no such round.
    """
    if not records:
        raise RunError("no round has closed yet", remedy="Let at least one round close")
    if number is None:
        return records[-1]
    for record in records:
        if record.round == number:
            return record
    raise RunError(f"round {number} is not in this run", allowed=f"{records[0].round} to {records[-1].round}")


def usual(record: RoundRecord) -> Mapping[str, float]:
    """Median of each piece of evidence (and of `norm`, the length of updates) over the clients of a round."""
    columns: dict[str, list[float]] = {}
    for client in record.clients:
        if client.norm is not None:
            columns.setdefault("norm", []).append(client.norm)
        for name in client.evidence:
            value = known(client.evidence, name)
            if value is not None and name != "norm":
                columns.setdefault(name, []).append(value)
    return {name: sorted(values)[(len(values) - 1) // 2] for name, values in columns.items()}
