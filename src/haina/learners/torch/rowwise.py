"""Rowwise: gradients of single rows, by the hooks of Opacus (Yousefpour et al. 2021, "Opacus: User-Friendly Differential Privacy Library in
PyTorch").

Only its hooks are used. Its noise and its sampling are not: they are floats from torch's generators, and the safer generator that it would take in
their place is no longer built.

Traps: (1) Opacus takes a module's word that rows do not mix, looks only at layers with trained parameters of their own, and reads images as if
their memory was in order. So each module is tried out on drawn rows: the gradients of the rows must add up to the whole gradient, no row may feel
another, and nothing may be remembered. What mixes rows for some inputs only is not found. (2) Its import sets up the root logger, which is undone.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.torch.flat import Flat
from haina.learners.torch.loop import Client, Loss, drawing

_handlers = list(logging.root.handlers)
from opacus.grad_sample import GradSampleModule  # noqa: E402 (between what is kept and what is put back)
from opacus.validators import ModuleValidator  # noqa: E402

logging.root.handlers[:] = _handlers

#: What stands in for layers that Opacus finds unfit, by the beginning of their names; all others have no known substitute.
_INSTEAD = {
    "BatchNorm": "torch.nn.GroupNorm",
    "SyncBatchNorm": "torch.nn.GroupNorm",
    "InstanceNorm": "the same layer with track_running_stats=False",
    "LSTM": "opacus.layers.DPLSTM",
    "GRU": "opacus.layers.DPGRU",
    "MultiheadAttention": "opacus.layers.DPMultiheadAttention",
}


class Rowwise:
    """A module and the gradients of its loss for each row.

    Args:
        flat: the module.
        losses: outputs and targets of a batch -> `[B]` losses.
    """

    def __init__(self, flat: Flat, losses: Loss) -> None:
        self._flat, self._losses, self._device = flat, losses, flat.weights.device

    @contextmanager
    def hooked(self) -> Iterator[nn.Module]:
        """The module with hooks for gradients of single rows; they are gone afterwards."""
        module = self._flat.module.train()
        with warnings.catch_warnings():
            # Torch says so of every first layer, and Opacus's autocast of every layer that reads integers; both are as they should be.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            warnings.filterwarnings("ignore", "In CPU autocast")
            sampled = _Sampled(module, loss_reduction="sum")
            try:
                yield sampled
            finally:
                sampled.to_standard_module()
                for parameter in module.parameters():
                    parameter.grad = None
                for part in module.modules():
                    for left in ("activations", "max_batch_len"):
                        part.__dict__.pop(left, None)

    def gradients(self, module: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        """The gradients of single rows.

        Args:
            module: from `hooked`.
            x: `[B, ...]` rows.
            y: `[B]` targets.

        Returns:
            `[B, *shape]` for each trained tensor; zeros where one was not used.
        """
        module.zero_grad(set_to_none=True)
        torch.autograd.backward(self._losses(module(x), y).sum())
        found = [getattr(parameter, "grad_sample", None) for parameter in self._flat.parameters]
        return [
            parameter.new_zeros((len(x), *parameter.shape)) if gradient is None else gradient
            for parameter, gradient in zip(self._flat.parameters, found, strict=True)
        ]

    def prove(self, client: Client) -> None:
        """Try the module out before it is trained; its weights and buffers are others afterwards.

        Args:
            client: whose rows look like all others.

        Raises:
            LearnerError: it has a layer that Opacus knows to be unfit, or does not do what single gradients need.
        """
        module = self._flat.module
        unfit = {
            name: type(part).__name__
            for name, part in module.named_modules()
            if type(part) in ModuleValidator.VALIDATORS and ModuleValidator.VALIDATORS[type(part)](part)
        }
        if unfit:
            layers = ", ".join(f"{name!r} ({kind})" for name, kind in unfit.items())
            instead = [(kind, _instead(kind)) for kind in sorted(set(unfit.values()))]
            raise LearnerError(
                f"single examples cannot be clipped in layer {layers}",
                allowed="layers that look at each example by itself and remember none",
                remedy="; ".join(f"In place of {kind} use {other}" for kind, other in instead),
            )
        try:
            refusal = self._refusal(client)
        except Exception as error:
            # Whatever a module does that Opacus cannot follow; there is no one type for it.
            refusal = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if refusal is not None:
            raise LearnerError(
                f"single examples cannot be clipped in this module: {refusal}",
                allowed="layers that look at each example by itself, remember none, and are called as modules",
                remedy="Change the module, or protect clients instead of examples",
            )

    def _scatter(self, client: Client) -> None:
        """Put the weights near the first model's: not at a zero that hides what depends on what, nor where the server wants them."""
        drawn = np.random.default_rng(0).standard_normal(len(self._flat.weights), np.float32)
        self._flat.weights.copy_(torch.from_numpy(0.05 * drawn))
        for name, piece in zip(self._flat.names, self._flat.pieces, strict=True):
            piece.add_(torch.from_numpy(np.array(client.own[name])).to(self._device))

    def _refusal(self, client: Client) -> str | None:
        """Why rows cannot be protected in this module; None if they can. Tried out on drawn rows that look like the client's."""
        count = 3
        first, other = (torch.from_numpy(x).to(self._device) for x in _drawn(client, count))
        y = torch.from_numpy(np.zeros_like(client.y, shape=(count, *client.y.shape[1:]))).to(self._device)
        self._scatter(client)
        remembered = {name: buffer.clone() for name, buffer in self._flat.module.named_buffers()}
        with self.hooked() as module:

            def rows(x: torch.Tensor) -> torch.Tensor:
                with drawing(0, self._device):
                    gradients = self.gradients(module, x, y)
                portions = {len(gradient) for gradient in gradients}
                if portions != {count}:
                    raise ValueError(
                        f"a layer reads its rows in other portions ({max(portions)} where there are {count})"
                    )
                return torch.cat([gradient.reshape(count, -1) for gradient in gradients], 1)

            alone = rows(first)
            whole = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in self._flat.parameters]
            if not _same(alone.sum(0), torch.cat([gradient.flatten() for gradient in whole])):
                return "the gradients of its rows do not add up; a parameter may be used outside of its own layer"
            for row in range(count):
                x = first.clone()
                x[row] = other[row]
                others = torch.arange(count) != row
                if not _same(rows(x)[others], alone[others]):
                    return "its rows depend on each other"
        for name, buffer in self._flat.module.named_buffers():
            if not torch.equal(buffer, remembered[name]):
                return f"training changes its buffer {name!r}"
        return None


class _Sampled(GradSampleModule):  # type: ignore[misc] # it has no types
    """Opacus's module. It reads images as if their memory was in order, and gets wrong gradients for channels-last without a word."""

    def capture_activations_hook(
        self, module: nn.Module, forward_input: list[torch.Tensor], _forward_output: torch.Tensor
    ) -> None:
        super().capture_activations_hook(module, [t.contiguous() for t in forward_input], _forward_output)


def _drawn(client: Client, count: int) -> tuple[Array, Array]:
    rng, like = np.random.default_rng(0), (2, count, *client.x.shape[1:])
    drawn = rng.standard_normal(like) if client.x.dtype.kind == "f" else rng.integers(0, 2, like)
    first, other = drawn.astype(client.x.dtype)
    return first, other


def _same(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def _instead(kind: str) -> str:
    return next((other for name, other in _INSTEAD.items() if kind.startswith(name)), "another layer")
