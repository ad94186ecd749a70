"""Flat: a module whose trained parameters are views of one vector, and their gradients of another.

A step of the optimiser is then a few operations on one vector however many tensors the module has (measured: 1.7 times less CPU than a plain loop
for 100 clients of logistic regression). The vectors begin with the parameters that travel, so what acts on shared tensors only is a slice.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from haina.artifact import Array
from haina.errors import LearnerError
from haina.layout import Layout


class Flat:
    """A module laid out flat.

    Args:
        module: changed in place; its frozen parameters stay as they are.
        layout: of the module's state.

    Raises:
        LearnerError: nothing to train, or trained parameters of another type than float32.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        if not trained:
            raise LearnerError("the module has nothing to train", allowed="at least one parameter")
        for name, parameter in trained.items():
            if parameter.dtype != torch.float32:
                raise LearnerError(
                    f"tensor {name!r} has dtype {parameter.dtype}",
                    allowed="float32 for trained tensors",
                    remedy="Return module.float() from build",
                )
        self._module, self._layout = module, layout
        self._shared = [field.name for field in layout.shared if field.name in trained]
        #: All trained tensors, in the order of the vectors.
        self.names = self._shared + [name for name in trained if name not in self._shared]
        #: How many leading elements travel.
        self.travelling = sum(trained[name].numel() for name in self._shared)
        sizes = [trained[name].numel() for name in self.names]
        device = trained[self.names[0]].device
        #: `[trained]` parameters and `[trained]` gradients.
        self.weights, self.gradient = (
            torch.empty(sum(sizes), device=device),
            torch.zeros(sum(sizes), device=device),
        )
        start = 0
        for name, size in zip(self.names, sizes, strict=True):
            parameter, piece = trained[name], slice(start, start + size)
            self.weights[piece] = parameter.detach().reshape(-1)
            parameter.data = self.weights[piece].view_as(parameter)
            parameter.grad = self.gradient[piece].view_as(parameter)
            start += size

    def load(self, tensors: Mapping[str, Array]) -> None:
        """Set the module's state."""
        with torch.no_grad():
            for name, tensor in self._module.state_dict().items():
                tensor.copy_(torch.from_numpy(np.array(tensors[name])))

    def part(self, vector: Array) -> Array:
        """`[d]` vector of the layout -> its `[travelling]` elements that belong to trained parameters."""
        tensors = self._layout.unpack(vector.astype(np.float32, copy=False))
        pieces = [tensors[name].reshape(-1) for name in self._shared]
        return np.concatenate(pieces) if pieces else np.empty(0, np.float32)


def numpy_of(module: nn.Module) -> dict[str, Array]:
    """A copy of the module's state, by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}
