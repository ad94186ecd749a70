"""Tables: the columns of CSV and Parquet files, of one owner or of many sites, into a Dataset.

Many sites must give columns of one meaning: the same features in the same order, the same one-hot levels, the same class numbers. So tables
are read first, levels agreed over all of them, and each is then encoded alike. The trap: a node that reads its own table alone cannot know
the levels of others, so there levels and classes are given and never found (`read_site`), and what does not fit is counted and never shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from haina.artifact import Array
from haina.data.dataset import Dataset, factorise, in_order, recode
from haina.data.files import read_frame
from haina.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Columns:
    """What the columns of a table mean.

    Args:
        target: the column to predict.
        task: `classification` makes the target's distinct values classes, `regression` takes it as numbers.
        features: the columns to predict from, in order; empty for all others.
        groups: the column of the natural key; empty for none.
        categorical: feature -> its agreed levels, one-hot encoded in that order; no levels means all that are found in the tables read.
        classes: the agreed class names in order; empty means all that are found.
        missing: `refuse` stops at a missing value; `drop` leaves its row out and counts it.
    """

    target: str
    task: Literal["classification", "regression"] = "classification"
    features: tuple[str, ...] = ()
    groups: str = ""
    categorical: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    missing: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self) -> None:
        for name, allowed in (("task", ("classification", "regression")), ("missing", ("refuse", "drop"))):
            if getattr(self, name) not in allowed:
                raise DataError(f"{name} is {getattr(self, name)!r}", allowed=" or ".join(allowed))
        for column in (self.target, self.groups):
            if column in self.features:
                raise DataError(f"column {column!r} is target or groups and a feature as well")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the encoded columns: a feature's own, or `feature=level` for each level of a categorical one; features must be listed."""
        return tuple(
            name
            for column in self.features
            for name in (
                [f"{column}={level}" for level in self.categorical[column]]
                if column in self.categorical
                else [column]
            )
        )


def read_table(path: str | Path, columns: Columns) -> Dataset:
    """One CSV or Parquet file.

    Raises:
        DataError: the file is missing, empty, damaged, not UTF-8 or names a column twice; a column is absent, empty or not numeric; a value is
            missing (unless dropped) or outside the agreed levels.
    """
    return agree_table(path, columns)[0]


def agree_table(path: str | Path, columns: Columns) -> tuple[Dataset, Columns]:
    """As `read_table`, and the columns with all that was found in the file: features, levels and classes."""
    return _encode({str(path): read_frame(Path(path))}, columns)


def read_sites(sites: Mapping[str, str | Path], columns: Columns) -> Dataset:
    """One file for each site; the natural key `site` is the site's name.

    Args:
        sites: name of a site -> its file.
        columns: what the columns mean, at every site; `groups` is not used.

    Raises:
        DataError: as for `read_table`, or a site has other columns than the first.
    """
    return agree_sites(sites, columns)[0]


def agree_sites(sites: Mapping[str, str | Path], columns: Columns) -> tuple[Dataset, Columns]:
    """As `read_sites`, and the columns with all that was found at the sites together: features, levels and classes."""
    if not sites:
        raise DataError("there are no sites", allowed="at least one name with its file")
    return _encode({site: read_frame(Path(path)) for site, path in sites.items()}, columns, key="site")


def read_site(path: str | Path, columns: Columns) -> Dataset:
    """One owner's own file, encoded as agreed: features, levels and classes are all given in `columns`.

    Raises:
        DataError: as for `read_table`. It names columns, counts rows and says what is agreed; it shows no cell, for a level may be a person.
    """
    where, frame = Path(path).name, read_frame(Path(path))
    wanted = [*columns.features, columns.target]
    absent = [name for name in wanted if name not in frame.columns]
    if absent:
        raise DataError(
            f"{where} lacks {len(absent)} of the agreed columns: {', '.join(map(repr, absent))}",
            allowed=", ".join(wanted),
            remedy="Name the columns in the first line as the federation does",
        )
    levels = dict(columns.categorical)
    if columns.task == "classification":
        levels[columns.target] = columns.classes
    for column in wanted:
        cells = frame[column].dropna()
        odd = _strangers(cells, levels[column]) if column in levels else _texts(cells)
        if odd:
            raise DataError(
                f"{where}: column {column!r} holds something else in {odd} of {len(frame)} rows",
                allowed=", ".join(map(repr, levels[column])) if column in levels else "numbers",
                remedy="Mend these rows, leave them out, or have the federation agree on more levels",
            )
    return _encode({where: frame}, replace(columns, groups=""))[0]


def _strangers(cells: pd.Series, levels: tuple[str, ...]) -> int:
    """How many cells are no level."""
    values = cells.to_numpy()
    fractions = (
        values != np.floor(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=np.bool_)
    )
    names, codes = factorise(values[~fractions])
    known = np.array([name in levels for name in names], dtype=np.bool_)
    return int(fractions.sum() + (~known[codes]).sum())


def _texts(cells: pd.Series) -> int:
    """How many cells are no numbers."""
    import pandas as pd

    return int(pd.to_numeric(cells, errors="coerce").isna().sum())


