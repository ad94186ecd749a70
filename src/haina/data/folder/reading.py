"""Map a folder of clients (`haina.data.folder`): everything that can be wrong with it is found, except in rows that nobody has asked for yet.

Numbers that are not finite are found by whoever writes the folder. Here that would cost reading it.
"""

from __future__ import annotations

import json
from mmap import mmap
from pathlib import Path
from tokenize import TokenError

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from haina.artifact import Array
from haina.data.dataset import require_unique
from haina.data.federated import Federated, Rows
from haina.data.names import Numbered
from haina.errors import DataError
from haina.shards import Shards

#: Every file that a folder may hold, in the order of the digest.
FILES = (
    *("offsets.npy", "x.npy", "y.npy", "test_x.npy", "test_y.npy", "held_x.npy", "held_y.npy"),
    *("classes.json", "names.json"),
)

#: Classes that numbers alone can make; more is a column of identifiers taken for labels.
MAX_CLASSES = 1 << 20

#: Bytes of a name in a list of names, at most.
_NAME = 1 << 10

#: What NumPy raises on heads that are none.
_DAMAGE = (ValueError, TypeError, OverflowError, MemoryError, SyntaxError, TokenError, OSError)

#: Targets looked at in one piece.
_BLOCK = 1 << 20


def read(folder: str | Path) -> Federated:
    """Map a folder.

    That costs as much as a look at `offsets.npy`, at `names.json` if there is one, and at `y.npy` where there is no `classes.json`.

    Raises:
        DataError: a file is missing, damaged, pickled or too short, or files contradict each other.
    """
    folder = Path(folder)
    x, y = _rows(folder, "")
    offsets = _offsets(folder / "offsets.npy", len(y))
    aside: dict[str, Rows] = {}
    for name in ("test", "held"):
        there = (folder / f"{name}_x.npy").exists() or (folder / f"{name}_y.npy").exists()
        aside[name] = _plain(*(_rows(folder, f"{name}_") if there else (x[:0], y[:0])))
        check_alike((x, y), aside[name], f"{folder / name}_x.npy and {name}_y.npy")
    maps: tuple[object, ...] = (x.base, y.base)
    count = len(offsets) - 1
    names = _strings(folder / "names.json", count)
    if names is not None and len(names) != count:
        raise DataError(
            f"{folder / 'names.json'} holds {len(names)} names for {count} clients",
            allowed="a name for each client",
        )
    return Federated(
        Shards(Numbered(count) if names is None else names, *_plain(x, y), sliding_window_view(offsets, 2)),
        aside["test"],
        aside["held"],
        tuple(f"x{j}" for j in range(x.shape[1])) if x.ndim == 2 else (),
        _classes(folder, y),
        tuple(path for name in FILES if (path := folder / name).exists()),
        tuple(pages for pages in maps if isinstance(pages, mmap)),
    )


def _plain(x: Array, y: Array) -> Rows:
    """The same as plain arrays: a slice of a `numpy.memmap` costs ten times as much."""
    return np.asarray(x), np.asarray(y)


def check_rows(x: Array, y: Array, where: str) -> None:
    """Refuse rows that a folder cannot hold; their numbers are not looked at.

    Raises:
        DataError: types or shapes do not fit.
    """
    if x.dtype.kind not in "fiub" or y.dtype.kind not in "fiu" or max(x.itemsize, y.itemsize) > 8:
        raise DataError(
            f"{where}: features and targets have types {x.dtype} and {y.dtype}",
            allowed="numbers of up to 8 bytes; targets are class numbers (integers) or values (floats)",
            remedy="Number the classes from 0 and keep their names in classes.json",
        )
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
        raise DataError(
            f"{where}: features and targets have shapes {list(x.shape)} and {list(y.shape)}",
            allowed="[N, ...] and [N]",
            remedy="Give rows of one number the shape [N, 1]",
        )


def check_alike(some: Rows, others: Rows, where: str) -> None:
    """Refuse rows of another type or shape than the clients'.

    Raises:
        DataError: saying both.
    """
    kinds = [" and ".join(f"{a.dtype} {list(a.shape[1:])}" for a in rows) for rows in (some, others)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"{where}: a row and its target are {kinds[1]}", allowed=f"{kinds[0]}, as the first client's"
        )


