"""Ladder: rungs between two doubles, evenly by the order of doubles, so that a search settles a value of any size to its last bit.

Doubles of one sign lie in the order of their bits, taken as whole numbers (IEEE 754-2008, 5.10), so each double has a place: the whole number of its
bits where it is positive, less that of its magnitude where it is negative; -0 and 0 have place 0. Rung k of 127 is at place

    low + floor((high - low) k / 128)

and a bracket holds one double where its places are next to each other: after at most 10 rounds of 7 bits, for there are fewer than 2^64 places.

Sites in R (`summary_ladder.R`) make the same rungs bit for bit, from halves of 32 bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from haina.update import Vector

#: Rungs of the ladder: a power of two less one, so that each round adds whole binary digits.
RUNGS = 127
_BITS = 7


def ladder(low: Vector, high: Vector) -> Vector:
    """`[ranks, RUNGS]` rungs between bounds `[ranks]`, low <= high; some are the lower bound where less than 128 doubles lie between."""
    first = _place(low).view(np.uint64)[:, None]
    # Unsigned, for the distance may be beyond 2^63.
    apart = gap(low, high)[:, None]
    k = np.arange(1, RUNGS + 1, dtype=np.uint64)[None, :]
    bits, rest = np.uint64(_BITS), np.uint64(RUNGS)
    # The floor of apart * k / 128, without a product beyond 2^64.
    places = first + (apart >> bits) * k + (((apart & rest) * k) >> bits)
    return _swap(places.view(np.int64)).view(np.float64)


def gap(low: Vector, high: Vector) -> NDArray[np.uint64]:
    """How many places `high` is above `low`; 1 where no double lies between."""
    apart: NDArray[np.uint64] = _place(high).view(np.uint64) - _place(low).view(np.uint64)
    return apart


def _place(value: Vector) -> NDArray[np.int64]:
    return _swap(np.ascontiguousarray(value, np.float64).view(np.int64))


def _swap(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits of doubles to their places, and back: negative ones count the other way."""
    swapped: NDArray[np.int64] = np.where(bits < 0, np.iinfo(np.int64).min - bits, bits)
    return swapped
