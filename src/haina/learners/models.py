"""Built-in small models by name, as plain facts: names, shapes and first values of their tensors.

The facts are the same for every framework (tensor names, shapes and order are those that a torch module would give), so a vector trained by
one is a model of the other, and one seed gives both the same first bytes. Weights are He-normal, N(0, 2 / fan_in) (He et al. 2015, "Delving
Deep into Rectifiers", eq. 10), biases zero; the logistic model, whose loss is convex, starts at zero.

The transformer reads a row as a sequence: numbers of tokens, or vectors of a series. It has learned positions, blocks that normalise first (Xiong
et al. 2020, "On Layer Normalization in the Transformer Architecture"), and the mean over the sequence in front of the output:

    z <- tokens[x] or x W' + b            z <- z + positions
    z <- z + mix(attend(norm1(z)))        z <- z + contract(relu(expand(norm2(z))))        for each layer
    y <- output(mean(norm(z)))

Its matrices are N(0, 1 / fan_in), and those that write into z are divided by the root of how many do (Radford et al. 2019, "Language Models are
Unsupervised Multitask Learners", section 2.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError

KINDS = ("logistic", "mlp", "cnn", "transformer")

#: The convolutional network: two 5 x 5 convolutions of 32 and 64 channels, each with a 2 x 2 maximum, then a dense layer of 512.
CHANNELS = (32, 64)
KERNEL = 5
DENSE = 512

#: The transformer's inner layer is so many times as wide as the sequence, and this is added to variances before they divide.
EXPANSION = 4
EPSILON = 1e-5


@dataclass(frozen=True)
class Tensor:
    """One tensor of a built-in model.

    Args:
        name: as in a torch module's state.
        shape: `[out, in, ...]` of weights; vectors are biases and the scales of normalisations.
        spread: standard deviation of its first values.
        level: their mean.
    """

    name: str
    shape: tuple[int, ...]
    spread: float = 0.0
    level: float = 0.0


@dataclass(frozen=True)
class Model:
    """A built-in model.

    Args:
        kind: "logistic" (one affine map), "mlp" (affine maps with rectifiers), "cnn" (see `CHANNELS`) or "transformer".
        features: shape of one row; the cnn reads (height, width) or (channels, height, width), the transformer (length,) tokens or
            (length, size) vectors, the others flatten.
        outputs: number of classes, or 1 for a regression.
        hidden: widths of the mlp's hidden layers.
        layers: blocks of the transformer.
        width: of the transformer's sequence, a multiple of `heads`.
        heads: of its attention.
        vocabulary: tokens are numbers from 0 to vocabulary - 1; 0 for rows of vectors. Another number makes the outputs of its row NaN.

    Raises:
        LearnerError: an unknown kind, or sizes that the kind cannot have.
    """

    kind: str
    features: tuple[int, ...]
    outputs: int
    hidden: tuple[int, ...] = (32,)
    layers: int = 2
    width: int = 32
    heads: int = 4
    vocabulary: int = 0

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
        if self.kind == "transformer":
            self._check_transformer()

    def _check_transformer(self) -> None:
        sizes = (self.layers, self.width, self.heads)
        if min(sizes) < 1 or self.vocabulary < 0 or self.width % self.heads:
            raise LearnerError(
                f"layers {self.layers}, width {self.width}, heads {self.heads}, vocabulary {self.vocabulary}",
                allowed="layers, width and heads >= 1, width a multiple of heads, vocabulary >= 0",
            )
        if len(self.features) != (1 if self.vocabulary else 2):
            read = "tokens" if self.vocabulary else "vectors"
            raise LearnerError(
                f"a transformer of {read} cannot read rows of shape {self.features}",
                allowed="(length,) with a vocabulary >= 1, or (length, size) without one",
                remedy="Set vocabulary to the number of tokens, or give each row two dimensions",
            )

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the cnn's images."""
        return self.features[-2], self.features[-1]

    @property
    def channels(self) -> int:
        """Channels of the cnn's images."""
        return self.features[0] if len(self.features) == 3 else 1

    def tensors(self) -> Iterator[Tensor]:
        """Yield the tensors in the model's order."""
        yield from {"cnn": self._cnn, "transformer": self._transformer}.get(self.kind, self._mlp)()

    def _mlp(self) -> Iterator[Tensor]:
        """The logistic model is an mlp without hidden layers."""
        width, gain = prod(self.features), 0.0 if self.kind == "logistic" else 2.0
        for i, size in enumerate(self.hidden if self.kind == "mlp" else (), 1):
            yield from _affine(f"hidden{i}", (size, width), gain)
            width = size
        yield from _affine("output", (self.outputs, width), gain)

    def _cnn(self) -> Iterator[Tensor]:
        channels = self.channels
        for i, size in enumerate(CHANNELS, 1):
            yield from _affine(f"conv{i}", (size, channels, KERNEL, KERNEL))
            channels = size
        yield from _affine("dense", (DENSE, channels * (self.sides[0] // 4) * (self.sides[1] // 4)))
        yield from _affine("output", (self.outputs, DENSE))

    def _transformer(self) -> Iterator[Tensor]:
        width, inner, writers = self.width, EXPANSION * self.width, 2 * self.layers
        if self.vocabulary:
            yield Tensor("tokens.weight", (self.vocabulary, width), sqrt(1 / width))
        else:
            yield from _affine("input", (width, self.features[1]), 1.0)
        yield Tensor("positions.weight", (self.features[0], width), sqrt(1 / width))
        for i in range(1, self.layers + 1):
            yield from _norm(f"block{i}.norm1", width)
            yield from _affine(f"block{i}.attend", (3 * width, width), 1.0)
            yield from _affine(f"block{i}.mix", (width, width), 1 / writers)
            yield from _norm(f"block{i}.norm2", width)
            yield from _affine(f"block{i}.expand", (inner, width), 1.0)
            yield from _affine(f"block{i}.contract", (width, inner), 1 / writers)
        yield from _norm("norm", width)
        yield from _affine("output", (self.outputs, width), 1.0)

    def initial(self, seed: int) -> dict[str, Array]:
        """First values of the tensors; the same seed gives the same bytes in every framework."""
        rng = np.random.default_rng(seed)
        return {tensor.name: _first(tensor, rng) for tensor in self.tensors()}


def _affine(name: str, shape: tuple[int, ...], gain: float = 2.0) -> Iterator[Tensor]:
    """A weight of variance gain / fan_in, and its bias."""
    yield Tensor(f"{name}.weight", shape, sqrt(gain / prod(shape[1:])))
    yield Tensor(f"{name}.bias", shape[:1])


def _norm(name: str, width: int) -> Iterator[Tensor]:
    yield Tensor(f"{name}.weight", (width,), level=1.0)
    yield Tensor(f"{name}.bias", (width,))


def _first(tensor: Tensor, rng: np.random.Generator) -> Array:
    """Matrices are drawn, vectors are not."""
    if len(tensor.shape) == 1:
        return np.full(tensor.shape, tensor.level, np.float32)
    return (tensor.spread * rng.standard_normal(tensor.shape)).astype(np.float32)
