"""bf16: the upper half of each float32."""

from __future__ import annotations

import numpy as np

from haina.artifact import Array
from haina.wire.codecs.coder import F4, LARGEST, U4, Coder, magnitude, not_finite, steps, target_of

_U2 = np.dtype("<u2")


class BFloat16(Coder):
    """The sign, the exponent and 8 significant bits of each number. Rounding is fair, so nothing is fed back."""

    def size(self, length: int) -> int:
        """2 bytes a number."""
        return 2 * length

    def encode(self, vector: Array, residual: Array | None) -> tuple[Array, None]:
        """To nearest, ties to even; within 0.2 % of the largest float32 that is infinity, which no coordinator accepts."""
        body = np.empty(len(vector), _U2)
        for step in steps(len(vector)):
            bits = target_of(vector, residual, step).view(U4)
            if magnitude(bits).max() > LARGEST:
                raise not_finite()
            # Half of the last bit that stays, less one where that bit is even.
            rounded = bits >> 16
            rounded &= 1
            rounded += 0x7FFF
            rounded += bits
            rounded >>= 16
            body[step] = rounded
        return body.view(np.uint8), None

    def part(self, body: Array, start: int, stop: int, length: int) -> Array:
        """Exact: a bf16 is a float32 whose lower half is zero."""
        bits = body.view(_U2)[start:stop].astype(U4)
        bits <<= 16
        return bits.view(F4)
