"""The built-in models in torch."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from haina.learners.models import KERNEL, Model
from haina.learners.torch.learner import TorchLearner


class _Rows(nn.Module):
    """Rows as the first layer reads them: float32, images as (channels, height, width), others flat."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.shape = (model.channels, *model.sides) if model.kind == "cnn" else (-1,)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1:] != self.model.features:
            raise ValueError(f"the {self.model.kind} was built for rows of shape {self.model.features}")
        return x.float().reshape(len(x), *self.shape)


def learner(model: Model, **options: Any) -> TorchLearner:
    """A `TorchLearner` of a built-in model; `options` are those of `TorchLearner`."""
    return TorchLearner(lambda: module(model), **options)


def module(model: Model) -> nn.Sequential:
    """A built-in model, its first values drawn by NumPy from torch's own seed, so that JAX starts from the same bytes."""
    parts: OrderedDict[str, nn.Module] = OrderedDict(rows=_Rows(model))
    for name, shape in model.layers():
        if name.startswith("conv"):
            parts[name] = nn.Conv2d(shape[1], shape[0], KERNEL, padding=KERNEL // 2)
            parts[f"{name}_relu"], parts[f"{name}_pool"] = nn.ReLU(), nn.MaxPool2d(2)
            continue
        if name == "dense":
            parts["flatten"] = nn.Flatten()
        parts[name] = nn.Linear(shape[1], shape[0])
        if name != "output":
            parts[f"{name}_relu"] = nn.ReLU()
    network = nn.Sequential(parts)
    first = model.initial(torch.initial_seed())
    network.load_state_dict({name: torch.from_numpy(values) for name, values in first.items()})
    return network
