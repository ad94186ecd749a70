"""Question: something asked of all rows together. Both halves in one place: what a site answers, and what is learnt from the sum of the answers.

A question may take several rounds, of which each asks by what the last one learnt (the mean before the deviations from it). What is known is one
vector, the model: its first number is the stage. Sites see it, and it holds nothing but what all sites together may be told.

The trap is sites that come and go between two stages: sums of deviations from a mean of other rows are wrong. So each answer counts its rows, and a
question whose rows changed begins again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.disclosure import FEWEST, Withheld
from haina.learners.variables import Variables
from haina.update import Vector


class Question(Protocol):
    """One question."""

    kind: ClassVar[str]

    @property
    def size(self) -> int:
        """Length of an answer."""

    def asked(self) -> dict[str, Any]:
        """All that a site needs to answer, in plain JSON values, for sites in other languages: the `columns`, the agreed `levels` of those that are
        factors, and the question's own settings.
        """

    def first(self) -> Vector:
        """What is known before the first round."""

    def answer(self, known: Vector, x: Array, y: Array) -> Vector:
        """One site's answer `[size]`, a sum over its rows.

        Raises:
            DataError: rows that cannot be used; `Withheld` where the answer would show single persons.
        """

    def learn(self, known: Vector, sums: Vector) -> tuple[Vector, bool]:
        """What is known after one more round, and whether that is all.

        Raises:
            RoundError: there are no rows.
        """

    def found(self, known: Vector) -> dict[str, Any]:
        """The answer in plain JSON values."""

    def summary(self, known: Vector) -> str:
        """The answer for people."""


def numeric(variables: Variables, names: Sequence[str]) -> tuple[str, ...]:
    """Names of numbers: those given, or all there are.

    Raises:
        LearnerError: a name is not there or is a factor's, or there are no numbers.
    """
    chosen = tuple(names) or tuple(one.name for one in variables.each if one.levels is None)
    for name in chosen:
        levels = variables[name].levels
        if levels is not None:
            raise LearnerError(
                f"{name!r} is a factor",
                allowed="numbers",
                remedy=f"Count its levels: kind table, columns {name}",
            )
    if not chosen:
        raise LearnerError("no column is a number", allowed="at least one", remedy="Count levels: kind table")
    return chosen


def values(variables: Variables, names: Sequence[str], x: Array, y: Array) -> Vector:
    """`[N, c]` float64 values, NaN where one is missing.

    Raises:
        Withheld: a column has some values, and fewer than a site may describe.
    """
    columns = np.column_stack([variables.numbers(name, x, y) for name in names])
    counts = np.isfinite(columns).sum(axis=0)
    for name, count in zip(names, counts, strict=True):
        if 0 < count < FEWEST:
            raise Withheld(
                f"column {name!r} has fewer than {FEWEST} values here, which a summary would give away",
                allowed=f"no values, or at least {FEWEST}",
                remedy="Leave the column out",
            )
    return columns
