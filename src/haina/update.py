"""Update, Pool and Cohort: one client's contribution, the sum of several, and the accepted contributions of a round.

A cohort is read by blocks of columns, so its rows may be one array in memory, an array on an accelerator, or files of a 1 GB model: a rule
that works on a block of `[clients, columns]`, or on the `[clients, clients]` Gram matrix, works on all of them.

Clipping never copies a vector: a cohort carries one scale per row, which the Gram matrix, the blocks and the sums apply.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.report import Report

Vector = NDArray[np.float64]

#: Columns of one block: 50 rows of float32 fill about 6 MB, which stays in a last-level cache.
BLOCK = 1 << 15


@dataclass(frozen=True, slots=True)
class Update:
    """One client's contribution to one round.

    Args:
        client: the client's name; unique in the federation.
        vector: `[d]` increment (averaged payloads), statistics (summed payloads) or bytes as uint8 (collected payloads). Where it is
            folded, something that gives its blocks will do (`haina.exact.Stored`).
        report: what the client says about its training.
    """

    client: str
    vector: Array
    report: Report


@dataclass(frozen=True, slots=True)
class Failure:
    """A client that could not train, and why: named in the record, so that no failure is silent.

    Args:
        client: the client's name.
        reason: one sentence without any of the client's data.
    """

    client: str
    reason: str


#: What becomes of one client's training.
Result = Update | Failure


@dataclass(frozen=True, slots=True)
class Pool:
    """The contributions of several clients, of which nothing but the sum was seen (secure aggregation).

    Args:
        clients: their names, at least one; sorted.
        vector: `[d]` weighted mean of their vectors, float64.
        weight: sum of their weights, > 0; one a client where all weigh alike.
        equal: True where all weigh alike, so that each one's part is known.
        unclipped: share of them whose update was no longer than the limit, in [0, 1], as far as noise lets it be known; None where nobody asked.
    """

    clients: tuple[str, ...]
    vector: Vector
    weight: float
    equal: bool = True
    unclipped: float | None = None


@dataclass(frozen=True)
class Cohort:
    """The accepted updates of one round.

    Args:
        clients: n names.
        reports: n reports, in the same order.
        rows: `[n, d]` array (NumPy, torch, JAX) or n vectors `[d]` (memory-mapped spool files are read block by block).
        scale: `[n]` factors that multiply the rows (clipping); None for ones.
    """

    clients: tuple[str, ...]
    reports: tuple[Report, ...]
    rows: Any
    scale: Vector | None = None

    def __len__(self) -> int:
        return len(self.clients)

    @property
    def dimension(self) -> int:
        """d: the length of each row."""
        return int(self.rows[0].shape[0])

    @property
    def dtype(self) -> Any:
        """dtype of the rows."""
        return self.rows[0].dtype

    def scaled(self, scale: Vector) -> Cohort:
        """The same cohort with rows multiplied by `scale` `[n]` (on top of the present scale); rows are shared, not copied."""
        if (scale == 1).all():
            return self
        out = replace(self, scale=scale if self.scale is None else self.scale * scale)
        if "_raw_gram" in self.__dict__:
            out.__dict__["_raw_gram"] = self._raw_gram
        return out

    def take(self, index: Sequence[int] | NDArray[np.intp]) -> Cohort:
        """The sub-cohort of the given row numbers; rows are shared, not copied."""
        index = [int(i) for i in index]
        out = Cohort(
            tuple(self.clients[i] for i in index),
            tuple(self.reports[i] for i in index),
            [self.rows[i] for i in index],
            None if self.scale is None else self.scale[index],
        )
        if "_raw_gram" in self.__dict__:
            out.__dict__["_raw_gram"] = self._raw_gram[np.ix_(index, index)]
        return out

    def extended(self, vectors: Sequence[Array]) -> Cohort:
        """The cohort with further rows of length d, unscaled and without a client; for rules that compare clients with something else."""
        n = len(vectors)
        scale = None if self.scale is None else np.concatenate([self.scale, np.ones(n)])
        rows = [*(self.rows[i] for i in range(len(self))), *vectors]
        return Cohort((*self.clients, *("",) * n), (*self.reports, *(Report(1.0),) * n), rows, scale)

    def blocks(self, width: int = BLOCK) -> Iterator[tuple[slice, Any]]:
        """Yield `(columns, block)` with block `[n, <= width]`, scaled, in the library of the rows."""
        for columns, block in self._raw_blocks(width):
            if self.scale is None:
                yield columns, block
            else:
                yield columns, block * _like(self.scale[:, None], block)

    def _raw_blocks(self, width: int = BLOCK) -> Iterator[tuple[slice, Any]]:
        for start in range(0, self.dimension, width):
            columns = slice(start, min(start + width, self.dimension))
            if hasattr(self.rows, "shape"):
                yield columns, self.rows[:, columns]
            else:
                yield columns, _stack([row[columns] for row in self.rows])

    @cached_property
    def _raw_gram(self) -> Vector:
        total = np.zeros((len(self), len(self)))
        for _, block in self._raw_blocks():
            total += to_numpy(block @ block.T)
        return (total + total.T) / 2

    @cached_property
    def gram(self) -> Vector:
        """`[n, n]` inner products of the scaled rows; products in the rows' dtype, sums over blocks in float64."""
        if self.scale is None:
            return self._raw_gram
        return self._raw_gram * np.outer(self.scale, self.scale)

    @cached_property
    def norms(self) -> Vector:
        """`[n]` L2 norms of the scaled rows."""
        return np.sqrt(np.maximum(np.diag(self.gram), 0.0))

    def combine(self, coefficients: Vector) -> Array:
        """`coefficients @ rows`: `[n]` -> `[d]`, or `[m, n]` -> `[m, d]`, in the widest dtype of the rows, in NumPy."""
        weights = coefficients if self.scale is None else coefficients * self.scale
        pieces = ((columns, to_numpy(_like(weights, block) @ block)) for columns, block in self._raw_blocks())
        columns, piece = next(pieces)
        out = np.empty((*coefficients.shape[:-1], self.dimension), piece.dtype)
        out[..., columns] = piece
        for columns, piece in pieces:
            out[..., columns] = piece
        return out


def to_numpy(array: Any) -> Array:
    """Any array on any device as NumPy."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array)


def _like(values: Vector, block: Any) -> Any:
    if isinstance(block, np.ndarray):
        return values.astype(block.dtype, copy=False)
    if hasattr(block, "new_tensor"):
        return block.new_tensor(values)
    return values.astype(np.dtype(str(block.dtype)))


def _stack(rows: list[Any]) -> Any:
    if isinstance(rows[0], np.ndarray):
        return np.stack(rows)
    from array_api_compat import array_namespace

    return array_namespace(*rows).stack(rows)
