"""Table files, read without surprises: what a reader would mend in silence is refused here.

The traps, all of them pandas' defaults: a repeated column is renamed, a row with one field more than the header turns the first column into an
index and moves every value one column on, and a nameless column of row numbers gets a name.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from haina.data.dataset import require_unique
from haina.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read_frame(path: Path) -> pd.DataFrame:
    """A Parquet file (by its suffix), or else a CSV file with a header line, in UTF-8.

    Raises:
        DataError: the file is missing, empty, damaged, not UTF-8, has no rows, or names a column twice.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise DataError(
            "tables need pandas and pyarrow", remedy="Install them: pip install 'haina[tables]'"
        ) from error
    if not path.is_file():
        raise DataError(f"{path} is not there", allowed="a readable file", remedy="Check the path")
    if not path.stat().st_size:
        raise DataError(f"{path} is empty", allowed="a header and at least one row")
    try:
        if path.suffix.lower() == ".parquet":
            from pyarrow.parquet import read_schema

            require_unique(read_schema(path).names, f"{path}: column")
            frame = pd.read_parquet(path, engine="pyarrow")
        else:
            header, first = _records(path)
            require_unique(header, f"{path}: column")
            if len(first) > len(header):
                raise DataError(
                    f"{path}: the first row has {len(first)} fields, the header {len(header)}",
                    remedy="Name every column",
                )
            frame = pd.read_csv(path, low_memory=False)
            frame.columns = pd.Index(header)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 text (byte {error.start})", remedy="Save it again with UTF-8 encoding"
        ) from error
    except (ValueError, OSError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}", allowed="a CSV or Parquet table") from error
    if not len(frame):
        raise DataError(f"{path} has a header but no rows", allowed="at least one row")
    return frame


def _records(path: Path) -> tuple[list[str], list[str]]:
    """The header and the first row, as they stand in the file."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        records = (record for record in csv.reader(file) if record)
        return next(records, []), next(records, [])
