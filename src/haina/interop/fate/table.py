"""Rows for FATE: a CSV file `id,y,x0,x1,...` with 17 digits, and what FATE needs to know to take it up.

Seventeen digits are what every double survives; fifteen, the default of many writers, lose the last bits of nine doubles in ten. The R package writes
the same bytes (`fate_export`).

The traps: FATE cuts lines at commas and knows no quotes, so names and identifiers must have neither, and columns are called x0, x1, ... (their
names are kept beside). HomoLR takes outcomes 0 and 1 only. Rows are read and written one by one, so a file may be larger than memory.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haina.data.dataset import require_unique
from haina.errors import DataError
from haina.interop.fate.job import Table


@dataclass(frozen=True)
class Written:
    """What was written.

    Args:
        rows: how many.
        columns: names of x0, x1, ... at home.
    """

    rows: int
    columns: tuple[str, ...]


def export(
    source: Path,
    target: Path,
    label: str,
    *,
    id: str | None = None,
    features: Sequence[str] = (),
    first: int = 0,
) -> Written:
    """Write a site's CSV file as FATE wants it.

    Args:
        source: CSV with a header line, in UTF-8.
        target: where to write; overwritten.
        label: column of outcomes, 0 or 1.
        id: column of identifiers; None to count rows.
        features: columns of numbers, in order; all others where none are named.
        first: number of the first row, where rows are counted.

    Raises:
        DataError: the file or a column is not there, or a cell cannot be used. It says where and not what, for a cell may be a person.
    """
    if not source.is_file():
        raise DataError(f"{source} is not there", allowed="a readable CSV file", remedy="Check the path")
    draft = target.with_name(f".{target.name}.part")
    try:
        with source.open(encoding="utf-8-sig", newline="") as read:
            lines = (record for record in csv.reader(read, strict=True) if record)
            header = next(lines, [])
            columns = _columns(source, header, label, id, features)
            with draft.open("w", encoding="utf-8", newline="") as write:
                write.write(",".join(["id", "y", *(f"x{i}" for i in range(len(columns)))]) + "\n")
                rows = 0
                for line in _lines(source, lines, header, label, id, columns, first):
                    write.write(line)
                    rows += 1
        if not rows:
            raise DataError(f"{source} has no rows", allowed="a header and at least one row")
        draft.replace(target)
    except UnicodeDecodeError as error:
        raise DataError(f"{source} is not UTF-8 text", remedy="Save it again with UTF-8 encoding") from error
    except csv.Error as error:
        raise DataError(f"{source} is not CSV: {error}", remedy="Mend it, or save it again") from error
    finally:
        draft.unlink(missing_ok=True)
    return Written(rows, columns)


def upload_v1(file: str, table: Table, *, partitions: int = 4) -> dict[str, Any]:
    """What `flow data upload -c` of FATE 1.x takes. (`work_mode` of old versions is gone since 1.8.)"""
    return {
        "file": file,
        "table_name": table.name,
        "namespace": table.namespace,
        "head": 1,
        "partition": partitions,
    }


def upload_v2(file: str, table: Table, *, partitions: int = 4) -> dict[str, Any]:
    """What `/v2/data/component/upload` of FATE Flow 2.x takes; `file` is a path on FATE's machine."""
    return {
        "file": file,
        "head": True,
        "partitions": partitions,
        "extend_sid": True,
        "meta": {
            "delimiter": ",",
            "dtype": "float64",
            "label_type": "int64",
            "label_name": "y",
            "match_id_name": "id",
        },
        "namespace": table.namespace,
        "name": table.name,
    }


def _columns(
    source: Path, header: Sequence[str], label: str, id: str | None, features: Sequence[str]
) -> tuple[str, ...]:
    if not header:
        raise DataError(f"{source} is empty", allowed="a header and at least one row")
    require_unique(header, f"{source}: column")
    columns = tuple(features) or tuple(name for name in header if name not in (label, id))
    for name in (label, *([] if id is None else [id]), *columns):
        if name not in header:
            raise DataError(f"{source} has no column {name!r}", allowed=", ".join(header))
    require_unique(columns, "feature")
    taken = [name for name in columns if name in (label, id)]
    if taken or len(columns) < 2:
        raise DataError(
            f"column {taken[0]!r} is a feature and label or identifier too"
            if taken
            else f"{len(columns)} columns are left as features",
            allowed="at least two columns of numbers: HomoLR refuses fewer",
        )
    return columns


def _lines(
    source: Path,
    records: Iterator[list[str]],
    header: Sequence[str],
    label: str,
    id: str | None,
    columns: Sequence[str],
    first: int,
) -> Iterator[str]:
    places = [header.index(name) for name in columns]
    outcome, name = header.index(label), None if id is None else header.index(id)
    for row, record in enumerate(records):
        if len(record) != len(header):
            raise DataError(
                f"{source}: data row {row + 1} has {len(record)} fields, the header {len(header)}",
                remedy="Mend the row",
            )
        key = str(first + row) if name is None else record[name].strip()
        if not key or any(letter in key for letter in ",\"'\r\n"):
            raise DataError(
                f"{source}: the identifier in data row {row + 1} cannot be written for FATE",
                allowed="text without commas and quotes",
            )
        y = _number(source, row, label, record[outcome])
        if y not in (0.0, 1.0):
            raise DataError(
                f"{source}: column {label!r} is neither 0 nor 1 in data row {row + 1}",
                allowed="0 or 1 (HomoLR is logistic regression)",
            )
        cells = (_number(source, row, column, record[i]) for column, i in zip(columns, places, strict=True))
        yield ",".join([key, f"{y:.0f}", *(f"{cell:.17g}" for cell in cells)]) + "\n"


def _number(source: Path, row: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{source}: column {column!r} holds no finite number in data row {row + 1}",
            allowed="numbers",
            remedy="Fill gaps and code text as numbers first, or leave the column out (--feature)",
        )
    return value
