"""CrossValidationLearner: the client's half of a cross-validated elastic net (`haina.strategy.server.cross_validation`).

A client deals its rows into K folds once, by (seed, its name), and answers for each point with the sums of the rows that the point's fit may see and
the deviance of those that it may not.

cv.glmnet cuts predicted probabilities at 1e-5 and 1 - 1e-5 before it takes a deviance, so that one row cannot decide; so does this.

The trap is disclosure: the sums of fit 0 less those of fit k are the sums of fold k, so each fold must be large enough to be told by itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import DataError, LearnerError
from haina.layout import Layout
from haina.learners.disclosure import FEWEST, unusable
from haina.learners.glm.learner import GlmLearner
from haina.learners.learner import Metrics, Work, refuse_examples
from haina.report import Report
from haina.strategy.families import Family
from haina.strategy.parts import Payload
from haina.strategy.server.cross_validation import Points
from haina.update import Failure, Result, Update, Vector

#: cv.glmnet's bound of a probability.
_SURE = 1e-5


def folds_of(seed: int, client: str, rows: int, folds: int) -> NDArray[np.int64]:
    """`[rows]` fold 1 to K of each row: sizes differ by one at most, and the order is the client's own.

    Rows are sorted by keys and dealt like cards. Eight keys of 32 bits, highest byte first, are the SHA-256 of `haina folds SEED CLIENT BLOCK`, for
    blocks 0, 1, ...: every language can compute that, so that a site's folds are the same whatever it is written in.
    """
    blocks = [
        hashlib.sha256(f"haina folds {seed} {client} {block}".encode()).digest()
        for block in range((rows + 7) // 8)
    ]
    keys = np.frombuffer(b"".join(blocks), ">u4")[:rows]
    fold = np.empty(rows, np.int64)
    fold[np.argsort(keys, kind="stable")] = np.arange(rows) % folds + 1
    return fold


@dataclass(frozen=True)
class CrossValidationLearner:
    """An elastic net in K folds.

    Args:
        glm: the regression, with an intercept.
        points: the shape of a round.
    """

    payload: ClassVar[Payload] = Payload.SUM
    glm: GlmLearner
    points: Points

    def __post_init__(self) -> None:
        if not self.glm.design.intercept or self.points.p != len(self.glm.design.names):
            raise LearnerError("an elastic net needs an intercept", allowed="a design that begins with one")

    @cached_property
    def _layout(self) -> Layout:
        return Layout.vector(self.points.size, name="coefficients", dtype="float64")

    @property
    def personal(self) -> None:
        """Nothing stays with a client."""

    @property
    def update_size(self) -> int:
        """Length of an update's vector."""
        return int(np.prod(self.points.answers))

    def initial(self, seed: int) -> Array:
        """Zeros; the server goes to the null models from anywhere."""
        return np.zeros(self.points.size)

    def train(self, work: Work) -> Iterator[Result]:
        """The sums of each client at all points, or why it sends none: fewer than K max(10, p + 1) rows, or rows that cannot be used.

        Raises:
            LearnerError: the model is of another shape, or single examples shall be protected.
        """
        refuse_examples(work.training, "glm")
        points = self._points(work.model)
        least = self.points.folds * max(FEWEST, self.points.p + 1)
        for k, client in enumerate(work.shards.clients):
            x, y = work.shards.of(k)
            if len(x) < least:
                yield Failure(
                    client,
                    f"it has fewer than {least} rows, and {self.points.folds} folds of them would be given away; fewer folds need fewer rows",
                )
                continue
            fold = folds_of(work.seed, client, len(x), self.points.folds)
            try:
                for part in range(1, self.points.folds + 1):
                    self.glm.refuse_rare(x[fold == part], y[fold == part])
                vector = self._answers(points, x, y, fold)
            except DataError as error:
                yield unusable(client, error)
                continue
            yield Update(client, vector, Report(len(x)))

    def _answers(self, points: Vector, x: Array, y: Array, fold: NDArray[np.int64]) -> Vector:
        fits, together, size = self.points.answers
        answers = np.zeros((fits, together, size))
        for k in range(fits):
            seen, hidden = fold != k, fold == k
            train, test = (x[seen], y[seen]), (x[hidden], y[hidden])
            for b in range(together):
                if b and np.array_equal(points[k, b], points[k, b - 1]):
                    answers[k, b] = answers[k, b - 1]
                    continue
                answers[k, b, :-2] = self.glm.sums(points[k, b], *train).pack()
                answers[k, b, -2:] = self._deviance(points[k, b], *test), len(test[1])
        return answers.ravel()

    def _deviance(self, beta: Vector, x: Array, y: Array) -> float:
        if not len(x):
            return 0.0
        outcome, eta = self.glm.linear(beta, x, y)
        return bounded_deviance(self.glm.law, outcome, eta)

    def _points(self, model: Array) -> Vector:
        if model.shape != (self.points.size,):
            raise LearnerError(f"the model has shape {model.shape}", allowed=f"({self.points.size},)")
        return np.asarray(model, np.float64).reshape(self.points.shape)

    def coefficients(self, model: Array) -> Vector:
        """`[p]` of a finished run: those of lambda.min."""
        chosen: Vector = self._points(model)[0, 0]
        return chosen

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """As the regression's, at the first point."""
        return self.glm.evaluate(self.coefficients(model), x, y)

    def predict(self, model: Array, x: Array) -> Array:
        """As the regression's, at the first point."""
        return self.glm.predict(self.coefficients(model), x)

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of all points (`haina.artifact`)."""
        self._layout.check(model)
        return self._layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self._layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """As the regression's, with the number of folds."""
        return {**self.glm.describe(), "folds": self.points.folds}


def bounded_deviance(law: Family, outcome: Vector, eta: Vector) -> float:
    """Deviance of rows that a fit has not seen, as cv.glmnet takes it."""
    if law.name == "binomial":
        limit = float(law.link(1.0 - _SURE))
        eta = np.clip(eta, -limit, limit)
    return law.deviance(outcome, eta)
