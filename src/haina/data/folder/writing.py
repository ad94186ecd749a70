"""Write a folder of clients (`haina.data.folder`) from arrays, or client by client where the rows are larger than memory.

A folder appears whole or not at all: it is written beside its place, and renamed when all of it is there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from haina.artifact import Array
from haina.data.dataset import require_unique
from haina.data.federated import Rows
from haina.data.folder.reading import check_alike, check_rows, extent, numbered_classes
from haina.errors import DataError

#: Rows written in one piece.
_BLOCK = 1 << 16


def write(
    folder: str | Path,
    x: Array,
    y: Array,
    sizes: Sequence[int] | Array,
    *,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    test: Rows | None = None,
    held: Rows | None = None,
) -> None:
    """Write a folder from arrays.

    Args:
        folder: to be made.
        x: `[N, ...]` features, the rows of each client together.
        y: `[N]` class numbers from 0 (integers) or values (floats).
        sizes: rows of each client, in order; they sum to N.
        classes: names of the classes; 0 to the largest number if not given.
        names: names of the clients; client-000 and so on if not given.
        test: features and targets that no client has.
        held: features and targets that the server holds.

    Raises:
        DataError: the folder is there already or cannot be written, arrays do not fit each other, or a number is not finite.
    """
    counts = np.asarray(sizes, dtype=np.int64)
    if not len(counts) or counts.min() < 0 or counts.sum() != len(y):
        raise DataError(
            f"{len(counts)} clients have {counts.sum()} of {len(y)} rows",
            allowed="sizes >= 0 that sum to the number of rows",
        )
    _write(Path(folder), _blocks(x, y, "rows"), counts, classes, names, test, held)


def stream(
    folder: str | Path,
    clients: Iterable[Rows],
    *,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    test: Rows | None = None,
    held: Rows | None = None,
) -> None:
    """Write a folder client by client, with one of them in memory at a time.

    Args:
        folder: to be made.
        clients: features and targets of each client; types and shapes of all are those of the first.
        classes, names, test, held: as for `write`.

    Raises:
        DataError: as for `write`.
    """
    _write(Path(folder), clients, None, classes, names, test, held)


def _write(
    folder: Path,
    pieces: Iterable[Rows],
    sizes: Array | None,
    classes: Sequence[str] | None,
    names: Sequence[str] | None,
    test: Rows | None,
    held: Rows | None,
) -> None:
    """Rows in pieces, and how many of them each client has; a piece for each client if that is not given."""
    with _beside(folder) as beside:
        with _Growing(beside, "", None) as rows:
            lengths = [rows.append(x, y) for x, y in pieces]
        like, least, most = rows.like, rows.least, rows.most
        if like is None:
            raise DataError("there are no clients", allowed="one client at least")
        for name, aside in (("test_", test), ("held_", held)):
            if aside is not None:
                with _Growing(beside, name, like) as rows:
                    for x, y in _blocks(*aside, f"{name}rows"):
                        rows.append(x, y)
                least, most = min(least, rows.least), max(most, rows.most)
        if like[1].dtype.kind == "f":
            if classes is not None:
                raise DataError("classes are named, and the targets are values", allowed="integers in y")
        else:
            found = numbered_classes(least, most, "y")
            if classes is not None and len(classes) < len(found):
                raise DataError(
                    f"{len(classes)} classes are named, and class numbers run to {most}",
                    allowed=f"{len(found)} names or more",
                )
            _save_names(beside / "classes.json", found if classes is None else classes)
        offsets = np.concatenate([[0], np.cumsum(lengths if sizes is None else sizes, dtype=np.int64)])
        if names is not None:
            if len(names) != len(offsets) - 1:
                raise DataError(f"there are {len(names)} names for {len(offsets) - 1} clients")
            _save_names(beside / "names.json", names)
        np.save(beside / "offsets.npy", offsets, allow_pickle=False)


class _Growing:
    """The two files of rows of one kind, which grow together; how many rows they hold is written into their heads last.

    Args:
        folder: where they are.
        prefix: of their names.
        like: no rows, of the type and shape that all must have; None for those of the first.
    """

    def __init__(self, folder: Path, prefix: str, like: Rows | None) -> None:
        self._files = [(folder / f"{prefix}{name}.npy").open("wb") for name in ("x", "y")]
        self._where, self._count, self._headed = f"{prefix}rows", 0, False
        self.like, self.least, self.most = like, 0, -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # After an error the folder is dropped, whole or not.
            if self.like is not None and error is None:
                self._head()
                for file in self._files:
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as failed:
            raise DataError(f"{self._where} cannot be written: {failed.strerror}") from failed
        finally:
            for file in self._files:
                with suppress(OSError):
                    file.close()

    def append(self, x: Array, y: Array) -> int:
        """Add rows; how many."""
        x, y = (np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("=")) for a in map(np.asarray, (x, y)))
        where = f"{self._where} from {self._count}"
        check_rows(x, y, where)
        if self.like is None:
            self.like = x[:0], y[:0]
        check_alike(self.like, (x, y), where)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise DataError(f"{where}: a number is not finite", allowed="finite numbers")
        if y.dtype.kind != "f":
            least, most = extent(y)
            self.least, self.most = min(self.least, least), max(self.most, most)
        if not self._headed:
            self._head()
        try:
            for file, array in zip(self._files, (x, y), strict=True):
                file.write(array.data)
        except OSError as error:
            raise DataError(f"{where}: they cannot be written: {error.strerror}") from error
        self._count += len(y)
        return len(y)

    def _head(self) -> None:
        assert self.like is not None
        for file, like in zip(self._files, self.like, strict=True):
            file.seek(0)
            shape = (self._count, *like.shape[1:])
            # A head is as long for any number of rows (numpy leaves room for 21 digits), so it can be written again.
            np.lib.format.write_array_header_1_0(
                file, {"descr": like.dtype.str, "fortran_order": False, "shape": shape}
            )
        self._headed = True


def _blocks(x: Array, y: Array, where: str) -> Iterator[Rows]:
    """The rows by pieces; one piece at least."""
    check_rows(x, y, where)
    for start in range(0, max(1, len(y)), _BLOCK):
        yield x[start : start + _BLOCK], y[start : start + _BLOCK]


def _save_names(path: Path, names: Sequence[str]) -> None:
    require_unique(names, path.stem)
    path.write_text(json.dumps(list(names)), encoding="utf-8")


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes its place when nothing went wrong."""
    beside = folder.with_name(f"{folder.name}.part")
    if folder.exists():
        raise DataError(f"{folder} is there already", remedy="Remove it, or name another folder")
    try:
        beside.mkdir(parents=True)
    except FileExistsError as error:
        raise DataError(
            f"{beside} is there already: somebody is writing it, or was broken off",
            remedy="Remove it if nobody is",
        ) from error
    except OSError as error:
        raise DataError(f"{beside} cannot be made: {error.strerror}") from error
    try:
        yield beside
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
