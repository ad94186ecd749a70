"""Design: from columns as they lie in a table to the matrix of a regression, the same at every site.

Factors have treatment coding, as in R: one column for each level but the first in sorted order. The levels are agreed before the first round:
each site tells its own (`Design.levels`), their union in sorted order is the agreement (`Design.agreed`), and a site without some level has a
column of zeros.

The trap is one-hot columns (`ward=a`, `ward=b`, ...) beside an intercept: they sum to 1, so no regression can tell them apart. `Design.named`
leaves the first of each such group out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import DataError
from haina.update import Vector

#: What a factor's cell may hold: text, or a number that serves as a name.
Level = str | float


@dataclass(frozen=True)
class Term:
    """One column of the table.

    Args:
        name: of the column.
        levels: None for a number; the agreed levels, sorted, for a factor; () for a factor whose levels are not agreed yet.
        left_out: True for a column that takes no part (the first of a one-hot group).
    """

    name: str
    levels: tuple[Level, ...] | None = None
    left_out: bool = False


@dataclass(frozen=True)
class Design:
    """The columns of a regression.

    Args:
        terms: the columns of the table, in order.
        intercept: begin with a column of ones. Without it the first factor keeps all its levels, as in R.
    """

    terms: tuple[Term, ...]
    intercept: bool = True

    #: A table's columns have no offset; a formula's may.
    offsets: ClassVar[bool] = False

    @classmethod
    def numeric(cls, features: int, intercept: bool = True) -> Design:
        """`features` numeric columns, named x0, x1, ..."""
        return cls(tuple(Term(f"x{j}") for j in range(features)), intercept)

    @classmethod
    def named(cls, names: Sequence[str], intercept: bool = True) -> Design:
        """Numeric columns by name; of columns named `factor=level` the first of each factor is left out (with an intercept)."""
        groups = [name.partition("=")[0] if "=" in name else None for name in names]
        first = [
            intercept and group is not None and group not in groups[:j] for j, group in enumerate(groups)
        ]
        return cls(tuple(Term(n, left_out=out) for n, out in zip(names, first, strict=True)), intercept)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """p names of the coefficients: `(Intercept)`, a number's own name, a factor's name and level run together (R's habit)."""
        names = ["(Intercept)"] if self.intercept else []
        for term, shown in zip(self.terms, self._shown, strict=True):
            if not term.left_out:
                names += [term.name] if shown is None else [f"{term.name}{_text(level)}" for level in shown]
        return tuple(names)

    @cached_property
    def _shown(self) -> list[tuple[Level, ...] | None]:
        """For each term the levels that have a column; None for numbers."""
        full = not self.intercept
        shown: list[tuple[Level, ...] | None] = []
        for term in self.terms:
            if term.levels is None:
                shown.append(None)
                continue
            if not term.levels:
                raise DataError(
                    f"the levels of factor {term.name!r} are not agreed",
                    remedy="Collect Design.levels from every site and use Design.agreed",
                )
            shown.append(term.levels if full else term.levels[1:])
            full = False
        return shown

    def matrix(self, x: Array) -> Vector:
        """`[N, terms]` cells -> `[N, p]` float64 design matrix.

        Raises:
            DataError: another number of columns, a cell that is no finite number, or a level that was not agreed.
        """
        if x.ndim != 2 or x.shape[1] != len(self.terms):
            raise DataError(f"the features have shape {x.shape}", allowed=f"(N, {len(self.terms)})")
        columns: list[Array] = [np.ones(len(x))] if self.intercept else []
        for j, (term, shown) in enumerate(zip(self.terms, self._shown, strict=True)):
            if term.left_out:
                continue
            if shown is None:
                columns.append(_numbers(term.name, x[:, j]))
            else:
                columns += _indicators(term, shown, x[:, j])
        matrix = np.empty((len(x), len(self.names)))
        for j, column in enumerate(columns):
            matrix[:, j] = column
        return matrix

    def outcome(self, x: Array, y: Array) -> Vector:
        """`[N]` the targets as they are."""
        return np.asarray(y, np.float64)

    def offset(self, x: Array) -> None:
        """Nothing is added to the linear predictor."""

    def levels(self, x: Array) -> dict[str, list[Level]]:
        """What a site tells before the first round: factor -> the distinct levels in its rows, sorted. Plain JSON values.

        Raises:
            DataError: a cell is missing (None or NaN).
        """
        return {
            term.name: sorted(set(_cells(term.name, x[:, j])), key=_order)
            for j, term in enumerate(self.terms)
            if term.levels is not None
        }

    def agreed(self, sites: Iterable[Mapping[str, Sequence[Level]]]) -> Design:
        """The design with the union of the sites' levels, sorted (numbers as numbers, before text)."""
        union: dict[str, set[Level]] = {term.name: set() for term in self.terms}
        for site in sites:
            for name, levels in site.items():
                if name not in union:
                    raise DataError(f"{name!r} is no column of the design", allowed=", ".join(union))
                union[name] |= set(levels)
        return replace(
            self,
            terms=tuple(
                term
                if term.levels is None
                else replace(term, levels=tuple(sorted(union[term.name], key=_order)))
                for term in self.terms
            ),
        )


def _numbers(name: str, cells: Array) -> Vector:
    try:
        numbers = cells.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"column {name!r} holds text", allowed="numbers", remedy="Declare it as a factor"
        ) from error
    if not np.isfinite(numbers).all():
        row = int(np.argmin(np.isfinite(numbers)))
        raise DataError(
            f"column {name!r} is {numbers[row]} in row {row}",
            allowed=f"finite numbers in {name!r}",
            remedy="Fill in or leave out rows with missing values",
        )
    return numbers


def _indicators(term: Term, shown: Sequence[Level], cells: Array) -> list[Array]:
    assert term.levels is not None
    held = _cells(term.name, cells)
    unknown = sorted(set(held) - set(term.levels), key=_order)
    if unknown:
        raise DataError(
            f"factor {term.name!r} has the level {_text(unknown[0])!r}",
            allowed=f"{', '.join(_text(level) for level in term.levels)} in {term.name!r}",
            remedy="Agree on the levels again, or leave these rows out",
        )
    place = {level: i for i, level in enumerate(shown)}
    codes = np.array([place.get(level, -1) for level in held], dtype=np.intp)
    return [codes == i for i in range(len(shown))]


def _cells(name: str, cells: Array) -> list[Level]:
    held = cells.tolist()
    for row, cell in enumerate(held):
        if cell is None or cell != cell:
            raise DataError(
                f"factor {name!r} is missing in row {row}", remedy="Name a level for missing values"
            )
    return [cell if isinstance(cell, str) else float(cell) for cell in held]


def _order(level: Level) -> tuple[int, float, str]:
    return (1, 0.0, level) if isinstance(level, str) else (0, float(level), "")


def _text(level: Level) -> str:
    return level if isinstance(level, str) else f"{level:g}"
