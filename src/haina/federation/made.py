"""What a learner's name in a federation file makes: the learner, the strategy that it brings along, and what it says at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from haina.data.schema import Schema
from haina.learners.learner import Learner
from haina.simulation.simulation import Run
from haina.strategy.strategy import Strategy
from haina.strategy.weigh import Uniform, Weigh

#: Every client counts once: sums are sums, and trees are trees.
ONCE = Weigh((Uniform(),))

#: What an exact learner says when its rounds ran out.
NOT_CONVERGED = (
    "The fit has NOT converged after {rounds} rounds, and there is no result. Raise train.rounds (a path needs about two rounds "
    "a lambda) and go on with --resume."
)
#: What a summary says when its rounds ran out.
NOT_ANSWERED = (
    "The question is NOT answered after {rounds} rounds, and there is no result. Raise train.rounds (quantiles take 11 rounds, "
    "all others up to 3) and go on with --resume."
)


class Finding(Protocol):
    """The result of an exact learner."""

    def summary(self) -> str:
        """A table for people."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, numbers with all their digits."""


@dataclass(frozen=True)
class Made:
    """How to make a learner; the strategy that alone fits it (None where any will do); what it says of a finished run, if it says anything; the
    framework that this machine takes for it, where that is not said; and what it found, as an object, where it finds something.

    A learner with a strategy of its own needs no framework: NumPy is enough to make it.
    """

    learner: Callable[[], Learner]
    strategy: Strategy | None = None
    tell: Callable[[Run], str] | None = None
    executor: Callable[[], str] | None = None
    found: Callable[[Run], Finding] | None = None


#: What `[model]` may say besides `learner`, for some schema and the folder of the file.
Make = Callable[[Schema, Path], Callable[..., Made]]
