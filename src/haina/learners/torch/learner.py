"""TorchLearner: local training of any `nn.Module`, batch by batch.

What travels is decided by the layout. Buffers (running statistics of batch norm, counters) stay with the client unless `local=()` says otherwise.

Traps: (1) while buffers stay local, the global model has none but the first ones, so `evaluate` of a module with batch norm means little: use
group or layer norm, or `local=()` to average the running statistics too. (2) torch splits sums among threads, so training and evaluation run on
one thread (`torch.set_num_threads(1)`, restored afterwards) and give the same bytes on any number of workers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own convention)

from haina.artifact import Array
from haina.errors import LearnerError
from haina.layout import Layout
from haina.learners import gradient
from haina.learners.learner import Metrics, Personal, Work, client_rng
from haina.learners.plan import batches
from haina.learners.torch.flat import Flat, numpy_of
from haina.strategy.parts import Payload
from haina.update import Result, Update

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

#: `client_rng` purpose of the numbers that modules draw while they train (dropout).
NOISE = 1


def _cross_entropy(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, y, reduction="none")


def _squared(outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.square(outputs.reshape(y.shape) - y)


_NAMED: Mapping[str, Loss] = {"cross_entropy": _cross_entropy, "squared": _squared}


class TorchLearner:
    """A home of local training for torch modules.

    Args:
        build: makes the module; called once for each seed, with torch's generator seeded.
        loss: "cross_entropy", "squared", or a function (outputs, `y [B]`) -> `[B]` losses.
        local: shell patterns of tensors that stay with the client; None for all buffers.
        shared: shell patterns of tensors that may travel at all (`("*lora*",)` for adapters only).
        memory: where clients' own tensors live between rounds; needed when trained parameters are local. Workers that share clients must share it.
        device: where to train; bytes are reproducible on the CPU.

    Raises:
        LearnerError: trained parameters of another type than float32, an unknown loss, or local parameters without `memory`.
        LayoutError: a pattern that matches nothing, or nothing left to share.
    """

    payload: ClassVar[Payload] = Payload.AVERAGE

    def __init__(
        self,
        build: Callable[[], nn.Module],
        *,
        loss: str | Loss = "cross_entropy",
        local: Sequence[str] | None = None,
        shared: Sequence[str] = ("*",),
        memory: Personal | None = None,
        device: str = "cpu",
    ) -> None:
        gradient.check_loss(loss)
        self._build, self._loss, self._memory, self._device = build, loss, memory, torch.device(device)
        self._losses: Loss = _NAMED[loss] if isinstance(loss, str) else loss
        self._first = lru_cache(maxsize=2)(self._tensors)
        self._outputs = lru_cache(maxsize=8)(self._count_outputs)
        self._module = self._seeded(0).to(self._device)
        state = self._module.state_dict()
        buffers = tuple(name for name, _ in self._module.named_buffers() if name in state)
        self.layout = Layout.of(
            numpy_of(self._module), local=buffers if local is None else local, shared=shared
        )
        self._flat = Flat(self._module, self.layout)
        gradient.check_memory(self.layout, set(self._flat.names), memory)

    def initial(self, seed: int) -> Array:
        """The first model `[d]`: `build` with torch's generator seeded."""
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

        Raises:
            LearnerError: labels, features or settings that cannot be used; the message says which.
        """
        gradient.check_work(work)
        gradient.check_measure(work.training, self._loss)
        self.layout.check(work.model)
        for k, client in enumerate(work.shards.clients):
            if work.shards.sizes[k]:
                with _one_thread(), self._noise(work, client):
                    update = self._client(work, k)
                yield update
            else:
                yield gradient.no_examples(client)

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """Mean loss, and accuracy for classes, of a model on rows, in chunks.

        Raises:
            LearnerError: no rows, or rows or targets that cannot be used.
        """
        if not len(y):
            raise LearnerError("there are no rows to evaluate", allowed="at least one row")
        labels = gradient.targets(y, self._loss, self._outputs(*_row(x)))
        with _one_thread():
            self._flat.load(self.layout.unpack(model, self._first(0)))
            return self._score(x, labels)

    def predict(self, model: Array, x: Array) -> Array:
        """`[N, classes]` probabilities for cross-entropy, else the module's outputs (`[N]` for a single value)."""
        self._outputs(*_row(x))
        with _one_thread():
            self._flat.load(self.layout.unpack(model, self._first(0)))
            outputs = torch.cat([part for _, part in self._answers(x)])
        out: Array = (outputs.softmax(-1) if self._loss == "cross_entropy" else outputs).cpu().numpy()
        return out[:, 0] if self._loss == "squared" and out.ndim == 2 else out

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of the shared tensors."""
        return self.layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self.layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """Kind, loss, number of parameters and the tensors' shapes, in plain JSON values."""
        return gradient.describe("torch", self.layout, self._loss)

    def _client(self, work: Work, k: int) -> Update:
        began = time.perf_counter()
        client, (x, y) = work.shards.clients[k], work.shards.of(k)
        outputs = self._outputs(*_row(x))
        labels = gradient.targets(y, self._loss, outputs)
        measure = work.training.measure
        own = {**self._first(work.seed), **(self._memory or {}).get(client, {})}
        self._flat.load(self.layout.unpack(work.model, own))
        before = self._score(x, labels) if "loss_before" in measure else None
        steps = self._run(work, k, labels)
        state = numpy_of(self._module)
        delta = self.layout.pack(state) - work.model
        after = self._score(x, labels) if measure & {"loss_after", "accuracy"} else None
        if self._memory is not None:
            self._memory[client] = {f.name: state[f.name] for f in self.layout.fields if not f.shared}
        seconds = time.perf_counter() - began
        return Update(client, delta, gradient.report_of(work, labels, steps, seconds, outputs, before, after))

    def _run(self, work: Work, k: int, labels: Array) -> int:
        """The local steps (`haina.learners.gradient`) on the loaded model; returns their number."""
        training, client = work.training, work.shards.clients[k]
        rows, lengths = batches(len(labels), training, client_rng(work.seed, work.round, client))
        features = self._tensor(gradient.inputs(work.shards.of(k)[0]))
        answers = self._targets(labels)
        # The flat vectors are no leaves of autograd, so they may be changed in place.
        weights, pull = self._flat.weights, self._flat.gradient
        travels, pulled = weights[: self._flat.travelling], pull[: self._flat.travelling]
        received = travels.clone()
        offset = None if work.offsets is None else self._tensor(self._flat.part(work.offsets[k]))
        velocity = torch.zeros_like(weights) if training.momentum else None
        self._module.train()
        for batch, length in zip(self._tensor(rows).long(), lengths.tolist(), strict=True):
            chosen = batch[:length]
            pull.zero_()
            self._losses(self._module(features[chosen]), answers[chosen]).mean().backward()  # type: ignore[no-untyped-call]
            if training.clip_norm is not None:
                norm = float(pull.norm())
                if norm > training.clip_norm:
                    pull.mul_(training.clip_norm / norm)
            if training.weight_decay:
                pull.add_(weights, alpha=training.weight_decay)
            if work.proximal:
                pulled.add_(travels - received, alpha=work.proximal)
            if offset is not None:
                pulled.add_(offset)
            direction = pull if velocity is None else velocity.mul_(training.momentum).add_(pull)
            weights.sub_(direction, alpha=work.learning_rate)
        return len(lengths)

    def _score(self, x: Array, labels: Array) -> Metrics:
        loss = right = 0.0
        for part, outputs in self._answers(x):
            answers = self._targets(labels[part])
            loss += float(self._losses(outputs, answers).double().sum())
            if self._loss == "cross_entropy":
                right += int((outputs.argmax(-1) == answers).sum())
        count = len(labels)
        return Metrics(count, loss / count, right / count if self._loss == "cross_entropy" else None)

    def _answers(self, x: Array) -> Iterator[tuple[slice, torch.Tensor]]:
        self._module.eval()
        for start in range(0, len(x), gradient.CHUNK):
            part = slice(start, start + gradient.CHUNK)
            with torch.no_grad():
                outputs = self._module(self._tensor(gradient.inputs(x[part])))
            yield part, outputs

    def _tensor(self, array: Array) -> torch.Tensor:
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self._device)

    def _targets(self, labels: Array) -> torch.Tensor:
        """Class numbers as torch wants them, int64; values as they are."""
        answers = self._tensor(labels)
        return answers.long() if self._loss == "cross_entropy" else answers

    def _tensors(self, seed: int) -> dict[str, Array]:
        return numpy_of(self._seeded(seed))

    def _seeded(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._build()

    @contextmanager
    def _noise(self, work: Work, client: str) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(client_rng(work.seed, work.round, client, NOISE).integers(1 << 62)))
            yield

    def _count_outputs(self, row: tuple[int, ...], kind: str) -> int:
        one = torch.zeros(
            (1, *row), dtype=torch.int32 if kind in "iu" else torch.float32, device=self._device
        )
        self._module.eval()
        try:
            with torch.no_grad():
                answer = self._module(one)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise gradient.unusable_rows(row, error) from error
        return gradient.outputs_of(tuple(answer.shape), self._loss)


def _row(x: Array) -> tuple[tuple[int, ...], str]:
    return x.shape[1:], x.dtype.kind


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
