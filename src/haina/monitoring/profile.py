"""Profile: where the time of a simulation's rounds went, from its records.

The first round is kept apart: models are compiled in it, and workers start. Of the others the median is told, and the 10th and the 90th percentile,
because one round in a hundred that waits for a disk would spoil a mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from haina.monitoring.text import NONE, duration, known, number, percent
from haina.strategy.record import RoundRecord, Verdict

#: Phases of a round in their order, as `RoundRecord.timing` names them.
LAPS = ("select", "train", "combine", "evaluate", "save")

#: Headings of `Profile.rows`.
COLUMNS = ("", "first round", "median", "10% to 90%", "share")


@dataclass(frozen=True)
class Spread:
    """One quantity over the rounds after the first; None where no record has it."""

    first: float | None
    median: float | None
    low: float | None
    high: float | None
    share: float | None = None


@dataclass(frozen=True)
class Profile:
    """Where time went.

    Args:
        rounds: how many.
        laps: phase -> seconds; `share` is its part of all rounds but the first.
        total: seconds of a whole round.
        cpu: processor seconds of a round, of all processes.
        updates: of clients in a second.
        waiting: part of the workers' time in which they had nothing to train.
        workers: how many processes trained.
        memory: largest resident memory of all processes together, in MB; None if not known.
    """

    rounds: int
    laps: dict[str, Spread]
    total: Spread
    cpu: Spread
    updates: Spread
    waiting: Spread
    workers: int
    memory: float | None

    @classmethod
    def of(cls, records: Sequence[RoundRecord]) -> Profile:
        """The profile of a run, from its records, of which there is at least one."""
        total = _spread(records, lambda record: known(record.timing, "total"))
        whole = sum(known(record.timing, "total") or 0.0 for record in records[1:])

        def lap(name: str) -> Spread:
            spent = sum(known(record.timing, name) or 0.0 for record in records[1:])
            share = spent / whole if whole else None
            return _spread(records, lambda record: known(record.timing, name), share)

        return cls(
            rounds=len(records),
            laps={name: lap(name) for name in LAPS},
            total=total,
            cpu=_spread(records, lambda record: known(record.cost, "cpu_seconds")),
            updates=_spread(records, _updates),
            waiting=_spread(records, _waiting),
            workers=max(int(known(record.cost, "workers") or 1) for record in records),
            memory=max(
                (v for r in records if (v := known(r.cost, "peak_memory_mb")) is not None), default=None
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, under the names of the fields."""
        return asdict(self)

    def rows(self) -> list[tuple[str, ...]]:
        """Text under `COLUMNS`."""
        rows = [_row(name, spread, _seconds) for name, spread in self.laps.items()]
        rows.append(_row("whole round", self.total, _seconds))
        rows.append(_row("processor time", self.cpu, _seconds))
        rows.append(_row("updates per second", self.updates, number))
        if self.workers > 1:
            rows.append(_row(f"waiting of {self.workers} workers", self.waiting, percent))
        return rows


def _spread(
    records: Sequence[RoundRecord], read: Callable[[RoundRecord], float | None], share: float | None = None
) -> Spread:
    first, *others = [read(record) for record in records]
    values = [value for value in others if value is not None]
    if not values:
        return Spread(first, None, None, None, share)
    low, median, high = np.percentile(values, [10, 50, 90]).tolist()
    return Spread(first, median, low, high, share)


def _updates(record: RoundRecord) -> float | None:
    seconds = known(record.timing, "total")
    came = sum(client.verdict not in (Verdict.ABSENT, Verdict.FAILED) for client in record.clients)
    return came / seconds if seconds else None


def _waiting(record: RoundRecord) -> float | None:
    train, busy = known(record.timing, "train"), known(record.cost, "busy_seconds")
    workers = known(record.cost, "workers")
    if not train or busy is None or not workers:
        return None
    return max(0.0, 1.0 - busy / (workers * train))


def _seconds(value: float | None) -> str:
    return f"{number(1000 * value)} ms" if value is not None and value < 1 else duration(value)


def _row(name: str, spread: Spread, words: Callable[[float | None], str]) -> tuple[str, ...]:
    between = NONE if spread.low is None else f"{words(spread.low)} to {words(spread.high)}"
    share = "" if spread.share is None else percent(spread.share)
    return name, words(spread.first), words(spread.median), between, share
