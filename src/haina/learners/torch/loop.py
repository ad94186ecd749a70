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
            with drawing(module_seed(work, client.name), self._device):
                self._run(work, client)
            yield time.perf_counter() - began

    def _run(self, work: Work, client: Client) -> None:
        """The local steps on the loaded module."""
        flat, descent = self._flat, Descent(self._flat, work, client.place)
        module, parameters = flat.module, flat.parameters
        module.train()
        for x, y in self._batches(work, client):
            gradients = torch.autograd.grad(self._mean(module(x), y), parameters, materialize_grads=True)
            if descent.plain:
                torch._foreach_add_(flat.pieces, gradients, alpha=-work.learning_rate)
            else:
                descent.step(torch.cat([gradient.reshape(-1) for gradient in gradients]))

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


class Descent:
    """The optimiser of one client in one round (`haina.learners.gradient`): from a step's gradient to the module's weights.

    Args:
        flat: the module, loaded with what the client received.
        work: the round.
        place: the client's position in it.
    """

    def __init__(self, flat: Flat, work: Work, place: int) -> None:
        training = work.training
        self._work, self._weights = work, flat.weights
        self._travels = flat.weights[: flat.travelling]
        self._received = self._travels.clone()
        self._offset = None if work.offsets is None else flat.part(work.offsets[place])
        self._velocity = torch.zeros_like(flat.weights) if training.momentum else None
        corrections = training.weight_decay or work.proximal or work.offsets is not None
        #: Whether a step is the learning rate times the gradient and no more.
        self.plain = not corrections and training.clip_norm is None and self._velocity is None

    def step(self, pull: torch.Tensor) -> None:
        """Move the weights by one gradient `[trained]`, which is overwritten."""
        training, work = self._work.training, self._work
        if training.clip_norm is not None:
            norm = float(pull.norm())
            if norm > training.clip_norm:
                pull.mul_(training.clip_norm / norm)
        if training.weight_decay:
            pull.add_(self._weights, alpha=training.weight_decay)
        if work.proximal:
            pull[: len(self._travels)].add_(self._travels - self._received, alpha=work.proximal)
        if self._offset is not None:
            pull.add_(self._offset)
        direction = pull if self._velocity is None else self._velocity.mul_(training.momentum).add_(pull)
        self._weights.sub_(direction, alpha=work.learning_rate)


@contextmanager
def drawing(seed: int, device: torch.device) -> Iterator[None]:
    """While it lasts, what modules draw on this device (dropout) follows from a seed; torch's generators are left as they were."""
    gpu = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if gpu else []):
        torch.default_generator.manual_seed(seed)
        if gpu:
            torch.cuda.manual_seed(seed)
        yield


def module_seed(work: Work, client: str) -> int:
    """The seed of what a module draws while a client trains it."""
    return int(client_rng(work.seed, work.round, client, RANDOM).integers(1 << 62))
