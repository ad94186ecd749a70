"""JaxLearner: local training of any pure JAX model, the whole local loop compiled.

A model is two pure functions: `init(key) -> params`, any pytree of float32 arrays (integer leaves are constants), and `apply(params, x) -> outputs`.
Tensors are named by their path in the pytree ("hidden1.weight").

Trap: batches are filled up to one size with rows of weight zero, so `apply` must treat rows independently of each other (no batch statistics).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.layout import Layout
from haina.learners import gradient
from haina.learners.jax.backend import jax
from haina.learners.jax.losses import cross_entropy, squared
from haina.learners.jax.program import BLOCK, Clients, Data, Program, Rates
from haina.learners.jax.pytree import flatten
from haina.learners.learner import Metrics, Personal, Shards, Work, refuse_examples
from haina.learners.plan import Plan, groups
from haina.learners.room import check_room
from haina.strategy.parts import Payload
from haina.update import Result, Update

#: Bytes of features and increments trained in one call of the compiled programme; more is trained in several calls of the same shapes.
GROUP = 1 << 24


_NAMED: Mapping[str, Callable[[Any, Any], Any]] = {"cross_entropy": cross_entropy, "squared": squared}


class JaxLearner:
    """A home of local training for pure JAX models.

    Args:
        init: key -> params.
        apply: (params, `x [B, ...]`) -> outputs: `[B, classes]` logits, or `[B]` or `[B, 1]` values.
        loss: "cross_entropy", "squared", or a function (outputs, `y [B]`) -> `[B]` losses.
        local: shell patterns of tensors that stay with the client (`"output.*"` for personal heads).
        shared: shell patterns of tensors that may travel at all.
        memory: where clients' own tensors live between rounds; needed with `local`. Workers that share clients must share it.

    Raises:
        LearnerError: leaves of another type than float32 or integers, an unknown loss, or `local` without `memory`.
        LayoutError: a pattern that matches nothing, or nothing left to share.
    """

    payload: ClassVar[Payload] = Payload.AVERAGE

    def __init__(
        self,
        init: Callable[[Any], Any],
        apply: Callable[[Any, Any], Any],
        *,
        loss: str | Callable[[Any, Any], Any] = "cross_entropy",
        local: Sequence[str] = (),
        shared: Sequence[str] = ("*",),
        memory: Personal | None = None,
    ) -> None:
        gradient.check_loss(loss)
        self._init, self._apply, self._loss, self._memory = init, apply, loss, memory
        names, leaves, structure = flatten(init(jax.random.key(0)))
        constants = {name: leaf for name, leaf in zip(names, leaves, strict=True) if leaf.dtype != np.float32}
        trained = {
            name: np.asarray(leaf) for name, leaf in zip(names, leaves, strict=True) if name not in constants
        }
        self.layout = Layout.of(trained, local=local, shared=shared)
        gradient.check_memory(self.layout, set(trained), memory)

        def by_name(tensors: Mapping[str, Any], x: Any) -> Any:
            merged = {**constants, **tensors}
            return apply(jax.tree.unflatten(structure, [merged[name] for name in names]), x)

        self._program = Program(
            self.layout,
            by_name,
            _NAMED[loss] if isinstance(loss, str) else loss,
            classify=loss == "cross_entropy",
        )
        self._first = lru_cache(maxsize=2)(self._tensors)
        self._outputs = lru_cache(maxsize=8)(self._count_outputs)
        self._room: dict[str, int] = {}
        # Rows on their way into the programme, which has read them when the next ones come.
        self._held: Array | None = None

    def initial(self, seed: int) -> Array:
        """The first model `[d]`: `init` with `jax.random.key(seed)`."""
        return self.layout.pack(self._first(seed))

    @property
    def personal(self) -> Personal | None:
        """The tensors that stay with each client between rounds; None when all travel."""
        return self._memory

    @property
    def update_size(self) -> None:
        """An update is as long as the model."""

    def train(self, work: Work) -> Iterator[Result]:
        """Train each client and yield its increment, in order (`haina.learners.learner.Learner`).

        `Report.seconds` is the time of the compiled call divided by steps; the first call of a shape includes its compilation (about 0.5 s).

        Raises:
            LearnerError: labels, features or settings that cannot be used; the message says which.
        """
        gradient.check_work(work)
        gradient.check_measure(work.training, self._loss)
        refuse_examples(work.training, "jax")
        self.layout.check(work.model)
        row = _row_bytes(work.shards.x)
        check_room(work.shards.clients, work.shards.sizes.tolist(), row)
        budget = row * (_capacity(work.shards.x) - BLOCK)
        for group in groups(work.shards.sizes * row + 4 * self.layout.size, budget):
            trained = self._train_group(work, [k for k in group if work.shards.sizes[k]])
            for k in group:
                yield next(trained) if work.shards.sizes[k] else gradient.no_examples(work.shards.clients[k])

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """Mean loss, and accuracy for classes, of a model on rows, in chunks.

        Raises:
            LearnerError: no rows, or rows or targets that cannot be used.
        """
        if not len(y):
            raise LearnerError("there are no rows to evaluate", allowed="at least one row")
        labels = gradient.targets(y, self._loss, self._outputs(*_row(x)))
        still = np.zeros((1, self.layout.size), np.float32)
        local = {name: values[None] for name, values in self._own(0, "").items()}
        loss = right = 0.0
        for start in range(0, len(y), gradient.CHUNK):
            part = slice(start, start + gradient.CHUNK)
            count = len(labels[part])
            rows = self._pad("evaluated", gradient.inputs(x[part]), spare=BLOCK)
            answers = self._pad("evaluated", labels[part], spare=BLOCK)
            sums, rights = self._program.score(
                model, still, local, rows, answers, np.array([[0, count]], np.int32)
            )
            loss, right = loss + float(sums[0]), right + float(rights[0])
        return Metrics(len(y), loss / len(y), right / len(y) if self._program.classify else None)

    def predict(self, model: Array, x: Array) -> Array:
        """`[N, classes]` probabilities for cross-entropy, else the model's outputs (`[N]` for a single value)."""
        self._outputs(*_row(x))
        local = self._own(0, "")
        parts = []
        for start in range(0, len(x), gradient.CHUNK):
            rows = gradient.inputs(x[start : start + gradient.CHUNK])
            parts.append(
                np.asarray(self._program.predict(model, local, self._pad("evaluated", rows)))[: len(rows)]
            )
        out = np.concatenate(parts)
        return out[:, 0] if self._loss == "squared" and out.ndim == 2 else out

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of the shared tensors."""
        return self.layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self.layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """Kind, loss, number of parameters and the tensors' shapes, in plain JSON values."""
        return gradient.describe("jax", self.layout, self._loss)

    def _train_group(self, work: Work, group: Sequence[int]) -> Iterator[Update]:
        began = time.perf_counter()
        shards = work.shards.take(group)
        outputs = self._outputs(*_row(shards.x))
        plan = Plan.of(shards.clients, shards.sizes.tolist(), work.training, round=work.round, seed=work.seed)
        data = self._data(shards, plan, outputs)
        before = self._stack([self._own(work.seed, client) for client in shards.clients])
        offsets = None if work.offsets is None else work.offsets[list(group)].astype(np.float32, copy=False)
        clients = Clients(
            self._pad("clients", plan.starts),
            self._pad("clients", plan.steps),
            None if offsets is None else self._pad("clients", offsets),
            before,
        )
        deltas, after = self._program.train(work.model, _rates(work), data, clients)
        ranges = self._pad("clients", np.stack([plan.bases, plan.bases + shards.sizes], 1).astype(np.int32))
        measure = work.training.measure
        scores: list[list[Metrics] | list[None]] = [
            self._measure(work.model, vectors, local, data, ranges, shards.sizes)
            if measure & asked
            else [None] * len(group)
            for vectors, local, asked in (
                (np.zeros((len(ranges), self.layout.size), np.float32), before, {"loss_before"}),
                (deltas, after, {"loss_after", "accuracy"}),
            )
        ]
        rows = gradient.bounded(work, shards.clients, np.asarray(deltas)[: len(shards)])
        seconds = (time.perf_counter() - began) / len(plan.lengths)
        for k, client in enumerate(shards.clients):
            if self._memory is not None and after:
                self._memory[client] = {name: np.array(values[k]) for name, values in after.items()}
            steps = int(plan.steps[k])
            labels = data.y[plan.bases[k] : plan.bases[k] + shards.sizes[k]]
            report = gradient.report_of(
                work, labels, steps, seconds * steps, outputs, scores[0][k], scores[1][k]
            )
            yield Update(client, rows[k].copy(), report)

    def _data(self, shards: Shards, plan: Plan, outputs: int) -> Data:
        """The clients' rows one after another, as the framework takes them, and their batches; what lies behind the rows is never looked at."""
        answers = np.concatenate([shards.of(k)[1] for k in range(len(shards))])
        length = self._padded("rows", len(answers) + BLOCK)
        shape, dtype = (length, *shards.x.shape[1:]), gradient.inputs(shards.x[:0]).dtype
        if self._held is None or (self._held.shape, self._held.dtype) != (shape, dtype):
            self._held = np.empty(shape, dtype)
        x = self._held
        for k, (start, size) in enumerate(zip(plan.bases.tolist(), shards.sizes.tolist(), strict=True)):
            x[start : start + size] = shards.of(k)[0]
        y = _pad(gradient.targets(answers, self._loss, outputs), length)
        return Data(x, y, self._pad("steps", plan.rows), self._pad("steps", plan.lengths))

    def _measure(
        self, model: Array, deltas: Any, local: Mapping[str, Any], data: Data, ranges: Array, sizes: Array
    ) -> list[Metrics]:
        losses, rights = self._program.score(model, deltas, local, data.x, data.y, ranges)
        return [
            Metrics(int(n), float(loss) / int(n), int(right) / int(n) if self._program.classify else None)
            for n, loss, right in zip(sizes, np.asarray(losses), np.asarray(rights), strict=False)
        ]

    def _pad(self, kind: str, array: Array, spare: int = 0) -> Array:
        """The array with zeros behind it, as long as any of its kind so far: few shapes, few compilations."""
        return _pad(array, self._padded(kind, len(array) + spare))

    def _padded(self, kind: str, length: int) -> int:
        """The length of arrays of a kind: a power of two, and never less than before."""
        self._room[kind] = max(self._room.get(kind, 1), 1 << (length - 1).bit_length())
        return self._room[kind]

    def _own(self, seed: int, client: str) -> Mapping[str, Array]:
        """The tensors that stay with a client: remembered ones, or the first ones."""
        first = self._first(seed)
        kept = (self._memory or {}).get(client, {})
        return {
            field.name: kept.get(field.name, first[field.name])
            for field in self.layout.fields
            if not field.shared
        }

    def _stack(self, tensors: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
        return {name: self._pad("clients", np.stack([own[name] for own in tensors])) for name in tensors[0]}

    def _tensors(self, seed: int) -> dict[str, Array]:
        names, leaves, _ = flatten(self._init(jax.random.key(seed)))
        return {name: np.asarray(leaf) for name, leaf in zip(names, leaves, strict=True)}

    def _count_outputs(self, row: tuple[int, ...], kind: str) -> int:
        one = np.zeros((1, *row), np.int32 if kind in "iu" else np.float32)
        try:
            answer = jax.eval_shape(self._apply, self._init(jax.random.key(0)), one)
        except (TypeError, ValueError) as error:
            raise gradient.unusable_rows(row, error) from error
        return gradient.outputs_of(answer.shape, self._loss)


def _row_bytes(x: Array) -> int:
    return 4 * max(1, int(np.prod(x.shape[1:], dtype=np.int64)))


def _capacity(x: Array) -> int:
    """Rows that are trained in one call, a power of two, `BLOCK` spare ones among them."""
    return 1 << (max(GROUP // _row_bytes(x), 2 * BLOCK).bit_length() - 1)


def _row(x: Array) -> tuple[tuple[int, ...], str]:
    return x.shape[1:], x.dtype.kind


def _pad(array: Array, length: int) -> Array:
    """The array with zeros behind it."""
    out = np.zeros((length, *array.shape[1:]), array.dtype)
    out[: len(array)] = array
    return out


def _rates(work: Work) -> Rates:
    training = work.training

    def number(value: float | None) -> Any:
        return np.float32(value) if value else None

    return Rates(
        np.float32(work.learning_rate),
        number(training.momentum),
        number(training.weight_decay),
        number(training.clip_norm),
        number(work.proximal),
    )
