"""Loop: clients trained one after another, with as few operations a step as PyTorch allows. It takes any module.

Plain SGD asks autograd for gradients and subtracts them, one call for all tensors: no gradient is kept, zeroed or added to. Measured in CPU time
against `torch.optim.SGD` and `zero_grad` in a plain loop: 0.55 of it for logistic regression, 0.75 for a network of 784-200-200, and all of it for a
convolutional network, which is all arithmetic (but see `models`). Rows are gathered for many steps at once.

The bits of a client do not depend on who else is trained: it is alone in the module, with random numbers of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from haina.artifact import Array
from haina.learners.learner import Work, client_rng
from haina.learners.plan import batches
from haina.learners.torch.flat import Flat, Tensors

#: (outputs, targets) -> losses: `[B]` of each row, or their mean.
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: `client_rng` purpose of the numbers that modules draw while they train (dropout).
RANDOM = 1

#: Bytes of rows gathered at once: they should stay in a cache.
GATHER = 1 << 22


@dataclass(frozen=True)
class Client:
    """One client, its rows as torch takes them.

    Args:
        place: its position in the work.
        name: its name.
        x: `[n, ...]` features, float32 or int32.
        y: `[n]` targets: int64 class numbers, or float32 values.
        own: the tensors that stay with it.
    """

    place: int
    name: str
    x: Array
    y: Array
    own: Tensors


class Executor(Protocol):
    """A way to train some clients of a call."""

    def train(self, work: Work, clients: Sequence[Client]) -> Iterator[float]:
        """Yield once for each client, when the module holds it as trained: the seconds that it took."""


class Loop:
    """The executor for any module.

    Args:
        flat: the module.
        mean: outputs and targets of a batch -> mean loss.
    """

    def __init__(self, flat: Flat, mean: Loss) -> None:
        self._flat, self._mean, self._device = flat, mean, flat.weights.device

    def train(self, work: Work, clients: Sequence[Client]) -> Iterator[float]:
        """One client after another (`Executor`)."""
        for client in clients:
            began = time.perf_counter()
            self._flat.load(work.model, client.own)
            with self._random(work, client.name):
                self._run(work, client)
            yield time.perf_counter() - began

    def _run(self, work: Work, client: Client) -> None:
        """The local steps (`haina.learners.gradient`) on the loaded module."""
        flat, training, rate = self._flat, work.training, work.learning_rate
        module, weights, parameters = flat.module, flat.weights, flat.parameters
        travels = weights[: flat.travelling]
        received = travels.clone()
        offset = None if work.offsets is None else flat.part(work.offsets[client.place])
        velocity = torch.zeros_like(weights) if training.momentum else None
        corrections = training.weight_decay or work.proximal or work.offsets is not None
        plain = not corrections and training.clip_norm is None and velocity is None
        module.train()
        for x, y in self._batches(work, client):
            gradients = torch.autograd.grad(self._mean(module(x), y), parameters, materialize_grads=True)
            if plain:
                torch._foreach_add_(flat.pieces, gradients, alpha=-rate)
                continue
            pull = torch.cat([gradient.reshape(-1) for gradient in gradients])
            if training.clip_norm is not None:
                norm = float(pull.norm())
                if norm > training.clip_norm:
                    pull.mul_(training.clip_norm / norm)
            if training.weight_decay:
                pull.add_(weights, alpha=training.weight_decay)
            if work.proximal:
                pull[: flat.travelling].add_(travels - received, alpha=work.proximal)
            if offset is not None:
                pull.add_(offset)
            direction = pull if velocity is None else velocity.mul_(training.momentum).add_(pull)
            weights.sub_(direction, alpha=rate)

    def _batches(self, work: Work, client: Client) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The rows and targets of each step."""
        rows, lengths = batches(len(client.y), work.training, client_rng(work.seed, work.round, client.name))
        filled = np.arange(rows.shape[1]) < lengths[:, None]
        at_once = max(1, GATHER // max(1, rows.shape[1] * client.x[:1].nbytes))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            chosen, counts = rows[part][filled[part]], lengths[part].tolist()
            x, y = (torch.from_numpy(a[chosen]).to(self._device) for a in (client.x, client.y))
            yield from zip(torch.split(x, counts), torch.split(y, counts), strict=True)

    @contextmanager
    def _random(self, work: Work, client: str) -> Iterator[None]:
        seed = int(client_rng(work.seed, work.round, client, RANDOM).integers(1 << 62))
        gpu = self._device.type == "cuda"
        with torch.random.fork_rng(devices=[self._device] if gpu else []):
            torch.default_generator.manual_seed(seed)
            if gpu:
                torch.cuda.manual_seed(seed)
            yield
