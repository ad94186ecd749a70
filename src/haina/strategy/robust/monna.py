"""MoNNA, mean of the nearest neighbours of a trusted client (Farhadkhani et al. 2023, "Robust Collaborative Learning with Linear Gradient Overhead").

In a peer-to-peer federation each client trusts itself and averages the n - f vectors nearest to its own. A coordinator can lend that place to one
client that it trusts, such as a node it runs itself.

The trap is a reference by position: cohorts change from round to round, so the reference is a client's name here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from haina.errors import RoundError
from haina.strategy.parts import Combined
from haina.strategy.robust.geometry import indicator, nearest, squared_distances
from haina.strategy.robust.rule import Rows, Rule, finite, normalised
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector


@dataclass(frozen=True)
class MoNNA(Tolerant, Rule):
    """The share-weighted mean of the n - f vectors nearest to the reference's (equal shares give the paper's rule). Needs n >= 2f + 1.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number.
        reference: name of the trusted client; it must take part in every round.
    """

    reference: str = field(kw_only=True)

    def reduce(self, rows: Rows, shares: Vector) -> Combined:
        """The combination of the reference's neighbours, itself among them.

        Raises:
            RoundError: the reference is not among the clients.
        """
        n = len(rows.clients)
        if self.reference not in rows.clients:
            raise RoundError(
                f"the reference {self.reference!r} has no admitted update in this round",
                allowed="a client that takes part in every round",
                remedy="Name another reference, or keep this one's node running",
            )
        squared = squared_distances(finite(rows.gram))[rows.clients.index(self.reference)]
        weights = shares * indicator(nearest(squared, n - self.tolerated(n)), n)
        coefficients = normalised(weights)
        return Combined(rows.combine(coefficients), coefficients, {"reference_distance": np.sqrt(squared)})
