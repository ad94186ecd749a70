"""MDA, minimum diameter averaging (Rousseeuw 1985; El Mhamdi et al. 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium").

The mean of the n - f vectors whose two farthest members are nearest to each other. Trying all C(n, f) subsets is hopeless beyond a few
clients, and not needed: a subset with a smaller diameter than the present one must drop one end of the present farthest pair, so
dropping either end, f times over, visits at most 2^f sets and always one of least diameter.

Of several sets with the least diameter, the one with the least sum of squared distances is taken, so that the order of clients plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from haina.errors import RoundError, StrategyError
from haina.strategy.robust.geometry import indicator, squared_distances
from haina.strategy.robust.rule import GramRule, normalised
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector

#: 2^16 sets take about a second.
MOST = 16


@dataclass(frozen=True)
class MDA(Tolerant, GramRule):
    """The share-weighted mean of the n - f vectors of least diameter (equal shares give the paper's rule). Needs n >= 2f + 1, f <= 16.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number.

    Raises:
        StrategyError: a setting out of range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.byzantine, int) and self.byzantine > MOST:
            raise StrategyError(
                f"byzantine is {self.byzantine}", allowed=f"at most {MOST} clients", remedy=_INSTEAD
            )

    def solve(self, gram: Vector, shares: Vector) -> Vector:
        """Shares of the chosen vectors, normalised.

        Raises:
            RoundError: a fraction came to more than 16 clients.
        """
        f = self.tolerated(len(gram))
        if f > MOST:
            raise RoundError(
                f"the exact search would visit up to 2^{f} sets of clients",
                allowed=f"f <= {MOST}",
                remedy=_INSTEAD,
            )
        weights = shares * indicator(least_diameter(squared_distances(gram), f), len(gram))
        return normalised(weights)


_INSTEAD = "MultiKrum or NNM with GeometricMedian serve large cohorts"


def least_diameter(squared: Vector, f: int) -> NDArray[np.intp]:
    """Row numbers of the n - f rows with the least largest entry of `squared` `[n, n]` among them."""
    n = len(squared)
    left, right = np.triu_indices(n, 1)
    order = np.argsort(-squared[left, right], kind="stable")
    pairs = [(1 << int(i)) | (1 << int(j)) for i, j in zip(left[order], right[order], strict=True)]
    sets = {(1 << n) - 1: 0}
    for _ in range(f):
        sets = {
            kept & ~end: first
            for kept, start in sets.items()
            for first in [_farthest(pairs, kept, start)]
            for end in _ends(pairs[first])
        }
    found = [_rows(kept, n) for kept in sets]
    diameters = [squared[np.ix_(rows, rows)].max() for rows in found]
    tied = [rows for rows, size in zip(found, diameters, strict=True) if size == min(diameters)]
    return min(tied, key=lambda rows: float(squared[np.ix_(rows, rows)].sum()))


def _farthest(pairs: list[int], kept: int, start: int) -> int:
    return next(i for i in range(start, len(pairs)) if pairs[i] & kept == pairs[i])


def _ends(pair: int) -> tuple[int, int]:
    low = pair & -pair
    return low, pair ^ low


def _rows(kept: int, n: int) -> NDArray[np.intp]:
    return np.array([i for i in range(n) if kept >> i & 1], dtype=np.intp)
