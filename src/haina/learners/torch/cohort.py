"""Cohort: clients trained side by side, one row of weights each. On a GPU a step of a small model is a dozen launches and hardly any arithmetic, so
a hundred clients cost little more than one.

Clients are sorted by their steps, most first, so those that still train are a prefix, and nobody is padded to the longest. On a GPU a prefix is
widened to a power of two, and the step of a width is captured once as a CUDA graph that finds its batches by a counter on the device: a round is then
a row of replays, with nothing sent in between. What cannot be captured runs step by step.

Trap: the width of a product of matrices changes its last bits, so here, and only here, a client's result depends on its neighbours by rounding. On a
CPU this is slower than `Loop` (measured: 1.2 times for 100 logistic models, 1.8 for ten networks of 200-200, 2.4 for ten cnns); it runs there so that
it can be tested.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from haina.learners.learner import Work, client_rng
from haina.learners.plan import batches, groups
from haina.learners.torch.arena import Arena, Key
from haina.learners.torch.loop import Client
from haina.learners.torch.pure import Batch, Pure

log = logging.getLogger("haina.learners.torch")

#: Copies of a client's weights that a step may hold at once: weights, velocity, push, gradient and its parts, result.
COPIES = 6

#: The share of a GPU's free memory that a group may fill, and the bytes of a group on a CPU.
SHARE, ROOM = 0.4, 1 << 28

#: Steps of a width before it is captured; they set up what must not be set up in a capture.
WARM_UP = 3


class Cohort:
    """The executor of many clients at once.

    Args:
        pure: the module's step.
    """

    def __init__(self, pure: Pure) -> None:
        self._pure, self._device = pure, pure.flat.weights.device
        self._gpu = self._captures = self._device.type == "cuda"
        self._budget = int(SHARE * torch.cuda.mem_get_info(self._device)[0]) if self._gpu else ROOM
        # Nothing outlives a step but in the arena, so all steps may use the same memory.
        self._pool = torch.cuda.graph_pool_handle() if self._gpu else None
        self._arena = Arena(self._device)

    def train(self, work: Work, clients: Sequence[Client]) -> Iterator[float]:
        """As many clients as memory holds at once, then the next ones (`haina.learners.torch.loop.Executor`)."""
        flat, waiting = self._pure.flat, list(clients)
        flat.module.train()
        while waiting:
            costs = (COPIES * flat.weights.nbytes + client.x.nbytes + client.y.nbytes for client in waiting)
            group = [waiting[k] for k in next(groups(costs, self._budget))]
            began = time.perf_counter()
            try:
                rows = self._together(work, group)
            except torch.cuda.OutOfMemoryError:
                # A module keeps activations besides its weights, and only it knows how many.
                if len(group) == 1:
                    raise
                self._budget //= 2
                self._arena = Arena(self._device)
                torch.cuda.empty_cache()
                continue
            steps = [work.training.steps_of(len(client.y)) for client in group]
            seconds = (time.perf_counter() - began) / sum(steps)
            for client, row, count in zip(group, rows, steps, strict=True):
                flat.load(work.model, client.own)
                flat.weights.copy_(row)
                yield seconds * count
            del waiting[: len(group)]

    def _together(self, work: Work, clients: Sequence[Client]) -> torch.Tensor:
        """`[k, trained]` weights after training."""
        steps = np.array([work.training.steps_of(len(client.y)) for client in clients])
        order = np.argsort(-steps, kind="stable")
        self._lay_out(work, [clients[k] for k in order])
        # Before step t + 1, the clients with more than t steps still train.
        for width in np.searchsorted(-steps[order], -np.arange(steps.max())).tolist():
            self._step(1 << (width - 1).bit_length() if self._gpu else width)
        rows = self._arena["state.weights"][np.argsort(order)]
        if self._gpu:
            torch.cuda.synchronize(self._device)
        return rows

    def _lay_out(self, work: Work, clients: Sequence[Client]) -> None:
        """Put everything that steps read where they look for it."""
        plans = [
            batches(len(client.y), work.training, client_rng(work.seed, work.round, client.name))
            for client in clients
        ]
        sizes = np.array([len(client.y) for client in clients])
        steps = np.array([len(lengths) for _, lengths in plans])
        firsts = np.cumsum(sizes) - sizes
        self._arena.lay(
            {
                "x": np.concatenate([client.x for client in clients]),
                "y": np.concatenate([client.y for client in clients]),
                "rows": np.concatenate(
                    [rows + first for (rows, _), first in zip(plans, firsts, strict=True)]
                ),
                "lengths": np.concatenate([lengths for _, lengths in plans]),
                "begins": np.cumsum(steps) - steps,
                "steps": steps,
                "t": np.zeros(1, np.int64),
                **{f"state.{name}": value for name, value in self._pure.start(work, clients).items()},
                **{f"rules.{name}": value[None] for name, value in self._pure.rules(work).items()},
            }
        )

    def _step(self, width: int) -> None:
        key = (self._arena.names, width)
        if self._captures and key not in self._arena.graphs and self._arena.ran[key] == WARM_UP:
            self._capture(key)
        if key in self._arena.graphs:
            self._arena.graphs[key].replay()
            return
        self._arena.ran[key] += 1
        self._advance(width)

    def _capture(self, key: Key) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                self._advance(key[1])
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._captures = False
            log.warning(
                "The module's step cannot be captured as a CUDA graph and runs operation by operation: %s",
                error,
            )
            return
        self._arena.graphs[key] = graph

    def _advance(self, width: int) -> None:
        """One step of the first clients; those that have ended stand still."""
        arena = self._arena
        t, begins, steps = arena["t"], arena["begins"][:width], arena["steps"][:width]
        live = t < steps
        at = begins + torch.where(live, t, 0)
        rows, lengths = arena["rows"][at], arena["lengths"][at][:, None]
        filled = torch.arange(rows.shape[1], device=self._device) < lengths
        batch = Batch(arena["x"][rows], arena["y"][rows], filled / lengths.clamp(min=1), live)
        state = {name: values[:width] for name, values in arena.below("state").items()}
        rules = {name: values[0] for name, values in arena.below("rules").items()}
        for name, values in self._pure.together(rules, state, batch).items():
            state[name].copy_(values)
        t.add_(1)
