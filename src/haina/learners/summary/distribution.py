"""Distribution: how many values, how many missing, mean, standard deviation and quantiles of each number, over all sites together.

Quantiles are found by asking how many values are at most t, for a ladder of t between two bounds, and moving the bounds to the rungs around the
rank that is sought, until no number lies between the bounds. So they are exact, and no site tells any of its values. Rungs are even in the order of
doubles (`haina.learners.summary.ladder`), so 10 rounds settle any value, be it ever so small beside others, and the first bounds are simply the
largest doubles. The quantile of p among n values is R's type 7: between the values of ranks floor(h) and floor(h) + 1, h = (n - 1) p + 1.

A rank near either end is a single person: it is told only if at least `min_cell` values lie on its side. So minimum and maximum are told only with
`min_cell = 1`, and 5 % of 60 values not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import LearnerError, RoundError
from haina.learners.disclosure import MIN_CELL
from haina.learners.summary.ladder import RUNGS, gap, ladder
from haina.learners.summary.moments import Moments
from haina.learners.summary.question import numeric, values
from haina.learners.variables import Variables
from haina.update import Vector

#: First bounds of a search: no value lies beyond.
_LARGEST = float(np.finfo(np.float64).max)


@dataclass(frozen=True)
class Distribution:
    """Moments and quantiles.

    Args:
        variables: the table's columns.
        columns: names of numbers; () for all.
        probabilities: of the quantiles, each in [0, 1]; () for moments alone.
        min_cell: values that must lie on each side of a rank, that rank included, >= 1.

    Raises:
        LearnerError: a setting out of range, or a column that is no number.
    """

    kind: ClassVar[str] = "describe"
    variables: Variables
    columns: tuple[str, ...] = ()
    probabilities: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95)
    min_cell: int = MIN_CELL

    def __post_init__(self) -> None:
        if not all(0 <= p <= 1 for p in self.probabilities):
            raise LearnerError(f"probabilities are {list(self.probabilities)}", allowed="numbers in [0, 1]")
        if self.min_cell < 1:
            raise LearnerError(f"min_cell is {self.min_cell}", allowed="an integer >= 1")
        _ = self.names

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns that are described."""
        return numeric(self.variables, self.columns)

    @property
    def size(self) -> int:
        """Rows, moments, and a ladder for each rank."""
        return 1 + 3 * len(self.names) + self._ranks * RUNGS

    @property
    def _ranks(self) -> int:
        return 2 * len(self.names) * len(self.probabilities)

    def asked(self) -> dict[str, Any]:
        """See `Question`."""
        return {"columns": list(self.names), "probabilities": list(self.probabilities), "rungs": RUNGS}

    def first(self) -> Vector:
        """Stage, rows, then count, mean and deviation of each column, then the bounds of each rank."""
        return np.zeros(2 + 3 * len(self.names) + 2 * self._ranks)

    def answer(self, known: Vector, x: Array, y: Array) -> Vector:
        """See `Question`."""
        columns = values(self.variables, self.names, x, y)
        view, answer = self._view(known), np.zeros(self.size)
        answer[0] = len(x)
        answer[1 : 1 + 3 * len(self.names)] = Moments.around(columns, view.mean).pack()
        if known[0] >= 1 and self._ranks:
            rungs = ladder(view.low, view.high)
            ranks = 2 * len(self.probabilities)
            for j in range(len(self.names)):
                held = np.sort(columns[np.isfinite(columns[:, j]), j])
                mine = slice(j * ranks, (j + 1) * ranks)
                start = 1 + 3 * len(self.names) + mine.start * RUNGS
                below = np.searchsorted(held, rungs[mine].ravel(), side="right")
                answer[start : start + ranks * RUNGS] = below
        return answer

    def learn(self, known: Vector, sums: Vector) -> tuple[Vector, bool]:
        """See `Question`."""
        c, view = len(self.names), self._view(known)
        moments, rows = Moments.unpack(sums[1 : 1 + 3 * c]), sums[0]
        if not rows > 0:
            raise RoundError("no rows were counted", remedy="Wait for sites that have data")
        if known[0] and (rows != known[1] or not np.array_equal(moments.count, view.count)):
            return self.first(), False
        mean, sd = moments.mean(view.mean), np.sqrt(moments.variance)
        if not known[0]:
            # Means are known now, and how many values there are: deviations and ranks come next.
            reach = np.where(self._told(moments.count), _LARGEST, 0.0)
            return np.concatenate([[1.0, rows], moments.count, mean, np.zeros(c), -reach, reach]), False
        if known[0] > 1:
            mean, sd = view.mean, view.sd
        low, high = self._narrowed(view, sums[1 + 3 * c :].reshape(self._ranks, RUNGS))
        new = np.concatenate([[known[0] + 1, rows], moments.count, mean, sd, low, high])
        return new, bool((gap(low, high) <= 1).all())

    def _narrowed(self, view: _View, counts: Vector) -> tuple[Vector, Vector]:
        rungs = np.column_stack([view.low, ladder(view.low, view.high), view.high])
        reached = counts >= self._sought(view.count)[:, None]
        # The first rung at which the rank is reached; the upper bound where none is.
        step = np.where(reached.any(axis=1), reached.argmax(axis=1), RUNGS)
        row = np.arange(self._ranks)
        told = self._told(view.count)
        return np.where(told, rungs[row, step], 0.0), np.where(told, rungs[row, step + 1], 0.0)

    def _sought(self, count: Vector) -> NDArray[np.int64]:
        """`[ranks]` ranks from 1, two for each column and probability."""
        h = (np.maximum(count, 1.0)[:, None] - 1) * np.array(self.probabilities)[None, :] + 1
        low = np.floor(h + 4 * np.finfo(np.float64).eps * h)
        ranks = np.stack([low, np.minimum(low + 1, np.maximum(count, 1.0)[:, None])], axis=2)
        return ranks.astype(np.int64).ravel()

    def _told(self, count: Vector) -> NDArray[np.bool_]:
        """`[ranks]` whether a rank may be told."""
        ranks, n = self._sought(count), np.repeat(count, 2 * len(self.probabilities))
        low, high = ranks[0::2], ranks[1::2]
        n = n[0::2]
        told = (low >= self.min_cell) & (n - high + 1 >= self.min_cell) & (n >= 1)
        return np.repeat(told, 2)

    def _view(self, known: Vector) -> _View:
        c = len(self.names)
        count, mean, sd = known[2 : 2 + c], known[2 + c : 2 + 2 * c], known[2 + 2 * c : 2 + 3 * c]
        low, high = np.split(known[2 + 3 * c :], 2)
        return _View(count, mean, sd, low, high)

    def quantiles(self, known: Vector) -> Vector:
        """`[c, q]` quantiles; NaN for those that are not told."""
        view = self._view(known)
        value = np.where(self._told(view.count), view.high, np.nan).reshape(len(self.names), -1, 2)
        h = (np.maximum(view.count, 1.0)[:, None] - 1) * np.array(self.probabilities)[None, :] + 1
        part = np.clip(h - self._sought(view.count).reshape(value.shape)[:, :, 0], 0.0, 1.0)
        found: Vector = (1 - part) * value[:, :, 0] + part * value[:, :, 1]
        return np.where(value[:, :, 0] == value[:, :, 1], value[:, :, 0], found)

    def found(self, known: Vector) -> dict[str, Any]:
        """See `Question`."""
        view, quantiles = self._view(known), self.quantiles(known)
        return {
            "kind": self.kind,
            "n": int(known[1]),
            "min_cell": self.min_cell,
            "columns": [
                {
                    "name": name,
                    "n": int(view.count[j]),
                    "missing": int(known[1] - view.count[j]),
                    "mean": float(view.mean[j]) if view.count[j] else None,
                    "sd": float(view.sd[j]) if view.count[j] > 1 else None,
                    "quantiles": {
                        f"{p:g}": None if np.isnan(q) else float(q)
                        for p, q in zip(self.probabilities, quantiles[j], strict=True)
                    },
                }
                for j, name in enumerate(self.names)
            ],
        }

    def summary(self, known: Vector) -> str:
        """See `Question`."""
        width = max(6, *(len(name) for name in self.names))
        heads = ["n", "missing", "mean", "sd", *(f"{100 * p:g}%" for p in self.probabilities)]
        lines = [f"{'':{width}}  " + "  ".join(f"{head:>11}" for head in heads)]
        hidden = False
        for one in self.found(known)["columns"]:
            cells = [f"{one['n']:11d}", f"{one['missing']:11d}"]
            for value in (one["mean"], one["sd"], *one["quantiles"].values()):
                cells.append(f"{'-':>11}" if value is None else f"{value:11.6g}")
            hidden |= None in one["quantiles"].values()
            lines.append(f"{one['name']:{width}}  " + "  ".join(cells))
        if hidden:
            lines.append(
                f"-: fewer than {self.min_cell} values lie beyond it (min_cell); ask for probabilities nearer to 0.5."
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _View:
    """What is known, by name."""

    count: Vector
    mean: Vector
    sd: Vector
    low: Vector
    high: Vector
