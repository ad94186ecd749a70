"""Shards: the local data of some clients, as one array cut into contiguous pieces.

Data makes shards and learners read them; neither room knows the other, so the word lives below both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import DataError


@dataclass(frozen=True)
class Shards:
    """Local data of some clients: client k owns rows `offsets[k, 0]` to `offsets[k, 1]`, the last not included.

    Args:
        clients: k distinct names.
        x: `[N, ...]` features; may be memory-mapped. Only the rows of these clients are read.
        y: `[N]` targets: class numbers (integers) or values (floats).
        offsets: `[k, 2]` first row and row after the last, of each client.
    """

    clients: Sequence[str]
    x: Array
    y: Array
    offsets: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.offsets.shape != (len(self.clients), 2):
            raise DataError(f"offsets have shape {self.offsets.shape}", allowed=f"({len(self.clients)}, 2)")

    def __len__(self) -> int:
        return len(self.clients)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """`[k]` examples of each client."""
        sizes: NDArray[np.int64] = self.offsets[:, 1] - self.offsets[:, 0]
        return sizes

    def of(self, k: int) -> tuple[Array, Array]:
        """Features and targets of the k-th client (views, not copies)."""
        start, stop = self.offsets[k]
        return self.x[start:stop], self.y[start:stop]

    def compact(self) -> Shards:
        """The same clients with copies of their rows, one client after another and nothing between them."""
        ends = np.cumsum(self.sizes)
        parts = [self.of(k) for k in range(len(self))]
        x = np.concatenate([self.x[:0], *(x for x, _ in parts)])
        y = np.concatenate([self.y[:0], *(y for _, y in parts)])
        return Shards(self.clients, x, y, np.column_stack([ends - self.sizes, ends]))

    def take(self, index: Sequence[int]) -> Shards:
        """The clients at the given positions, in that order."""
        return Shards(tuple(self.clients[i] for i in index), self.x, self.y, self.offsets[list(index)])
