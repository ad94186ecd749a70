"""The built-in models in JAX.

Trap: XLA on CPU runs a convolution inside a loop 17 times slower than outside, so a convolution is written here as one product of matrices
over shifted views.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from haina.learners.jax.backend import jax, jnp
from haina.learners.jax.learner import JaxLearner
from haina.learners.models import KERNEL, Model


def learner(model: Model, **options: Any) -> JaxLearner:
    """A `JaxLearner` of a built-in model; `options` are those of `JaxLearner`."""

    def init(key: Any) -> Any:
        # Integer seeds lie unchanged in the key's two words; NumPy draws, so that torch starts from the same bytes.
        high, low = (int(word) for word in jax.random.key_data(key))
        tensors = model.initial((high << 32) + low)
        return OrderedDict(
            (name, OrderedDict((part, tensors[f"{name}.{part}"]) for part in ("weight", "bias")))
            for name, _ in model.layers()
        )

    return JaxLearner(init, lambda params, x: apply(model, params, x), **options)


def apply(model: Model, params: Any, x: Any) -> Any:
    """Outputs `[B, outputs]` of a built-in model for rows `x [B, *features]`."""
    if x.shape[1:] != model.features:
        raise ValueError(f"the {model.kind} was built for rows of shape {model.features}")
    x = jnp.asarray(x, np.float32)
    if model.kind == "cnn":
        x = x.reshape(len(x), model.channels, *model.sides)
    for name, layer in params.items():
        if name.startswith("conv"):
            x = _halve(jax.nn.relu(_convolve(x, layer["weight"]) + layer["bias"][:, None, None]))
            continue
        x = x.reshape(len(x), -1) @ layer["weight"].T + layer["bias"]
        if name != "output":
            x = jax.nn.relu(x)
    return x


def _convolve(x: Any, weight: Any) -> Any:
    """`[B, C, H, W]` with `[out, C, k, k]` -> `[B, out, H, W]`, zeros beyond the edges."""
    count, channels, height, width = x.shape
    edge = KERNEL // 2
    wide = jnp.pad(x, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
    views = [wide[:, :, i : i + height, j : j + width] for i in range(KERNEL) for j in range(KERNEL)]
    patches = jnp.stack(views, 2).reshape(count, channels * KERNEL**2, height * width)
    return jnp.einsum("ok,bkp->bop", weight.reshape(len(weight), -1), patches).reshape(
        count, -1, height, width
    )


def _halve(x: Any) -> Any:
    """The maximum of each 2 x 2 square."""
    count, channels, height, width = x.shape
    return x.reshape(count, channels, height // 2, 2, width // 2, 2).max((3, 5))
