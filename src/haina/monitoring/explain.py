"""Explain: one round in plain words, for a data scientist and for a privacy officer.

Only the clients that matter are named: those that count most, those weighed down, in quarantine or left out, and why. At most 25 lines, the same
for the same records. The whole run is told in `haina.monitoring.story`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from haina.monitoring.glossary import evidence, factors, gloss
from haina.monitoring.history import LEFT_OUT, WEIGHED_DOWN, measured, pick, quarantines, shaped, usual
from haina.monitoring.story import explain_run
from haina.monitoring.text import called, known, listing, number, percent, plain, plural, score
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict

__all__ = ["explain_client", "explain_round", "explain_run"]

#: Clients named under each heading.
NAMED = 3


def explain_round(records: Sequence[RoundRecord], round: int | None = None) -> str:
    """Why the clients of one round count what they count.

    Args:
        records: the rounds of a run, oldest first; those before the explained one say since when a client is in quarantine.
        round: the round to explain; the newest if not given.

    Raises:
        RunError: there is no such round.
    """
    record = pick(records, round)
    told = [earlier for earlier in records if earlier.round <= record.round]
    since = {stay.client: stay.start for stay in quarantines(told) if stay.released is None}
    by_share = sorted(shaped(record), key=lambda client: (-(client.share or 0.0), client.client))
    down = _by_loss(_weighed_down(record))
    plainly = [client for client in by_share if client not in down]
    locked = _by_loss(client for client in record.clients if client.verdict is Verdict.QUARANTINED)
    lines = _heading(record, told)
    if len(plainly) > NAMED and _alike(by_share):
        lines.append(f"{len(plainly)} clients count the same: {percent(plainly[0].share)} each.")
    elif plainly and plainly[0].share is not None:
        lines += _group("Largest shares", plainly, record, since, of=False)
    lines += _group("Weighed down", down, record, since)
    lines += _group("In quarantine", locked, record, since)
    lines += _left_out(record)
    if record.decisions:
        chosen = [f"{plain(name, 40)}: {plain(choice, 80)}" for name, choice in record.decisions.items()]
        lines.append(f"Decided: {'; '.join(chosen)}.")
    lines.append(gloss("\n".join(lines)))
    return "\n".join(line for line in lines if line)


def explain_client(client: ClientRecord, record: RoundRecord, since: int | None = None) -> str:
    """One client of a round in one line, such as

        client-007 counts 1.2% (prior 3.1%): its update points away from the others (cosine -0.83); trust 0.31, quarantined since round 4

    Args:
        client: one of the record's clients.
        record: the round.
        since: the round in which its quarantine began, if it is in quarantine.
    """
    share = "" if client.share is None else f" counts {percent(client.share)}"
    prior = "" if client.prior is None else f" (prior {percent(client.prior)})"
    said = [plain(client.reason)] if client.reason else []
    if client.verdict is Verdict.ADMITTED and not _halved(client):
        said += factors(client)
    else:
        said += ["the combining rule left it little"] if client.verdict is Verdict.ADMITTED else []
        said += evidence(client, usual(record))
    said.append(", ".join(words for words in (_trust(client), _standing(client, record, since)) if words))
    return (
        f"{called(client.client)}{share}{prior}: {'; '.join(words for words in said if words)}".removesuffix(
            ": "
        )
    )


def _trust(client: ClientRecord) -> str:
    trust = known(client.evidence, "trust")
    return "" if trust is None else f"trust {score(trust)}"


def _standing(client: ClientRecord, record: RoundRecord, since: int | None) -> str:
    if client.verdict is Verdict.QUARANTINED:
        if since is None or since == record.round:
            return "quarantined from this round on"
        return f"quarantined since round {since}"
    return {Verdict.PROBATION: "on probation", Verdict.DAMPED: "damped"}.get(client.verdict, "")


def _heading(record: RoundRecord, told: Sequence[RoundRecord]) -> list[str]:
    invited = plural(len(record.clients), "invited client")
    if record.outcome is Outcome.KEPT:
        usable = sum(client.verdict not in LEFT_OUT for client in record.clients)
        return [
            f"Round {record.round} kept the old model: {plain(record.reason)}.",
            f"{usable} of {invited} sent a usable update.",
        ]
    said = []
    accuracy = measured(told, "accuracy")
    if accuracy and accuracy[-1][0] == record.round:
        change = 100 * (accuracy[-1][1] - accuracy[-2][1]) if len(accuracy) > 1 else None
        said.append(
            f"accuracy {percent(accuracy[-1][1])}" + ("" if change is None else f" ({change:+.1f} points)")
        )
    if (loss := known(record.metrics, "loss")) is not None:
        said.append(f"loss {number(loss)}")
    lines = [f"Round {record.round} made a new model: {', '.join(said) or 'not evaluated'}."]
    effective = known(record.notes, "effective_clients")
    worth = "" if effective is None else f", worth {effective:.1f} equal clients"
    lines.append(f"{len(shaped(record))} of {invited} shaped it{worth}.")
    if any(client.share is None for client in shaped(record)):
        lines.append(
            "The combining rule takes each number of the model apart, so no client has one share in it."
        )
    return lines


def _group(
    title: str,
    clients: Sequence[ClientRecord],
    record: RoundRecord,
    since: dict[str, int],
    *,
    of: bool = True,
) -> list[str]:
    if not clients:
        return []
    shown = clients[:NAMED]
    count = f"{len(clients)}" + (f", {NAMED} shown" if len(clients) > NAMED else "")
    heading = f"{title} ({count})" if of else title
    return [heading, *(f"  {explain_client(client, record, since.get(client.client))}" for client in shown)]


def _left_out(record: RoundRecord) -> list[str]:
    groups: dict[tuple[Verdict, str], list[str]] = {}
    for client in record.clients:
        if client.verdict in LEFT_OUT:
            groups.setdefault((client.verdict, client.reason), []).append(called(client.client))
    if not groups:
        return []
    total = sum(map(len, groups.values()))
    ordered = sorted(
        groups.items(), key=lambda group: (LEFT_OUT.index(group[0][0]), -len(group[1]), group[0][1])
    )
    lines = [f"Left out ({total})"]
    for (verdict, reason), names in ordered[: NAMED + 1]:
        lines.append(f"  {listing(names, NAMED)}: {verdict}" + (f", {plain(reason)}" if reason else ""))
    if len(ordered) > NAMED + 1:
        lines.append(f"  and {len(ordered) - NAMED - 1} further reasons")
    return lines


def _weighed_down(record: RoundRecord) -> list[ClientRecord]:
    """Those whom a verdict weighs down, and those to whom the combining rule gave less than half of their prior."""
    even = _alike(shaped(record))
    return [
        client
        for client in record.clients
        if client.verdict in WEIGHED_DOWN
        or (client.verdict is Verdict.ADMITTED and not even and _halved(client) and client in shaped(record))
    ]


def _halved(client: ClientRecord) -> bool:
    return client.share is not None and client.prior is not None and client.share < client.prior / 2


def _by_loss(clients: Iterable[ClientRecord]) -> list[ClientRecord]:
    return sorted(clients, key=lambda client: ((client.share or 0.0) - (client.prior or 0.0), client.client))


def _alike(clients: Sequence[ClientRecord]) -> bool:
    shares = [client.share for client in clients if client.share is not None]
    return bool(shares) and max(shares) - min(shares) <= 1e-9
