"""Coordinate-wise trimmed mean (Yin et al. 2018, "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", Alg. 1).

In every coordinate the f least and the f greatest values go and the rest are averaged, every client with one voice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haina.strategy.robust.ordered import central_mean, ordered
from haina.strategy.robust.rule import ColumnRule
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector


@dataclass(frozen=True)
class TrimmedMean(Tolerant, ColumnRule):
    """The mean of each coordinate without its extremes. Needs n >= 2f + 1.

    Args:
        byzantine: values trimmed at either end: a fraction of n in [0, 0.5) or a number.
    """

    def columns(self, block: Any, shares: Vector) -> Any:
        """`[n, width]` -> `[width]`."""
        return central_mean(ordered(block), self.tolerated(block.shape[0]))
