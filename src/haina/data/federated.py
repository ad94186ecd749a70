"""Federated: one data set as a population of clients, with rows set aside for testing and for the server.

Rows are copied once, into the order test, held, client 0, client 1, ...: test and held rows are views, and the data of a round's cohort are
offsets into the same array.

Held rows are drawn class by class in turn, for a judge that lacks a class judges its holders wrongly. Test rows are drawn evenly from every group
of the natural key, so that no client of a natural partition loses all its rows to the test set while less than half of the rows are set aside.
Without groups that is a plain permutation.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.data import digest
from haina.data.dataset import Dataset, Index
from haina.data.names import Numbered
from haina.data.partition import NaturalKey, Partition
from haina.errors import DataError
from haina.shards import Shards

Rows = tuple[Array, Array]


@dataclass(frozen=True)
class Federated:
    """A population of clients with their data (the `Population` that rules of selection draw from).

    Args:
        clients: the data of all clients, rows of one client contiguous.
        test: features and targets that no client has.
        held: features and targets that the server holds (a judge's root set); may be empty.
        features: names of the features; empty for images.
        classes: names of the classes; None for values.
        files: that the rows are mapped from; none where they lie in memory.
        maps: of the clients' rows, if they are mapped.
    """

    clients: Shards
    test: Rows
    held: Rows
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    files: tuple[Path, ...] = ()
    maps: tuple[mmap.mmap, ...] = ()

    def __len__(self) -> int:
        return len(self.clients)

    def name(self, index: int) -> str:
        """Name of the client at a position."""
        return self.clients.clients[index]

    def examples(self, index: int) -> int:
        """Number of rows of the client at a position."""
        start, stop = self.clients.offsets[index]
        return int(stop - start)

    @cached_property
    def cumulative(self) -> NDArray[np.int64]:
        """`[len(self)]` running sum of the rows of each client."""
        return np.cumsum(self.clients.sizes)

    def shards(self, names: Sequence[str]) -> Shards:
        """The data of the named clients, in that order; time and memory grow with `len(names)` only.

        Raises:
            DataError: a name is not in the population.
        """
        for pages in self.maps if hasattr(mmap, "MADV_DONTNEED") else ():
            # Pages of earlier cohorts stay in the system's cache, not in this process, which would grow by 64 KB a client.
            pages.madvise(mmap.MADV_DONTNEED)
        try:
            return self.clients.take([self._place(name) for name in names])
        except (KeyError, ValueError):
            unknown = next(name for name in names if name not in self.clients.clients)
            raise DataError(
                f"there is no client {unknown!r}", allowed=f"{self.name(0)} to {self.name(len(self) - 1)}"
            ) from None

    def digest(self) -> str:
        """SHA-256 of all rows and of whose they are; of rows in large files, of evenly spaced blocks (`haina.data.digest`)."""
        if self.files:
            return digest.of_files(self.files)
        return digest.of_arrays(self.clients.clients, (self.clients.offsets, self.clients.x, self.clients.y))

    @cached_property
    def _place(self) -> Callable[[str], int]:
        """Name -> position."""
        names = self.clients.clients
        if isinstance(names, Numbered):
            return names.index
        return {name: i for i, name in enumerate(names)}.__getitem__


def federate(
    dataset: Dataset,
    partition: Partition,
    rng: np.random.Generator,
    *,
    test: float | int = 0.2,
    held: float | int = 0,
) -> Federated:
    """Set rows aside, divide the others among clients, and put each client's rows together.

    Args:
        dataset: all rows.
        partition: how to divide them.
        rng: the only source of chance.
        test: rows of the test set: a number of rows (int) or a fraction in [0, 1) (float).
        held: rows that the server holds, likewise.

    Raises:
        DataError: no rows are left for clients, or the partition cannot divide them.
    """
    n = len(dataset)
    tests, helds = _count("test", test, n), _count("held", held, n)
    if tests + helds >= n:
        raise DataError(f"{tests} test and {helds} held rows leave none of {n} for clients")
    order = _evenly(dataset.groups, n, rng)
    if dataset.classes is not None:
        order[tests:] = _in_turn(order[tests:], dataset.y)
    first = tests + helds
    train = np.sort(order[first:])
    targets = dataset.targets(train)
    parts = partition.split(targets, rng)
    names = partition.names(targets) if isinstance(partition, NaturalKey) else Numbered(len(parts))
    order = np.concatenate([order[:first], train[np.concatenate(parts)]])
    x, y = dataset.x[order], dataset.y[order]
    ends = first + np.cumsum([len(part) for part in parts], dtype=np.int64)
    offsets = np.column_stack([np.concatenate([[first], ends[:-1]]), ends])
    return Federated(
        Shards(names, x, y, offsets),
        (x[:tests], y[:tests]),
        (x[tests:first], y[tests:first]),
        dataset.features,
        dataset.classes,
    )


def _count(name: str, value: float | int, n: int) -> int:
    if isinstance(value, float):
        if not 0 <= value < 1:
            raise DataError(f"{name} is {value}", allowed="a fraction in [0, 1), or a whole number of rows")
        return round(value * n)
    if not 0 <= value < n:
        raise DataError(f"{name} is {value} rows of {n}", allowed=f"0 to {n - 1}, or a fraction in [0, 1)")
    return value


def _evenly(groups: Array | None, n: int, rng: np.random.Generator) -> Index:
    order = rng.permutation(n)
    if groups is None:
        return order
    # Row i of a group's n_g shuffled rows stands at (i + 1/2) / n_g: any first part of the sorted rows takes its share of each group.
    _, codes, sizes = np.unique(groups[order], return_inverse=True, return_counts=True)
    together = np.argsort(codes, kind="stable")
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(n)
    rank[together] = np.arange(n) - starts[codes[together]]
    return order[np.argsort((rank + 0.5) / sizes[codes], kind="stable")]


def _in_turn(rows: Index, y: Array) -> Index:
    """The rows with the first of each class in front, then the second of each class, and so on."""
    together = np.argsort(y[rows], kind="stable")
    labels = y[rows][together]
    rank = np.empty(len(rows), np.int64)
    rank[together] = np.arange(len(rows)) - np.searchsorted(labels, labels)
    return rows[np.argsort(rank, kind="stable")]
