"""What a codec is, and what all of them do with a vector before they write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from haina.artifact import Array
from haina.errors import HainaError
from haina.update import BLOCK

#: Numbers that may share a scale; parts of a body begin at a multiple of it.
GROUP = 4096

F4 = np.dtype("<f4")
U4 = np.dtype("<u4")
#: Bits of the largest float32.
LARGEST = 0x7F7F_FFFF


class CodecError(HainaError):
    """Bytes are not what their codec says, or a vector cannot be written in it."""


class Coder(Protocol):
    """One codec. Bodies are `[size]` arrays of uint8; lengths are those of the vector."""

    def size(self, length: int) -> int:
        """Bytes of the body of a vector of this length."""

    def encode(self, vector: Array, residual: Array | None) -> tuple[Array, Array | None]:
        """`vector + residual` as a body, and what the body leaves out."""

    def check(self, body: Array, length: int) -> None:
        """Raise `CodecError` unless every number can be read; of most codecs, any bits are numbers."""
        return

    def part(self, body: Array, start: int, stop: int, length: int) -> Array:
        """Numbers `[start, stop)` of a checked body, start a multiple of `GROUP`."""


def steps(length: int) -> Iterator[slice]:
    """Slices that fit a cache: whole groups first, then what is left of the last one."""
    whole = length // GROUP * GROUP
    for start in range(0, whole, BLOCK):
        yield slice(start, min(start + BLOCK, whole))
    if whole < length:
        yield slice(whole, length)


def target_of(vector: Array, residual: Array | None, step: slice) -> Array:
    """What is to be said of some numbers: the vector, and what was left out before."""
    numbers = np.ascontiguousarray(vector[step], F4)
    return numbers if residual is None else np.add(numbers, residual[step], dtype=F4)


def not_finite() -> CodecError:
    """A vector that cannot be said in few bits."""
    return CodecError(
        "the vector holds a number that is not finite, or too large to be written",
        remedy="Train with a smaller learning rate",
    )


def magnitude(bits: Array) -> Array:
    """Bits of float32 without their signs; as integers they have the same order as the numbers."""
    return bits & U4.type(0x7FFF_FFFF)
