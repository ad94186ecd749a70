"""The built-in models in JAX.

Trap: XLA on CPU runs a convolution inside a loop 17 times slower than outside, so a convolution is written here as one product of matrices
over shifted views.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from haina.learners.jax.backend import jax, jnp
from haina.learners.jax.learner import JaxLearner
from haina.learners.models import EPSILON, KERNEL, Model

#: Tensors by name.
Params = Mapping[str, Any]


def learner(model: Model, **options: Any) -> JaxLearner:
    """A `JaxLearner` of a built-in model; `options` are those of `JaxLearner`."""

    def init(key: Any) -> Any:
        # Integer seeds lie unchanged in the key's two words; NumPy draws, so that torch starts from the same bytes.
        high, low = (int(word) for word in jax.random.key_data(key))
        return OrderedDict(model.initial((high << 32) + low))

    return JaxLearner(init, lambda params, x: apply(model, params, x), **options)


def apply(model: Model, params: Params, x: Any) -> Any:
    """Outputs `[B, outputs]` of a built-in model for rows `x [B, *features]`."""
    if x.shape[1:] != model.features:
        raise ValueError(f"the {model.kind} was built for rows of shape {model.features}")
    return _KINDS[model.kind](model, params, x)


def _mlp(model: Model, params: Params, x: Any) -> Any:
    x = jnp.asarray(x, np.float32).reshape(len(x), -1)
    for i in range(1, len(params) // 2):
        x = jax.nn.relu(_layer(params, f"hidden{i}", x))
    return _layer(params, "output", x)


def _cnn(model: Model, params: Params, x: Any) -> Any:
    x = jnp.asarray(x, np.float32).reshape(len(x), model.channels, *model.sides)
    for name in ("conv1", "conv2"):
        convolved = _convolve(x, params[f"{name}.weight"]) + params[f"{name}.bias"][:, None, None]
        x = _halve(jax.nn.relu(convolved))
    x = jax.nn.relu(_layer(params, "dense", x.reshape(len(x), -1)))
    return _layer(params, "output", x)


def _transformer(model: Model, params: Params, x: Any) -> Any:
    z = params["positions.weight"] + (
        _look_up(params["tokens.weight"], jnp.asarray(x, np.int32))
        if model.vocabulary
        else _layer(params, "input", jnp.asarray(x, np.float32))
    )
    for i in range(1, model.layers + 1):
        mixed = _attend(_layer(params, f"block{i}.attend", _norm(params, f"block{i}.norm1", z)), model.heads)
        z = z + _layer(params, f"block{i}.mix", mixed)
        inner = jax.nn.relu(_layer(params, f"block{i}.expand", _norm(params, f"block{i}.norm2", z)))
        z = z + _layer(params, f"block{i}.contract", inner)
    return _layer(params, "output", _norm(params, "norm", z).mean(1))


_KINDS: Mapping[str, Callable[[Model, Params, Any], Any]] = {
    "logistic": _mlp,
    "mlp": _mlp,
    "cnn": _cnn,
    "transformer": _transformer,
}


def _layer(params: Params, name: str, x: Any) -> Any:
    return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]


def _norm(params: Params, name: str, z: Any) -> Any:
    centred = z - z.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + EPSILON)
    return centred * scale * params[f"{name}.weight"] + params[f"{name}.bias"]


def _look_up(table: Any, x: Any) -> Any:
    """Rows of a table, as a product of matrices, whose gradient is one too; NaN for a number that it does not have."""
    known = (x >= 0) & (x < len(table))
    return jnp.where(known[..., None], jax.nn.one_hot(x, len(table), dtype=np.float32) @ table, np.nan)


def _attend(z: Any, heads: int) -> Any:
    """`[B, T, 3 width]` queries, keys and values -> `[B, T, width]`."""
    count, length, _ = z.shape
    queries, keys, values = z.reshape(count, length, 3, heads, -1).transpose(2, 0, 3, 1, 4)
    scores = queries @ keys.swapaxes(-1, -2) / np.float32(np.sqrt(queries.shape[-1]))
    return (jax.nn.softmax(scores, -1) @ values).swapaxes(1, 2).reshape(count, length, -1)


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
