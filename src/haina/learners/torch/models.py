"""The built-in models in torch.

The cnn reads its images with channels last and takes the maximum before the rectifier, which is the same function: a step of the 1.7 M parameter
network costs 0.7 of what it costs channels first (measured, torch 2.13 on AVX2), most of it in the maximum. Weights stay as they are, so bytes do.
"""

from __future__ import annotations

from collections import OrderedDict
from math import sqrt
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own convention)

from haina.learners.models import EPSILON, EXPANSION, KERNEL, Model
from haina.learners.torch.learner import TorchLearner


def learner(model: Model, **options: Any) -> TorchLearner:
    """A `TorchLearner` of a built-in model; `options` are those of `TorchLearner`."""
    return TorchLearner(lambda: module(model), **options)


def module(model: Model) -> nn.Sequential:
    """A built-in model, its first values drawn by NumPy from torch's own seed, so that JAX starts from the same bytes."""
    make = {"cnn": _cnn, "transformer": _transformer}.get(model.kind, _mlp)
    network = nn.Sequential(OrderedDict(rows=_Rows(model), **make(model)))
    first = model.initial(torch.initial_seed())
    network.load_state_dict({name: torch.from_numpy(values) for name, values in first.items()})
    return network


class _Rows(nn.Module):
    """Rows as the first layer reads them: images with channels last, tokens as integers, others flat or as they are."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        model = self.model
        if x.shape[1:] != model.features:
            raise ValueError(f"the {model.kind} was built for rows of shape {model.features}")
        if model.kind == "transformer":
            return x.long() if model.vocabulary else x.float()
        if model.kind != "cnn":
            return x.float().reshape(len(x), -1)
        height, width = model.sides
        images = x.float().reshape(len(x), model.channels, height * width).transpose(1, 2).contiguous()
        # Strides written out: with one channel both orders are the same bytes, and torch would take it for channels first.
        strides = (model.channels * height * width, 1, model.channels * width, model.channels)
        return images.as_strided((len(x), model.channels, height, width), strides)


def _mlp(model: Model) -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {}
    for name, shape in _weights(model).items():
        parts[name] = nn.Linear(shape[1], shape[0])
        if name != "output":
            parts[f"{name}_relu"] = nn.ReLU()
    return parts


def _cnn(model: Model) -> dict[str, nn.Module]:
    parts: dict[str, nn.Module] = {}
    for name, shape in _weights(model).items():
        if name.startswith("conv"):
            parts[name] = nn.Conv2d(shape[1], shape[0], KERNEL, padding=KERNEL // 2)
            parts[f"{name}_pool"], parts[f"{name}_relu"] = nn.MaxPool2d(2), nn.ReLU()
            continue
        if name == "dense":
            parts["flatten"] = nn.Flatten()
        parts[name] = nn.Linear(shape[1], shape[0])
        if name == "dense":
            parts["dense_relu"] = nn.ReLU()
    return parts


def _weights(model: Model) -> dict[str, tuple[int, ...]]:
    """Shapes of the layers' weights, in order."""
    ending = ".weight"
    return {t.name.removesuffix(ending): t.shape for t in model.tensors() if t.name.endswith(ending)}


def _transformer(model: Model) -> dict[str, nn.Module]:
    length, width = model.features[0], model.width
    parts: dict[str, nn.Module] = {}
    if model.vocabulary:
        parts["tokens"] = _Tokens(model.vocabulary, width)
    else:
        parts["input"] = nn.Linear(model.features[1], width)
    parts["positions"] = _Positions(length, width)
    for i in range(1, model.layers + 1):
        parts[f"block{i}"] = _Block(width, model.heads)
    parts["norm"], parts["mean"] = nn.LayerNorm(width, EPSILON), _Mean()
    parts["output"] = nn.Linear(width, model.outputs)
    return parts


class _Tokens(nn.Module):
    def __init__(self, vocabulary: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocabulary, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # A number outside the table would end the process on a GPU; NaN spoils its own client's update, which is refused with the reason.
        known = (x >= 0) & (x < len(self.weight))
        looked_up = F.embedding(torch.where(known, x, 0), self.weight)
        return torch.where(known[..., None], looked_up, torch.nan)


class _Positions(nn.Module):
    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, width))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        moved: torch.Tensor = z + self.weight
        return moved


class _Mean(nn.Module):
    """The mean over the sequence."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return z.mean(1)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.attend = nn.LayerNorm(width, EPSILON), nn.Linear(width, 3 * width)
        self.mix = nn.Linear(width, width)
        self.norm2, self.expand = nn.LayerNorm(width, EPSILON), nn.Linear(width, EXPANSION * width)
        self.contract = nn.Linear(EXPANSION * width, width)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        z = z + self.mix(self._attention(self.attend(self.norm1(z))))
        inner: torch.Tensor = self.contract(F.relu(self.expand(self.norm2(z))))
        return z + inner

    def _attention(self, z: torch.Tensor) -> torch.Tensor:
        """`[B, T, 3 width]` queries, keys and values -> `[B, T, width]`; written out, as every way of training can take it."""
        count, length, _ = z.shape
        queries, keys, values = z.reshape(count, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = queries @ keys.transpose(-1, -2) / sqrt(queries.shape[-1])
        mixed: torch.Tensor = scores.softmax(-1) @ values
        return mixed.transpose(1, 2).reshape(count, length, -1)
