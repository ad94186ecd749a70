"""float32 and raw: bytes as they are. Reading them is a view."""

from __future__ import annotations

import numpy as np

from haina.artifact import Array
from haina.wire.codecs.coder import F4, Coder, target_of


class Float32(Coder):
    """The numbers themselves; reading is a view."""

    def size(self, length: int) -> int:
        """4 bytes a number."""
        return 4 * length

    def encode(self, vector: Array, residual: Array | None) -> tuple[Array, None]:
        """Nothing is left out; without a residual the body is a view of the vector."""
        return target_of(vector, residual, slice(None)).view(np.uint8), None

    def part(self, body: Array, start: int, stop: int, length: int) -> Array:
        """A view."""
        return body.view(F4)[start:stop]


class Raw(Coder):
    """Float64 numbers, or, with length 0, a document of any size: for exact statistics and collected payloads."""

    def size(self, length: int) -> int:
        """8 bytes a number."""
        return 8 * length

    def encode(self, vector: Array, residual: Array | None) -> tuple[Array, None]:
        """A document (uint8) as it is; anything else as float64. There is nothing to feed back."""
        dtype = np.uint8 if vector.dtype == np.uint8 else np.dtype("<f8")
        return np.ascontiguousarray(vector, dtype).view(np.uint8), None

    def part(self, body: Array, start: int, stop: int, length: int) -> Array:
        """A view: float64, or uint8 of a document."""
        return (body.view("<f8") if length else body)[start:stop]
