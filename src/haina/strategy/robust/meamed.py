"""Meamed, mean around the median (Xie et al. 2018, "Generalized Byzantine-tolerant SGD").

In every coordinate, the mean of the n - f values closest to the median. Once the values are sorted those are neighbours: a window of n - f, which
moves on by one place for every value on its left that is farther from the median than the value it would gain on its right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from haina.strategy.robust.ordered import central_mean, namespace, ordered
from haina.strategy.robust.rule import ColumnRule
from haina.strategy.robust.tolerance import Tolerant
from haina.update import Vector


def mean_around_median(block: Any, count: int) -> Any:
    """`[n, width]` -> `[width]` means of the `count` values closest to the median; of two equally far, the lower one."""
    values = ordered(block)
    n = values.shape[1]
    xp = np if isinstance(values, np.ndarray) else namespace(values)
    middle = central_mean(values, (n - 1) // 2)[:, None]
    lost, gained = values[:, : n - count], values[:, count:]
    start = xp.count_nonzero(gained - middle < middle - lost, axis=-1)[:, None]
    place = xp.arange(n)[None] if xp is np else xp.arange(n, device=values.device)[None]
    inside = (place >= start) & (place < start + count)
    return xp.sum(xp.where(inside, values, xp.zeros_like(values)), axis=-1) / count


@dataclass(frozen=True)
class Meamed(Tolerant, ColumnRule):
    """The mean of each coordinate's n - f values closest to its median. Needs n >= 2f + 1.

    Args:
        byzantine: clients assumed hostile: a fraction in [0, 0.5) or a number.
    """

    def columns(self, block: Any, shares: Vector) -> Any:
        """`[n, width]` -> `[width]`."""
        n = block.shape[0]
        return mean_around_median(block, n - self.tolerated(n))
