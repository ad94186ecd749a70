"""Schema: what the rows of a federation look like, without any row.

Learners are made from it, so a coordinator that never sees rows can make a model, and every owner encodes its own table alike: the same columns in
the same order, the same one-hot levels, the same class numbers.

The trap is what a refusal shows. A level, a class or a target may be a person's, so what does not fit is counted and never printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import TypeAdapter

from haina.artifact import Array
from haina.data.dataset import Dataset, factorise, require_unique
from haina.data.sources import load, read_archive
from haina.data.table import Columns, read_site
from haina.errors import DataError

#: Files that are tables.
TABLES = (".csv", ".parquet")

#: Numbers in one row; more is a mistake in the shape.
MAX_ROW = 1 << 30


@dataclass(frozen=True)
class Schema:
    """What rows look like.

    Args:
        shape: of the features of one row.
        features: names of the encoded columns of a flat row; empty for other shapes.
        classes: names of the classes in the order of their numbers; None for values.
        dtype: of the encoded features: float32 for networks, float64 where every digit of a table is kept.
        columns: for tables, what their columns mean, with features, levels and classes all given; None where rows come as arrays.

    Raises:
        DataError: names and shape contradict each other, or columns are not fully agreed.
    """

    shape: tuple[int, ...]
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    dtype: Literal["float32", "float64"] = "float32"
    columns: Columns | None = None

    def __post_init__(self) -> None:
        if not self.shape or len(self.shape) > 8 or min(self.shape) < 1 or prod(self.shape) > MAX_ROW:
            raise DataError(
                f"one row has shape {list(self.shape)}",
                allowed=f"1 to 8 sizes >= 1, {MAX_ROW} numbers in all",
            )
        if self.features and self.shape != (len(self.features),):
            raise DataError(
                f"there are {len(self.features)} feature names for rows of shape {list(self.shape)}"
            )
        require_unique(self.features, "feature")
        require_unique(self.classes or (), "class")
        if self.classes is not None and len(self.classes) < 2:
            raise DataError(f"there are {len(self.classes)} classes", allowed="two or more; none for values")
        if self.columns is not None:
            _check_agreed(self.columns)
            if (self.columns.names, self.columns.classes or None) != (self.features, self.classes):
                raise DataError("the columns of the table and the encoded features or classes differ")

    @classmethod
    def of(cls, dataset: Dataset, columns: Columns | None, dtype: Literal["float32", "float64"]) -> Schema:
        """The schema of rows that were read, with the columns as agreed on while reading a table."""
        shape = tuple(int(size) for size in dataset.x.shape[1:])
        columns = None if columns is None else replace(columns, groups="")
        return cls(shape, dataset.features, dataset.classes, dtype, columns)

    @classmethod
    def table(cls, columns: Columns, dtype: Literal["float32", "float64"]) -> Schema:
        """The schema of a table whose features, levels and classes are all given.

        Raises:
            DataError: something is left to be found in the data.
        """
        _check_agreed(columns)
        names = columns.names
        return cls((len(names),), names, columns.classes or None, dtype, replace(columns, groups=""))

    def to_json(self) -> str:
        """Compact JSON, the same for equal schemas."""
        return _adapter().dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> Schema:
        """The inverse of `to_json`, for text from anywhere.

        Raises:
            DataError: it is not JSON, or not a schema.
        """
        try:
            return _adapter().validate_json(text, strict=True)
        except (ValueError, RecursionError) as error:
            raise DataError(
                "the schema cannot be read", allowed="what Schema.to_json writes", remedy="Fetch it again"
            ) from error

    def read(self, source: str | Path, *, seed: int = 0) -> tuple[Array, Array]:
        """One owner's own rows, encoded.

        Args:
            source: a `.csv` or `.parquet` table, a `.npz` archive with `x` and `y` (and `classes`, the names of its class numbers), or a source
                such as `sklearn:digits`.
            seed: of generated rows.

        Returns:
            `[N, *shape]` features of `dtype`, and `[N]` int64 class numbers or float64 values.

        Raises:
            DataError: the rows cannot be read or do not fit; it says what the schema allows and how many rows do not.
        """
        source = str(source)
        suffix = Path(source).suffix.lower()
        if suffix in TABLES:
            if self.columns is None:
                raise DataError(
                    f"{Path(source).name} is a table, and this federation's rows are arrays of shape {list(self.shape)}",
                    allowed="a .npz archive with x and y",
                )
            dataset = read_site(source, self.columns)
        elif suffix == ".npz":
            arrays = read_archive(source)
            names = [str(name) for name in arrays["classes"]] if "classes" in arrays else None
            dataset = self._dataset(arrays["x"], arrays["y"], names)
        else:
            read = load(source, seed=seed)
            if self.classes is None and read.classes is not None:
                raise DataError(
                    f"{source} holds classes", allowed="values, as this federation predicts values"
                )
            dataset = self._dataset(read.x, read.y, read.classes)
        return (dataset.in_float32() if self.dtype == "float32" else dataset).x, dataset.y

    def _dataset(self, x: Array, y: Array, names: Sequence[str] | None) -> Dataset:
        if x.dtype.kind not in "fiub" or x.shape[1:] != self.shape:
            raise DataError(
                f"the rows have shape {list(x.shape[1:])} and type {x.dtype}",
                allowed=f"numbers of shape {list(self.shape)}",
            )
        x = x if x.dtype == np.float32 else x.astype(np.float64)
        return Dataset(x, self._targets(y, names), self.features, self.classes)

    def _targets(self, y: Array, names: Sequence[str] | None) -> Array:
        """Values as they are; classes by their agreed numbers, from names, or from numbers that index `names`."""
        if self.classes is None:
            if y.dtype.kind not in "fiu":
                raise DataError(
                    "the targets are not numbers", allowed="numbers, as this federation predicts values"
                )
            return y.astype(np.float64)
        if names is None and y.dtype.kind in "iu" and not all(map(_whole, self.classes)):
            names = self.classes
        codes = y
        if names is None:
            if y.dtype.kind == "f":
                raise DataError("the targets are values", allowed=_classes(self.classes))
            names, codes = factorise(y)
        elif y.dtype.kind not in "iu" or (len(y) and not (int(y.min()) >= 0 and int(y.max()) < len(names))):
            raise DataError("a target is no class number", allowed=f"integers from 0 to {len(names) - 1}")
        place = {name: number for number, name in enumerate(self.classes)}
        numbers = np.array([place.get(name, -1) for name in names], np.int64)[codes]
        if (numbers < 0).any():
            raise DataError(
                f"the target is another class in {int((numbers < 0).sum())} of {len(y)} rows",
                allowed=_classes(self.classes),
            )
        return numbers


def _check_agreed(columns: Columns) -> None:
    """Refuse columns that leave something to be found in the data."""
    require_unique(columns.features, "feature")
    open_ends = [
        *(["features"] if not columns.features else []),
        *(["classes"] if columns.task == "classification" and not columns.classes else []),
        *(f"levels of {name!r}" for name, levels in columns.categorical.items() if not levels),
    ]
    if open_ends:
        raise DataError(f"not all columns are agreed: {', '.join(open_ends)}", allowed="every name and level")
    if columns.task == "regression" and columns.classes:
        raise DataError("a regression predicts values, and classes are given", allowed="no classes")
    for name, levels in columns.categorical.items():
        if name not in columns.features:
            raise DataError(f"categorical column {name!r} is no feature", allowed=", ".join(columns.features))
        require_unique(levels, f"column {name!r}: level")


def _classes(classes: Sequence[str]) -> str:
    shown = ", ".join(map(repr, classes[:20]))
    return shown if len(classes) <= 20 else f"{shown} and {len(classes) - 20} more"


def _whole(name: str) -> bool:
    return name.removeprefix("-").isdecimal()


@cache
def _adapter() -> TypeAdapter[Schema]:
    return TypeAdapter(Schema)
