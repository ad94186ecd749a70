"""Bulyan (El Mhamdi et al. 2018, "The Hidden Vulnerability of Distributed Learning in Byzantium").

Krum chooses theta = n - 2f vectors, and each coordinate of the answer is the mean of the theta - 2f chosen values closest to their median.

The trap: the paper chooses one by one, scoring again among those left; some implementations score once and take the theta best. The two
choose differently, so the choice is a setting. One by one, the last scores are single distances whose two ends tie, so the answer depends on
the order of the clients; it does not in one shot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from haina.errors import StrategyError
from haina.strategy.parts import Combined
from haina.strategy.robust.geometry import indicator, squared_distances
from haina.strategy.robust.krum import krum_best
from haina.strategy.robust.meamed import mean_around_median
from haina.strategy.robust.ordered import WIDTH
from haina.strategy.robust.rule import Rows, Rule, finite
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector, to_numpy


@dataclass(frozen=True)
class Bulyan(Tolerant, Rule):
    """Krum's choice, then the mean around the median of each coordinate. Needs n >= 4f + 3.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.25) or a number.
        selection: `"recursive"`: one at a time, scores taken anew among those left (the paper); `"one_shot"`: the theta best of one scoring.

    Raises:
        StrategyError: a setting out of range.
    """

    selection: Literal["recursive", "one_shot"] = "recursive"

    least: ClassVar[tuple[int, int]] = (4, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.selection not in ("recursive", "one_shot"):
            raise StrategyError(f"selection is {self.selection!r}", allowed="'recursive' or 'one_shot'")

    @property
    def uses_shares(self) -> bool:
        """False."""
        return False

    @property
    def gives_coefficients(self) -> bool:
        """False."""
        return False

    def select(self, gram: Vector) -> NDArray[np.intp]:
        """`[n - 2f]` row numbers that Krum chooses, in rising order."""
        f, squared = self.tolerated(len(gram)), squared_distances(gram)
        theta = len(gram) - 2 * f
        if self.selection == "one_shot":
            return np.sort(krum_best(squared, f, theta))
        left = np.arange(len(gram))
        for _ in range(theta):
            left = np.delete(left, krum_best(squared[np.ix_(left, left)], f, 1))
        return np.setdiff1d(np.arange(len(gram)), left)

    def reduce(self, rows: Rows, shares: Vector) -> Combined:
        """The mean of each coordinate's n - 4f chosen values closest to their median, every client with one voice."""
        n = len(shares)
        selected = self.select(finite(rows.gram))
        count = n - 4 * self.tolerated(n)
        pieces = [
            to_numpy(mean_around_median(block, count)) for _, block in rows.take(selected).blocks(WIDTH)
        ]
        return Combined(np.concatenate(pieces), None, {"selected": indicator(selected, n)})
