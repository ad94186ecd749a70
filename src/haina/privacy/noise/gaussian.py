"""Discrete Gaussian noise: integers k with probability in proportion to exp(-k^2 / (2 sigma^2)).

Canonne, Kamath & Steinke 2020, "The Discrete Gaussian for Differential Privacy". Up to sigma = 1024 a draw is one look into a table that reaches to
13 sigma, beyond which lie 2 exp(-13^2 / 2) < 2^-120 of the mass.

Wider ones are sums of draws on coarser and coarser grids, X = 128 A + B with B of sigma 512 and A of what is left, sigma^2 = 128^2 sigma_A^2 + 512^2:

    P(X = x)  ~  sum over a of exp(-a^2 / 2 sigma_A^2 - (x - 128 a)^2 / 2 512^2)  =  exp(-x^2 / 2 sigma^2) * sum over a of exp(-(a - c x)^2 / 2 s^2),

with 1 / s^2 = 1 / sigma_A^2 + 128^2 / 512^2. The last sum is s sqrt(2 pi) times a number within 2.01 exp(-2 pi^2 s^2) of 1 whatever x is (Poisson's
summation formula), and sigma > 1024 makes s^2 >= 12: every probability is right to a factor of 1 +- 2^-339.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import exp, isqrt, pi

import numpy as np
from numpy.typing import NDArray

from haina.privacy.noise.exponential import squares
from haina.privacy.noise.table import Table
from haina.privacy.stream import Stream

#: The widest that is one table, as a variance, and the lower part of a wider one.
_WIDEST, _LOW, _RATIO = Fraction(1024**2), Fraction(512**2), 128
#: Draws made together; their temporaries stay in a level-2 cache.
_BLOCK = 1 << 14


def gaussian(count: int, variance: Fraction, stream: Stream) -> NDArray[np.int64]:
    """Independent draws of discrete Gaussian noise, `[count]`.

    Args:
        count: how many.
        variance: the parameter sigma^2 > 0; the variance itself is a little less where sigma < 1.
        stream: random bits.
    """
    parts = _parts(variance)
    tables = [_table(part) for part in parts]
    out = np.empty(count, np.int64)
    for start in range(0, count, _BLOCK):
        block = out[start : start + _BLOCK]
        block[:] = tables[-1].draw(len(block), stream)
        for table in reversed(tables[:-1]):
            block *= _RATIO
            block += table.draw(len(block), stream)
    return out


def reach(variance: Fraction) -> int:
    """No draw is larger than this."""
    return sum(_table_reach(part) * _RATIO**k for k, part in enumerate(_parts(variance)))


def _parts(variance: Fraction) -> list[Fraction]:
    """Variances of the draws that one is made of, finest first."""
    parts = []
    while variance > _WIDEST:
        parts.append(_LOW)
        variance = (variance - _LOW) / _RATIO**2
    return [*parts, variance]


def _table_reach(variance: Fraction) -> int:
    return isqrt(int(13**2 * variance)) + 2


@lru_cache(maxsize=32)
def _table(variance: Fraction) -> Table:
    right = squares(1 / (2 * variance), _table_reach(variance) + 1)
    return Table([*reversed(right[1:]), *right], 1 - len(right))


def distance_of_sum(variance: Fraction, parties: int) -> float:
    """How far the sum of independent draws may be from one draw of the whole variance, for one coordinate.

    tau = 10 * sum over k = 1 ... n - 1 of exp(-2 pi^2 sigma^2 k / (k + 1)): Kairouz, Liu & Steinke 2021, "The Distributed Discrete Gaussian
    Mechanism for Federated Learning with Secure Aggregation", theorem 1. The logarithms of the probabilities differ by no more.

    Args:
        variance: sigma^2 of each draw, >= 1/4.
        parties: n draws.
    """
    rate = 2 * pi**2 * float(variance)
    # Terms fall to exp(-rate), so after a few the rest are as good as equal.
    first = min(parties - 1, 64)
    head = sum(exp(-rate * k / (k + 1)) for k in range(1, first + 1))
    return 10 * (head + (parties - 1 - first) * exp(-rate * first / (first + 1)))
