"""Network: the plain torch model of a workload, and local training as a careful user writes it (tensors are indexed, no loader stands between)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own convention)
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from workload import Replay, Workload


def network(workload: Workload, weights: NDArray[Any] | None = None) -> nn.Sequential:
    """The model, with the given flat weights."""
    if workload.kind == "cnn":
        height, width = workload.features
        dense = 64 * (height // 4) * (width // 4)
        layers: list[nn.Module] = [nn.Unflatten(1, (1, height))]
        layers += [nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.Flatten(), nn.Linear(dense, 512), nn.ReLU(), nn.Linear(512, workload.outputs)]
    else:
        widths = [prod(workload.features), *workload.hidden, workload.outputs]
        layers = []
        for a, b in pairwise(widths):
            layers += [nn.Linear(a, b), nn.ReLU()]
        layers.pop()
    made = nn.Sequential(*layers)
    if weights is not None:
        vector_to_parameters(torch.from_numpy(weights.copy()), made.parameters())
    return made


class OfFolder(nn.Sequential):
    """The first model of a workload's folder, for a system that writes down how a model is made and makes it elsewhere."""

    def __init__(self, folder: str) -> None:
        replay = Replay(Path(folder))
        super().__init__(*network(replay.workload, replay.initial))
        self.folder = folder


def flat(module: nn.Module) -> NDArray[Any]:
    """All weights as one vector."""
    out: NDArray[Any] = parameters_to_vector(module.parameters()).detach().cpu().numpy()
    return out


def train(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    x: torch.Tensor,
    y: torch.Tensor,
    batches: Iterable[NDArray[np.int64]],
) -> None:
    """The steps of one client on its rows."""
    for rows in batches:
        chosen = torch.from_numpy(rows).to(x.device)
        optimiser.zero_grad()
        F.cross_entropy(module(x[chosen]), y[chosen]).backward()
        optimiser.step()
