"""Faults of honest clients: those that drop out, those that do less work; and how fast devices are.

A fault is decided by (seed, round, client), so it is the same for any number of workers and any order of clients. The numbers are bits of a hash of
the three: a generator of its own for each client would take twenty times as long to make as two numbers to draw.

FedProx's protocol (Li et al. 2020, sec. 5.2) slows an exact fraction of each cohort, not each client with a probability: every client draws a
number, and the clients with the smallest are slow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from haina.errors import ConfigError
from haina.update import Vector

# Purposes of draws: one fault must not be tied to another.
_DROPOUT, _STRAGGLE, _DEVICE = 101, 102, 103

_LOW = (1 << 52) - 1


@dataclass(frozen=True)
class Dropout:
    """Clients that are invited and never answer.

    Args:
        probability: that a client drops out of a round, in [0, 1].
    """

    probability: float = 0.0

    def __post_init__(self) -> None:
        _require_share("probability", self.probability)

    def absent(self, seed: int, round: int, clients: Sequence[str]) -> NDArray[np.bool_]:
        """`[n]` True for clients that drop out of this round."""
        if not self.probability:
            return np.zeros(len(clients), np.bool_)
        return _draws(seed, round, clients, _DROPOUT)[:, 0] < self.probability


@dataclass(frozen=True)
class Stragglers:
    """Clients that stop early: they train 1 to E - 1 epochs in place of E.

    FedProx aggregates what they have; FedAvg as FedProx's authors ran it drops them.

    Args:
        fraction: share of each cohort that is slow, in [0, 1]; rounded to whole clients.
    """

    fraction: float = 0.0

    def __post_init__(self) -> None:
        _require_share("fraction", self.fraction)

    def epochs(self, seed: int, round: int, clients: Sequence[str], epochs: int) -> NDArray[np.int64]:
        """`[n]` epochs that each client manages of the `epochs` asked for.

        Raises:
            ConfigError: there are stragglers and `epochs` is 1, which leaves nothing less to do.
        """
        if not self.fraction:
            return np.full(len(clients), epochs, np.int64)
        if epochs < 2:
            raise ConfigError(
                f"stragglers cannot do less than {epochs} epoch",
                allowed="epochs >= 2",
                remedy="Use dropout for one-epoch training",
            )
        slow, draws = _slow(seed, round, clients, self.fraction, _STRAGGLE)
        return np.where(slow, 1 + np.floor(draws * (epochs - 1)), epochs).astype(np.int64)


@dataclass(frozen=True)
class Devices:
    """How fast clients are: a log-normal number of seconds a step, drawn once for each client.

    Measured seconds would differ from run to run, and with them every rule that looks at them; these follow from the seed.

    Args:
        step_seconds: median seconds of one optimiser step, > 0.
        spread: standard deviation >= 0 of the logarithm; at 0.5 one device in six is 1.65 times slower than the median or more.
    """

    step_seconds: float = 0.01
    spread: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.step_seconds < math.inf:
            raise ConfigError(f"step_seconds is {self.step_seconds}", allowed="a finite number > 0")
        if not 0 <= self.spread <= 10:
            raise ConfigError(f"spread is {self.spread}", allowed="a number in [0, 10]")

    def seconds(self, seed: int, client: str, steps: int) -> float:
        """Seconds that a client takes for so many steps; the same in every round."""
        first, second = _pair(f"{seed} 0 {_DEVICE} ", client)
        # Box and Muller 1958: a standard normal number from two uniform ones.
        draw = math.sqrt(-2 * math.log(first)) * math.cos(2 * math.pi * second)
        return steps * self.step_seconds * math.exp(self.spread * draw)


def _draws(seed: int, round: int, clients: Sequence[str], purpose: int) -> Vector:
    """`[n, 2]` uniform numbers in (0, 1), two of each client."""
    head = f"{seed} {round} {purpose} "
    return np.array([_pair(head, client) for client in clients]).reshape(-1, 2)


def _pair(head: str, client: str) -> tuple[float, float]:
    """Two uniform numbers in (0, 1): each 52 bits of a hash, and a half."""
    bits = int.from_bytes(blake2b((head + client).encode(), digest_size=16).digest(), "little")
    return ((bits >> 76) + 0.5) * 2.0**-52, ((bits & _LOW) + 0.5) * 2.0**-52


def _slow(
    seed: int, round: int, clients: Sequence[str], fraction: float, purpose: int
) -> tuple[NDArray[np.bool_], Vector]:
    """Which clients are slow, exactly the rounded fraction; and a uniform number of each, to say how much."""
    first, second = _draws(seed, round, clients, purpose).T
    slow = np.zeros(len(clients), np.bool_)
    slow[np.argsort(first, kind="stable")[: int(fraction * len(clients) + 0.5)]] = True
    return slow, second


def _require_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}", allowed="a number in [0, 1]")
