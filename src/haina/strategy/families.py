"""Families: the three exponential families of everyday regression, with their canonical links.

Clients need the mean, the variance and the deviance; the server needs the link (it starts every fit at the null model, `link(mean outcome)`), so
the families live below both. With the canonical link the gradient of the log-likelihood is X'(y - mu) and its negative Hessian X'WX with W =
V(mu) (McCullagh & Nelder 1989, "Generalized Linear Models", sec. 2.5), for every family.

The trap is the deviance: written with mu it divides by zero or takes log 0 as soon as a fitted probability rounds to 0 or 1. Written with the
linear predictor eta it is finite for every finite eta, and that is what lets the server compare a bad step with a good one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from haina.errors import StrategyError
from haina.update import Vector

#: exp(200) = 7e86: beyond any count, and its square times a million rows is still finite.
_LARGEST = 200.0


@dataclass(frozen=True)
class Family:
    """One family with its canonical link.

    Args:
        name: as in a federation file.
        mean: eta `[n]` -> mu `[n]`.
        variance: mu `[n]` -> V(mu) `[n]`, which is d mu / d eta.
        deviance: (y `[n]`, eta `[n]`) -> D = 2 (saturated - fitted log-likelihood), summed; finite for finite arguments.
        saturated: y `[n]` -> log-likelihood of a model that fits each outcome exactly, summed; 0 where the dispersion is estimated.
        link: mean outcome -> eta; finite for means strictly inside `interior`.
        interior: open interval of possible means.
        outcomes: what y may be, in words.
        allows: y `[n]` -> `[n]` True where an outcome is possible.
        dispersed: True when the dispersion is estimated (gaussian); the weights W are then constant.
    """

    name: str
    mean: Callable[[Vector], Vector]
    variance: Callable[[Vector], Vector]
    deviance: Callable[[Vector, Vector], float]
    saturated: Callable[[Vector], float]
    link: Callable[[float], float]
    interior: tuple[float, float]
    outcomes: str
    allows: Callable[[Vector], NDArray[np.bool_]]
    dispersed: bool = False


def _expit(eta: Vector) -> Vector:
    small = np.exp(-np.abs(eta))
    return np.where(eta >= 0, 1.0, small) / (1.0 + small)


def _xlogy(x: Vector, y: Vector) -> Vector:
    return np.where(x > 0, x * np.log(np.where(x > 0, y, 1.0)), 0.0)


def _binomial_deviance(y: Vector, eta: Vector) -> float:
    entropy = _xlogy(y, y) + _xlogy(1.0 - y, 1.0 - y)
    # log(1 + e^eta) - y eta, as two terms that are never negative: nothing cancels when the fit is nearly perfect.
    misfit = y * np.logaddexp(0.0, -eta) + (1.0 - y) * np.logaddexp(0.0, eta)
    return float(2.0 * np.sum(entropy + misfit))


def _poisson_deviance(y: Vector, eta: Vector) -> float:
    eta = np.minimum(eta, _LARGEST)
    return float(2.0 * np.sum(_xlogy(y, y) - y * eta - (y - np.exp(eta))))


def _poisson_saturated(y: Vector) -> float:
    values, counts = np.unique(y, return_counts=True)
    factorials = np.array([math.lgamma(value + 1.0) for value in values])
    return float(counts @ (_xlogy(values, values) - values - factorials))


GAUSSIAN = Family(
    name="gaussian",
    mean=lambda eta: eta,
    variance=np.ones_like,
    deviance=lambda y, eta: float(np.sum((y - eta) ** 2)),
    saturated=lambda y: 0.0,
    link=lambda mean: mean,
    interior=(-math.inf, math.inf),
    outcomes="finite numbers",
    allows=np.isfinite,
    dispersed=True,
)

BINOMIAL = Family(
    name="binomial",
    mean=_expit,
    variance=lambda mu: mu * (1.0 - mu),
    deviance=_binomial_deviance,
    saturated=lambda y: 0.0,
    link=lambda mean: math.log(mean) - math.log1p(-mean),
    interior=(0.0, 1.0),
    outcomes="0 and 1",
    allows=lambda y: (y == 0) | (y == 1),
)

POISSON = Family(
    name="poisson",
    mean=lambda eta: np.exp(np.minimum(eta, _LARGEST)),
    variance=lambda mu: mu,
    deviance=_poisson_deviance,
    saturated=_poisson_saturated,
    link=math.log,
    interior=(0.0, math.inf),
    outcomes="finite numbers >= 0",
    allows=lambda y: np.isfinite(y) & (y >= 0),
)

#: Families by the name they have in a federation file.
FAMILIES: Mapping[str, Family] = {family.name: family for family in (GAUSSIAN, BINOMIAL, POISSON)}


def family(name: str) -> Family:
    """The family of that name.

    Raises:
        StrategyError: there is none.
    """
    if name not in FAMILIES:
        raise StrategyError(f"family is {name!r}", allowed=", ".join(FAMILIES))
    return FAMILIES[name]
