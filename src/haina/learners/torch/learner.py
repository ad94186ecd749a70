"""TorchLearner: local training of any `nn.Module`.

What travels is decided by the layout. Buffers (running statistics of batch norm, counters) stay with the client unless `local=()` says otherwise.
There are three ways to train (`loop`, `cohort`, `compiled`), of which only the first takes any module; where a module does not suit another, the log
says so once and the first one is used. Where single examples are protected there is one way more (`private`), and no other is used in its place.

Traps: (1) while buffers stay local, the global model has none but the first ones, so `evaluate` of a module with batch norm means little: use
group or layer norm, or `local=()` to average the running statistics too. (2) torch splits sums among threads, so training and evaluation run on
one thread (`torch.set_num_threads(1)`, restored afterwards) and give the same bytes on any number of workers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (torch's own convention)

from haina.artifact import Array
from haina.errors import LearnerError
from haina.layout import Layout
from haina.learners import gradient
from haina.learners.learner import Metrics, Personal, Work
from haina.learners.plan import groups
from haina.learners.room import check_room
from haina.learners.torch.cohort import Cohort
from haina.learners.torch.compiled import Compiled
from haina.learners.torch.flat import Flat, from_numpy, numpy_of
from haina.learners.torch.loop import Client, Executor, Loop, Loss
from haina.learners.torch.pure import Pure
from haina.strategy.parts import Payload
from haina.update import Result, Update

log = logging.getLogger("haina.learners.torch")

#: Bytes of rows that are prepared at once.
ROWS = 1 << 28


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
        device: "cpu", "cuda", or "auto" for a GPU where there is one. Bytes are reproducible on the CPU; a GPU rounds in its own way, and torch lets
            its convolutions round to 10 bits.
        cohort: train clients side by side; None for where it is faster, on a GPU.
        compiled: compile several steps into one function, on the CPU.

    Raises:
        LearnerError: trained parameters of another type than float32, an unknown loss, no such device, or local parameters without `memory`.
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
        cohort: bool | None = None,
        compiled: bool = False,
    ) -> None:
        gradient.check_loss(loss)
        self._build, self._loss, self._memory, self._device = build, loss, memory, device_of(device)
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
        gpu = self._device.type == "cuda"
        self._cohort, self._compiled = gpu if cohort is None else cohort, compiled and not gpu
        self._executor: Executor | None = None
        self._private: Executor | None = None

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
            LearnerError: labels, features or settings that cannot be used, or a module whose examples cannot be protected; the message says which.
        """
        gradient.check_work(work)
        gradient.check_measure(work.training, self._loss)
        self.layout.check(work.model)
        row_bytes = 4 * int(np.prod(work.shards.x.shape[1:], dtype=np.int64))
        if work.shards.x.dtype not in (np.float32, np.int32):
            # Other numbers are converted, a whole client at once.
            check_room(work.shards.clients, work.shards.sizes.tolist(), row_bytes)
        for group in groups((work.shards.sizes * row_bytes).tolist(), ROWS if self._cohort else 0):
            clients = [self._client(work, k) for k in group if work.shards.sizes[k]]
            trained = self._chosen(work, clients[0]).train(work, clients) if clients else iter(())
            waiting = iter(clients)
            for k in group:
                if not work.shards.sizes[k]:
                    yield gradient.no_examples(work.shards.clients[k])
                    continue
                with _one_thread():
                    update = self._update(work, next(waiting), trained)
                yield update

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """Mean loss, and accuracy for classes, of a model on rows, in chunks.

        Raises:
            LearnerError: no rows, or rows or targets that cannot be used.
        """
        if not len(y):
            raise LearnerError("there are no rows to evaluate", allowed="at least one row")
        labels = self._targets(x, y)
        with _one_thread():
            self._flat.load(model, self._first(0))
            return self._score(x, labels)

    def predict(self, model: Array, x: Array) -> Array:
        """`[N, classes]` probabilities for cross-entropy, else the module's outputs (`[N]` for a single value)."""
        self._outputs(*_row(x))
        with _one_thread():
            self._flat.load(model, self._first(0))
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

    def _client(self, work: Work, k: int) -> Client:
        name, (x, y) = work.shards.clients[k], work.shards.of(k)
        own = {**self._first(work.seed), **(self._memory or {}).get(name, {})}
        return Client(k, name, gradient.inputs(x), self._targets(x, y), own)

    def _chosen(self, work: Work, client: Client) -> Executor:
        """The way to train, chosen when it is known what rows look like."""
        if work.training.example_clip is not None:
            if self._private is None:
                self._private = _private(self._flat, self._losses)
            return self._private
        if self._executor is None:
            self._executor = Loop(self._flat, self._mean)
            if self._cohort or self._compiled:
                pure = Pure(self._flat, self._losses)
                refusal = pure.refusal(client)
                if refusal is not None:
                    log.warning(
                        "Clients are trained one by one, step by step, as the module asks for it: %s", refusal
                    )
                else:
                    self._executor = Cohort(pure) if self._cohort else Compiled(pure)
        return self._executor

    def _update(self, work: Work, client: Client, trained: Iterator[float]) -> Update:
        measure, before, after = work.training.measure, None, None
        if "loss_before" in measure:
            self._flat.load(work.model, client.own)
            before = self._score(client.x, client.y)
        seconds = next(trained)
        delta = self._flat.vector() - work.model
        if measure & {"loss_after", "accuracy"}:
            after = self._score(client.x, client.y)
        if self._memory is not None:
            self._memory[client.name] = self._flat.own()
        steps, outputs = work.training.steps_of(len(client.y)), self._outputs(*_row(client.x))
        report = gradient.report_of(work, client.y, steps, seconds, outputs, before, after)
        return Update(client.name, gradient.bounded(work, [client.name], delta[None])[0], report)

    def _mean(self, outputs: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if self._loss == "cross_entropy":
            return F.cross_entropy(outputs, y)
        return self._losses(outputs, y).mean()

    def _score(self, x: Array, labels: Array) -> Metrics:
        loss = right = 0.0
        for part, outputs in self._answers(x):
            answers = from_numpy(labels[part]).to(self._device)
            loss += float(self._losses(outputs, answers).double().sum())
            if self._loss == "cross_entropy":
                right += int((outputs.argmax(-1) == answers).sum())
        count = len(labels)
        return Metrics(count, loss / count, right / count if self._loss == "cross_entropy" else None)

    def _answers(self, x: Array) -> Iterator[tuple[slice, torch.Tensor]]:
        self._module.eval()
        rows = gradient.chunk(x)
        for start in range(0, len(x), rows):
            part = slice(start, start + rows)
            with torch.no_grad():
                outputs = self._module(from_numpy(gradient.inputs(x[part])).to(self._device))
            yield part, outputs

    def _targets(self, x: Array, y: Array) -> Array:
        """Class numbers as torch wants them, int64; values as they are."""
        labels = gradient.targets(y, self._loss, self._outputs(*_row(x)))
        return labels.astype(np.int64) if self._loss == "cross_entropy" else labels

    def _tensors(self, seed: int) -> dict[str, Array]:
        return numpy_of(self._seeded(seed))

    def _seeded(self, seed: int) -> nn.Module:
        # Modules are built on the CPU; `torch.manual_seed` would set the generators of GPUs as well, and leave them so.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return self._build()

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


def _private(flat: Flat, losses: Loss) -> Executor:
    """The way to train that protects single examples; it needs an extra of its own.

    Raises:
        LearnerError: the extra is not installed.
    """
    try:
        from haina.learners.torch.private import Private
    except ModuleNotFoundError as error:
        missing = (error.name or "opacus").partition(".")[0]
        raise LearnerError(
            f"example_clip needs {missing}, which is not installed", remedy="Run: pip install 'haina[opacus]'"
        ) from error
    return Private(flat, losses)


def device_of(name: str) -> torch.device:
    """The device of that name; "auto" is a GPU where there is one.

    Raises:
        LearnerError: torch has no such device here.
    """
    gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if gpu else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise LearnerError(f"device is {name!r}", allowed="cpu, cuda or auto") from error
    if device.type == "cuda" and not gpu:
        raise LearnerError(
            f"device is {name!r}, and torch {torch.__version__} finds no GPU here",
            allowed="cpu, or auto for a GPU where there is one",
            remedy="Check nvidia-smi, and that torch was installed with CUDA",
        )
    return device


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
