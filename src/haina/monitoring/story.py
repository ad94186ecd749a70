"""Story: a whole run in plain words.

How accuracy went, how many clients really counted, who was put in quarantine and whether released, who was left out and how often, and what was
decided. At most 25 lines, the same for the same records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from haina.monitoring.glossary import gloss
from haina.monitoring.history import (
    LEFT_OUT,
    WEIGHED_DOWN,
    Quarantine,
    measured,
    pick,
    quarantines,
    shaped,
    trusting,
    verdicts,
)
from haina.monitoring.text import called, duration, known, listing, number, percent, plain, plural
from haina.strategy.record import Outcome, RoundRecord, Verdict

#: Clients named under each heading.
NAMED = 5


def explain_run(records: Sequence[RoundRecord], threshold: float = 0.9) -> str:
    """A run in plain words.

    Args:
        records: its rounds, oldest first.
        threshold: the accuracy whose crossing is told, in (0, 1).

    Raises:
        RunError: no round has closed yet.
    """
    pick(records)
    lines = [
        *_learning(records, threshold),
        *_kept(records),
        *_counting(records),
        *_quarantine(records),
        *_verdicts(records),
        *_decisions(records),
    ]
    return "\n".join([*lines, *filter(None, [gloss("\n".join(lines))])])


def _learning(records: Sequence[RoundRecord], threshold: float) -> list[str]:
    clients = len({client.client for record in records for client in record.clients})
    seconds = [value for record in records if (value := known(record.timing, "total")) is not None]
    took = f" in {duration(sum(seconds))}" if seconds else ""
    lines = [f"{plural(len(records), 'round')} with {plural(clients, 'client')}{took}."]
    if accuracy := measured(records, "accuracy"):
        lines.append(_course("Accuracy", accuracy, percent, highest=True))
        lines.append(crossing(accuracy, threshold))
    if loss := measured(records, "loss"):
        lines.append(_course("Loss", loss, number, highest=False))
    if not accuracy and not loss:
        lines.append("No round was evaluated.")
    return lines


def _course(
    what: str, points: Sequence[tuple[int, float]], words: Callable[[float], str], *, highest: bool
) -> str:
    (first, start), (last, end) = points[0], points[-1]
    if first == last:
        return f"{what} was {words(end)} in round {last}."
    sign = 1 if highest else -1
    peak, value = max(points, key=lambda point: (sign * point[1], -point[0]))
    extreme = "highest" if highest else "lowest"
    went = f"{what} went from {words(start)} (round {first}) to {words(end)} (round {last})"
    return f"{went}." if peak == last else f"{went}; {extreme} {words(value)} in round {peak}."


def crossing(accuracy: Sequence[tuple[int, float]], threshold: float) -> str:
    """When accuracy reached a threshold, and whether it stayed there."""
    reached = next((number for number, value in accuracy if value >= threshold), None)
    if reached is None:
        return f"It did not reach {threshold:.0%}."
    fell = [number for number, value in accuracy if number > reached and value < threshold]
    if not fell:
        return f"It reached {threshold:.0%} in round {reached} and stayed there."
    return f"It reached {threshold:.0%} in round {reached}, and was below it in {plural(len(fell), 'later round')}."


def _kept(records: Sequence[RoundRecord]) -> list[str]:
    kept = [record for record in records if record.outcome is Outcome.KEPT]
    if not kept:
        return []
    told = listing([f"{record.round} ({plain(record.reason, 80)})" for record in kept], 2)
    return [f"{plural(len(kept), 'round')} kept the old model: {told}."]


def _counting(records: Sequence[RoundRecord]) -> list[str]:
    stepped = [record for record in records if record.outcome is Outcome.STEPPED]
    if not stepped:
        return []
    took = sum(len(shaped(record)) for record in stepped) / len(stepped)
    invited = sum(len(record.clients) for record in stepped) / len(stepped)
    said = f"On average {number(took)} of {number(invited)} invited clients shaped a round"
    worth = [(value, r.round) for r in stepped if (value := known(r.notes, "effective_clients")) is not None]
    if worth:
        low, when = min(worth)
        mean = sum(value for value, _ in worth) / len(worth)
        said += f", worth {mean:.1f} equal clients"
        said += f" (fewest {low:.1f}, in round {when})" if low < mean - 0.05 else ""
    return [f"{said}."]


def _quarantine(records: Sequence[RoundRecord]) -> list[str]:
    stays = quarantines(records)
    if not stays:
        return ["Nobody was put in quarantine."] if trusting(records) else []
    by_client: dict[str, list[Quarantine]] = {}
    for stay in stays:
        by_client.setdefault(stay.client, []).append(stay)
    alike: dict[str, list[str]] = {}
    for client, theirs in by_client.items():
        alike.setdefault(", again ".join(map(_stay, theirs[:3])), []).append(called(client))
    inside = sum(theirs[-1].released is None for theirs in by_client.values())
    lines = [f"Quarantined: {plural(len(by_client), 'client')}, {inside} to the end"]
    lines += [f"  {listing(names, 4)}: {told}" for told, names in list(alike.items())[:NAMED]]
    if len(alike) > NAMED:
        others = sum(len(names) for names in list(alike.values())[NAMED:])
        lines.append(f"  and {plural(others, 'other')}")
    return lines


def _stay(stay: Quarantine) -> str:
    end = "not released" if stay.released is None else f"released in round {stay.released}"
    return f"from round {stay.start}, {end}"


def _verdicts(records: Sequence[RoundRecord]) -> list[str]:
    counts = verdicts(records)
    lines = []
    for verdict in (*WEIGHED_DOWN, *LEFT_OUT):
        clients = sorted(counts[verdict].items(), key=lambda item: (-item[1], item[0]))
        if clients:
            reason = _commonest(records, verdict) if verdict in (Verdict.REFUSED, Verdict.FAILED) else ""
            named = listing([f"{called(client)} ({times}×)" for client, times in clients], 3)
            title = "On probation" if verdict is Verdict.PROBATION else verdict.capitalize()
            lines.append(f"{title}, {plural(counts[verdict].total(), 'time')} in all: {named}{reason}.")
    return lines


def _commonest(records: Sequence[RoundRecord], verdict: Verdict) -> str:
    reasons = Counter(
        c.reason for record in records for c in record.clients if c.verdict is verdict and c.reason
    )
    if not reasons:
        return ""
    reason = min(reasons, key=lambda text: (-reasons[text], text))
    return (
        f"; most often because {plain(reason, 100)}"
        if len(reasons) > 1
        else f"; because {plain(reason, 100)}"
    )


def _decisions(records: Sequence[RoundRecord]) -> list[str]:
    counts: dict[str, Counter[str]] = {}
    for record in records:
        for name, choice in record.decisions.items():
            counts.setdefault(name, Counter())[choice] += 1
    lines = []
    for name, choices in list(counts.items())[:3]:
        ordered = sorted(choices.items(), key=lambda item: (-item[1], item[0]))
        told = listing([f"{plain(choice, 60)} ({times}×)" for choice, times in ordered], 4)
        lines.append(f"Decided, {plain(name, 40)}: {told}.")
    return lines
