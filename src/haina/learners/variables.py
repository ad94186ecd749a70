"""Variables: the columns of a table as people name them, found again in the encoded rows that learners get.

Rows come encoded: a number is one column, a factor with k levels is k columns of 0 and 1, and the target stands apart (`haina.data.schema`). Formulas
and summaries speak of `sex` and not of `sex=F`, `sex=M`; here one is found in the other.

The trap is the order of levels: it was agreed before any row was read, so a site that lacks a level has a column of zeros and the same names.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from haina.artifact import Array
from haina.errors import DataError, LearnerError
from haina.update import Vector

#: The place of a variable that is no feature but the target.
TARGET = -1


@dataclass(frozen=True)
class Variable:
    """One column of the table.

    Args:
        name: of the column.
        levels: None for a number; the agreed levels, in order, of a factor.
        place: its first column among the encoded features; `TARGET` for the target.
    """

    name: str
    levels: tuple[str, ...] | None = None
    place: int = 0


@dataclass(frozen=True)
class Variables:
    """All columns of the table, and where they are in encoded rows."""

    each: tuple[Variable, ...]

    @classmethod
    def of(
        cls,
        features: Sequence[str],
        levels: Mapping[str, Sequence[str]],
        target: str = "",
        classes: Sequence[str] | None = None,
    ) -> Variables:
        """The variables of a schema.

        Args:
            features: columns of the table, in order.
            levels: feature -> its agreed levels, for the factors.
            target: name of the target; "" for rows that have no named target.
            classes: of the target; None for values.
        """
        each, place = [], 0
        for name in features:
            own = tuple(levels[name]) if name in levels else None
            each.append(Variable(name, own, place))
            place += 1 if own is None else len(own)
        if target:
            each.append(Variable(target, None if classes is None else tuple(classes), TARGET))
        return cls(tuple(each))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(one.name for one in self.each)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of all but the target."""
        return tuple(one.name for one in self.each if one.place != TARGET)

    @property
    def target(self) -> str:
        """Name of the target; "" for none."""
        return next((one.name for one in self.each if one.place == TARGET), "")

    def __getitem__(self, name: str) -> Variable:
        found = self._known.get(name)
        if found is None:
            near = difflib.get_close_matches(name, self.names, n=1)
            raise LearnerError(
                f"there is no column {name!r}",
                allowed=", ".join(self.names),
                remedy=f"Did you mean {near[0]!r}?" if near else "",
            )
        return found

    @cached_property
    def _known(self) -> dict[str, Variable]:
        return {one.name: one for one in self.each}

    def numbers(self, name: str, x: Array, y: Array | None) -> Vector:
        """`[N]` float64 values of a number, NaN where one is missing.

        Args:
            name: of the variable.
            x: `[N, encoded]` features.
            y: `[N]` targets; None where rows come without them.

        Raises:
            LearnerError: there is no such number.
        """
        variable = self[name]
        if variable.levels is not None:
            raise LearnerError(
                f"{name!r} is a factor with the levels {', '.join(variable.levels)}", allowed="a number"
            )
        return np.asarray(self._cells(variable, x, y), np.float64)

    def indicators(self, name: str, x: Array, y: Array | None) -> Vector:
        """`[N, levels]` float64: 1 in the column of a row's level, 0 elsewhere; arguments as for `numbers`.

        Raises:
            LearnerError: there is no such factor.
        """
        variable = self[name]
        if variable.levels is None:
            raise LearnerError(
                f"{name!r} is a number",
                allowed="a factor: a column of text, or one that [data] categorical declares",
            )
        if variable.place != TARGET:
            block = x[:, variable.place : variable.place + len(variable.levels)]
            return np.asarray(block, np.float64)
        codes = np.asarray(self._cells(variable, x, y))
        shown: Vector = (codes[:, None] == np.arange(len(variable.levels))).astype(np.float64)
        return shown

    def binary(self, name: str, x: Array, y: Array | None) -> Vector:
        """`[N]` 0 and 1: a number as it is, or a factor of two levels, of which the second is 1, as in R.

        Raises:
            LearnerError: a factor with another number of levels.
        """
        levels = self[name].levels
        if levels is None:
            return self.numbers(name, x, y)
        if len(levels) != 2:
            raise LearnerError(
                f"{name!r} has the {len(levels)} levels {', '.join(levels)}",
                allowed="0 and 1, or a factor with two levels (the second is the event)",
            )
        second: Vector = self.indicators(name, x, y)[:, 1]
        return second

    @staticmethod
    def _cells(variable: Variable, x: Array, y: Array | None) -> Array:
        if variable.place != TARGET:
            return x[:, variable.place]
        if y is None:
            raise DataError(f"{variable.name!r} is the target, and these rows come without targets")
        return y
