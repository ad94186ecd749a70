"""The compiled programmes: local training of many clients, their scores, and prediction.

One programme runs a whole call: a map over clients of a loop over the client's own steps, both inside XLA, with the learning rate and all other
settings as arguments, so that a new round compiles nothing. The loop of a client sees arrays of the same shapes whoever else is trained, so its
bits are the same alone, together and in any order, by construction.

Measured against clients side by side (`vmap` over the active prefix of the cohort, sorted by steps), CPU seconds a round on one thread: ten networks
of 200-200 0.30 against 0.45, and 0.4 against 9 seconds to compile, as a prefix has a shape for each width. And width changes bits: with a prefix that
shrinks with the cohort, a client's result would depend on its neighbours.

On a CPU, XLA runs a programme as a list of kernels, and starting the fifteen of a step costs more than the arithmetic of a small model. So a small
one is marked to become a single kernel, loops and all (`_one_kernel`): 1.4 microseconds a step of logistic regression instead of 4; a loop
written in C takes 2 with making the order of its batches. In a kernel products of matrices are plain loops, so this is for small ones only (`small`).

Trap: XLA on CPU runs a convolution inside a loop 17 times slower than outside. Models here must multiply matrices instead (`models.py`), or train
in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, cached_property, partial
from typing import Any, NamedTuple

from haina.layout import Layout
from haina.learners.jax.backend import jax, jnp, lax, set_xla_metadata

Tensors = Mapping[str, Any]

#: Rows of one block of scoring.
BLOCK = 64

#: Where one kernel is faster, measured on an x86-64 processor: the longest side of an array, and parameters times rows of a batch. Microseconds
#: a step as one kernel and as many: 60-10 in batches of ten 2.4, 5.3; 64-32-10 in batches of eight 3.8, 7.4, of 32 11.3, 13.5, of 64 94, 23; 200-10
#: of ten 17, 7.
SIDE, PRODUCTS = 128, 1 << 17


def small(layout: Layout, row: tuple[int, ...], batch: int) -> bool:
    """True where local training is fastest as one kernel. It changes bits, so nothing but the model, its rows and the batch decides."""
    sides = [batch, *row, *(side for field in layout.fields for side in field.shape)]
    parameters = sum(field.size for field in layout.fields)
    return jax.default_backend() == "cpu" and max(sides) <= SIDE and batch * parameters <= PRODUCTS


class Rates(NamedTuple):
    """The numbers of the optimiser (`haina.learners.gradient`); None is compiled away, another number is not compiled anew."""

    learning_rate: Any
    momentum: Any
    weight_decay: Any
    clip_norm: Any
    proximal: Any


class Data(NamedTuple):
    """Rows of all clients one after another, `x [N, ...]` and `y [N]`, and the batches `rows [S, B]`, `lengths [S]` into them."""

    x: Any
    y: Any
    rows: Any
    lengths: Any


class Clients(NamedTuple):
    """`[K]` first step and number of steps, `[K, d]` offsets or None, and `[K, ...]` tensors that stay with each client."""

    starts: Any
    steps: Any
    offsets: Any
    local: Tensors


class Program:
    """The programmes of one model.

    Args:
        layout: the model's tensors; all are float32.
        apply: (tensors by name, `x [B, ...]`) -> outputs `[B, ...]`.
        loss: (outputs, `y [B]`) -> `[B]` losses.
        classify: True when the outputs are logits, so that accuracy has a meaning.
    """

    def __init__(
        self,
        layout: Layout,
        apply: Callable[[Tensors, Any], Any],
        loss: Callable[[Any, Any], Any],
        *,
        classify: bool,
    ) -> None:
        self.layout = layout
        self.apply = apply
        self.loss = loss
        self.classify = classify
        self._kernels = jax.jit(self._train)
        self.score = jax.jit(self._score)
        self.predict = jax.jit(self._predict)

    def train(self, model: Any, rates: Rates, data: Data, clients: Clients) -> tuple[Any, Tensors]:
        """Train all clients: -> `[K, d]` increments and `[K, ...]` local tensors after training."""
        run = self._kernel if small(self.layout, data.x.shape[1:], data.rows.shape[1]) else self._kernels
        return run(model, rates, data, clients)  # type: ignore[no-any-return]

    @cached_property
    def _kernel(self) -> Callable[..., Any]:
        return jax.jit(_one_kernel(self._train), compiler_options=_products_inside())

    def split(self, vector: Any) -> dict[str, Any]:
        """Flat vector `[d]` -> shared tensors."""
        out, start = {}, 0
        for field in self.layout.shared:
            out[field.name] = vector[start : start + field.size].reshape(field.shape)
            start += field.size
        return out

    def _train(self, model: Any, rates: Rates, data: Data, clients: Clients) -> tuple[Any, Tensors]:
        return lax.map(partial(self._client, self.split(model), rates, data), clients)  # type: ignore[no-any-return]

    def _client(self, received: Tensors, rates: Rates, data: Data, client: Clients) -> tuple[Any, Tensors]:
        start = {**received, **client.local}
        offset = {} if client.offsets is None else self.split(client.offsets)
        batch = jnp.arange(data.rows.shape[1])

        def objective(tensors: Tensors, x: Any, y: Any, length: Any) -> Any:
            losses = self.loss(self.apply(tensors, x), y)
            return jnp.sum(losses * jnp.where(batch < length, 1.0 / length, 0.0))

        def step(t: Any, carry: tuple[Tensors, Tensors | None]) -> tuple[Tensors, Tensors | None]:
            now, velocity = carry
            rows, length = data.rows[client.starts + t], data.lengths[client.starts + t]
            pull = dict(jax.grad(objective)(now, data.x[rows], data.y[rows], length))
            if rates.clip_norm is not None:
                norm = jnp.sqrt(sum(jnp.sum(g * g) for g in pull.values()))
                scale = jnp.where(norm > rates.clip_norm, rates.clip_norm / norm, 1.0)
                pull = {name: g * scale for name, g in pull.items()}
            if rates.weight_decay is not None:
                pull = {name: g + rates.weight_decay * now[name] for name, g in pull.items()}
            if rates.proximal is not None:
                pull |= {name: pull[name] + rates.proximal * (now[name] - x) for name, x in received.items()}
            pull |= {name: pull[name] + value for name, value in offset.items()}
            if velocity is not None:
                pull = velocity = {name: rates.momentum * velocity[name] + g for name, g in pull.items()}
            return {name: now[name] - rates.learning_rate * v for name, v in pull.items()}, velocity

        rest = None if rates.momentum is None else jax.tree.map(jnp.zeros_like, start)
        end, _ = lax.fori_loop(0, client.steps, step, (start, rest))
        delta = jnp.concatenate([(end[name] - x).reshape(-1) for name, x in received.items()])
        return delta, {name: end[name] for name in client.local}

    def _score(self, model: Any, deltas: Any, local: Tensors, x: Any, y: Any, ranges: Any) -> tuple[Any, Any]:
        """-> `[K]` sums of losses and `[K]` right answers of model + delta_k on the rows `ranges[k]`; x has `BLOCK` rows to spare."""

        def one(client: tuple[Any, Tensors, Any]) -> tuple[Any, Any]:
            delta, kept, (start, stop) = client
            tensors = {**self.split(model + delta), **kept}

            def block(i: Any, sums: tuple[Any, Any]) -> tuple[Any, Any]:
                first = start + i * BLOCK
                rows = lax.dynamic_slice_in_dim(x, first, BLOCK)
                labels = lax.dynamic_slice_in_dim(y, first, BLOCK)
                mine = first + jnp.arange(BLOCK) < stop
                outputs = self.apply(tensors, rows)
                right = jnp.argmax(outputs, -1) == labels if self.classify else False
                losses = jnp.where(mine, self.loss(outputs, labels), 0.0)
                return sums[0] + jnp.sum(losses), sums[1] + jnp.sum(jnp.where(mine, right, False))

            blocks = (stop - start + BLOCK - 1) // BLOCK
            return lax.fori_loop(0, blocks, block, (jnp.float32(0), jnp.int32(0)))  # type: ignore[no-any-return]

        return lax.map(one, (deltas, local, ranges))  # type: ignore[no-any-return]

    def _predict(self, model: Any, local: Tensors, x: Any) -> Any:
        outputs = self.apply({**self.split(model), **local}, x)
        return jax.nn.softmax(outputs, -1) if self.classify else outputs


def _one_kernel(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, marked for XLA on CPU to compile to one kernel. Elsewhere, and to versions that do not know the mark, it means nothing."""
    inner = jax.jit(function)

    def run(*arguments: Any) -> Any:
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):  # type: ignore[no-untyped-call]
            return inner(*arguments)

    return run


@cache
def _products_inside() -> dict[str, str]:
    """Options under which products are not given to a library, which a kernel cannot call; none for versions of XLA that have no such library."""
    options = {"xla_cpu_experimental_ynn_fusion_type": ""}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except (RuntimeError, ValueError):
        return {}
    return options