def _rows(folder: Path, prefix: str) -> Rows:
    paths = [folder / f"{prefix}{name}.npy" for name in ("x", "y")]
    x, y = map(_mapped, paths)
    check_rows(x, y, f"{paths[0]} and {paths[1].name}")
    return x, y


def _mapped(path: Path) -> Array:
    try:
        # Pickles are refused here whatever they hold: objects cannot be mapped.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(
            f"{path} is not there",
            allowed="a folder with x.npy, y.npy and offsets.npy",
            remedy="Write it with haina.data.folder.write, or check the path",
        ) from error
    except _DAMAGE as error:
        raise DataError(
            f"{path} cannot be mapped: {error}", allowed="a whole .npy file of plain numbers"
        ) from error
    if not mapped.flags.c_contiguous or not mapped.dtype.isnative:
        raise DataError(
            f"{path} is in the order of columns, or of bytes, of another machine",
            allowed="rows one after another, in this machine's order of bytes",
            remedy="Write it anew from numpy.ascontiguousarray",
        )
    return mapped


def _offsets(path: Path, rows: int) -> NDArray[np.int64]:
    offsets = np.asarray(_mapped(path))
    if offsets.dtype != np.int64 or offsets.ndim != 1 or len(offsets) < 2:
        raise DataError(
            f"{path} has type {offsets.dtype} and shape {list(offsets.shape)}",
            allowed="int64 [clients + 1], of one client at least",
        )
    # Rows that belong to nobody are most often a last client that was forgotten.
    if offsets[0] != 0 or offsets[-1] != rows or (offsets[1:] < offsets[:-1]).any():
        raise DataError(
            f"{path} runs from {offsets[0]} to {offsets[-1]}, for {rows} rows",
            allowed=f"row numbers that begin with 0, end with {rows} and never go down",
        )
    return offsets


def _classes(folder: Path, y: Array) -> tuple[str, ...] | None:
    path = folder / "classes.json"
    names = _strings(path, MAX_CLASSES)
    if y.dtype.kind == "f":
        if names is not None:
            raise DataError(f"{path} names classes, and y.npy holds values", allowed="integers in y.npy")
        return None
    if names is not None:
        if len(names) < 2:
            raise DataError(f"{path} names {len(names)} classes", allowed="two classes or more")
        return names
    # A map of its own, so that the pages that are looked at are given back.
    least, most = extent(_mapped(folder / "y.npy"))
    return numbered_classes(least, most, f"{folder / 'y.npy'}")


def extent(y: Array) -> tuple[int, int]:
    """The least and the largest of `[N]` class numbers; 0 and -1 of none."""
    parts = [y[start : start + _BLOCK] for start in range(0, len(y), _BLOCK)]
    return min((int(p.min()) for p in parts), default=0), max((int(p.max()) for p in parts), default=-1)


def numbered_classes(least: int, most: int, where: str) -> tuple[str, ...]:
    """Names of classes that have numbers only: 0 to the largest.

    Raises:
        DataError: the numbers are none of classes.
    """
    if least < 0 or not 1 <= most < MAX_CLASSES:
        raise DataError(
            f"{where}: class numbers run from {least} to {most}",
            allowed=f"integers from 0, two classes or more, {MAX_CLASSES} at most",
        )
    return tuple(str(number) for number in range(most + 1))


def _strings(path: Path, most: int) -> tuple[str, ...] | None:
    """A list of distinct names in a file, or None where there is none."""
    try:
        if path.stat().st_size > _NAME * (most + 1):
            raise DataError(f"{path} is too large", allowed=f"{most} names of up to {_NAME} bytes")
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError, OSError) as error:
        raise DataError(f"{path} cannot be read", allowed="a JSON list of names") from error
    if not isinstance(found, list) or not all(isinstance(n, str) and n and n.isprintable() for n in found):
        raise DataError(f"{path} holds something else", allowed="a JSON list of names that can be printed")
    require_unique(found, f"{path}:")
    return tuple(found)
