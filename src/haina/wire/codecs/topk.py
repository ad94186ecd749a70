"""topk: the numbers of largest magnitude, and where they stand.

The trap: of numbers of equal magnitude at the edge, those at the lowest places are sent. A sort's own order would differ between processors, and with
it the SHA-256 of the same update.
"""

from __future__ import annotations

import numpy as np

from haina.artifact import Array
from haina.wire.codecs.coder import (
    F4,
    LARGEST,
    U4,
    CodecError,
    Coder,
    magnitude,
    not_finite,
    steps,
    target_of,
)

#: One number in so many is sent.
SPARSITY = 100


class TopK(Coder):
    """The largest 1 % of all numbers, at least one; the others wait in the residual until they are among them."""

    def size(self, length: int) -> int:
        """8 bytes a number that is sent."""
        return 8 * _kept(length)

    def encode(self, vector: Array, residual: Array | None) -> tuple[Array, Array]:
        """What is sent is exact, and its residual 0."""
        count = _kept(len(vector))
        target = target_of(vector, residual, slice(None))
        left = target.copy() if residual is None else target
        bits = magnitude(left.view(U4))
        bits.partition(len(bits) - count)
        largest = bits[len(bits) - count :]
        edge, ties = largest[0], count - int(np.count_nonzero(largest > largest[0]))
        if largest.max() > LARGEST:
            raise not_finite()
        found: list[Array] = []
        for step in steps(len(left)):
            block = magnitude(left[step].view(U4))
            sent = block > edge
            equal = np.flatnonzero(block == edge)[:ties]
            sent[equal] = True
            ties -= len(equal)
            found.append(np.flatnonzero(sent) + step.start)
        places = np.concatenate(found)
        body = np.empty(8 * count, np.uint8)
        body[: 4 * count].view(U4)[:] = places
        body[4 * count :].view(F4)[:] = left[places]
        left[places] = 0
        return body, left

    def check(self, body: Array, length: int) -> None:
        """Places ascend and lie in the vector; numbers are finite."""
        places, numbers = self._open(body, length)
        if not (places[1:] > places[:-1]).all():
            raise CodecError("the places of the numbers do not ascend", allowed="each place once, in order")
        if places[-1] >= length:
            raise CodecError(f"a number stands at place {places[-1]}", allowed=f"places below {length}")
        if not np.isfinite(numbers).all():
            raise CodecError(f"a number is {numbers[~np.isfinite(numbers)][0]}", allowed="finite numbers")

    def part(self, body: Array, start: int, stop: int, length: int) -> Array:
        """Zeros, and the numbers that were sent."""
        places, numbers = self._open(body, length)
        first, last = np.searchsorted(places, np.array([start, stop], U4))
        out = np.zeros(stop - start, F4)
        out[places[first:last].astype(np.int64) - start] = numbers[first:last]
        return out

    def _open(self, body: Array, length: int) -> tuple[Array, Array]:
        cut = 4 * _kept(length)
        return body[:cut].view(U4), body[cut:].view(F4)


def _kept(length: int) -> int:
    if length >= 1 << 32:
        raise CodecError(f"the vector has {length} numbers", allowed=f"fewer than {1 << 32} as topk")
    return -(-length // SPARSITY)
