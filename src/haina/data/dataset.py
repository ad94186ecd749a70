"""Dataset: rows with a target, as arrays, checked once on the way in.

Whatever the source, what leaves it is features without gaps and targets of one of two kinds: class numbers or values. The kind is
never guessed from a table (a regression target may well be whole numbers); for arrays the dtype says it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import DataError

Index = NDArray[np.intp]


@dataclass(frozen=True)
class Dataset:
    """Rows of one table, or of all tables of a federation.

    Args:
        x: `[N, ...]` features, all finite: float64 as read, float32 where they came as such or were made so (`in_float32`).
        y: `[N]` int64 class numbers from 0, or float64 values.
        features: names of the columns of a two-dimensional `x`; empty for other shapes.
        classes: names of the classes, in the order of their numbers; None for values.
        groups: `[N]` natural key of each row (hospital, device, writer); None where there is none.
        key: name of the natural key; empty where there is none.
        dropped: rows left out on reading because a value was missing.

    Raises:
        DataError: lengths differ, there are no rows, a number is not finite, a class number has no name, or there is one class only.
    """

    x: Array
    y: Array
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    groups: Array | None = None
    key: str = ""
    dropped: int = 0

    def __post_init__(self) -> None:
        n = len(self.y)
        if self.y.ndim != 1 or len(self.x) != n or (self.groups is not None and self.groups.shape != (n,)):
            shapes = [a.shape for a in (self.x, self.y, self.groups) if a is not None]
            raise DataError(
                f"features, targets and groups have shapes {shapes}", allowed="[N, ...], [N] and [N]"
            )
        if not n:
            raise DataError("there are no rows", allowed="at least one row")
        if self.features and self.x.shape[1:] != (len(self.features),):
            raise DataError(f"{len(self.features)} feature names for columns of shape {self.x.shape[1:]}")
        require_unique(self.features, "feature")
        if self.x.dtype not in (np.float32, np.float64) or self.y.dtype != (
            np.float64 if self.classes is None else np.int64
        ):
            raise DataError(
                f"dtypes are {self.x.dtype} and {self.y.dtype}",
                allowed="float32 or float64 features; int64 class numbers or float64 values",
                remedy="Use Dataset.of to convert",
            )
        for name, values in (("feature", self.x), ("target", self.y)):
            bad = np.flatnonzero(~np.isfinite(values).reshape(n, -1).all(axis=1))
            if len(bad):
                raise DataError(
                    f"a {name} is not finite in {len(bad)} of {n} rows, first in row {bad[0]}",
                    allowed="finite numbers (in float32, up to 3.4e38)",
                )
        if self.classes is not None:
            if len(self.classes) < 2:
                raise DataError(
                    f"the target holds one class only: {', '.join(self.classes)}",
                    allowed="two classes or more",
                )
            require_unique(self.classes, "class")
            if self.y.min() < 0 or self.y.max() >= len(self.classes):
                raise DataError(
                    f"class numbers run from {self.y.min()} to {self.y.max()}",
                    allowed=f"0 to {len(self.classes) - 1}",
                )

    @classmethod
    def of(
        cls,
        x: Array,
        y: Array,
        *,
        features: Sequence[str] = (),
        classes: Sequence[str] | None = None,
        groups: Array | None = None,
        key: str = "group",
    ) -> Dataset:
        """A data set of plain arrays; the dtype of `y` says its kind.

        Args:
            x: `[N, ...]` numbers.
            y: `[N]` floats are values; integers, booleans and text are classes.
            features: names of the columns; x0, x1, ... if not given.
            classes: names of the class numbers in `y`; if not given, the distinct values of `y` in order.
            groups: `[N]` natural key.
            key: name of the natural key.

        Raises:
            DataError: as for the class, or `x` holds no numbers.
        """
        if x.dtype.kind not in "fiub":
            raise DataError(f"features have dtype {x.dtype}", allowed="numbers")
        if not features and x.ndim == 2:
            features = [f"x{j}" for j in range(x.shape[1])]
        if y.dtype.kind == "f":
            kind: tuple[str, ...] | None = None
            target: Array = y.astype(np.float64)
        elif classes is None:
            names, codes = factorise(y)
            kind = in_order(names)
            target = recode(names, codes, kind, "target")
        elif y.dtype.kind in "iu":
            kind, target = tuple(classes), y.astype(np.int64)
        else:
            kind = tuple(classes)
            target = recode(*factorise(y), kind, "target")
        return cls(_floats(x), target, tuple(features), kind, groups, key if groups is not None else "")

    def __len__(self) -> int:
        return len(self.y)

    def targets(self, rows: Index) -> Dataset:
        """The given rows without their features: all that a partition reads, so that features are copied once only."""
        return replace(
            self,
            x=np.empty((len(rows), 0), self.x.dtype),
            y=self.y[rows],
            features=(),
            groups=None if self.groups is None else self.groups[rows],
        )

    def in_float32(self) -> Dataset:
        """The rows for networks, which compute in float32; a number too large for it is refused."""
        with np.errstate(over="ignore"):
            return replace(self, x=self.x.astype(np.float32, copy=False))

    def standardised(self) -> Dataset:
        """Every feature with mean 0 and standard deviation 1 over all rows; a constant feature becomes 0.

        The means are those of the pooled rows, which a federation of real sites does not have: for simulations.
        """
        mean = self.x.mean(axis=0, dtype=np.float64)
        spread = self.x.std(axis=0, dtype=np.float64)
        spread = np.where(spread > 0, spread, 1.0)
        return replace(self, x=((self.x - mean) / spread).astype(self.x.dtype))


def _floats(values: Array) -> Array:
    return values if values.dtype == np.float32 else values.astype(np.float64)


def factorise(values: Array) -> tuple[list[str], Index]:
    """`[N]` values -> the distinct ones as text, and the position `[N]` of each value among them.

    Whole floats are written as integers: a gap elsewhere in a table turns a column of classes 0, 1 into 0.0, 1.0.

    Raises:
        DataError: a float is not whole.
    """
    if values.dtype.kind == "O":
        values = values.astype(str)
    distinct, codes = np.unique(values, return_inverse=True)
    if distinct.dtype.kind == "f":
        odd = distinct[distinct != np.floor(distinct)]
        if len(odd):
            raise DataError(f"{odd[0]:g} is not a class or level", allowed="text or whole numbers")
        return [str(int(value)) for value in distinct], codes
    return [str(value) for value in distinct], codes


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Distinct names, whole numbers first and by size, then text by code point."""

    def place(name: str) -> tuple[bool, int, str]:
        whole = name.removeprefix("-").isdecimal()
        return not whole, int(name) if whole else 0, name

    return tuple(sorted(set(names), key=place))


def recode(names: Sequence[str], codes: Index, levels: Sequence[str], what: str) -> NDArray[np.int64]:
    """Positions among `names` -> positions among the agreed `levels`.

    Raises:
        DataError: a name is no level.
    """
    place = {level: i for i, level in enumerate(levels)}
    unknown = [name for name in names if name not in place]
    if unknown:
        raise DataError(
            f"{what} holds {', '.join(map(repr, unknown[:5]))}",
            allowed=", ".join(map(repr, levels)),
            remedy="Add the value to the agreed levels at every site, or mend the rows",
        )
    table = np.array([place[name] for name in names], dtype=np.int64)
    return table[codes]


def require_unique(names: Sequence[str], what: str) -> None:
    """Refuse a name that appears twice.

    Raises:
        DataError: with the names.
    """
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{what} names appear twice: {', '.join(map(repr, twice))}", remedy="Rename one of each"
        )
