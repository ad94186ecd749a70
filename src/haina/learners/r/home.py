"""Home: where R computes, as the learner sees it. There are two: `haina.learners.r.script` and `haina.learners.r.service`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from haina.artifact import Array
from haina.learners.r.answer import Answer

#: What R is told of a round: plain JSON values.
Config = Mapping[str, Any]


@dataclass(frozen=True)
class Columns:
    """What rows look like to R.

    Args:
        features: names of the columns of x.
        classes: names of the classes, whose numbers from 0 are in y; None where y holds values.
    """

    features: Sequence[str]
    classes: Sequence[str] | None = None


class Home(Protocol):
    """Where R computes."""

    def train(self, params: Array, x: Array, y: Array, config: Config) -> Answer:
        """Train one client.

        Args:
            params: `[d]` as received.
            x: `[N, p]` features.
            y: `[N]` class numbers or values.
            config: of the round.

        Raises:
            RError: this client could not be trained.
            LearnerError: nobody can be trained here: no R, no script, or no permission.
        """

    def evaluate(self, params: Array, x: Array, y: Array, config: Config) -> Mapping[str, float] | None:
        """The home's own evaluation, `loss` among its numbers; None where it has none."""

    def predict(self, params: Array, x: Array, config: Config) -> Array | None:
        """`[N]` values or `[N, classes]` probabilities; None where it cannot predict."""
