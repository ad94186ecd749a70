"""Krum and multi-Krum (Blanchard et al. 2017, "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent").

A vector's score is the sum of its smallest squared distances to the others; Krum takes the vector with the least score, multi-Krum the mean
of the n - f best.

The trap is a convention: Blanchard et al. and Flower sum n - f - 2 distances, ByzFL n - f - 1, and the two can pick different clients. Where that
leaves a single distance, the two ends of the shortest one always tie, and the earlier row wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from haina.errors import StrategyError
from haina.strategy.robust.geometry import indicator, nearest, squared_distances
from haina.strategy.robust.rule import GramRule, normalised
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector


def krum_scores(squared: Vector, f: int, left_out: int = 2) -> Vector:
    """`[n]` sums of the n - f - left_out (at least 1) smallest squared distances to other rows; `squared` is `[n, n]`."""
    closest = max(1, len(squared) - f - left_out)
    scores: Vector = np.sort(squared, axis=1)[:, 1 : 1 + closest].sum(axis=1)
    return scores


def krum_best(squared: Vector, f: int, count: int, left_out: int = 2) -> NDArray[np.intp]:
    """`[count]` row numbers of the best scores, best first; ties go to the earlier row."""
    return nearest(krum_scores(squared, f, left_out), count)


@dataclass(frozen=True)
class Krum(Tolerant, GramRule):
    """The one vector with the nearest neighbours. Needs n >= 2f + 3.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number.
        left_out: scores sum the n - f - left_out smallest distances: 2 (Blanchard et al.) or 1 (ByzFL).

    Raises:
        StrategyError: a setting out of range.
    """

    left_out: int = 2

    least: ClassVar[tuple[int, int]] = (2, 3)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.left_out not in (1, 2):
            raise StrategyError(f"left_out is {self.left_out!r}", allowed="1 or 2")

    @property
    def uses_shares(self) -> bool:
        """False: one vector is taken as it is."""
        return False

    def best(self, gram: Vector, count: int) -> NDArray[np.intp]:
        """`[count]` row numbers of the best scores."""
        return krum_best(squared_distances(gram), self.tolerated(len(gram)), count, self.left_out)

    def evidence(self, gram: Vector) -> Mapping[str, Vector]:
        """`krum_score`: the lower the better."""
        return {"krum_score": krum_scores(squared_distances(gram), self.tolerated(len(gram)), self.left_out)}

    def solve(self, gram: Vector, shares: Vector) -> Vector:
        """1 for the best, 0 for the others."""
        return indicator(self.best(gram, 1), len(gram))


@dataclass(frozen=True)
class MultiKrum(Krum):
    """The mean of the vectors with the lowest Krum scores. Needs n >= 2f + 3.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number.
        left_out: as for `Krum`.
        keep: how many to average; None for n - f. Never more than n.
        weighting: `"shares"`: survivors are weighed by their shares (Flower); `"equal"`: equally (ByzFL).

    Raises:
        StrategyError: a setting out of range.
    """

    keep: int | None = None
    weighting: Literal["shares", "equal"] = "shares"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep is not None and not self.keep >= 1:
            raise StrategyError(f"keep is {self.keep}", allowed="a whole number >= 1, or none for n - f")
        if self.weighting not in ("shares", "equal"):
            raise StrategyError(f"weighting is {self.weighting!r}", allowed="'shares' or 'equal'")

    @property
    def uses_shares(self) -> bool:
        """True when survivors are weighed by their shares."""
        return self.weighting == "shares"

    def solve(self, gram: Vector, shares: Vector) -> Vector:
        """Shares (or ones) of the survivors, normalised."""
        keep = len(gram) - self.tolerated(len(gram)) if self.keep is None else self.keep
        kept = indicator(self.best(gram, keep), len(gram))
        weights: Vector = kept * shares if self.weighting == "shares" else kept
        return normalised(weights)
