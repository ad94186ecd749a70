"""Histogram: how many values lie in each of agreed bins, over all sites together.

Bins are closed on the right, as in R's `hist`; the first also holds its left edge. What lies beyond the edges is counted in two open bins. Edges are
given, or are made from mean and standard deviation of all rows: equal widths from mean - 3 sd to mean + 3 sd, so that no extreme value sets them.

Small bins are hidden as small cells of a table are, at the sites and in the sum (`haina.learners.summary.tables`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError, RoundError
from haina.learners.disclosure import MIN_CELL
from haina.learners.summary.moments import Moments
from haina.learners.summary.question import numeric, values
from haina.learners.summary.suppression import hidden_cells
from haina.learners.summary.tables import MOST, Check, refuse_small
from haina.learners.variables import Variables
from haina.update import Vector

_HIDDEN = -1.0
#: Half the width of all bins together, in standard deviations.
_REACH = 3.0


@dataclass(frozen=True)
class Histogram:
    """Counts of one number in bins.

    Args:
        variables: the table's columns.
        column: a number.
        breaks: edges, rising, at least two; () makes `bins` of them.
        bins: how many bins are made.
        min_cell: fewer values in a bin are not shown, >= 1.
        check: whose bins must not be small: each `site`'s, or the `sum`'s.

    Raises:
        LearnerError: a setting out of range, or the column is no number.
    """

    kind: ClassVar[str] = "histogram"
    variables: Variables
    column: str
    breaks: tuple[float, ...] = ()
    bins: int = 12
    min_cell: int = MIN_CELL
    check: Check = "site"

    def __post_init__(self) -> None:
        numeric(self.variables, (self.column,))
        if self.breaks and (len(self.breaks) < 2 or list(self.breaks) != sorted(set(self.breaks))):
            raise LearnerError(f"breaks are {list(self.breaks)}", allowed="two or more numbers that rise")
        if not 1 <= self.bins <= MOST or len(self.breaks) > MOST:
            raise LearnerError(f"bins is {self.bins}", allowed=f"1 to {MOST}")
        if self.min_cell < 1:
            raise LearnerError(f"min_cell is {self.min_cell}", allowed="an integer >= 1")

    @property
    def _edges(self) -> int:
        return len(self.breaks) or self.bins + 1

    @property
    def size(self) -> int:
        """Rows, moments, and one number for each bin."""
        return 1 + 3 + self._edges + 1

    def asked(self) -> dict[str, Any]:
        """See `Question`."""
        return {
            "columns": [self.column],
            "edges": self._edges,
            "min_cell": self.min_cell,
            "check": self.check,
        }

    def first(self) -> Vector:
        """Stage, rows, mean, edges, counts, and values that are counted."""
        known = np.zeros(3 + 2 * self._edges + 2)
        if self.breaks:
            known[0], known[3 : 3 + self._edges] = 2.0, self.breaks
        return known

    def answer(self, known: Vector, x: Array, y: Array) -> Vector:
        """See `Question`."""
        columns = values(self.variables, (self.column,), x, y)
        answer = np.zeros(self.size)
        answer[0] = len(x)
        answer[1:4] = Moments.around(columns, known[2:3]).pack()
        if known[0] >= 2:
            answer[4:] = counted(columns[np.isfinite(columns)], known[3 : 3 + self._edges])
            refuse_small(answer[4:], self.min_cell, self.check)
        return answer

    def learn(self, known: Vector, sums: Vector) -> tuple[Vector, bool]:
        """See `Question`."""
        moments, edges = Moments.unpack(sums[1:4]), known[3 : 3 + self._edges]
        if not moments.count[0] > 0:
            raise RoundError("no values were counted", remedy="Wait for sites that have data")
        if known[0] >= 2:
            if not self.breaks and sums[0] != known[1]:
                return self.first(), False
            cells = np.where(hidden_cells(sums[4:], self.min_cell), _HIDDEN, sums[4:])
            return np.concatenate([[3.0, sums[0], known[2]], edges, cells, moments.count]), True
        if known[0] and sums[0] != known[1]:
            return self.first(), False
        mean = moments.mean(known[2:3])
        if known[0]:
            spread = _REACH * float(np.sqrt(moments.variance[0])) or 0.5
            edges = mean[0] + np.linspace(-spread, spread, self._edges)
        return np.concatenate([[known[0] + 1, sums[0]], mean, edges, np.zeros(self._edges + 2)]), False

    def found(self, known: Vector) -> dict[str, Any]:
        """See `Question`."""
        edges, cells = known[3 : 3 + self._edges], known[3 + self._edges : -1]
        counts = [None if count == _HIDDEN else int(count) for count in cells]
        return {
            "kind": self.kind,
            "column": self.column,
            "n": int(known[-1]),
            "missing": int(known[1] - known[-1]),
            "breaks": edges.tolist(),
            "counts": counts[1:-1],
            "below": counts[0],
            "above": counts[-1],
            "min_cell": self.min_cell,
        }

    def summary(self, known: Vector) -> str:
        """See `Question`."""
        found = self.found(known)
        edges = [f"{edge:.6g}" for edge in found["breaks"]]
        labels = [f"up to {edges[0]}", *(f"{a} to {b}" for a, b in pairwise(edges))]
        labels.append(f"above {edges[-1]}")
        counts = [found["below"], *found["counts"], found["above"]]
        most = max((count for count in counts if count is not None), default=1) or 1
        width = max(len(label) for label in labels)
        lines = [f"{self.column}: {found['n']} rows    missing: {found['missing']}"]
        for label, count in zip(labels, counts, strict=True):
            bar = "" if count is None else "#" * round(40 * count / most)
            lines.append(f"{label:>{width}}  {'-' if count is None else count:>7}  {bar}".rstrip())
        if None in counts:
            lines.append(
                f"-: hidden, for it or what it would tell has fewer than {self.min_cell} rows; use wider bins."
            )
        return "\n".join(lines)


def counted(cells: Vector, edges: Vector) -> Vector:
    """`[edges + 1]` counts below the first edge, in each bin, and above the last; bins are closed on the right, the first on both sides."""
    place = np.searchsorted(edges, cells, side="left")
    place[cells == edges[0]] = 1
    return np.bincount(place, minlength=len(edges) + 1).astype(np.float64)
