"""Digests of data, so that a run is never continued on other rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from haina.artifact import Array

#: Bytes of a block of a file, and how many blocks stand for a file that is larger than all of them.
BLOCK, BLOCKS = 1 << 20, 64


def of_arrays(names: Sequence[str], arrays: Iterable[Array]) -> str:
    """SHA-256 of names and of every byte of the arrays."""
    digest = hashlib.sha256(json.dumps(list(names)).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def of_files(paths: Iterable[Path]) -> str:
    """SHA-256 of names, sizes and contents of files; of a file beyond 64 MB, of 64 evenly spaced blocks of 1 MB, the first and the last among them.

    A change between the blocks of a large file that keeps its size goes unseen: the price of a start that does not read everything.
    """
    digest = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        digest.update(json.dumps([path.name, size]).encode())
        most = min(BLOCKS, -(-size // BLOCK))
        with path.open("rb") as file:
            for k in range(most):
                file.seek(k * max(0, size - BLOCK) // max(1, most - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()
