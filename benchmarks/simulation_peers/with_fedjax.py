"""FedJAX's federated averaging, its jit backend for one device: a compiled step, called once a batch.

FedJAX 0.0.17 asks for names that current JAX has no longer (jax.tree_map and its kin); they are put back here. Batches come in the order of the
schedule, so that its weights can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from math import prod
from typing import Any

import jax

for _name in ("all", "flatten", "leaves", "map", "reduce", "structure", "transpose", "unflatten"):
    if not hasattr(jax, f"tree_{_name}"):
        setattr(jax, f"tree_{_name}", getattr(jax.tree_util, f"tree_{_name}"))

import fedjax
import jax.numpy as jnp
import numpy as np
from fedjax.algorithms import fed_avg
from marks import Marks, arguments
from numpy.typing import NDArray
from workload import Replay, Workload

Params = dict[str, jax.Array]


class Ordered:
    """One client's data, as far as federated averaging asks for it."""

    def __init__(self, replay: Replay, number: int, place: int) -> None:
        self._replay, self._round, self._place = replay, number, place
        self._client = replay.cohort(number)[place]

    def __len__(self) -> int:
        return self._replay.size(self._client)

    def shuffle_repeat_batch(self, settings: Any) -> Iterator[dict[str, NDArray[Any]]]:
        rows = self._replay.rows(self._client)
        x, y = self._replay.x[rows], self._replay.y[rows]
        for batch in self._replay.batches(self._round, self._place):
            yield {"x": x[batch], "y": y[batch].astype(np.int32)}


def shapes(workload: Workload) -> list[tuple[int, ...]]:
    """Shapes of weights and biases, in the order of a torch module."""
    if workload.kind == "cnn":
        height, width = workload.features
        weights: list[tuple[int, ...]] = [(32, 1, 5, 5), (64, 32, 5, 5)]
        weights += [(512, 64 * (height // 4) * (width // 4)), (workload.outputs, 512)]
    else:
        widths = [prod(workload.features), *workload.hidden, workload.outputs]
        weights = [(b, a) for a, b in pairwise(widths)]
    return [shape for weight in weights for shape in (weight, weight[:1])]


def outputs(params: Params, x: jax.Array) -> jax.Array:
    layers = [(params[f"{i:02d}"], params[f"{i + 1:02d}"]) for i in range(0, len(params), 2)]
    if layers[0][0].ndim == 4:
        x = x[:, None]
    for i, (weight, bias) in enumerate(layers):
        if weight.ndim == 4:
            x = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME") + bias[:, None, None]
            x = jax.lax.reduce_window(
                jax.nn.relu(x), -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
            )
            continue
        x = x.reshape(len(x), -1) @ weight.T + bias
        if i < len(layers) - 1:
            x = jax.nn.relu(x)
    return x


def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
    logits = jax.nn.log_softmax(outputs(params, batch["x"]))
    return -jnp.take_along_axis(logits, batch["y"][:, None], 1).mean()


def flat(params: Params) -> NDArray[Any]:
    return np.concatenate([np.asarray(params[name]).reshape(-1) for name in sorted(params)])


def main() -> None:
    told = arguments(str(__doc__))
    replay, marks = Replay(told.folder), Marks(told.marks, told.weights)
    marks.versions("fedjax", "jax")
    workload = replay.workload
    ends = np.cumsum([prod(shape) for shape in shapes(workload)])
    parts = np.split(replay.initial, ends[:-1])
    first = {
        f"{i:02d}": jnp.asarray(part.reshape(shape))
        for i, (part, shape) in enumerate(zip(parts, shapes(workload), strict=True))
    }
    algorithm = fed_avg.federated_averaging(
        lambda params, batch, rng: jax.grad(loss)(params, batch),
        fedjax.optimizers.sgd(workload.rate),
        fedjax.optimizers.sgd(1.0),
        fedjax.ShuffleRepeatBatchHParams(batch_size=workload.batch, num_epochs=workload.epochs),
    )
    state = algorithm.init(first)
    for number in range(1, told.rounds + 1):
        marks.begin()
        clients = [
            (str(client).encode(), Ordered(replay, number, place), jax.random.PRNGKey(place))
            for place, client in enumerate(replay.cohort(number))
        ]
        state, _ = algorithm.apply(state, clients)
        jax.block_until_ready(state.params)
        marks.end(partial(flat, state.params))


if __name__ == "__main__":
    main()
