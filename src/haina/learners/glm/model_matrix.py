"""ModelMatrix: a formula over agreed variables, as the matrix that R's `model.matrix` makes of it, with the names that R gives its columns.

Factors have treatment coding. In an interaction a factor shows all its levels unless its margin is there: factor v of term T has a column for each
level but the first if an earlier term holds all other factors of T, else one for each (R's `terms`, matrix `factors` with 1 and 2; Chambers &
Hastie 1992, "Statistical Models in S", sec. 2.4.1). Without an intercept the first factor of all shows every level. Of the columns of an
interaction the first factor's run fastest.

The trap is a site that lacks a level: names and columns come from the agreed levels and never from rows, so that all sites make the same matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np

from haina.artifact import Array
from haina.errors import DataError, LearnerError
from haina.learners.glm.expression import Expression
from haina.learners.glm.formula import Formula
from haina.learners.variables import TARGET, Variables
from haina.update import Vector

#: Columns of a design; its Hessian has the square of them.
MOST_COLUMNS = 5000


@dataclass(frozen=True)
class ModelMatrix:
    """The design of a formula.

    Args:
        formula: response and terms.
        variables: the table's columns, with agreed levels.
        constant: False where no column of ones is wanted though factors are coded beside one, as in Cox's model.

    Raises:
        LearnerError: a column is not there, a factor is computed with, or the target explains itself.
    """

    formula: Formula
    variables: Variables
    constant: bool = True

    def __post_init__(self) -> None:
        for name in self.formula.columns:
            _ = self.variables[name]
        for factor in (factor for term in self.formula.terms for factor in term):
            if any(self.variables[name].place == TARGET for name in factor.columns):
                raise LearnerError(
                    f"the target {factor.text!r} explains itself", allowed="features on the right side"
                )
            if factor.text == self.formula.response.text:
                raise LearnerError(
                    f"the response {factor.text!r} explains itself", allowed="other columns on the right side"
                )
            if not factor.column or factor.factor:
                for name in factor.columns:
                    self._kind(factor, name)
        if len(self.names) > MOST_COLUMNS:
            raise LearnerError(
                f"the formula makes {len(self.names)} columns",
                allowed=f"up to {MOST_COLUMNS}",
                remedy="Merge levels",
            )
        if not self.names:
            raise LearnerError("the formula has no coefficients", allowed="at least one term")

    @property
    def intercept(self) -> bool:
        """True when the first column is ones."""
        return self.formula.intercept and self.constant

    @cached_property
    def names(self) -> tuple[str, ...]:
        """p names of the coefficients, as R gives them."""
        names = ["(Intercept)"] if self.intercept else []
        for term, coded in zip(self.formula.terms, self._coding, strict=True):
            labels = [self._labels(factor, full) for factor, full in zip(term, coded, strict=True)]
            # R lets the first factor run fastest.
            names += [":".join(reversed(parts)) for parts in product(*reversed(labels))]
        return tuple(names)

    def matrix(self, x: Array) -> Vector:
        """`[N, encoded]` rows -> `[N, p]` float64 design matrix.

        Raises:
            DataError: a factor of the formula is not a finite number in some row.
        """
        columns: list[Vector] = [np.ones((len(x), 1))] if self.intercept else []
        for term, coded in zip(self.formula.terms, self._coding, strict=True):
            block = np.ones((len(x), 1))
            for factor, full in zip(term, coded, strict=True):
                own = self._block(factor, full, x)
                block = (own[:, :, None] * block[:, None, :]).reshape(len(x), -1)
            columns.append(block)
        return np.concatenate(columns, axis=1)

    def outcome(self, x: Array, y: Array) -> Vector:
        """`[N]` the left side: a number, or 0 and 1 of a factor with two levels.

        Raises:
            DataError: it is not a finite number in some row.
        """
        response = self.formula.response
        if response.column:
            return self.variables.binary(response.column, x, y)
        return response.value(lambda name: self.variables.numbers(name, x, y))

    def event(self, x: Array, y: Array) -> Vector:
        """`[N]` 0 and 1: whether the time of a survival response ended in the event.

        Raises:
            DataError: another value.
        """
        assert self.formula.event is not None
        happened = self.variables.binary(self.formula.event.column, x, y)
        if not ((happened == 0) | (happened == 1)).all():
            raise DataError("an event is neither 0 nor 1", allowed="events that are 0 (censored) or 1")
        return happened

    def offset(self, x: Array) -> Vector | None:
        """`[N]` what the formula adds to the linear predictor; None for nothing."""
        if not self.formula.offsets:
            return None
        parts = [
            one.value(lambda name: self.variables.numbers(name, x, None)) for one in self.formula.offsets
        ]
        return np.asarray(np.sum(parts, axis=0), np.float64)

    def strata(self, x: Array) -> Array:
        """`[N]` int64 numbers of the strata within a site; zeros without any."""
        codes = np.zeros(len(x), np.int64)
        for name in self.formula.strata:
            shown = self.variables.indicators(name, x, None)
            codes = codes * shown.shape[1] + shown.argmax(axis=1)
        return codes

    @property
    def offsets(self) -> bool:
        """True when the formula adds something to the linear predictor."""
        return bool(self.formula.offsets)

    def without_constant(self) -> ModelMatrix:
        """The same design with factors coded as beside an intercept, and no column of ones."""
        return replace(self, formula=replace(self.formula, intercept=True), constant=False)

    @cached_property
    def _coding(self) -> list[tuple[bool, ...]]:
        """For each term and factor whether all levels are shown."""
        coding: list[tuple[bool, ...]] = []
        seen: list[frozenset[str]] = []
        for term in self.formula.terms:
            held = frozenset(factor.text for factor in term)
            coded = []
            for factor in term:
                margin = held - {factor.text}
                coded.append(bool(margin) and not any(margin <= earlier for earlier in seen))
            seen.append(held)
            coding.append(tuple(coded))
        if not self.formula.intercept:
            for j, term in enumerate(self.formula.terms):
                first = next((i for i, factor in enumerate(term) if self._is_factor(factor)), None)
                if first is not None:
                    coding[j] = tuple(full or i == first for i, full in enumerate(coding[j]))
                    break
        return coding

    def _is_factor(self, factor: Expression) -> bool:
        return bool(factor.column) and self.variables[factor.column].levels is not None

    def _kind(self, factor: Expression, name: str) -> None:
        """Refuse arithmetic with factors, and `factor()` of what was not declared one."""
        levels = self.variables[name].levels
        if factor.factor and levels is None:
            raise LearnerError(
                f"{factor.text} needs levels that all sites agree on, and {name!r} was read as a number",
                allowed=f"a column that is declared: [data] categorical = {{{name} = []}}",
            )
        if not factor.factor and levels is not None:
            raise LearnerError(f"{factor.text} computes with {name!r}, a factor", allowed="numbers")

    def _labels(self, factor: Expression, full: bool) -> list[str]:
        if not self._is_factor(factor):
            return [factor.text]
        levels = self.variables[factor.column].levels or ()
        return [f"{factor.text}{level}" for level in (levels if full else levels[1:])]

    def _block(self, factor: Expression, full: bool, x: Array) -> Vector:
        """`[N, columns]` of one factor of a term."""
        if self._is_factor(factor):
            shown = self.variables.indicators(factor.column, x, None)
            return shown if full else shown[:, 1:]
        return factor.value(lambda name: self.variables.numbers(name, x, None))[:, None]


def codings(design: ModelMatrix) -> Iterator[tuple[str, list[str]]]:
    """Factor -> its agreed levels, in order, for who makes the same matrix elsewhere (R's `factor(x, levels = ...)`)."""
    for name in design.formula.columns:
        levels = design.variables[name].levels
        if levels is not None:
            yield name, list(levels)
