"""CAF, the covariance-bound agnostic filter (Allouah et al. 2025, "Towards Trustworthy Federated Learning with Untrusted Participants").

Hostile vectors that move the mean also stretch the covariance along one direction. Each pass finds the direction of largest variance,
lowers the weight of every vector by its part of that variance (the worst one to 0), and the answer is the weighted mean of the pass with the
least top eigenvalue. The covariance of n vectors has the eigenvalues of the n x n centred Gram matrix, so the direction is exact here, where
published code takes one random power step.

The trap: each pass is an eigendecomposition, n^3; below 200 clients that is nothing beside the Gram matrix of a model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haina.strategy.robust.rule import GramRule, normalised
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector


@dataclass(frozen=True)
class CAF(Tolerant, GramRule):
    """The mean under the weights that bound the largest variance, beginning from the shares. Needs n >= 2f + 1.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number; filtering stops when 2f / n of the shares are gone.
    """

    def solve(self, gram: Vector, shares: Vector) -> Vector:
        """Weights of the pass with the least top eigenvalue, normalised."""
        n = len(gram)
        enough = 1 - 2 * self.tolerated(n) / n + 1e-12
        weights, best, least = shares, shares, np.inf
        while weights.sum() > enough:
            centre = normalised(weights)
            products = gram @ centre
            centred = gram - products[:, None] - products[None] + centre @ products
            root = np.sqrt(centre)
            values, vectors = np.linalg.eigh(centred * np.outer(root, root))
            if values[-1] < least:
                least, best = float(values[-1]), centre
            spread = np.where(weights > 0, (centred @ (root * vectors[:, -1])) ** 2, 0.0)
            if not spread.max() > 0:
                break
            weights = weights * (1 - spread / spread.max())
        return best
