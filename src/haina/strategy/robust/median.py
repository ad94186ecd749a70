"""Coordinate-wise median (Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", Alg. 1).

For an even number of clients it is the midpoint of the two middle values. Every client has one voice: shares decide who takes part, not how much.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haina.strategy.robust.ordered import central_mean, ordered
from haina.strategy.robust.rule import ColumnRule
from haina.update import Vector


@dataclass(frozen=True)
class Median(ColumnRule):
    """The median of each coordinate: a trimmed mean that trims all it can. Any n."""

    def columns(self, block: Any, shares: Vector) -> Any:
        """`[n, width]` -> `[width]`."""
        return central_mean(ordered(block), (block.shape[0] - 1) // 2)
