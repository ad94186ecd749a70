"""Tables: how many rows have each level, or each combination of levels, over all sites together.

Small cells are hidden (`haina.learners.summary.suppression`), and what is hidden is not in the model either: it is taken out before the round ends.

The trap is who sees what before that. Without secure aggregation the coordinator sees each site's own table, so a site whose table has a small cell
keeps it to itself (`check = "site"`); where sums are hidden, only the table of all sites need be large enough (`check = "sum"`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError, RoundError
from haina.learners.disclosure import MIN_CELL, Withheld
from haina.learners.summary.suppression import hidden_cells, small
from haina.learners.variables import Variables
from haina.update import Vector

Check = Literal["site", "sum"]

#: Cells of a table.
MOST = 10_000
#: In place of a count that is not shown; a model holds numbers only.
_HIDDEN = -1.0


@dataclass(frozen=True)
class Table:
    """Counts of one factor, or a cross-table of several.

    Args:
        variables: the table's columns.
        columns: names of factors, at least one; rows in which one is missing are in no cell, and counted apart.
        min_cell: fewer rows in a cell are not shown, >= 1.
        check: whose table must have no small cells: each `site`'s, or the `sum`'s.

    Raises:
        LearnerError: a column is no factor, or there are too many cells.
    """

    kind: ClassVar[str] = "table"
    variables: Variables
    columns: tuple[str, ...]
    min_cell: int = MIN_CELL
    check: Check = "site"

    def __post_init__(self) -> None:
        if not self.columns:
            raise LearnerError(
                "no factors are named", allowed='columns = ["ward"], or two or more for a cross-table'
            )
        if self.min_cell < 1:
            raise LearnerError(f"min_cell is {self.min_cell}", allowed="an integer >= 1")
        if prod(self.shape) > MOST:
            raise LearnerError(f"the table has {prod(self.shape)} cells", allowed=f"up to {MOST}")

    @cached_property
    def levels(self) -> tuple[tuple[str, ...], ...]:
        """Of each factor."""
        every = []
        for name in self.columns:
            levels = self.variables[name].levels
            if levels is None:
                raise LearnerError(
                    f"{name!r} is a number",
                    allowed="factors",
                    remedy=f"Declare it: [data] categorical = {{{name} = []}}; or ask for a histogram",
                )
            every.append(levels)
        return tuple(every)

    @property
    def shape(self) -> tuple[int, ...]:
        """Levels of each factor."""
        return tuple(len(levels) for levels in self.levels)

    @property
    def size(self) -> int:
        """One number for each cell, and one for all rows."""
        return 1 + prod(self.shape)

    def asked(self) -> dict[str, Any]:
        """See `Question`."""
        levels = {name: list(own) for name, own in zip(self.columns, self.levels, strict=True)}
        return {
            "columns": list(self.columns),
            "levels": levels,
            "min_cell": self.min_cell,
            "check": self.check,
        }

    def first(self) -> Vector:
        """Stage, rows, rows that are counted, and the cells."""
        return np.zeros(3 + prod(self.shape))

    def answer(self, known: Vector, x: Array, y: Array) -> Vector:
        """See `Question`."""
        counts = np.ones((len(x), 1))
        for name in self.columns:
            shown = self.variables.indicators(name, x, y)
            counts = (counts[:, :, None] * shown[:, None, :]).reshape(len(x), -1)
        cells: Vector = counts.sum(axis=0)
        refuse_small(cells, self.min_cell, self.check)
        return np.concatenate([[float(len(x))], cells])

    def learn(self, known: Vector, sums: Vector) -> tuple[Vector, bool]:
        """See `Question`."""
        if not sums[0] > 0:
            raise RoundError("no rows were counted", remedy="Wait for sites that have data")
        cells = sums[1:].reshape(self.shape)
        shown = np.where(hidden_cells(cells, self.min_cell), _HIDDEN, cells)
        return np.concatenate([[1.0, sums[0], cells.sum()], shown.ravel()]), True

    def found(self, known: Vector) -> dict[str, Any]:
        """See `Question`."""
        cells = np.where(known[3:] == _HIDDEN, np.nan, known[3:]).reshape(self.shape)
        counts = np.where(np.isnan(cells), None, cells.astype(object))  # type: ignore[call-overload]
        return {
            "kind": self.kind,
            "n": int(known[2]),
            "missing": int(known[1] - known[2]),
            "columns": list(self.columns),
            "levels": [list(levels) for levels in self.levels],
            "counts": _whole(counts.tolist()),
            "min_cell": self.min_cell,
        }

    def summary(self, known: Vector) -> str:
        """See `Question`."""
        cells = known[3:].reshape(self.shape)
        last = self.levels[-1]
        width = max(
            len(" ".join(self.columns[:-1])), *(len(_label(self.levels, i)) for i in _lines(self.shape)), 1
        )
        column = max(7, *(len(level) for level in last))
        lines = [
            f"{' '.join(self.columns[:-1]):{width}}  {self.columns[-1]}",
            f"{'':{width}}  " + "  ".join(f"{level:>{column}}" for level in last),
        ]
        for place in _lines(self.shape):
            counts = ["-" if count == _HIDDEN else f"{count:.0f}" for count in cells[place]]
            lines.append(
                f"{_label(self.levels, place):{width}}  "
                + "  ".join(f"{count:>{column}}" for count in counts)
            )
        if (cells == _HIDDEN).any():
            lines.append(
                f"-: hidden, for it or what it would tell has fewer than {self.min_cell} rows (min_cell); merge levels."
            )
        lines.append(f"rows: {known[2]:.0f}    missing: {known[1] - known[2]:.0f}")
        return "\n".join(lines)


def refuse_small(cells: Vector, min_cell: int, check: Check) -> None:
    """Keep a site's counts at the site where they are too small to be seen.

    Raises:
        Withheld: a cell holds 1 to `min_cell` - 1 rows, and the coordinator would see it.
    """
    if check == "site" and small(cells, min_cell):
        raise Withheld(
            f"a cell of its table has fewer than {min_cell} rows, which it would give away",
            allowed=f"cells of 0 or at least {min_cell} rows",
            remedy='Merge levels or widen bins; or hide single sites by [privacy] secure_aggregation and write check = "sum"',
        )


def _lines(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(np.ndindex(shape[:-1]))


def _label(levels: tuple[tuple[str, ...], ...], place: tuple[int, ...]) -> str:
    return " ".join(own[i] for own, i in zip(levels, place, strict=False))


def _whole(counts: Any) -> Any:
    if isinstance(counts, list):
        return [_whole(one) for one in counts]
    return None if counts is None else int(counts)
