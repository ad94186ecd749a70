"""Composition without a library: zero-concentrated differential privacy (zCDP), and advanced composition.

rho adds up over releases, also where a later one is chosen by what earlier ones have shown (Feldman & Zrnic 2021; Whitehouse et al. 2023), so a
budget can be kept in it round by round. What it is worth as epsilon at a delta is worked out here, by the tightest conversion known for all
mechanisms of a rho.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from math import exp, expm1, inf, log, log1p, sqrt

from haina.errors import PrivacyError
from haina.privacy.noise.gaussian import distance_of_sum


def epsilon_of(rho: float, delta: float) -> float:
    """The epsilon at a delta that rho-zCDP implies.

    The infimum over alpha > 1 of alpha rho + log(1 - 1 / alpha) + (log(1 / delta) - log(alpha)) / (alpha - 1): Canonne, Kamath & Steinke 2020,
    proposition 12, solved for epsilon.

    Args:
        rho: >= 0 and finite.
        delta: in (0, 1).
    """
    checked(delta)
    if not 0 <= rho < inf:
        raise PrivacyError(f"rho is {rho}", allowed="a finite number >= 0")
    if not rho:
        return 0.0

    def bound(logarithm: float) -> float:
        more = exp(logarithm)
        return (1 + more) * rho - log1p(1 / more) - (log(delta) + log1p(more)) / more

    # Any alpha gives a bound. The best is near 1 + sqrt(log(1 / delta) / rho).
    middle = log(-log(delta) / rho) / 2
    return max(0.0, _smallest(bound, middle - 10, middle + 10))


def rho_of(epsilon: float, delta: float) -> float:
    """The largest rho whose zCDP implies (epsilon, delta): the inverse of `epsilon_of`.

    Args:
        epsilon: > 0 and finite.
        delta: in (0, 1).
    """
    checked(delta)
    if not 0 < epsilon < inf:
        raise PrivacyError(f"epsilon is {epsilon}", allowed="a finite number > 0")
    # rho alone costs more than rho.
    low, high = 0.0, epsilon + 1
    while epsilon_of(high, delta) <= epsilon:
        high *= 2
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon_of(middle, delta) <= epsilon else (low, middle)
    return low


def advanced(epsilon: float, rounds: int, slack: float) -> float:
    """Advanced composition of pure mechanisms: sqrt(2 k log(1 / slack)) epsilon + k epsilon (exp(epsilon) - 1), at delta = slack.

    Dwork, Rothblum & Vadhan 2010, "Boosting and Differential Privacy". For comparison: a PLD is always smaller, and so is k epsilon for a few rounds.

    Args:
        epsilon: of one release, > 0.
        rounds: k.
        slack: in (0, 1).
    """
    checked(slack)
    return sqrt(-2 * rounds * log(slack)) * epsilon + rounds * epsilon * expm1(epsilon)


def distributed_rho(sensitivity: float, sigma_each: float, parties: int, dimension: int) -> float:
    """The rho of a sum that is covered by the discrete Gaussian noises of its parties.

    The smaller of Delta^2 / (2 n sigma^2) + tau d and (Delta / (sqrt(n) sigma) + tau sqrt(d))^2 / 2: Kairouz, Liu & Steinke 2021, "The Distributed
    Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation", proposition 14.

    Args:
        sensitivity: Delta, of the integer vector in L2, after rounding (`Grid.sensitivity`).
        sigma_each: of each party's noise, in units.
        parties: n whose noise is counted on.
        dimension: d.

    Raises:
        PrivacyError: sigma is so small that the sum is not as good as one draw.
    """
    if not (0 < sensitivity < inf and parties >= 1 and dimension >= 1):
        raise PrivacyError(
            f"{parties} parties cover {dimension} coordinates of sensitivity {sensitivity}",
            allowed="1 or more of each, and a finite sensitivity > 0",
        )
    tau = distance_of_sum(Fraction(sigma_each) ** 2, parties) if sigma_each >= 0.5 else inf
    if not tau * dimension <= 1e-9:
        raise PrivacyError(
            f"each party's noise has sigma {sigma_each:.3g}, and the sum is {tau * dimension:.1g} away from one draw",
            allowed="1e-9, about sigma 2 to 3 or more",
            remedy="Take a finer grid, or fewer parties",
        )
    whole = sensitivity / (sqrt(parties) * sigma_each)
    return min(whole**2 / 2 + tau * dimension, (whole + tau * sqrt(dimension)) ** 2 / 2)


def checked(delta: float) -> None:
    """Refuse a delta that is none."""
    if not 0 < delta < 1:
        raise PrivacyError(
            f"delta is {delta}",
            allowed="a number in (0, 1), well below 1 / clients",
            remedy="Without a delta, epsilons of Laplace noise are added up",
        )


def _smallest(function: Callable[[float], float], low: float, high: float) -> float:
    """The minimum of a function that falls and then rises, by golden section."""
    golden = (sqrt(5) - 1) / 2
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-9:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - golden * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + golden * (high - low)
            at_right = function(right)
    return min(at_left, at_right)
