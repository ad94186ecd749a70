"""Plan: which rows each optimiser step of a round reads, as arrays and before anything is trained.

The batches of a client come from `client_rng(seed, round, client)` and from nothing else, so they do not depend on the cohort, on the order of
clients or on the worker. A fresh permutation serves each epoch; with `Training.steps` the same stream of permutations is cut after so many
steps. Clients lie one after another (compressed rows), so that ragged sizes cost nothing: measured, padding 100 clients with log-normal sizes
to the longest would do 18 to 22 times the work.

Clients are trained in lanes, side by side: whoever comes first in the queue of a lane trains there until it has made its steps, then the next one.
The number of lanes is a matter of the model and of the machine (`haina.learners.jax.program`), never of the cohort; with one lane, clients train one
after another. Queues are made longest client first, each to the lane with the least to do, so that lanes end together (Graham 1969, LPT).

Trap: a short last batch is filled up by repeating its own first row, with weight zero. Any other filling could bring a row that is not finite
into a batch which does not hold it (0 * nan is nan).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heapreplace

import numpy as np
from numpy.typing import NDArray

from haina.learners.learner import Training, client_rng

Ints = NDArray[np.int32]


def batches(examples: int, training: Training, rng: np.random.Generator) -> tuple[Ints, Ints]:
    """The batches of one client.

    Args:
        examples: n >= 1 local rows.
        training: epochs or steps, and the batch size B.
        rng: the client's random numbers of this round.

    Returns:
        `[steps, B]` local row numbers and `[steps]` batch lengths; entries beyond a batch's length repeat its first row.
    """
    size = training.batch_size
    steps = training.steps_of(examples)
    per_epoch = -(-examples // size)
    epochs = -(-steps // per_epoch)
    rows = np.empty((epochs, per_epoch * size), np.int32)
    for epoch in rows:
        epoch[:examples] = rng.permutation(examples)
    rows[:, examples:] = rows[:, (per_epoch - 1) * size, None]
    lengths = np.full((epochs, per_epoch), size, np.int32)
    lengths[:, -1] = examples - (per_epoch - 1) * size
    return rows.reshape(-1, size)[:steps], lengths.reshape(-1)[:steps]


@dataclass(frozen=True)
class Lanes:
    """Which batch each lane trains on at each step, and who ends when.

    Args:
        rows: `[T, W, B]` row numbers, where the clients' rows lie one after another without gaps; zeros where a lane has nothing to do.
        lengths: `[T, W]` rows of each batch that count; 0 where a lane has nothing to do.
        first: `[W]` who begins in each lane; any client where nobody does.
        ends: `[k]` steps after which a client has ended, ascending.
        lane: `[k]` the lane it was in.
        client: `[k]` who it is.
        next: `[k]` who goes on in that lane; any client where nobody does.
    """

    rows: Ints
    lengths: Ints
    first: Ints
    ends: Ints
    lane: Ints
    client: Ints
    next: Ints


@dataclass(frozen=True)
class Plan:
    """The batches of some clients, each with its own.

    Args:
        batches: for each client `[steps, B]` row numbers from `bases[k]` on, and `[steps]` lengths.
        steps: `[k]` steps of each client, tau_k.
        bases: `[k]` first row of each client, where the clients' rows lie one after another without gaps.
    """

    batches: Sequence[tuple[Ints, Ints]]
    steps: Ints
    bases: Ints

    @classmethod
    def of(
        cls, clients: Sequence[str], sizes: Sequence[int], training: Training, *, round: int, seed: int
    ) -> Plan:
        """Plan one round.

        Args:
            clients: k >= 1 names.
            sizes: k numbers of local rows, each >= 1.
            training: how clients train.
            round: number of the round.
            seed: the federation's seed.
        """
        parts = [
            batches(int(size), training, client_rng(seed, round, client))
            for client, size in zip(clients, sizes, strict=True)
        ]
        counts = np.asarray(sizes, np.int32)
        bases = np.cumsum(counts, dtype=np.int32) - counts
        return cls(parts, np.array([len(lengths) for _, lengths in parts], np.int32), bases)

    def lanes(self, width: int, length: int | None = None) -> Lanes:
        """The clients in so many lanes.

        Args:
            width: W >= 1 lanes.
            length: T, at least as many steps as needed (`span`); just as many if not given.
        """
        queues, starts = self._queues(width)
        rows = np.zeros((length or self.span(width), width, self.batches[0][0].shape[1]), np.int32)
        lengths = np.zeros(rows.shape[:2], np.int32)
        ended = []
        for lane, queue in enumerate(queues):
            for place, k in enumerate(queue):
                mine = slice(starts[k], starts[k] + int(self.steps[k]))
                np.add(self.batches[k][0], self.bases[k], out=rows[mine, lane])
                lengths[mine, lane] = self.batches[k][1]
                ended.append((mine.stop, lane, k, queue[place + 1] if place + 1 < len(queue) else k))
        ends, lane_of, client, following = np.array(sorted(ended), np.int32).T
        first = np.array([queue[0] if queue else 0 for queue in queues], np.int32)
        return Lanes(rows, lengths, first, ends, lane_of, client, following)

    def span(self, width: int) -> int:
        """Steps until every lane of so many has ended."""
        queues, _ = self._queues(width)
        return max(sum(int(self.steps[k]) for k in queue) for queue in queues)

    def _queues(self, width: int) -> tuple[list[list[int]], dict[int, int]]:
        queues: list[list[int]] = [[] for _ in range(width)]
        loads, starts = [(0, lane) for lane in range(width)], {}
        # Where there is one lane, the order of the clients is as good as any other and is kept.
        order = np.argsort(-self.steps, kind="stable").tolist() if width > 1 else range(len(self.steps))
        for k in order:
            load, lane = loads[0]
            starts[k] = load
            queues[lane].append(k)
            heapreplace(loads, (load + int(self.steps[k]), lane))
        return queues, starts


def groups(costs: Iterable[int], budget: int) -> Iterator[list[int]]:
    """Yield positions in order, so many at a time as their costs fit into `budget`; at least one."""
    group: list[int] = []
    held = 0
    for k, cost in enumerate(costs):
        if group and held + cost > budget:
            yield group
            group, held = [], 0
        group.append(k)
        held += int(cost)
    if group:
        yield group
