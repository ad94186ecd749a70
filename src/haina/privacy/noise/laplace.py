"""Laplace noise on the integers, in two kinds, both exact:

* *discrete*: k with probability in proportion to exp(-|k| / b), the two-sided geometric distribution (Ghosh, Roughgarden & Sundararajan 2009);
* *rounded*: a real Laplace number of scale b, rounded to the nearest integer. An integer plus rounded noise is the integer plus real noise,
  rounded, so whatever is proved of the real mechanism holds of this one.

A geometric number G, P(G = g) ~ q^g, has independent digits: with G = B H + L and 0 <= L < B, P ~ (q^B)^H q^L. So each digit has a small table of
its own, and any scale can be drawn exactly. Signs are in the top digit: a negative number -1 - G mirrors G at -1/2. Then

    P(k >= 0) ~ q^k  and  P(k < 0) ~ q^(-1 - k)     is a real Laplace number, rounded down;
    P(k >= 0) ~ q^k  and  P(k < 0) ~ q q^(-1 - k)   is the discrete distribution.

Rounded to the nearest is rounded down in half units, plus one, halved.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from haina.privacy.noise.exponential import PRECISION, exponential, powers
from haina.privacy.noise.table import Table
from haina.privacy.stream import Stream

#: Largest scale of the top digit, bits of a lower one, and draws made together.
_WIDEST, _DIGIT, _BLOCK = 128, 10, 1 << 14
#: The top digit reaches so many scales: beyond it lie exp(-84) < 2^-121 of the mass.
_SCALES = 84


class _Digits(NamedTuple):
    """How a scale is divided: bits of each lower digit, finest first, and below which size the top digit lies."""

    bits: list[int]
    top: int

    @property
    def below(self) -> int:
        """Bits of all lower digits."""
        return sum(self.bits)


def laplace(count: int, scale: Fraction, stream: Stream, *, rounded: bool) -> NDArray[np.int64]:
    """Independent draws of Laplace noise, `[count]`.

    Args:
        count: how many.
        scale: b > 0, in units.
        stream: random bits.
        rounded: a real Laplace number rounded to the nearest integer; the discrete distribution otherwise.
    """
    if rounded:
        scale = 2 * scale
    digits = _digits(scale)
    top = _top(scale, rounded)
    lower = [_lower(scale / (1 << shift), bits) for shift, bits in _places(digits)]
    out = np.empty(count, np.int64)
    for start in range(0, count, _BLOCK):
        block = out[start : start + _BLOCK]
        block[:] = top.draw(len(block), stream)
        # All ones where negative: there a digit counts downwards.
        mirror = block >> 63
        block <<= digits.below
        for (shift, bits), table in zip(_places(digits), lower, strict=True):
            block += (table.draw(len(block), stream) ^ (mirror & ((1 << bits) - 1))) << shift
        if rounded:
            block += 1
            block >>= 1
    return out


def reach(scale: Fraction, *, rounded: bool) -> int:
    """No draw is larger than this."""
    digits = _digits(2 * scale if rounded else scale)
    largest = digits.top << digits.below
    return largest // 2 + 1 if rounded else largest


def _digits(scale: Fraction) -> _Digits:
    below = max(0, int(scale / _WIDEST).bit_length())
    whole, rest = divmod(below, _DIGIT)
    return _Digits([_DIGIT] * whole + [rest] * (rest > 0), int(_SCALES * scale / (1 << below)) + 2)


def _places(digits: _Digits) -> list[tuple[int, int]]:
    """Shift and bits of each lower digit."""
    return [(sum(digits.bits[:k]), bits) for k, bits in enumerate(digits.bits)]


@lru_cache(maxsize=32)
def _lower(scale: Fraction, bits: int) -> Table:
    """A digit whose unit is 1 / scale of the whole."""
    return Table(powers(1 / scale, 1 << bits), 0)


@lru_cache(maxsize=32)
def _top(scale: Fraction, even: bool) -> Table:
    """The top digit with the sign; `even`: a number and its mirror image at -1/2 are alike."""
    digits = _digits(scale)
    right = powers((1 << digits.below) / scale, digits.top)
    fall = exponential(1 / scale)
    left = right if even else [weight * fall >> PRECISION for weight in right]
    return Table([*reversed(left), *right], -digits.top)
