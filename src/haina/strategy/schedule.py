"""Schedules of the clients' learning rate. The server decides it each round, so every client of a round uses the same.

The trap: rounds count from 1, and the first round has the start rate (torch's schedulers count steps from 0; round r is their epoch r - 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np

from haina.errors import StrategyError
from haina.strategy.parts import State


class Schedule(Protocol):
    """A learning rate for every round."""

    def init(self) -> State:
        """What the schedule remembers before the first round."""

    def rate(self, round: int, state: State) -> float:
        """Learning rate of a round, from 1."""

    def observe(self, loss: float, state: State) -> State:
        """What the schedule remembers after a round with this mean training loss (NaN where nobody reported one)."""


class _Fixed:
    """A schedule known in advance: it remembers nothing."""

    def init(self) -> State:
        """Nothing."""
        return {}

    def observe(self, loss: float, state: State) -> State:
        """Nothing changes."""
        return state


@dataclass(frozen=True)
class Constant(_Fixed):
    """The same rate in every round.

    Args:
        start: the rate, > 0.
    """

    start: float = 0.1

    def __post_init__(self) -> None:
        _positive(start=self.start)

    def rate(self, round: int, state: State) -> float:
        """`start`."""
        return self.start


@dataclass(frozen=True)
class Cosine(_Fixed):
    """Cosine annealing (Loshchilov and Hutter 2017, eq. 5, without restarts), as torch's CosineAnnealingLR in closed form:

        eta_min + (start - eta_min) (1 + cos(pi (round - 1) / T_max)) / 2

    As there, `eta_min` is reached in round T_max + 1 and the rate climbs again after it.

    Args:
        start: first rate, > 0.
        T_max: rounds of the descent, >= 1.
        eta_min: lowest rate, in [0, start].
    """

    start: float
    T_max: int
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _positive(start=self.start)
        _count(T_max=self.T_max)
        if not 0 <= self.eta_min <= self.start:
            raise StrategyError(f"eta_min is {self.eta_min}", allowed=f"0 to the start rate {self.start}")

    def rate(self, round: int, state: State) -> float:
        """The annealed rate."""
        fall = (1 + math.cos(math.pi * (round - 1) / self.T_max)) / 2
        return self.eta_min + (self.start - self.eta_min) * fall


@dataclass(frozen=True)
class Step(_Fixed):
    """start * gamma^floor((round - 1) / every).

    Args:
        start: first rate, > 0.
        gamma: factor, in (0, 1].
        every: rounds between falls, >= 1.
    """

    start: float
    gamma: float
    every: int

    def __post_init__(self) -> None:
        _positive(start=self.start)
        _count(every=self.every)
        if not 0 < self.gamma <= 1:
            raise StrategyError(f"gamma is {self.gamma}", allowed="a number in (0, 1]")

    def rate(self, round: int, state: State) -> float:
        """The stepped rate."""
        return float(self.start * self.gamma ** ((round - 1) // self.every))


@dataclass(frozen=True)
class Warmup:
    """A linear rise to the first rate of another schedule, which begins after it: round r <= rounds has then.rate(1) * r / (rounds + 1).

    Args:
        rounds: length of the rise, >= 1.
        then: what follows.
    """

    rounds: int
    then: Schedule = field(default_factory=Constant)

    def __post_init__(self) -> None:
        _count(rounds=self.rounds)

    @property
    def reads(self) -> tuple[str, ...]:
        """What the schedule that follows reads of the reports."""
        return tuple(getattr(self.then, "reads", ()))

    def init(self) -> State:
        """What the schedule that follows remembers."""
        return self.then.init()

    def rate(self, round: int, state: State) -> float:
        """The rising rate, then that of the schedule that follows."""
        if round > self.rounds:
            return self.then.rate(round - self.rounds, state)
        return self.then.rate(1, state) * round / (self.rounds + 1)

    def observe(self, loss: float, state: State) -> State:
        """What the schedule that follows remembers."""
        return self.then.observe(loss, state)


@dataclass(frozen=True)
class OnPlateau:
    """The rate falls by `factor` after more than `patience` rounds in a row without a new lowest loss (torch's ReduceLROnPlateau, threshold 0).

    A round without a loss changes nothing.

    Args:
        start: first rate, > 0.
        factor: in (0, 1).
        patience: rounds without improvement that are borne, >= 0.
        min_rate: lowest rate, in [0, start].
    """

    start: float
    factor: float = 0.1
    patience: int = 10
    min_rate: float = 0.0
    reads: ClassVar[tuple[str, ...]] = ("loss_before",)

    def __post_init__(self) -> None:
        _positive(start=self.start)
        if not 0 < self.factor < 1:
            raise StrategyError(f"factor is {self.factor}", allowed="a number in (0, 1)")
        if self.patience < 0:
            raise StrategyError(f"patience is {self.patience}", allowed="an integer >= 0")
        if not 0 <= self.min_rate <= self.start:
            raise StrategyError(f"min_rate is {self.min_rate}", allowed=f"0 to the start rate {self.start}")

    def init(self) -> State:
        """The rate, the lowest loss seen, and the rounds since."""
        return {"rate": np.array(self.start), "lowest": np.array(np.inf), "since": np.array(0)}

    def rate(self, round: int, state: State) -> float:
        """The rate as it stands."""
        return float(state["rate"])

    def observe(self, loss: float, state: State) -> State:
        """One round's loss taken into account."""
        if math.isnan(loss):
            return state
        rate, lowest = float(state["rate"]), float(state["lowest"])
        since = 0 if loss < lowest else int(state["since"]) + 1
        if since > self.patience:
            rate, since = max(rate * self.factor, self.min_rate), 0
        return {"rate": np.array(rate), "lowest": np.array(min(lowest, loss)), "since": np.array(since)}


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise StrategyError(f"the learning rate {name} is {value}", allowed="a number > 0")


def _count(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise StrategyError(f"{name} is {value}", allowed="an integer >= 1")
