"""VectorLearner: a vector that sites make by themselves, in whatever way, and that is averaged.

An R site fits a lasso of its own and hands in the coefficients (`haina::train_glmnet` in the R package); a federation needs a model for them and no
training of ours. So a Python node has nothing to train here, and says so each round; the coordinator makes the first vector, averages, and, where
names and family make a linear predictor of the coordinator's own rows, evaluates it.

The trap is that a mean of local fits is no fit of all rows together: for that, `learner = "glm"` adds sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.glm import GlmLearner
from haina.learners.learner import Metrics, Work
from haina.learners.r.coefficients import Coefficients
from haina.strategy.parts import Payload
from haina.update import Failure, Result

_HERE = "there is no training here for a vector that sites make by themselves"


@dataclass(frozen=True)
class VectorLearner:
    """A vector of float64 that is averaged.

    Args:
        model: names or size, and the values before the first round.
        linear: the regression whose coefficients they are, to evaluate and predict with; None where nothing is known of them.

    Raises:
        LearnerError: the names are not those of the regression.
    """

    payload: ClassVar[Payload] = Payload.AVERAGE
    model: Coefficients
    linear: GlmLearner | None = None

    def __post_init__(self) -> None:
        if self.linear is not None and tuple(self.model.names) != tuple(self.linear.design.names):
            raise LearnerError(
                f"the names are {', '.join(self.model.names) or 'not given'}, and a family evaluates a regression",
                allowed=", ".join(self.linear.design.names),
                remedy="Name the coefficients so, or leave family out",
            )

    @property
    def update_size(self) -> None:
        """That of the model."""
        return None

    @property
    def personal(self) -> None:
        """Nothing stays with a client."""

    def initial(self, seed: int) -> Array:
        """`[d]` as the file says; zeros if it does not."""
        return self.model.initial()

    def train(self, work: Work) -> Iterator[Result]:
        """A failure for each client: sites with a function of their own make the vector."""
        for client in work.shards.clients:
            yield Failure(client, _HERE)

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics | None:
        """As of the regression; None where there is none."""
        return None if self.linear is None else self.linear.evaluate(model, x, y)

    def predict(self, model: Array, x: Array) -> Array:
        """As of the regression.

        Raises:
            LearnerError: there is none.
        """
        if self.linear is None:
            raise LearnerError(
                "nothing here predicts from a vector", allowed='[model] family, such as "binomial"'
            )
        return self.linear.predict(model, x)

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of the vector (`haina.artifact`)."""
        self.model.layout.check(model)
        return self.model.layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self.model.layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """Kind, length and names."""
        return {"kind": "vector", "parameters": self.model.length, "coefficients": list(self.model.names)}
