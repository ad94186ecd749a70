"""Pace: how many are invited, how many suffice, and how long a round waits. Pure arithmetic; the clock is the caller's.

One rule covers rounds, late updates and buffered asynchrony (FedBuff, Nguyen et al. 2022): an update lands in the round that is open, if the model
it began from is at most `max_staleness` versions old. A synchronous round allows 0 and names its clients; a buffered one allows many, names nobody,
and closes with its K-th update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import quantiles
from typing import Any

#: An adaptive deadline is the 90th percentile of what the cohort took in the last rounds, times this.
MARGIN = 2.0
#: With fewer measured durations than this, an adaptive deadline is the longest allowed.
ENOUGH = 4


@dataclass(frozen=True)
class Pace:
    """How a federation's rounds run.

    Args:
        nodes: how many nodes must be there before a round opens, >= 1.
        cohort: clients wanted a round (the target); None for all that are there. In buffered mode the size of the buffer.
        over_selection: invited / wanted, >= 1: the round closes with the first `cohort` updates, whoever they are from.
        quorum: updates that make a round at its deadline: a number of them, or a share of those wanted in (0, 1].
        deadline: seconds a round may take; None for adaptive.
        shortest: least seconds of an adaptive deadline.
        longest: most seconds of an adaptive deadline.
        every: seconds from one round's opening to the next; 0 for at once.
        buffered: updates come when they come, and every `cohort` of them make a version.
        max_staleness: versions that the model of an update may be behind.
        away: seconds without a sign of life after which a node is not invited.
    """

    nodes: int = 2
    cohort: int | None = None
    over_selection: float = 1.0
    quorum: int | float = 1.0
    deadline: float | None = 600.0
    shortest: float = 10.0
    longest: float = 3600.0
    every: float = 0.0
    buffered: bool = False
    max_staleness: int = 0
    away: float = 600.0

    def wanted(self, present: int) -> int:
        """Updates that close a round early, out of `present` nodes."""
        if self.buffered:
            return self.cohort or present
        return min(self.cohort or present, present)

    def invited(self, present: int) -> int:
        """Clients asked to train, out of `present` nodes."""
        return min(present, math.ceil(self.wanted(present) * self.over_selection))

    def enough(self, wanted: int) -> int:
        """Updates that make a round at its deadline, at least 1."""
        if isinstance(self.quorum, float):
            # A share like 0.7 of 10 must be 7, whatever the last bit of the product says.
            return max(1, math.ceil(self.quorum * wanted - 1e-9))
        return max(1, min(self.quorum, wanted))

    def seconds(self, durations: Sequence[float]) -> float:
        """How long a round may take, from what clients took in the last rounds (seconds from task to update)."""
        if self.deadline is not None:
            return self.deadline
        if len(durations) < ENOUGH:
            return self.longest
        typical = quantiles(durations, n=10, method="inclusive")[-1]
        return min(max(MARGIN * typical, self.shortest), self.longest)

    def due(self, *, opened: float, closed: float, now: float, first: bool) -> bool:
        """Is it time for the next round? `opened` and `closed` are those of the last one."""
        return first or not self.every or now >= max(opened + self.every, closed)


def paced(pace: Pace, settings: Mapping[str, Any]) -> Pace:
    """The pace with the dynamic settings of rounds in place of what the file says; a setting of None leaves the file's.

    Args:
        pace: as the federation file says.
        settings: `deadline`, `quorum`, `over_selection`, `round_every`.
    """
    names = {
        "deadline": "deadline",
        "quorum": "quorum",
        "over_selection": "over_selection",
        "round_every": "every",
    }
    given = {field: settings[key] for key, field in names.items() if settings.get(key) is not None}
    return replace(pace, **given)
