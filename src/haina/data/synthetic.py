"""Synthetic(alpha, beta): devices with classifiers and inputs of their own (Li et al. 2020, "Federated Optimization in Heterogeneous
Networks", sec. 5.1).

Device k has n_k = floor(lognormal(4, 2)) + 50 rows, and

    u_k ~ N(0, alpha)      W_k, b_k ~ N(u_k, 1)            alpha: how much local models differ
    B_k ~ N(0, beta)       v_k ~ N(B_k, 1)                 beta: how much local inputs differ
    x ~ N(v_k, diag(j^-1.2))    y = argmax(W_k x + b_k)

The trap: alpha and beta are standard deviations in the authors' code, although the paper's notation suggests variances; and that code draws
without a seed, so the published rows cannot be drawn again. Here the generator is handed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haina.artifact import Array
from haina.data.dataset import Dataset
from haina.errors import DataError


@dataclass(frozen=True)
class Synthetic:
    """The family of data sets.

    Args:
        alpha: standard deviation >= 0 of the devices' model means.
        beta: standard deviation >= 0 of the devices' input means.
        iid: one W, b for all and v = 0; alpha and beta are not used.
        devices: number of devices.
        dimension: number of features.
        classes: number of classes.

    Raises:
        DataError: a setting is out of range.
    """

    alpha: float = 1.0
    beta: float = 1.0
    iid: bool = False
    devices: int = 30
    dimension: int = 60
    classes: int = 10

    def __post_init__(self) -> None:
        for name, low in (("alpha", 0), ("beta", 0), ("devices", 1), ("dimension", 1), ("classes", 2)):
            value = getattr(self, name)
            if not low <= value < float("inf"):
                raise DataError(f"{name} is {value}", allowed=f"a finite number >= {low}")

    def generate(self, rng: np.random.Generator) -> Dataset:
        """Draw the devices in order; `groups` names the device of each row, and is the natural partition."""
        sizes = np.floor(rng.lognormal(4.0, 2.0, self.devices)).astype(np.int64) + 50
        scale = np.arange(1, self.dimension + 1) ** -0.6
        shared = self._classifier(0.0, rng) if self.iid else None
        xs: list[Array] = []
        ys: list[Array] = []
        for size in sizes:
            if shared is None:
                centre = rng.normal(rng.normal(0.0, self.beta), 1.0, self.dimension)
                W, b = self._classifier(rng.normal(0.0, self.alpha), rng)
            else:
                centre, (W, b) = np.zeros(self.dimension), shared
            x = centre + scale * rng.normal(size=(size, self.dimension))
            xs.append(x.astype(np.float32))
            ys.append((x @ W + b).argmax(axis=1))
        width = len(str(self.devices - 1))
        names = np.array([f"device-{k:0{width}d}" for k in range(self.devices)])
        return Dataset.of(
            np.concatenate(xs),
            np.concatenate(ys),
            classes=[str(c) for c in range(self.classes)],
            groups=np.repeat(names, sizes),
            key="device",
        )

    def _classifier(self, mean: float, rng: np.random.Generator) -> tuple[Array, Array]:
        return rng.normal(mean, 1.0, (self.dimension, self.classes)), rng.normal(mean, 1.0, self.classes)
