"""Weigh: from reports and history to each client's share of the round.

The first factor is the base and is used as it is. Further factors multiply it: amounts (staleness, inverse propensity) as they are, qualities
(accuracy, speed, link) as their ratio to the cohort's median, clipped to [1/2, 2]. Then no share may exceed cap / K.

    a_k ~ base_k * prod amount_jk * prod clip(quality_jk / median_j, 1/2, 2)        share_k = min(c a_k, cap / K)

with c such that the shares sum to 1 (water-filling). The bounds are the point: most numbers here are claims of the client about itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from haina.errors import StrategyError
from haina.strategy.factors import (
    Accuracy,
    Convergence,
    Disco,
    EffectiveSamples,
    Link,
    Participation,
    Samples,
    Staleness,
    StalenessHinge,
    Uniform,
)
from haina.strategy.factors.reported import imputed, median
from haina.strategy.parts import Factor, View
from haina.update import Vector

__all__ = [
    "Accuracy",
    "Convergence",
    "Disco",
    "EffectiveSamples",
    "Link",
    "Participation",
    "Samples",
    "Staleness",
    "StalenessHinge",
    "Uniform",
    "Weigh",
    "cap_shares",
    "effective_sample_size",
]


@dataclass(frozen=True)
class Weigh:
    """How shares are made.

    Args:
        factors: the base, then what multiplies it; each kind at most once.
        clip: lowest and highest ratio of a quality to the cohort's median; 0 < low <= 1 <= high.
        cap: no share above cap / K in a cohort of K (so without effect for K <= cap); >= 1, or None for no bound.

    Raises:
        StrategyError: no factor, a factor twice, or impossible bounds.
    """

    factors: tuple[Factor, ...] = (Samples(),)
    clip: tuple[float, float] = (0.5, 2.0)
    cap: float | None = 2.0

    def __post_init__(self) -> None:
        names = [_name(factor) for factor in self.factors]
        if not names:
            raise StrategyError(
                "there is nothing to weigh by", allowed="at least one factor", remedy='Use "uniform"'
            )
        if len(set(names)) < len(names):
            raise StrategyError(f"the factors {', '.join(names)} repeat one", allowed="each factor once")
        low, high = self.clip
        if not 0 < low <= 1 <= high < np.inf:
            raise StrategyError(f"qualities are clipped to {self.clip}", allowed="0 < low <= 1 <= high")
        if self.cap is not None and not 1 <= self.cap < np.inf:
            raise StrategyError(f"the cap of shares is {self.cap}", allowed="a number >= 1, or none")

    def shares(self, view: View) -> tuple[Vector, Mapping[str, Vector]]:
        """Shares of the view's clients, before trust.

        Impossible values (negative, infinite) count as 0; a client that did not report counts as the median of those who did.

        Returns:
            `[n]` shares >= 0 that sum to 1, or all zero when the factors leave nothing; and what made them: factor name -> `[n]` multipliers.
        """
        weights = np.ones(len(view.clients))
        made: dict[str, Vector] = {}
        for position, factor in enumerate(self.factors):
            values = factor.values(view) if len(weights) else weights
            multipliers = imputed(values)
            if position and not factor.absolute:
                multipliers = np.clip(_ratio(multipliers, median(values)), *self.clip)
            made[_name(factor)] = multipliers
            weights = weights * _scaled(multipliers)
        return cap_shares(weights, self.cap), made


def cap_shares(weights: Vector, cap: float | None) -> Vector:
    """Exact water-filling: the shares min(c * weight, cap / K) with c such that they sum to 1.

    When so few of the K weights are positive that the bound cannot hold, those few share equally.

    Args:
        weights: `[K]` finite weights >= 0.
        cap: >= 1, or None to normalise only.

    Returns:
        `[K]` shares that sum to 1; all zero when the weights are.
    """
    weights = _scaled(weights)
    positive = np.count_nonzero(weights)
    if not positive:
        return np.zeros(len(weights))
    limit = 1.0 if cap is None else min(1.0, max(cap / len(weights), 1 / positive))
    order = np.argsort(-weights, kind="stable")
    descending = np.append(weights[order], 0.0)
    rest = np.cumsum(descending[::-1])[::-1]
    left = np.maximum(1 - limit * np.arange(len(descending)), 0.0)
    # The `held` largest stand at the limit: as few as leave the next one below it.
    held = int(np.argmax(descending * left <= limit * rest))
    shares = np.full(len(weights), limit)
    if rest[held] > 0:
        shares[held:] = left[held] * (descending[held:-1] / rest[held])
    else:
        shares[held:] = 0.0
    out = np.empty_like(shares)
    out[order] = shares
    return out


def effective_sample_size(shares: Vector) -> float:
    """Kish's (sum a)^2 / sum a^2: how many equal clients the shares are worth, from 1 to n; 0 when all are zero."""
    scaled = _scaled(np.asarray(shares, dtype=np.float64))
    square = float(scaled @ scaled)
    return float(scaled.sum()) ** 2 / square if square > 0 else 0.0


def _name(factor: Factor) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(factor).__name__).lower()


def _ratio(values: Vector, middle: float) -> Vector:
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return np.where(values == middle, 1.0, values / middle)


def _scaled(values: Vector) -> Vector:
    """Values divided by the largest, so that products of claims cannot overflow."""
    top = float(values.max(initial=0.0))
    return values / top if top > 0 else values
