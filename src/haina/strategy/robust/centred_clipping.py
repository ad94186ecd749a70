"""Centred clipping (Karimireddy et al. 2021, "Learning from History for Byzantine Robust Optimization", eq. 2).

v <- v + sum p_k (x_k - v) min(1, radius / ||x_k - v||), a few times. One step from the origin is norm clipping followed by the mean.

The paper carries v from round to round. Here the rule is pure and v begins at the origin, i.e. at "no change" for increments (ByzFL's first
call), or at another rule's answer. The trap: from the origin it is not translation-equivariant, and it must not be fed models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from haina.errors import StrategyError
from haina.strategy.robust.geometry import distances
from haina.strategy.robust.rule import GramRule
from haina.update import Vector


@dataclass(frozen=True)
class CentredClipping(GramRule):
    """The mean of vectors pulled into a ball around the running centre. Any n.

    Args:
        radius: tau, in the unit of the vectors, > 0; None for the median distance from the first centre.
        iterations: steps, >= 1.
        start: a rule with coefficients whose answer is the first centre; None for the origin.

    Raises:
        StrategyError: a setting out of range.
    """

    radius: float | None = None
    iterations: int = 5
    start: GramRule | None = None

    def __post_init__(self) -> None:
        if self.radius is not None and not 0 < self.radius < math.inf:
            raise StrategyError(f"radius is {self.radius}", allowed="a finite number > 0, or none")
        if self.start is not None and not (
            isinstance(self.start, GramRule) and self.start.gives_coefficients
        ):
            raise StrategyError(
                f"start is {type(self.start).__name__}",
                allowed="a rule with coefficients, such as GeometricMedian, MultiKrum or NNM over one of them",
            )
        if not self.iterations >= 1:
            raise StrategyError(f"iterations is {self.iterations}", allowed="a whole number >= 1")

    def solve(self, gram: Vector, shares: Vector) -> Vector:
        """Coefficients of v after the last step; from the origin they may sum to less than 1."""
        centre = np.zeros_like(shares) if self.start is None else self.start.coefficients(gram, shares)
        radius = float(np.median(distances(gram, centre))) if self.radius is None else self.radius
        for _ in range(self.iterations):
            away = distances(gram, centre)
            pulled = shares * np.minimum(1.0, radius / np.maximum(away, np.finfo(float).tiny))
            centre = centre + pulled - pulled.sum() * centre
        return centre