def _encode(frames: Mapping[str, pd.DataFrame], columns: Columns, key: str = "") -> tuple[Dataset, Columns]:
    features = _features(frames, columns)
    wanted = [columns.target, *features, *([columns.groups] if columns.groups and not key else [])]
    before = sum(map(len, frames.values()))
    frames = {where: _complete(where, frame, wanted, columns.missing) for where, frame in frames.items()}
    dropped = before - sum(map(len, frames.values()))

    levels = dict(columns.categorical)
    if columns.task == "classification":
        levels[columns.target] = columns.classes
    for column, given in levels.items():
        levels[column] = tuple(given) or in_order(
            name for where, frame in frames.items() for name in _factors(where, frame, column)[0]
        )

    x = np.concatenate([_matrix(where, frame, features, levels) for where, frame in frames.items()])
    y = np.concatenate([_target(where, frame, columns.target, levels) for where, frame in frames.items()])
    agreed = replace(
        columns,
        features=tuple(features),
        categorical={column: levels[column] for column in columns.categorical},
        classes=levels.get(columns.target, ()),
    )
    groups = None
    if key:
        groups = np.repeat(np.array(list(frames)), [len(frame) for frame in frames.values()])
    elif columns.groups:
        frame = next(iter(frames.values()))
        texts, codes = _factors(next(iter(frames)), frame, columns.groups)
        groups = np.array(texts)[codes]
    classes = levels.get(columns.target)
    return Dataset(x, y, agreed.names, classes, groups, key or columns.groups, dropped=dropped), agreed


def _features(frames: Mapping[str, pd.DataFrame], columns: Columns) -> list[str]:
    first = [str(name) for name in next(iter(frames.values())).columns]
    taken = {columns.target, columns.groups} - {""}
    features = list(columns.features) or [name for name in first if name not in taken]
    if "" in features:
        raise DataError(
            f"column {first.index('') + 1} has no name and would be taken as a feature",
            remedy="Name it, leave row names out when writing the file, or list the features",
        )
    stray = [name for name in columns.categorical if name not in features]
    if stray or not features:
        raise DataError(
            f"categorical column {stray[0]!r} is no feature" if stray else "no column is left as a feature",
            allowed=", ".join(features) or "columns besides target and groups",
        )
    for where, frame in frames.items():
        present = [str(name) for name in frame.columns]
        for name in (columns.target, columns.groups, *features):
            if name and name not in present:
                raise DataError(f"{where} has no column {name!r}", allowed=", ".join(present))
        more = sorted(set(present) - set(first))
        if more and not columns.features:
            raise DataError(
                f"{where} has columns that {next(iter(frames))} lacks: {', '.join(more)}",
                remedy="List the features, or give every site the same columns",
            )
    return features


def _complete(where: str, frame: pd.DataFrame, wanted: list[str], missing: str) -> pd.DataFrame:
    frame = frame[wanted]
    gaps = frame.isna()
    counts = {str(name): int(count) for name, count in gaps.sum().items() if count}
    for column, count in counts.items():
        if count == len(frame):
            raise DataError(
                f"{where}: column {column!r} is missing in all {count} rows", remedy="Leave the column out"
            )
    if counts and missing == "refuse":
        words = ", ".join(f"{column!r} in {count}" for column, count in counts.items())
        raise DataError(
            f"{where}: values are missing ({words} of {len(frame)} rows)",
            remedy="Fill them, or drop and count such rows with missing = 'drop'",
        )
    if counts:
        frame = frame[~gaps.any(axis=1)]
    if not len(frame):
        raise DataError(f"{where}: every row misses a value", remedy="Leave out columns with many gaps")
    return frame


def _factors(where: str, frame: pd.DataFrame, column: str) -> tuple[list[str], Array]:
    try:
        return factorise(frame[column].to_numpy())
    except DataError as error:
        raise DataError(
            f"{where}: column {column!r}: {error.what}",
            allowed=error.allowed,
            remedy="Numbers are features that are not categorical, or the target of task = 'regression'",
        ) from error


def _numbers(where: str, frame: pd.DataFrame, column: str) -> Array:
    from pandas.api.types import is_numeric_dtype

    if not is_numeric_dtype(frame[column].dtype):
        raise DataError(
            f"{where}: column {column!r} is not numeric (first such value in data row {_first_text(frame[column])})",
            allowed="numbers",
            remedy="List the column as categorical, or leave it out of the features",
        )
    values = frame[column].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise DataError(f"{where}: column {column!r} holds an infinite number", allowed="finite numbers")
    return values


def _matrix(
    where: str, frame: pd.DataFrame, features: list[str], levels: Mapping[str, tuple[str, ...]]
) -> Array:
    pieces: list[Array] = []
    for column in features:
        if column in levels:
            codes = recode(*_factors(where, frame, column), levels[column], f"{where}: column {column!r}")
            pieces.append((codes[:, None] == np.arange(len(levels[column]))).astype(np.float64))
        else:
            pieces.append(_numbers(where, frame, column)[:, None])
    return np.concatenate(pieces, axis=1)


def _target(where: str, frame: pd.DataFrame, column: str, levels: Mapping[str, tuple[str, ...]]) -> Array:
    if column in levels:
        return recode(*_factors(where, frame, column), levels[column], f"{where}: target {column!r}")
    return _numbers(where, frame, column)


def _first_text(column: pd.Series) -> int:
    """Number of the first row, from 1, that is no number; the value itself may be a secret and is not said."""
    import pandas as pd

    return int(pd.to_numeric(column, errors="coerce").isna().to_numpy().argmax()) + 1
