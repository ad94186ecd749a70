"""News: what a round brought that somebody who watches wants to hear, in plain words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from haina.monitoring.glossary import evidence
from haina.monitoring.history import LEFT_OUT, measured, quarantines, usual
from haina.monitoring.text import called, duration, known, listing, percent, plain
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict

#: Worth a word when it is first reached.
_GOOD = 0.9


def news(before: Sequence[RoundRecord], record: RoundRecord) -> Iterator[str]:
    """What is new in a round.

    Args:
        before: the earlier rounds, oldest first.
        record: the round.
    """
    clients = {client.client: client for client in record.clients}
    earlier = {client.client: client for client in before[-1].clients} if before else {}
    sent, ever = _senders(before[-1:]), _senders(before)
    if record.outcome is Outcome.KEPT:
        yield f"round {record.round} kept the old model: {plain(record.reason)}"
    absent = [name for name, client in clients.items() if client.verdict is Verdict.ABSENT]
    if missed := [called(name) for name in absent if name in sent or not before]:
        waited = duration(known(record.timing, "total"))
        yield f"round {record.round} waited {waited} for {listing(missed, 3)} and went on without"
    for name, client in clients.items():
        if name in (_senders([record]) & ever) - sent:
            yield f"{called(name)} takes part again in round {record.round}"
        if client.verdict is Verdict.DAMPED and not client.share and name in earlier and earlier[name].share:
            yield f"round {record.round} gives {called(name)} no share{_why(client, record)}"
    for stay in quarantines([*before, record]):
        if stay.start == record.round:
            yield f"round {record.round} puts {called(stay.client)} in quarantine{_why(clients[stay.client], record)}"
        elif stay.released == record.round:
            yield f"round {record.round} lets {called(stay.client)} out of quarantine"
    accuracy = known(record.metrics, "accuracy") or 0.0
    if accuracy >= _GOOD > max((value for _, value in measured(before, "accuracy")), default=0.0):
        yield f"round {record.round} reaches an accuracy of {percent(accuracy)}"


def _senders(records: Sequence[RoundRecord]) -> set[str]:
    return {c.client for record in records for c in record.clients if c.verdict not in LEFT_OUT}


def _why(client: ClientRecord, record: RoundRecord) -> str:
    """The first piece of evidence, without its number in brackets."""
    return "".join(f": {words.partition(' (')[0]}" for words in evidence(client, usual(record))[:1])
