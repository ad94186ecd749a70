"""The compiled programmes: local training of many clients, their scores, and prediction.

One programme runs a whole call inside XLA: a loop over events, in each of which the lanes train on until the next client has ended
(`haina.learners.plan.Lanes`), with the learning rate and all other settings as arguments, so that a new round compiles nothing. The number of lanes
is fixed for a model, and a lane sees arrays of the same shapes whoever trains beside it, so a client's bits are the same alone, together and in any
order, by construction.

Why not the whole cohort side by side, as a prefix that shrinks? It has a shape for each width (measured: 9 seconds to compile against 0.4), a network
of 784-200-200 is slower in it (0.45 against 0.30 s a round), and width changes bits: a client's result would depend on its neighbours.

Trap: XLA on CPU runs a convolution inside a loop 17 times slower than outside. Models here must multiply matrices instead (`models.py`), or train
in torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from haina.layout import Layout
from haina.learners.jax.backend import jax, jnp, lax

Tensors = Mapping[str, Any]

#: Rows of one block of scoring.
BLOCK = 64


class Rates(NamedTuple):
    """The numbers of the optimiser (`haina.learners.gradient`); None is compiled away, another number is not compiled anew."""

    learning_rate: Any
    momentum: Any
    weight_decay: Any
    clip_norm: Any
    proximal: Any


class Data(NamedTuple):
    """Rows of all clients one after another: `x [N, ...]` and `y [N]`."""

    x: Any
    y: Any


class Schedule(NamedTuple):
    """Who trains on what, and when (`haina.learners.plan.Lanes`): `[T, W, B]`, `[T, W]`, `[W]`, and `[K]` of which the first `count` hold."""

    rows: Any
    lengths: Any
    first: Any
    ends: Any
    lane: Any
    client: Any
    next: Any
    count: Any


class Clients(NamedTuple):
    """`[K, d]` offsets or None, and `[K, ...]` tensors that stay with each client."""

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
        self.train = jax.jit(self._train)
        self.score = jax.jit(self._score)
        self.predict = jax.jit(self._predict)

    def split(self, vector: Any) -> dict[str, Any]:
        """Flat vector `[d]` -> shared tensors."""
        out, start = {}, 0
        for field in self.layout.shared:
            out[field.name] = vector[start : start + field.size].reshape(field.shape)
            start += field.size
        return out

    def _train(
        self, model: Any, rates: Rates, data: Data, schedule: Schedule, clients: Clients
    ) -> tuple[Any, Tensors]:
        """-> `[K, d]` increments and `[K, ...]` local tensors after training."""
        received, first, side = self.split(model), schedule.first, _Side(schedule.first.shape[0])
        rows, lengths = (a if side.width > 1 else a[:, 0] for a in (schedule.rows, schedule.lengths))
        batch = jnp.arange(schedule.rows.shape[2])

        def objective(tensors: Tensors, x: Any, y: Any, length: Any) -> Any:
            losses = self.loss(self.apply(tensors, x), y)
            return jnp.sum(losses * jnp.where(batch < length, 1.0 / length, 0.0))

        def step(now: Tensors, velocity: Tensors | None, offset: Tensors, at: Any, length: Any) -> Any:
            pull = dict(jax.grad(objective)(now, data.x[at], data.y[at], length))
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

        def until_one_ends(event: Any, carry: Any) -> Any:
            t, now, velocity, current, deltas, after = carry
            offset = {}
            if clients.offsets is not None:
                offset = side.each(self.split)(side.chosen(clients.offsets, current))

            def all_lanes(t: Any, carry: Any) -> Any:
                return side.each(step)(*carry, offset, rows[t], lengths[t])

            end = schedule.ends[event]
            now, velocity = lax.fori_loop(t, end, all_lanes, (now, velocity))
            lane, client, following = schedule.lane[event], schedule.client[event], schedule.next[event]
            mine = {name: side.of(values, lane) for name, values in now.items()}
            delta = jnp.concatenate([(mine[name] - x).reshape(-1) for name, x in received.items()])
            after = {name: values.at[client].set(mine[name]) for name, values in after.items()}
            # The lane begins anew, with the next of its queue.
            fresh = {**received, **{name: values[following] for name, values in clients.local.items()}}
            now = {name: side.put(values, lane, fresh[name]) for name, values in now.items()}
            if velocity is not None:
                still = jax.tree.map(jnp.zeros_like, fresh)
                velocity = {name: side.put(values, lane, still[name]) for name, values in velocity.items()}
            return end, now, velocity, current.at[lane].set(following), deltas.at[client].set(delta), after

        now = {name: side.spread(x) for name, x in received.items()}
        now |= {name: side.chosen(values, first) for name, values in clients.local.items()}
        velocity = None if rates.momentum is None else jax.tree.map(jnp.zeros_like, now)
        deltas = jnp.zeros((schedule.ends.shape[0], model.shape[0]), model.dtype)
        begun = (0, now, velocity, first, deltas, dict(clients.local))
        *_, deltas, after = lax.fori_loop(0, schedule.count, until_one_ends, begun)
        return deltas, after

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


class _Side:
    """Values of clients side by side in lanes, `[W, ...]`.

    One lane has no axis: XLA multiplies a batch of one matrix in 1.4 times the time of a matrix (measured, 784-200-200).
    """

    def __init__(self, width: int) -> None:
        self.width = width

    def each(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, for every lane."""
        return jax.vmap(function) if self.width > 1 else function

    def spread(self, value: Any) -> Any:
        """The same for every lane."""
        return jnp.broadcast_to(value, (self.width, *value.shape)) if self.width > 1 else value

    def chosen(self, values: Any, index: Any) -> Any:
        """`values[index]`, for the clients `index [W]`."""
        return values[index] if self.width > 1 else values[index[0]]

    def of(self, values: Any, lane: Any) -> Any:
        """What a lane has."""
        return values[lane] if self.width > 1 else values

    def put(self, values: Any, lane: Any, value: Any) -> Any:
        """The values with another in a lane."""
        return values.at[lane].set(value) if self.width > 1 else value
