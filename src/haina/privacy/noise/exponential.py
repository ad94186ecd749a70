"""exp(-x) of a rational number as an integer, and the powers that tables are made of.

In units of 2^-256, twice as fine as the thresholds of a table, so that the errors of ten thousands of products stay far below what a threshold
can show.
"""

from __future__ import annotations

from fractions import Fraction

#: Bits after the point.
PRECISION = 256
#: More bits, for the errors of the series and of the squarings.
_GUARD = 64


def exponential(x: Fraction) -> int:
    """exp(-x) in units of 2^-256, to within one unit.

    Args:
        x: >= 0.
    """
    if x > 256:
        return 0
    # exp(-x) = exp(-x / 2^h)^(2^h) with x / 2^h < 1; each of the at most nine squarings doubles the relative error.
    halvings = (x.numerator // x.denominator).bit_length()
    bits = PRECISION + _GUARD
    small = (x.numerator << bits) // (x.denominator << halvings)
    term = total = 1 << bits
    k = 0
    while term:
        k += 1
        term = (term * small >> bits) // k
        total += -term if k % 2 else term
    for _ in range(halvings):
        total = total * total >> bits
    return total >> _GUARD


def powers(x: Fraction, count: int) -> list[int]:
    """exp(-x k) for k = 0 ... count - 1, in units of 2^-256; the error of the k-th is at most 2 k units."""
    ratio, out = exponential(x), [1 << PRECISION]
    while len(out) < count:
        out.append(out[-1] * ratio >> PRECISION)
    return out


def squares(x: Fraction, count: int) -> list[int]:
    """exp(-x k^2) for k = 0 ... count - 1, in units of 2^-256; the error of the k-th is at most 2 k^2 units."""
    # The ratio of neighbours is exp(-x (2 k + 1)), and itself falls by exp(-2 x) from one to the next.
    ratio, fall, out = exponential(x), exponential(2 * x), [1 << PRECISION]
    while len(out) < count:
        out.append(out[-1] * ratio >> PRECISION)
        ratio = ratio * fall >> PRECISION
    return out
