"""Flat: a module whose trained parameters are views of one vector.

A received model is then one copy, an increment one subtraction, and a client of a cohort one row, however many tensors the module has. The vector
begins with the parameters that travel, so what acts on shared tensors only is a slice.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from haina.artifact import Array
from haina.errors import LearnerError
from haina.layout import Layout

#: A module's tensors by name.
Tensors = Mapping[str, Array]


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
        self.module, self._layout = module, layout
        shared = [field.name for field in layout.shared if field.name in trained]
        #: All trained tensors, in the order of the vector.
        self.names = shared + [name for name in trained if name not in shared]
        self.parameters = [trained[name] for name in self.names]
        self.shapes = [parameter.shape for parameter in self.parameters]
        self.sizes = [parameter.numel() for parameter in self.parameters]
        #: How many leading elements travel.
        self.travelling = sum(self.sizes[: len(shared)])
        #: `[trained]` parameters, and the same memory tensor by tensor. Neither is a leaf of autograd, so both may be changed in place.
        self.weights = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        self.pieces = self.split(self.weights)
        for parameter, piece in zip(self.parameters, self.pieces, strict=True):
            parameter.data = piece
        self._shared = shared
        self._rest = [name for name in module.state_dict() if name not in self.names]
        self._is_layout = len(shared) == len(layout.shared)

    def split(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """`[trained]` vector -> the trained tensors, as views."""
        pieces = torch.split(vector, self.sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes, strict=True)]

    def load(self, model: Array, own: Tensors) -> None:
        """Set the module's state.

        Args:
            model: `[d]` vector of the layout.
            own: at least the tensors that stay with the client.
        """
        if self._is_layout and len(self._shared) == len(self.names) and not self._rest:
            self.weights.copy_(from_numpy(model))
            return
        tensors, state = self._layout.unpack(model, own), self.module.state_dict()
        for name in (*self.names, *self._rest):
            state[name].detach().copy_(torch.from_numpy(np.array(tensors[name])))

    def vector(self) -> Array:
        """`[d]` the module's state as a vector of the layout; a copy."""
        if self._is_layout:
            return self.weights[: self.travelling].cpu().numpy().copy()
        return self._layout.pack(numpy_of(self.module))

    def own(self) -> Tensors:
        """A copy of the tensors that stay with the client."""
        state = numpy_of(self.module)
        return {field.name: state[field.name] for field in self._layout.fields if not field.shared}

    def part(self, vector: Array) -> torch.Tensor:
        """`[d]` vector of the layout -> `[trained]` on the module's device: what belongs to trained parameters that travel, and zeros."""
        tensors = self._layout.unpack(vector.astype(np.float32, copy=False))
        out = np.zeros(sum(self.sizes), np.float32)
        out[: self.travelling] = np.concatenate(
            [np.empty(0, np.float32), *(tensors[name].reshape(-1) for name in self._shared)]
        )
        return torch.from_numpy(out).to(self.weights.device)


def numpy_of(module: nn.Module) -> dict[str, Array]:
    """A copy of the module's state, by name."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in module.state_dict().items()}


def from_numpy(array: Array) -> torch.Tensor:
    """The array as a tensor on the CPU; a copy where it cannot be written to, as torch knows no such tensors."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())
