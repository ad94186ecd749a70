"""GlmLearner: a generalised linear model, fitted exactly. Clients send sums over their rows; `haina.strategy.server` adds them and steps.

Given coefficients beta, a client answers with gradient, Hessian and deviance at beta (`haina.strategy.sums`). No training happens here, so
learning rate, epochs and proximal term have no meaning and are not looked at.

The trap is disclosure: the sums of few rows give the rows away. A client with fewer than max(10, p + 1) of them sends nothing. More rows make
sums safer but not safe; secure aggregation is what hides a single site's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import DataError, LearnerError
from haina.layout import Layout
from haina.learners.disclosure import FEWEST, MIN_CELL, refuse_rare, too_few, unusable
from haina.learners.glm.design import Design
from haina.learners.glm.model_matrix import ModelMatrix, codings
from haina.learners.learner import Metrics, Work, refuse_examples
from haina.report import Report
from haina.strategy.families import Family, family
from haina.strategy.parts import Payload
from haina.strategy.sums import Sums
from haina.update import Result, Update, Vector

#: Rows summed at once; the design matrix of a site need not fit in memory twice.
_ROWS = 1 << 14


@dataclass(frozen=True)
class GlmLearner:
    """Linear, logistic or Poisson regression with the canonical link.

    Args:
        family: gaussian, binomial (outcomes 0 and 1) or poisson (outcomes >= 0).
        features: number of numeric columns, a `Design` with names and factors, or the `ModelMatrix` of a formula.
        intercept: begin with a constant; a design says so itself.
        min_cell: fewest rows of a site behind each side of a column of zeros and ones, and of a binomial outcome; 1 where nobody sees a site's sums.

    Raises:
        LearnerError: no columns, or an offset where the family's null model has no closed form with one.
    """

    payload: ClassVar[Payload] = Payload.SUM
    family: str
    features: int | Design | ModelMatrix
    intercept: bool = True
    min_cell: int = MIN_CELL

    def __post_init__(self) -> None:
        family(self.family)
        if isinstance(self.features, int) and self.features < 1:
            raise LearnerError(f"features is {self.features}", allowed="an integer >= 1, or a Design")
        if isinstance(self.features, ModelMatrix):
            if self.features.formula.event is not None or self.features.formula.strata:
                raise LearnerError(
                    "Surv() and strata() are for survival",
                    allowed="an outcome on the left side",
                    remedy='Use learner = "cox", or haina stats cox',
                )
            if self.features.offsets and self.family == "binomial":
                raise LearnerError(
                    "an offset is not offered for the binomial family", allowed="gaussian, poisson"
                )

    @cached_property
    def design(self) -> Design | ModelMatrix:
        """The columns of the regression."""
        return (
            Design.numeric(self.features, self.intercept) if isinstance(self.features, int) else self.features
        )

    @cached_property
    def law(self) -> Family:
        """The family's functions."""
        return family(self.family)

    @cached_property
    def _layout(self) -> Layout:
        return Layout.vector(len(self.design.names), name="coefficients", dtype="float64")

    @property
    def personal(self) -> None:
        """Nothing stays with a client."""

    @property
    def update_size(self) -> int:
        """Length of an update's vector; longer than the model, which has one number for each coefficient."""
        return Sums.size(len(self.design.names))

    def initial(self, seed: int) -> Array:
        """`[p]` zeros; the server goes to the null model from anywhere."""
        return np.zeros(len(self.design.names))

    def train(self, work: Work) -> Iterator[Result]:
        """The sums of each client at `work.model` `[p]`, float64, or why it sends none: fewer than max(10, p + 1) rows, or rows that cannot be
        used.

        Raises:
            LearnerError: the model has another number of coefficients, or single examples shall be protected.
        """
        self._check(work.model)
        refuse_examples(work.training, "glm")
        for k, client in enumerate(work.shards.clients):
            x, y = work.shards.of(k)
            silent = too_few(client, len(x), max(FEWEST, len(self.design.names) + 1))
            if silent is not None:
                yield silent
                continue
            try:
                self.refuse_rare(x, y)
                sums = self.sums(work.model, x, y)
            except DataError as error:
                yield unusable(client, error)
                continue
            loss = sums.deviance / (2 * sums.examples) if "loss_before" in work.training.measure else None
            yield Update(client, sums.pack(), Report(sums.examples, loss_before=loss))

    def sums(self, model: Array, x: Array, y: Array) -> Sums:
        """Sums over rows `x` `[N, terms]`, `y` `[N]` at `model` `[p]`, however few the rows; block by block in a fixed order.

        Raises:
            DataError: a cell or an outcome that cannot be used.
        """
        beta, p = np.asarray(model, np.float64), len(self.design.names)
        gradient, hessian, scalars = np.zeros(p), np.zeros((p, p)), np.zeros(3)
        for start in range(0, len(x), _ROWS):
            rows, targets = x[start : start + _ROWS], y[start : start + _ROWS]
            X, outcome = self.design.matrix(rows), self._outcomes(rows, targets)
            eta = self._eta(X, beta, rows)
            mu = self.law.mean(eta)
            gradient += X.T @ (outcome - mu)
            hessian += X.T @ (X * self.law.variance(mu)[:, None])
            scalars += self.law.deviance(outcome, eta), outcome.sum(), self.law.saturated(outcome)
        deviance, total, saturated = (float(value) for value in scalars)
        return Sums(gradient, hessian, deviance, float(len(x)), total, saturated)

    def refuse_rare(self, x: Array, y: Array) -> None:
        """Keep the sums of rows at the site where they would be those of a few persons (`haina.learners.disclosure.refuse_rare`).

        Raises:
            Withheld: they would.
            DataError: a cell or an outcome that cannot be used.
        """
        places = range(0, len(x), _ROWS)
        parts = ((x[start : start + _ROWS], y[start : start + _ROWS]) for start in places)
        refuse_rare((self._marked(*part) for part in parts), self.min_cell)

    def _marked(self, x: Array, y: Array) -> Vector:
        X = self.design.matrix(x)
        return np.column_stack([X, self._outcomes(x, y)]) if self.family == "binomial" else X

    def linear(self, model: Array, x: Array, y: Array) -> tuple[Vector, Vector]:
        """`[N]` outcomes and `[N]` linear predictors of some rows.

        Raises:
            DataError: a cell or an outcome that cannot be used.
        """
        return self._outcomes(x, y), self._eta(self.design.matrix(x), np.asarray(model, np.float64), x)

    def _eta(self, X: Vector, beta: Array, x: Array) -> Vector:
        offset = self.design.offset(x)
        eta: Vector = X @ beta
        return eta if offset is None else eta + offset

    def _outcomes(self, x: Array, y: Array) -> Vector:
        outcome = self.design.outcome(x, y)
        usable = self.law.allows(outcome)
        if not usable.all():
            raise DataError(f"an outcome is {outcome[np.argmin(usable)]:g}", allowed=self.law.outcomes)
        return outcome

    def _check(self, model: Array) -> None:
        if model.shape != (len(self.design.names),):
            raise LearnerError(f"the model has shape {model.shape}", allowed=f"({len(self.design.names)},)")

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """Loss is half the mean deviance: half the mean square for gaussian outcomes, the mean cross-entropy for binomial ones.

        Raises:
            DataError: no rows, or a cell or an outcome that cannot be used.
        """
        self._check(model)
        if not len(x):
            raise DataError("there are no rows to evaluate on", allowed="at least one row")
        outcome, eta = self.linear(model, x, y)
        deviance = self.law.deviance(outcome, eta)
        right = float(np.mean((eta > 0) == (outcome > 0))) if self.family == "binomial" else None
        return Metrics(len(x), deviance / (2 * len(x)), right, {"deviance": deviance})

    def predict(self, model: Array, x: Array) -> Array:
        """`[N]` means, or `[N, 2]` probabilities of the outcomes 0 and 1 for the binomial family.

        Raises:
            DataError: a cell that cannot be used, such as a level that was not agreed.
        """
        self._check(model)
        mean = self.law.mean(self._eta(self.design.matrix(x), model, x))
        return np.column_stack([1.0 - mean, mean]) if self.family == "binomial" else mean

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of the coefficients (`haina.artifact`)."""
        self._layout.check(model)
        return self._layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self._layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """Kind, family and the names of the coefficients; with a formula also its text (`.` spelt out) and the levels of its factors, from
        which R's `model.matrix` makes the same columns.
        """
        said = {
            "kind": "glm",
            "family": self.family,
            "coefficients": list(self.design.names),
            "intercept": self.design.intercept,
            "min_cell": self.min_cell,
        }
        if isinstance(self.design, ModelMatrix):
            said |= {"formula": self.design.formula.text, "levels": dict(codings(self.design))}
        return said
