"""The model of this federation: two pure functions. Replace them with your own."""

import jax
import jax.numpy as jnp

FEATURES, HIDDEN, CLASSES = 64, 32, 10


def build_model():
    """What `build = "task:build_model"` calls: it returns `init(key) -> params` and `apply(params, x) -> logits`."""
    return init, apply


def init(key):
    first, second = jax.random.split(key)
    return {
        "hidden": {
            "weight": jax.random.normal(first, (FEATURES, HIDDEN)) * (2 / FEATURES) ** 0.5,
            "bias": jnp.zeros(HIDDEN),
        },
        "output": {
            "weight": jax.random.normal(second, (HIDDEN, CLASSES)) * (2 / HIDDEN) ** 0.5,
            "bias": jnp.zeros(CLASSES),
        },
    }


def apply(params, x):
    hidden = jax.nn.relu(x @ params["hidden"]["weight"] + params["hidden"]["bias"])
    return hidden @ params["output"]["weight"] + params["output"]["bias"]
