"""Correlation: covariances and correlations of all pairs of some numbers, over all rows in which none of them is missing.

Two passes, as for variances (`haina.learners.summary.moments`): means first, then products of deviations from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError, RoundError
from haina.learners.disclosure import FEWEST, Withheld
from haina.learners.summary.question import numeric
from haina.learners.variables import Variables
from haina.update import Vector


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlations.

    Args:
        variables: the table's columns.
        columns: names of two or more numbers; () for all.

    Raises:
        LearnerError: there are not two numbers.
    """

    kind: ClassVar[str] = "correlation"
    variables: Variables
    columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise LearnerError(f"there are {len(self.names)} columns", allowed="two numbers or more")

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are compared."""
        return numeric(self.variables, self.columns)

    @property
    def _pairs(self) -> int:
        return len(self.names) * (len(self.names) + 1) // 2

    @property
    def size(self) -> int:
        """Rows, sums, and products of each pair."""
        return 1 + len(self.names) + self._pairs

    def asked(self) -> dict[str, Any]:
        """See `Question`."""
        return {"columns": list(self.names)}

    def first(self) -> Vector:
        """Stage, rows, means, covariances."""
        return np.zeros(2 + len(self.names) + self._pairs)

    def answer(self, known: Vector, x: Array, y: Array) -> Vector:
        """See `Question`."""
        c = len(self.names)
        columns = np.column_stack([self.variables.numbers(name, x, y) for name in self.names])
        columns = columns[np.isfinite(columns).all(axis=1)]
        least = max(FEWEST, c + 1)
        if 0 < len(columns) < least:
            raise Withheld(
                f"fewer than {least} of its rows are complete, which their products would give away",
                allowed=f"no complete rows, or at least {least}",
                remedy="Name fewer columns",
            )
        away = columns - known[2 : 2 + c]
        products = (away.T @ away)[np.triu_indices(c)]
        return np.concatenate([[float(len(columns))], away.sum(axis=0), products])

    def learn(self, known: Vector, sums: Vector) -> tuple[Vector, bool]:
        """See `Question`."""
        c, n = len(self.names), float(sums[0])
        if not n > 1:
            raise RoundError("no complete rows were counted", remedy="Wait for sites that have data")
        if known[0] and n != known[1]:
            return self.first(), False
        first, products = sums[1 : 1 + c], sums[1 + c :]
        upper = np.triu_indices(c)
        covariance = (products - np.outer(first, first)[upper] / n) / (n - 1)
        mean = known[2 : 2 + c] + first / n
        return np.concatenate([[known[0] + 1, n], mean, covariance]), known[0] >= 1

    def covariance(self, known: Vector) -> Vector:
        """`[c, c]` sample covariances (n - 1)."""
        c = len(self.names)
        matrix = np.zeros((c, c))
        matrix[np.triu_indices(c)] = known[2 + c :]
        full: Vector = matrix + np.triu(matrix, 1).T
        return full

    def correlation(self, known: Vector) -> Vector:
        """`[c, c]` correlations; NaN for a column that does not vary."""
        covariance = self.covariance(known)
        sd = np.sqrt(np.diag(covariance))
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix: Vector = covariance / np.outer(sd, sd)
        matrix[np.diag_indices(len(sd))] = np.where(sd > 0, 1.0, np.nan)
        return matrix

    def found(self, known: Vector) -> dict[str, Any]:
        """See `Question`."""
        c = len(self.names)
        correlation = self.correlation(known)
        return {
            "kind": self.kind,
            "n": int(known[1]),
            "columns": list(self.names),
            "means": known[2 : 2 + c].tolist(),
            "covariance": self.covariance(known).tolist(),
            "correlation": [[None if np.isnan(v) else v for v in row] for row in correlation.tolist()],
        }

    def summary(self, known: Vector) -> str:
        """See `Question`."""
        width = max(8, *(len(name) for name in self.names))
        lines = [f"{'':{width}}  " + "  ".join(f"{name:>{width}}" for name in self.names)]
        for name, row in zip(self.names, self.correlation(known), strict=True):
            lines.append(f"{name:{width}}  " + "  ".join(f"{value:{width}.5f}" for value in row))
        return "\n".join([*lines, f"complete rows: {known[1]:.0f}"])
