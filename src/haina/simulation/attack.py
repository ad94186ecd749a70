"""Attack: which clients misbehave, in which rounds, and how.

Who, when and how loudly are settings of every attack: a sleeper is any attack with a late `start`, an on-off attacker any attack with a
`period`, and a label flipper that also lies about its sample count is a label flip with `exaggerate`. What is done is one call of a subclass
(`haina.simulation.attacks`).

An attacker may know all that the honest clients of the round sent (the omniscient adversary of the literature).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import ConfigError
from haina.report import Report
from haina.shards import Shards
from haina.update import Update, Vector, to_numpy


@dataclass(frozen=True, kw_only=True)
class Attack:
    """What all attacks have in common; by itself it trains and sends honestly.

    Args:
        fraction: share of the clients that attack, in (0, 1).
        start: first round of the attack, from 1.
        period: rounds of attack, then as many of honest conduct, and so on; None attacks in every round from `start`.
        exaggerate: factor > 0 on the examples that attackers report; other than 1, they also report whatever else raises a share.

    Raises:
        ConfigError: a setting is out of range.
    """

    #: True when attackers train on false labels.
    relabels: ClassVar[bool] = False
    #: True when attackers send other vectors than they trained.
    forges: ClassVar[bool] = False

    fraction: float = 0.2
    start: int = 1
    period: int | None = None
    exaggerate: float = 1.0

    def __post_init__(self) -> None:
        numbers = [setting.name for setting in fields(self) if getattr(self, setting.name) is not None]
        allowed = (
            *((name, math.isfinite(getattr(self, name)), "a finite number") for name in numbers),
            ("fraction", 0 < self.fraction < 1, "a number in (0, 1)"),
            ("start", self.start >= 1, "a round >= 1"),
            ("period", self.period is None or self.period >= 1, "a number of rounds >= 1"),
            ("exaggerate", self.exaggerate > 0, "a number > 0"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise ConfigError(f"{name} of the attack is {getattr(self, name)}", allowed=words)

    def relabel(self, y: Array, classes: int) -> Array:
        """`[n]` targets of an attacker -> the targets it trains on."""
        return y

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """What attackers send `[b, d]`: from honest rows `[h, d]`, h >= 1, and what they trained `[b, d]`; float64."""
        return own

    def attackers(self, clients: Sequence[str], rng: np.random.Generator) -> frozenset[str]:
        """Names of the attackers, drawn once a run: `fraction` of the clients, rounded.

        Raises:
            ConfigError: that is nobody, or everybody.
        """
        n = len(clients)
        count = int(self.fraction * n + 0.5)
        if not 0 < count < n:
            raise ConfigError(
                f"a fraction of {self.fraction} of {n} clients is {count} attackers",
                allowed=f"1 to {n - 1} attackers",
            )
        return frozenset(clients[i] for i in rng.permutation(n)[:count])

    def active(self, round: int) -> bool:
        """True in rounds in which attackers misbehave."""
        since = round - self.start
        return since >= 0 and (self.period is None or since // self.period % 2 == 0)

    def poison(self, shards: Shards, hostile: Collection[str], classes: int) -> Shards:
        """What clients train on in active rounds: the same rows, targets falsified where there is something to falsify. Of a mapped population only
        the rows of these clients are copied.

        Raises:
            DataError: the targets have no labels to falsify.
        """
        mine = [k for k, client in enumerate(shards.clients) if client in hostile]
        if not mine or not self.relabels:
            return shards
        rows = shards.compact()
        for k in mine:
            start, stop = rows.offsets[k]
            rows.y[start:stop] = self.relabel(rows.y[start:stop], classes)
        return rows

    def corrupt(
        self, updates: Sequence[Update], hostile: Collection[str], rng: np.random.Generator
    ) -> list[Update]:
        """The updates of an active round as the server receives them, in the same order; honest ones are the same objects.

        Where a cohort has attackers only, they take their own rows for the honest ones.
        """
        out = list(updates)
        mine = [i for i, update in enumerate(updates) if update.client in hostile]
        if not mine:
            return out
        for i in mine:
            out[i] = replace(out[i], report=self.lie(out[i].report))
        if self.forges:
            rows = [to_numpy(update.vector).astype(np.float64) for update in updates]
            own = np.stack([rows[i] for i in mine])
            honest = [row for row, update in zip(rows, updates, strict=True) if update.client not in hostile]
            forged = self.forge(np.stack(honest) if honest else own, own, rng)
            for i, row in zip(mine, forged, strict=True):
                out[i] = replace(out[i], vector=row.astype(to_numpy(updates[i].vector).dtype))
        return out

    def lie(self, report: Report) -> Report:
        """The report that an attacker sends: more examples, spread evenly over the classes, accuracy 1, loss 0, less time.

        Only numbers that were asked for are falsified.
        """
        if self.exaggerate == 1.0:
            return report
        counts = report.label_counts
        examples = report.examples * self.exaggerate
        return replace(
            report,
            examples=examples,
            loss_after=None if report.loss_after is None else 0.0,
            accuracy=None if report.accuracy is None else 1.0,
            label_counts=None if counts is None else (int(examples / len(counts)),) * len(counts),
            seconds=None if report.seconds is None else report.seconds / self.exaggerate,
        )
