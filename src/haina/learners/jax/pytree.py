"""Names for the leaves of a pytree: their paths, joined by dots."""

from __future__ import annotations

from typing import Any

import numpy as np

from haina.errors import LearnerError
from haina.learners.jax.backend import jax, jnp


def flatten(params: Any) -> tuple[list[str], list[Any], Any]:
    """Names, leaves and structure of a model's parameters.

    Raises:
        LearnerError: a leaf that is neither float32 nor integer, or two leaves of one name.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator=".") or "vector" for path, _ in paths]
    leaves = [jnp.asarray(leaf) for _, leaf in paths]
    for name, leaf in zip(names, leaves, strict=True):
        if leaf.dtype != np.float32 and not jnp.issubdtype(leaf.dtype, jnp.integer):
            raise LearnerError(
                f"tensor {name!r} has dtype {leaf.dtype}",
                allowed="float32, or integers for constants",
                remedy="Cast it in init",
            )
    if len(set(names)) < len(names):
        raise LearnerError(
            "two tensors have the same name",
            allowed="pytree keys that differ when joined by dots",
            remedy="Rename a key that holds a dot",
        )
    return names, leaves, structure
