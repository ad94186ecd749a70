"""Distributions: the tails that tests of significance need, in a page, so that a table of p-values needs no scipy.

* Student's t by the incomplete beta function, chi-squared by the incomplete gamma function, both as continued fractions (Abramowitz & Stegun 1964,
  26.5.8, 6.5.29, 6.5.31), evaluated by Lentz's method (Press et al. 2007, "Numerical Recipes", 5.2, 6.2, 6.4).
* The normal quantile is Python's own (Wichura 1988, AS 241).

Relative errors are below 1e-11 (1e-9 for chi-squared beyond a thousand degrees of freedom); answers below 1e-300 are 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist

_TINY = 1e-300


def normal_tails(z: float) -> float:
    """P(|Z| > |z|) for a standard normal Z."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def normal_quantile(p: float) -> float:
    """z with P(Z <= z) = p, p in (0, 1)."""
    return NormalDist().inv_cdf(p)


def student_tails(t: float, freedom: float) -> float:
    """P(|T| > |t|) for Student's t with `freedom` > 0 degrees; NaN without degrees of freedom."""
    if not freedom > 0 or math.isnan(t):
        return math.nan
    if math.isinf(t):
        return 0.0
    return _half_beta(freedom / 2.0, freedom, t * t)


def chi_squared_tail(x: float, freedom: float) -> float:
    """P(X > x) for chi-squared with `freedom` > 0 degrees."""
    if not freedom > 0 or math.isnan(x):
        return math.nan
    if x <= 0:
        return 1.0
    a, z = freedom / 2.0, x / 2.0
    front = math.exp(a * math.log(z) - z - math.lgamma(a))
    if z < a + 1.0:
        term = total = 1.0 / a
        for k in range(1, 10_000):
            term *= z / (a + k)
            total += term
            if term < total * 1e-17:
                break
        return 1.0 - front * total
    return front * _fraction(((k * (a - k), z + 2 * k + 1 - a) for k in range(1, 10_000)), z + 1 - a)


def _half_beta(a: float, first: float, second: float) -> float:
    """I_x(a, 1/2) with x = first / (first + second), told as two parts so that no digit is lost where x is near 1."""
    x, rest = first / (first + second), second / (first + second)
    if x <= 0:
        return 0.0
    if rest <= 0:
        return 1.0
    # log x as log1p, for x is near 1 where there are many degrees of freedom.
    front = math.exp(_log_ratio(a) - 0.5 * math.log(math.pi) + a * math.log1p(-rest) + 0.5 * math.log(rest))
    if x < (a + 1.0) / (a + 2.5):
        return front * _beta_fraction(a, 0.5, x) / a
    return 1.0 - front * _beta_fraction(0.5, a, rest) / 0.5


def _log_ratio(a: float) -> float:
    """log(Gamma(a + 1/2) / Gamma(a)); for large a by its series, where the two logarithms would cancel (Abramowitz & Stegun 6.1.40)."""
    if a < 50:
        return math.lgamma(a + 0.5) - math.lgamma(a)
    return 0.5 * math.log(a) - 1 / (8 * a) + 1 / (192 * a**3) - 1 / (640 * a**5) + 17 / (14336 * a**7)


def _beta_fraction(a: float, b: float, x: float) -> float:
    def parts() -> Iterator[tuple[float, float]]:
        for m in range(10_000):
            if m:
                yield m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)), 1.0
            yield -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)), 1.0

    return _fraction(parts(), 1.0)


def _fraction(parts: Iterator[tuple[float, float]], first: float) -> float:
    """1 / (first + a1 / (b1 + a2 / (b2 + ...)))."""
    value = first if first else _TINY
    c, d = value, 0.0
    for a, b in parts:
        d = b + a * d
        c = b + a / c
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = c if abs(c) > _TINY else _TINY
        value *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return 1.0 / value
