"""NNM, nearest-neighbour mixing (Allouah et al. 2023, "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", Alg. 1).

Each vector is replaced by the mean of its n - f nearest ones, itself among them. That draws honest clients of different data together, and makes the
rule that follows order-optimal in f / n.

The trap: neighbours are averaged equally, whatever their shares, so a client with a small positive share mixes into its neighbours in full.
Whoever must not count needs share 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from haina.strategy.robust.geometric_median import GeometricMedian
from haina.strategy.robust.geometry import nearest, squared_distances
from haina.strategy.robust.mixing import Mixing
from haina.strategy.robust.rule import Rule
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector


@dataclass(frozen=True)
class NNM(Tolerant, Mixing):
    """Nearest-neighbour mixing, then another rule. Needs n >= 2f + 1.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number.
        then: the rule that combines the mixed vectors.
    """

    then: Rule = field(default_factory=GeometricMedian)

    def matrix(self, gram: Vector) -> Vector:
        """Row i holds 1 / (n - f) at the n - f nearest of i."""
        count = len(gram) - self.tolerated(len(gram))
        out = np.zeros_like(gram)
        np.put_along_axis(out, nearest(squared_distances(gram), count), 1 / count, axis=1)
        return out
