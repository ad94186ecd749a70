"""Norm clipping before a rule, at a fixed radius or at one that the cohort sets.

Both scale each vector down to at most some L2 norm and leave its direction. ARC (Allouah et al. 2025, "Adaptive Gradient Clipping for Robust
Federated Learning") takes the floor(2 f (n - f) / n) longest and clips them to the norm of the next one, which keeps the guarantees of
the rule that follows; a fixed radius does not.

The trap: norms are measured from the origin, so these are for increments and are not translation-equivariant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from haina.errors import StrategyError
from haina.strategy.robust.geometric_median import GeometricMedian
from haina.strategy.robust.mixing import Mixing
from haina.strategy.robust.rule import Rule
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector


@dataclass(frozen=True)
class ClipNorm(Mixing):
    """Clip at a fixed norm, then another rule. Any n.

    Args:
        radius: largest L2 norm, in the unit of the vectors, > 0.
        then: the rule that combines the clipped vectors.

    Raises:
        StrategyError: a radius out of range.
    """

    radius: float
    then: Rule = field(default_factory=GeometricMedian)

    def __post_init__(self) -> None:
        if not 0 < self.radius < math.inf:
            raise StrategyError(f"radius is {self.radius}", allowed="a finite number > 0")

    def matrix(self, gram: Vector) -> Vector:
        """min(1, radius / norm) on the diagonal."""
        return _scales(gram, self.radius)


@dataclass(frozen=True)
class ARC(Tolerant, Mixing):
    """Adaptive robust clipping, then another rule. Needs n >= 2f + 1.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number.
        then: the rule that combines the clipped vectors.
    """

    then: Rule = field(default_factory=GeometricMedian)

    def matrix(self, gram: Vector) -> Vector:
        """min(1, radius / norm) on the diagonal, with the radius that the cohort sets."""
        n = len(gram)
        f = self.tolerated(n)
        clipped = 2 * f * (n - f) // n
        squares = np.sort(np.diag(gram))
        return _scales(gram, math.sqrt(max(float(squares[n - 1 - clipped]), 0.0)))


def _scales(gram: Vector, radius: float) -> Vector:
    norms = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
    return np.diag(np.minimum(1.0, radius / norms))
