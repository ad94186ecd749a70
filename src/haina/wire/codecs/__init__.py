"""Codecs: how the vector of an update is written as bytes, and read back, whole or by blocks.

    float32   the numbers themselves, little-endian                                       4 d bytes, exact
    bf16      the upper half of each float32, rounded to nearest even                     2 d bytes, 8 significant bits
    int8      one scale for every 4096 numbers (float32), then multiples of it            d + d / 1024 bytes, with error feedback
    topk      the 1 % of largest magnitude: places (uint32, ascending), then float32      0.08 d bytes, with error feedback
    raw       float64 statistics (length d), or a document's bytes as they are (length 0)
    masked    words of a secure sum, 32 bits each; masked64: 64 bits                      4 or 8 bytes a word, which say nothing by themselves

The length of a body follows from codec and d alone, so a coordinator knows it before the first byte. A body is read by parts: nobody needs the
whole float32 vector of a compressed update in memory.

Error feedback (Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019, "Error feedback fixes SignSGD"): what an encoding
loses stays with the node as a residual and is added to its next vector, so that over many rounds the coordinator receives the sum of what was meant.

The trap: a body is a stranger's word. All of it that says where or how large is checked before a number is read, so that it can be refused in words,
but never crash a reader or stand for a vector that nobody meant.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from haina.artifact import Array
from haina.update import BLOCK
from haina.wire.codecs.bf16 import BFloat16
from haina.wire.codecs.coder import GROUP, CodecError, Coder
from haina.wire.codecs.exact import Float32, Raw
from haina.wire.codecs.int8 import Int8
from haina.wire.codecs.masked import WORDS, Masked
from haina.wire.codecs.topk import TopK

__all__ = ["CODECS", "WORDS", "CodecError", "Stored", "blocks", "decode", "encode", "size"]

#: Numbers of a file that are kept in memory while it is read by blocks.
_RESIDENT = 1 << 22

CODECS: dict[str, Coder] = {
    "float32": Float32(),
    "bf16": BFloat16(),
    "int8": Int8(),
    "topk": TopK(),
    "raw": Raw(),
    **{name: Masked(dtype) for name, dtype in WORDS.items()},
}


def size(codec: str, length: int) -> int:
    """Bytes of a body: exactly so many for a vector of `length` numbers; 0 for raw documents (length 0), whose size is free.

    Raises:
        CodecError: an unknown codec.
    """
    return _coder(codec).size(length)


def encode(codec: str, vector: Array, residual: Array | None = None) -> tuple[Array, Array | None]:
    """Write a vector.

    Args:
        codec: a name in `CODECS`.
        vector: `[d]` floating-point numbers, d >= 1; for raw also uint8.
        residual: `[d]` float32 that earlier bodies left out; any codec sends it along, so that a node may change codecs.

    Returns:
        The body, a contiguous `[size]` array of uint8 (of float32: a view of the vector), and the next residual `[d]`, None where nothing is
        fed back.

    Raises:
        CodecError: an unknown codec, an empty vector, a residual of another length, or numbers that are not finite (bf16, int8, topk).
    """
    if vector.ndim != 1 or not len(vector) or (residual is not None and residual.shape != vector.shape):
        shape = "" if residual is None else f" with a residual {residual.shape}"
        raise CodecError(f"the vector has shape {vector.shape}{shape}", allowed="(d,) for both, d >= 1")
    # A sum that overflows is found by whoever looks for numbers that are not finite.
    with np.errstate(over="ignore", invalid="ignore"):
        return _coder(codec).encode(vector, residual)


def decode(codec: str, body: Any, length: int) -> Array:
    """Read a whole vector.

    Args:
        codec: a name in `CODECS`.
        body: a file (memory-mapped), or anything with a buffer.
        length: d; 0 for a raw document.

    Returns:
        `[d]` float32; float64 or uint8 for raw. Of float32 and raw: a read-only view of the body, so that a file stays on disk.

    Raises:
        CodecError: an unknown codec, a body of the wrong length, or bytes that are no such vector.
    """
    data, count = _checked(codec, _mapped(body) if isinstance(body, Path) else body, length)
    return _coder(codec).part(data, 0, count, length)


def blocks(codec: str, body: Any, length: int, width: int = BLOCK) -> Iterator[tuple[slice, Array]]:
    """Read a vector as `(columns, numbers)`, at most `width` (a multiple of `GROUP`) at a time; arguments and errors as of `decode`.

    Of a file, no more than `_RESIDENT` numbers are in this process's memory at a time, however long it is.
    """
    assert width % GROUP == 0, width
    file = _mapped(body) if isinstance(body, Path) else None
    data, count = _checked(codec, body if file is None else file, length)
    coder = _coder(codec)
    for start in range(0, count, width):
        stop = min(start + width, count)
        yield slice(start, stop), coder.part(data, start, stop, length)
        if file is not None and start // _RESIDENT != stop // _RESIDENT:
            # The pages stay in the system's cache; a block that is still in use is mapped again when it is read.
            file.madvise(mmap.MADV_DONTNEED)


class Stored:
    """A vector in a file (`haina.exact.Stored`): parts are read when they are asked for, and not kept.

    The file is opened with the first part. Its content was checked when it came (`blocks`), so of a part only what lies there counts.

    Args:
        codec: a name in `CODECS`.
        path: the file.
        length: d, >= 1.
    """

    def __init__(self, codec: str, path: Path, length: int) -> None:
        self._codec, self._path, self.shape = codec, path, (length,)
        self.dtype: np.dtype[Any] = WORDS.get(codec, np.dtype("<f8" if codec == "raw" else "<f4"))
        self._last = slice(0, 0)

    def __getitem__(self, columns: slice) -> Array:
        """Numbers `[start, stop)`, start a multiple of `GROUP`; good until the next part is read.

        Raises:
            CodecError: the file is no such vector.
            OSError: it cannot be read.
        """
        self._let_go()
        self._last = columns
        return _coder(self._codec).part(self._data, columns.start, columns.stop, self.shape[0])

    def _let_go(self) -> None:
        """Pages of the last part stay in the system's cache, and are no longer this process's. Where they lie follows from its share of numbers."""
        length, size = self.shape[0], len(self._file)
        start = self._last.start * size // length // mmap.PAGESIZE * mmap.PAGESIZE
        stop = -(-self._last.stop * size // length)
        if start < stop:
            self._file.madvise(mmap.MADV_DONTNEED, start, stop - start)

    @cached_property
    def _file(self) -> Any:
        return _mapped(self._path)

    @cached_property
    def _data(self) -> Array:
        return _checked(self._codec, self._file, self.shape[0])[0]


def _coder(codec: str) -> Coder:
    try:
        return CODECS[codec]
    except KeyError:
        raise CodecError(f"there is no codec {codec!r}", allowed=", ".join(CODECS)) from None


def _checked(codec: str, body: Any, length: int) -> tuple[Array, int]:
    """The body as bytes, and how many numbers it holds."""
    coder, free = _coder(codec), codec == "raw" and length == 0
    if length < 0 or (length == 0 and not free):
        raise CodecError(f"the vector has length {length}", allowed="at least 1 number")
    there = memoryview(body).nbytes
    if not there or (not free and there != coder.size(length)):
        allowed = "at least 1 byte" if free else f"{coder.size(length)} bytes for {length} numbers as {codec}"
        raise CodecError(f"the body has {there} bytes", allowed=allowed)
    data: Array = np.frombuffer(body, np.uint8)
    coder.check(data, length)
    return data, there if free else length


def _mapped(path: Path) -> Any:
    """A file as a buffer, unread. An empty file cannot be mapped, and is no vector either."""
    with path.open("rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            return b""
