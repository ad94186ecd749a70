"""Pure: one step of one client as a pure function of flat vectors, for programmes that cannot change a module (`cohort`, `compiled`).

Batches are filled up to one size with rows of weight zero, and a client that has ended stands still, so that all steps have one shape. Not every
module can be trained so: one with buffers would write to them, dropout draws numbers, and batch statistics look at the rows of weight zero. `refusal`
tries it out and says why not.

The rule is that of `haina.learners.gradient`, with what does not change in a round put together beforehand:

    weight_decay * y + proximal * (y - x) + offset  =  pull * y + push
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch.func import functional_call, grad, vmap

from haina.learners.learner import Work
from haina.learners.torch.flat import Flat
from haina.learners.torch.loop import Client, Loss

#: The optimiser's numbers in a round, the same for all clients: `learning_rate [1]`, and where asked for `momentum [1]`, `clip_norm [1]` and
#: `pull [trained]`. What is not there is not computed.
Rules = Mapping[str, torch.Tensor]

#: Where a client stands, `[trained]` each: its `weights`, and where asked for its `velocity` and its constant `push`.
State = Mapping[str, torch.Tensor]


class Batch(NamedTuple):
    """A step: `x [B, ...]`, `y [B]`, `weights [B]` (1 / length, 0 for filling), and `live []`, false where the client has ended."""

    x: torch.Tensor
    y: torch.Tensor
    weights: torch.Tensor
    live: torch.Tensor


class Pure:
    """A module's step.

    Args:
        flat: the module; its frozen parameters are constants.
        losses: outputs and targets of a batch -> `[B]` losses.
    """

    def __init__(self, flat: Flat, losses: Loss) -> None:
        self.flat, self._losses = flat, losses

    def step(self, rules: Rules, state: State, batch: Batch) -> State:
        """One step of one client: what it changes of its state."""
        weights = state["weights"]
        pull = grad(self._loss)(weights, batch)
        if "clip_norm" in rules:
            norm, limit = pull.square().sum().sqrt(), rules["clip_norm"]
            pull = pull * torch.where(norm > limit, limit / norm, 1.0)
        if "pull" in rules:
            pull = pull + rules["pull"] * weights
        if "push" in state:
            pull = pull + state["push"]
        if "momentum" in rules:
            pull = rules["momentum"] * state["velocity"] + pull
        moved = torch.where(batch.live, weights - rules["learning_rate"] * pull, weights)
        return {"weights": moved, "velocity": pull} if "velocity" in state else {"weights": moved}

    def together(self, rules: Rules, state: State, batch: Batch) -> State:
        """One step of k clients: every array of `state` and `batch` has them in front."""
        return vmap(self.step, in_dims=(None, 0, 0))(rules, state, batch)

    def rules(self, work: Work) -> Rules:
        """The numbers of a round."""
        training, flat, device = work.training, self.flat, self.flat.weights.device
        pull = torch.full_like(flat.weights, training.weight_decay)
        pull[: flat.travelling] += work.proximal
        numbers = {"momentum": training.momentum, "clip_norm": training.clip_norm}
        asked = {
            "learning_rate": work.learning_rate,
            **{name: value for name, value in numbers.items() if value},
        }
        rules = {name: torch.tensor([value], device=device) for name, value in asked.items()}
        return rules | ({"pull": pull} if training.weight_decay or work.proximal else {})

    def start(self, work: Work, clients: Sequence[Client]) -> State:
        """Where k clients stand before their first step, `[k, trained]` each; the module's frozen parameters are set."""
        flat, count = self.flat, len(clients)
        flat.load(work.model, clients[0].own)
        state = {"weights": flat.weights.expand(count, -1).clone()}
        if flat.travelling < len(flat.weights):
            for row, client in zip(state["weights"], clients, strict=True):
                flat.load(work.model, client.own)
                row.copy_(flat.weights)
        if work.training.momentum:
            state["velocity"] = torch.zeros_like(state["weights"])
        if work.proximal or work.offsets is not None:
            state["push"] = (-work.proximal * flat.part(work.model)).expand(count, -1).clone()
        if work.offsets is not None:
            for row, client in zip(state["push"], clients, strict=True):
                row.add_(flat.part(work.offsets[client.place]))
        return state

    def refusal(self, client: Client) -> str | None:
        """Why the module cannot be trained so; None if it can. Tried out on drawn rows that look like the client's."""
        if next(iter(self.flat.module.buffers()), None) is not None:
            return "it has buffers, which training may change"
        rng, like = np.random.default_rng(0), (3, *client.x.shape[1:])
        drawn = rng.standard_normal(like) if client.x.dtype.kind == "f" else rng.integers(0, 2, like)
        x, y, weights = (
            torch.from_numpy(part).to(self.flat.weights.device)
            for part in (
                drawn.astype(client.x.dtype),
                np.zeros((3, *client.y.shape[1:]), client.y.dtype),
                np.array([0.5, 0.5, 0.0], np.float32),
            )
        )
        self.flat.module.train()
        try:
            exact, filled = (
                vmap(grad(self._loss))(
                    self.flat.weights[None],
                    Batch(x[None, :n], y[None, :n], weights[None, :n], weights[:1] > 0),
                )
                for n in (2, 3)
            )
        except Exception as error:
            # Whatever a module does that a function may not; torch has no one type for it.
            return (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not torch.allclose(exact, filled, rtol=1e-3, atol=1e-5):
            return "its rows depend on each other"
        return None

    def _loss(self, weights: torch.Tensor, batch: Batch) -> torch.Tensor:
        tensors = dict(zip(self.flat.names, self.flat.split(weights), strict=True))
        outputs = functional_call(self.flat.module, tensors, (batch.x,))
        return (self._losses(outputs, batch.y) * batch.weights).sum()
