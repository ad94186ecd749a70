"""Workload: one folder that every engine reads, so that all do the same work. NumPy alone, for the peers' environments do not have haina.

    clients/        x.npy [N, ...], y.npy [N], offsets.npy [clients + 1]: client k owns rows offsets[k] : offsets[k + 1]
    evaluated/      the same rows, and test rows beside them
    workload.json   the model and how clients train
    init.npy        [d] the first model, tensors in the order of a torch module
    cohorts.npy     [rounds, K] who is invited
    keys.npy        [rounds, K] the word of each of them in the seeds of its batches

A client's batches follow from four seed words and nothing else (federation's seed, round, the client's word, 0): one generator, one permutation of
its rows an epoch, cut into batches, the last of them short.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Weights of all engines are compared after so many rounds.
COMPARED = 2


@dataclass(frozen=True)
class Workload:
    """A model, and how clients train it.

    Args:
        kind: "logistic", "mlp" or "cnn".
        features: shape of one row.
        outputs: classes.
        hidden: widths of the mlp's hidden layers.
        clients: registered.
        cohort: invited a round.
        batch: rows a step.
        epochs: local passes a round.
        rate: learning rate.
        seed: the federation's.
    """

    kind: str
    features: tuple[int, ...]
    outputs: int
    hidden: tuple[int, ...]
    clients: int
    cohort: int
    batch: int
    epochs: int
    rate: float
    seed: int = 0

    @classmethod
    def read(cls, folder: Path) -> Workload:
        found = json.loads((folder / "workload.json").read_text())
        return cls(**{**found, "features": tuple(found["features"]), "hidden": tuple(found["hidden"])})

    def write(self, folder: Path) -> None:
        (folder / "workload.json").write_text(json.dumps(asdict(self), indent=1))

    def flops(self, samples: int) -> float:
        """Floating-point operations of training on so many samples: forward, gradient of weights, and gradient of inputs but for the first layer."""
        height, width = self.features[-2:] if self.kind == "cnn" else (0, 0)
        if self.kind == "cnn":
            layers = [
                height * width * 25 * 32,
                height * width // 4 * 25 * 32 * 64,
                height * width // 16 * 64 * 512,
                512 * self.outputs,
            ]
        else:
            widths = [int(np.prod(self.features)), *self.hidden, self.outputs]
            layers = [a * b for a, b in pairwise(widths)]
        return 2.0 * samples * (3 * sum(layers) - layers[0])


class Replay:
    """The rows and the schedule of a workload's folder.

    Args:
        folder: as the docstring of the module says.
    """

    def __init__(self, folder: Path) -> None:
        self.workload = Workload.read(folder)
        rows = folder / "clients"
        # Mapped copy-on-write: torch wants arrays that may be written to.
        self.x: NDArray[Any] = np.load(rows / "x.npy", mmap_mode="c")
        self.y: NDArray[Any] = np.load(rows / "y.npy", mmap_mode="c")
        self.offsets: NDArray[Any] = np.load(rows / "offsets.npy", mmap_mode="c")
        self.initial: NDArray[Any] = np.load(folder / "init.npy")
        self.cohorts: NDArray[Any] = np.load(folder / "cohorts.npy")
        self.keys: NDArray[Any] = np.load(folder / "keys.npy")

    def cohort(self, round: int) -> list[int]:
        """The clients invited in a round, counted from 1."""
        return [int(client) for client in self.cohorts[round - 1]]

    def size(self, client: int) -> int:
        return int(self.offsets[client + 1] - self.offsets[client])

    def rows(self, client: int) -> slice:
        return slice(int(self.offsets[client]), int(self.offsets[client + 1]))

    def samples(self, round: int) -> int:
        """Samples that a round trains on, epochs counted."""
        return self.workload.epochs * sum(self.size(client) for client in self.cohort(round))

    def orders(self, round: int, place: int) -> Iterator[NDArray[Any]]:
        """The order of its rows in each epoch of the client at a place of the cohort."""
        words = [self.workload.seed, round, int(self.keys[round - 1, place]), 0]
        rng = np.random.default_rng(words)
        size = self.size(int(self.cohorts[round - 1, place]))
        for _ in range(self.workload.epochs):
            yield rng.permutation(size)

    def batches(self, round: int, place: int) -> Iterator[NDArray[Any]]:
        """Its batches, one after another: numbers of its own rows."""
        for order in self.orders(round, place):
            for start in range(0, len(order), self.workload.batch):
                yield order[start : start + self.workload.batch]
