"""Built-in small models by name, as plain facts: names, shapes and first values of their tensors.

The facts are the same for every framework (tensor names, shapes and order are those that a torch module would give), so a vector trained by
one is a model of the other, and one seed gives both the same first bytes. Weights are He-normal, N(0, 2 / fan_in) (He et al. 2015, "Delving
Deep into Rectifiers", eq. 10), biases zero; the logistic model, whose loss is convex, starts at zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError

KINDS = ("logistic", "mlp", "cnn")

#: The convolutional network: two 5 x 5 convolutions of 32 and 64 channels, each with a 2 x 2 maximum, then a dense layer of 512.
CHANNELS = (32, 64)
KERNEL = 5
DENSE = 512


@dataclass(frozen=True)
class Model:
    """A built-in model.

    Args:
        kind: "logistic" (one affine map), "mlp" (affine maps with rectifiers) or "cnn" (see `CHANNELS`).
        features: shape of one row; the cnn reads (height, width) or (channels, height, width), the others flatten.
        outputs: number of classes, or 1 for a regression.
        hidden: widths of the mlp's hidden layers.

    Raises:
        LearnerError: an unknown kind, or sizes that the kind cannot have.
    """

    kind: str
    features: tuple[int, ...]
    outputs: int
    hidden: tuple[int, ...] = (32,)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise LearnerError(f"model {self.kind!r} is unknown", allowed=", ".join(KINDS))
        if min((self.outputs, *self.features, *self.hidden), default=0) < 1:
            raise LearnerError(
                f"sizes are features {self.features}, hidden {self.hidden}, outputs {self.outputs}",
                allowed="integers >= 1",
            )
        if self.kind == "cnn" and (len(self.features) not in (2, 3) or any(side % 4 for side in self.sides)):
            raise LearnerError(
                f"the cnn cannot read rows of shape {self.features}",
                allowed="(height, width) or (channels, height, width), height and width multiples of 4",
                remedy="Reshape or pad the images, or use the mlp",
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the cnn's images."""
        return self.features[-2], self.features[-1]

    @property
    def channels(self) -> int:
        """Channels of the cnn's images."""
        return self.features[0] if len(self.features) == 3 else 1

    def layers(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield (layer name, weight shape `[out, in, ...]`) in the model's order; every layer has a weight and a bias `[out]`."""
        width = prod(self.features)
        if self.kind == "mlp":
            for i, size in enumerate(self.hidden, 1):
                yield f"hidden{i}", (size, width)
                width = size
        elif self.kind == "cnn":
            channels = self.channels
            for i, size in enumerate(CHANNELS, 1):
                yield f"conv{i}", (size, channels, KERNEL, KERNEL)
                channels = size
            yield "dense", (DENSE, channels * (self.sides[0] // 4) * (self.sides[1] // 4))
            width = DENSE
        yield "output", (self.outputs, width)

    def initial(self, seed: int) -> dict[str, Array]:
        """First values of the tensors; the same seed gives the same bytes in every framework."""
        rng = np.random.default_rng(seed)
        tensors: dict[str, Array] = {}
        for name, shape in self.layers():
            scale = 0.0 if self.kind == "logistic" else sqrt(2 / prod(shape[1:]))
            tensors[f"{name}.weight"] = (scale * rng.standard_normal(shape)).astype(np.float32)
            tensors[f"{name}.bias"] = np.zeros(shape[0], np.float32)
        return tensors
