"""masked and masked64: the words of a secure sum, 32 or 64 bits each, as they are.

A word says nothing by itself: with its masks it is uniform, so any bits are right, there is no norm to measure and nothing to compress.
The trap: these are integers modulo 2^32 or 2^64. Whoever adds them must do so in their own type, or the sum does not wrap.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from haina.artifact import Array
from haina.wire.codecs.coder import CodecError, Coder

#: The codecs of secure sums, and the types of their words.
WORDS: dict[str, np.dtype[Any]] = {"masked": np.dtype("<u4"), "masked64": np.dtype("<u8")}


class Masked(Coder):
    """Words of a secure sum.

    Args:
        dtype: of a word.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype

    def size(self, length: int) -> int:
        """4 or 8 bytes a word."""
        return self._dtype.itemsize * length

    def encode(self, vector: Array, residual: Array | None) -> tuple[Array, None]:
        """A view of the words."""
        if vector.dtype != self._dtype or residual is not None:
            raise CodecError(f"the words are {vector.dtype}", allowed=f"{self._dtype}, and no residual")
        return np.ascontiguousarray(vector).view(np.uint8), None

    def part(self, body: Array, start: int, stop: int, length: int) -> Array:
        """A view."""
        return body.view(self._dtype)[start:stop]
