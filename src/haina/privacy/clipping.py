"""Clipping: a vector made no longer than a bound, in the sum of its sizes (L1) or in length (L2).

The noise is measured against the bound, so the bound must hold for the numbers that come out, not for the ones that were meant: rounding of the norm
and of the products may leave a vector longer than was asked by a few units in the last place. So a vector is shortened to a little less than
the bound, by more than all rounding can add; what comes out is never longer, in exact arithmetic.

The sums are taken in a fixed order and not by BLAS, whose order depends on the processor: a client must send the same bits on every machine.
"""

from __future__ import annotations

from math import frexp, inf, ldexp, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

from haina.errors import PrivacyError

#: Numbers that are added up together; numpy adds so many in pairs, and the totals of blocks are added one after another.
_BLOCK = 1 << 16


def clip_l1(vector: ArrayLike, bound: float) -> NDArray[np.float64]:
    """The vector, scaled down where its L1 norm exceeds a bound.

    Args:
        vector: `[d]` finite numbers.
        bound: largest sum of absolute values, > 0 and finite.

    Returns:
        A new array `[d]`, in float64. The L1 norm of these very numbers is at most `bound`. A vector that was within it by one
        part in 10^13 is unchanged.

    Raises:
        PrivacyError: a number is not finite, or the bound is not usable.
    """
    return _clip(vector, bound, 1)


def clip_l2(vector: ArrayLike, bound: float) -> NDArray[np.float64]:
    """The vector, scaled down where its L2 norm exceeds a bound.

    Args:
        vector: `[d]` finite numbers.
        bound: largest length, > 0 and finite.

    Returns:
        A new array `[d]`, in float64. The L2 norm of these very numbers is at most `bound`. A vector that was within it by one
        part in 10^13 is unchanged.

    Raises:
        PrivacyError: a number is not finite, or the bound is not usable.
    """
    return _clip(vector, bound, 2)


def _clip(vector: ArrayLike, bound: float, power: int) -> NDArray[np.float64]:
    out = np.array(vector, dtype=np.float64)
    if out.ndim != 1:
        raise PrivacyError(f"a vector to be clipped has shape {out.shape}", allowed="one dimension")
    if not 2.0**-400 < bound < 2.0**400:
        raise PrivacyError(
            f"the bound of a norm is {bound}", allowed="a number > 0, between 1e-120 and 1e120"
        )
    largest = float(np.abs(out).max(initial=0.0))
    if not largest < inf:
        first = int(np.argmin(np.isfinite(out)))
        raise PrivacyError(
            f"coordinate {first} of a vector to be clipped is {out[first]}",
            allowed="finite numbers",
            remedy="Training diverged: lower its learning rate",
        )
    if largest < 2.0**-500:
        return out
    # In units of about its largest number no square overflows; a power of two, so that nothing is rounded.
    exponent = frexp(largest)[1]
    scaled = np.ldexp(out, -exponent)
    norm = _norm(scaled, power)
    # Each block is summed with an error below 32 units in the last place, each addition of a block's total adds one, each product half of one.
    room = 1 - (64 + len(out) // _BLOCK) * 2.0**-52
    return out if norm <= ldexp(bound, -exponent) * room else scaled * (bound * room / norm)


def _norm(vector: NDArray[np.float64], power: int) -> float:
    """L1 or L2 norm, in a fixed order."""
    total = 0.0
    for start in range(0, len(vector), _BLOCK):
        block = vector[start : start + _BLOCK]
        total += float((np.abs(block) if power == 1 else np.square(block)).sum())
    return total if power == 1 else sqrt(total)
