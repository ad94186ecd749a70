"""CoxLearner: proportional hazards, stratified by site, fitted exactly. Sites send gradient and Hessian of their own partial likelihoods.

A site is a stratum with a baseline hazard of its own, so the log partial likelihood is a sum over sites and Newton's method on the sums is R's
`coxph(Surv(time, event) ~ x + strata(site))` (Therneau & Grambsch 2000, sec. 3.3). Within a site, `strata(ward)` divides further.

The model without strata is not offered: its risk sets run through all sites, so sites would have to tell the time of each event.

The trap is disclosure: with one event the gradient is that person's row. A site with fewer than max(10, p + 1) rows or max(5, p + 1) events is
silent.
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
from haina.learners.cox.likelihood import Ties, partial_likelihood
from haina.learners.disclosure import FEWEST, FEWEST_EVENTS, MIN_CELL, refuse_rare, too_few, unusable
from haina.learners.glm.model_matrix import ModelMatrix, codings
from haina.learners.learner import Metrics, Work, refuse_examples
from haina.report import Report
from haina.strategy.parts import Payload
from haina.strategy.sums import Sums
from haina.update import Failure, Result, Update, Vector

_EXAMPLE = "a formula such as Surv(time, died) ~ age + sex"


@dataclass(frozen=True)
class CoxLearner:
    """Cox's model.

    Args:
        matrix: of a formula `Surv(time, event) ~ ...`.
        ties: `efron` (R's default) or `breslow`.
        min_cell: as of `haina.learners.glm.learner.GlmLearner`, of the columns.

    Raises:
        LearnerError: the formula is not one of survival, has an offset, or the ties are unknown.
    """

    payload: ClassVar[Payload] = Payload.SUM
    matrix: ModelMatrix
    ties: Ties = "efron"
    min_cell: int = MIN_CELL

    def __post_init__(self) -> None:
        formula = self.matrix.formula
        if formula.event is None:
            raise LearnerError(
                f"the formula {formula.text!r} has no Surv() on its left side", allowed=_EXAMPLE
            )
        if formula.offsets:
            raise LearnerError("an offset is not offered for Cox's model", allowed=_EXAMPLE)
        if self.ties not in ("efron", "breslow"):
            raise LearnerError(f"ties is {self.ties!r}", allowed="efron or breslow")

    @cached_property
    def design(self) -> ModelMatrix:
        """The columns of the regression: factors coded as beside an intercept, which cancels."""
        return self.matrix.without_constant()

    @cached_property
    def _layout(self) -> Layout:
        return Layout.vector(len(self.design.names), name="coefficients", dtype="float64")

    @property
    def personal(self) -> None:
        """Nothing stays with a client."""

    @property
    def update_size(self) -> int:
        """Length of an update's vector (`haina.strategy.sums`)."""
        return Sums.size(len(self.design.names))

    def initial(self, seed: int) -> Array:
        """`[p]` zeros: no effect."""
        return np.zeros(len(self.design.names))

    def train(self, work: Work) -> Iterator[Result]:
        """The sums of each client at `work.model` `[p]`, float64, or why it sends none.

        Raises:
            LearnerError: the model has another number of coefficients, or single examples shall be protected.
        """
        self._check(work.model)
        refuse_examples(work.training, "cox")
        p = len(self.design.names)
        for k, client in enumerate(work.shards.clients):
            x, y = work.shards.of(k)
            silent = too_few(client, len(x), max(FEWEST, p + 1))
            if silent is not None:
                yield silent
                continue
            try:
                refuse_rare([self.design.matrix(x)], self.min_cell)
                sums = self.sums(work.model, x, y)
            except DataError as error:
                yield unusable(client, error)
                continue
            least = max(FEWEST_EVENTS, p + 1)
            if sums.outcome < least:
                yield Failure(client, f"it has fewer than {least} events, which its answer would give away")
                continue
            loss = sums.deviance / (2 * sums.outcome) if "loss_before" in work.training.measure else None
            yield Update(client, sums.pack(), Report(int(sums.examples), loss_before=loss))

    def sums(self, model: Array, x: Array, y: Array) -> Sums:
        """Sums over the strata of one site's rows `x` `[N, encoded]`, `y` `[N]` at `model` `[p]`, however few they are.

        Raises:
            DataError: a time, an event or a cell that cannot be used.
        """
        beta, X = np.asarray(model, np.float64), self.design.matrix(x)
        time, event, strata = self._times(x, y), self.design.event(x, y), self.design.strata(x)
        total = np.zeros(self.update_size)
        for stratum in np.unique(strata):
            rows = strata == stratum
            total += partial_likelihood(X[rows], time[rows], event[rows], beta, self.ties).pack()
        return Sums.unpack(total, len(beta))

    def _times(self, x: Array, y: Array) -> Vector:
        time = self.design.outcome(x, y)
        if not (np.isfinite(time) & (time >= 0)).all():
            raise DataError("a time is negative or no number", allowed="finite times >= 0")
        return time

    def _check(self, model: Array) -> None:
        if model.shape != (len(self.design.names),):
            raise LearnerError(f"the model has shape {model.shape}", allowed=f"({len(self.design.names)},)")

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """Loss is minus the log partial likelihood of the rows, as one site, for each of their events.

        Raises:
            DataError: no events, or a cell that cannot be used.
        """
        self._check(model)
        sums = self.sums(model, x, y)
        if not sums.outcome:
            raise DataError("there are no events to evaluate on", allowed="at least one event")
        return Metrics(len(x), sums.deviance / (2 * sums.outcome))

    def predict(self, model: Array, x: Array) -> Array:
        """`[N]` log hazard ratios x'b against a row of zeros."""
        self._check(model)
        ratios: Array = self.design.matrix(x) @ model
        return ratios

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of the coefficients (`haina.artifact`)."""
        self._layout.check(model)
        return self._layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self._layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """Kind, formula, ties, the names of the coefficients and the levels of factors."""
        return {
            "kind": "cox",
            "formula": self.design.formula.text,
            "ties": self.ties,
            "min_cell": self.min_cell,
            "coefficients": list(self.design.names),
            "levels": dict(codings(self.design)),
        }
