"""Names: what the features and classes of a forest are called, so that two languages mean the same by a number.

Python encodes a categorical column as one column of zeros and ones for each level (`sex=F`, `sex=M`); R keeps it whole, as a factor. A forest
counts features in Python's way. A factor is the run of its levels' columns, and a split that sends some levels left is a question to that run:
which of you is the one? So both kinds of trees read the same rows, and vote together.

The trap is an order that is not agreed. The same levels in another order are other splits, and no number shows it; so names, levels and their
order must be equal wherever both sides know them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.errors import LayoutError
from haina.update import Vector

#: Longest name of a column, a level or a class, in characters.
MAX_NAME = 1_000


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: as the table calls it.
        levels: of a factor, in the agreed order; empty for numbers.
    """

    name: str
    levels: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Features that it takes: one for each level, or one."""
        return len(self.levels) or 1


@dataclass(frozen=True)
class Names:
    """Columns and classes by name.

    Args:
        columns: in order; empty where nobody has said.
        labels: of the classes, in the order of their numbers; empty where nobody has said, and for regression.
    """

    columns: tuple[Column, ...] = ()
    labels: tuple[str, ...] = ()

    @cached_property
    def factors(self) -> dict[int, int]:
        """First feature of each factor -> its number of levels."""
        found, first = {}, 0
        for column in self.columns:
            if column.levels:
                found[first] = column.width
            first += column.width
        return found

    def check(self, classes: int, features: int) -> None:
        """Refuse names that cannot be those of a forest.

        Raises:
            LayoutError: other numbers of features or classes, a name twice, or one that is too long.
        """
        width = sum(column.width for column in self.columns)
        if self.columns and width != features:
            raise LayoutError(f"the columns are {width} features", allowed=f"{features}, like the trees")
        if self.labels and len(self.labels) != classes:
            raise LayoutError(f"{len(self.labels)} classes have names", allowed=f"all {classes}")
        names = [column.name for column in self.columns]
        for what, said in (
            ("column", names),
            ("class", self.labels),
            *(("level", c.levels) for c in self.columns),
        ):
            if len(set(said)) < len(said) or any(not 0 < len(name) <= MAX_NAME for name in said):
                raise LayoutError(
                    f"a {what} has no name, a very long one, or one that another {what} has",
                    allowed=f"different names of 1 to {MAX_NAME} characters",
                )

    def agreed(self, other: Names) -> Names:
        """What both say; where one says nothing, what the other says.

        Raises:
            LayoutError: they contradict each other.
        """
        for what, mine, theirs in (
            ("columns or levels", self.columns, other.columns),
            ("classes", self.labels, other.labels),
        ):
            if mine and theirs and mine != theirs:
                raise LayoutError(
                    f"a forest names other {what}, or in another order",
                    allowed=_shown(mine),
                    remedy="Grow it again with the names and the order that the federation has agreed on",
                )
        return Names(self.columns or other.columns, self.labels or other.labels)

    def codes(self, x: Vector) -> NDArray[np.int64]:
        """`[N, p]` level number of each row, at the first feature of each factor; 0 elsewhere.

        Raises:
            LayoutError: a factor's features are not one 1 among zeros.
        """
        found = np.zeros(x.shape, np.int64)
        for first, count in self.factors.items():
            run = x[:, first : first + count]
            odd = ~(np.isin(run, (0.0, 1.0)).all(axis=1) & (run.sum(axis=1) == 1.0))
            if odd.any():
                raise LayoutError(
                    f"the columns of a factor with {count} levels are not one 1 among zeros in {int(odd.sum())} of {len(x)} rows",
                    allowed="one-hot columns, in the agreed order",
                )
            found[:, first] = run.argmax(axis=1)
        return found

    def to_json(self) -> dict[str, Any]:
        """What is known, as plain values of a document."""
        columns = [
            {"name": column.name, "levels": list(column.levels)} if column.levels else {"name": column.name}
            for column in self.columns
        ]
        return ({"columns": columns} if columns else {}) | (
            {"labels": list(self.labels)} if self.labels else {}
        )

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Names:
        """The inverse of `to_json`, from anywhere; `check` is left to the caller.

        Raises:
            LayoutError: not lists of names.
        """
        columns = []
        for entry in _list(document.get("columns", [])):
            if not isinstance(entry, dict):
                raise LayoutError("a column is no JSON object")
            (name,) = _texts([entry.get("name")])
            columns.append(Column(name, _texts(entry.get("levels", []))))
        return cls(tuple(columns), _texts(document.get("labels", [])))


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise LayoutError(f"columns, levels or labels are {type(value).__name__}", allowed="a list")
    return value


def _texts(value: object) -> tuple[str, ...]:
    texts = _list(value)
    if not all(isinstance(text, str) for text in texts):
        raise LayoutError("a name of a column, a level or a class is no text", allowed="text")
    return tuple(texts)


def _shown(names: tuple[Column, ...] | tuple[str, ...]) -> str:
    texts = [
        name if isinstance(name, str) else name.name + (f" ({', '.join(name.levels)})" if name.levels else "")
        for name in names
    ]
    shown = ", ".join(texts)
    return shown if len(shown) <= 400 else f"{shown[:400]} ..."
