"""The trainer: a task in, a signed update out; the rows stay in the process that trains."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from haina.artifact import Array, load
from haina.errors import HainaError, PrivacyError
from haina.federation.bench import Bench, BenchError
from haina.node.canary import CanaryBench
from haina.node.guard import SILENT, Guard
from haina.node.sealing import Masked
from haina.report import Report
from haina.update import Failure, Update
from haina.wire.codecs import encode
from haina.wire.identity import Credentials, sign
from haina.wire.messages import Failed, Manifest, Task

#: Where a lossy codec's residual lies in a node's memory, beside what the learner remembers.
_RESIDUAL = "residual"


@dataclass(frozen=True)
class Packed:
    """One update ready for the outbox.

    Args:
        manifest: signed.
        pieces: the body.
        memory: what the node remembers once it is delivered.
        words: what happened, for this machine only.
    """

    manifest: Manifest
    pieces: Sequence[Any]
    memory: Mapping[str, Array]


@dataclass(frozen=True)
class Learnt:
    """What training gave.

    Args:
        update: not yet anything that may be sent.
        memory: what the node remembers once it is delivered.
    """

    update: Update
    memory: Mapping[str, Array]


@dataclass
class Trainer:
    """Trains the node's rows; use as a context manager.

    Args:
        bench: the process with the rows.
        credentials: whose update it is.
        guard: what may be sent of it; None where nothing is promised.
        examples: rows.
        departure: says what of a task is not as the federation file promises; None where the file promises nothing.
    """

    bench: Bench | CanaryBench
    credentials: Credentials
    guard: Guard | None = None
    examples: int = 0
    departure: Callable[[Task], str | None] | None = None

    def __enter__(self) -> Self:
        """Start the process and read the rows.

        Raises:
            HainaError: the rows cannot be read, or do not fit the federation.
        """
        try:
            self.bench.start()
            self.examples = self.bench.examples()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        if self.guard is not None:
            self.guard.rows = self.examples
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bench.close()
        if self.guard is not None:
            self.guard.close()

    def threads(self, count: int) -> None:
        """How many threads training may use; a change restarts the process."""
        if count and count != self.bench.child.threads:
            self.bench.child.threads = count

    def train(
        self, task: Task, model: Path, control: Path | None, memory: Mapping[str, Array]
    ) -> Packed | tuple[Failed, str]:
        """Train one task, and make of it what may be sent in the clear. Arguments as of `learn`."""
        learnt = self.learn(task, model, control, memory)
        return learnt if isinstance(learnt, tuple) else self.pack(task, learnt, memory.get(_RESIDUAL))

    def learn(
        self, task: Task, model: Path, control: Path | None, memory: Mapping[str, Array]
    ) -> Learnt | tuple[Failed, str]:
        """Train one task.

        Args:
            task: what to do.
            model: the file with the model.
            control: the file with the control vector, or None.
            memory: what the node remembers.

        Returns:
            The update; or why there is none, and what happened in words for this machine alone.
        """
        departs = None if self.departure is None else self.departure(task)
        if departs is not None:
            return self._failed(task, f"the task is not as promised: {departs}", ""), departs
        vector = None
        if control is not None:
            vector = np.array(load(control.read_bytes())[0]["control"])
        own = {name: array for name, array in memory.items() if name != _RESIDUAL}
        try:
            trained = self.bench.train(
                task, self.credentials.name, model, control=vector, memory=own, limit=_limit(task)
            )
        except BenchError as error:
            return self._failed(task, error.reason, error.where), str(error)
        if isinstance(trained.result, Failure):
            return self._failed(task, trained.result.reason, trained.where), trained.words
        return Learnt(trained.result, trained.memory)

    def pack(self, task: Task, learnt: Learnt, residual: Array | None) -> Packed | tuple[Failed, str]:
        """What may be sent of an update in the clear, bounded and covered as the federation promises."""
        update = learnt.update
        try:
            if self.guard is not None:
                update = self.guard.sent(update, task.limit)
            body, residual = encode(task.codec, update.vector, residual)
        except PrivacyError as error:
            # Which number it was is told to the person here alone.
            return self._failed(task, "its update cannot be bounded as the federation asks", ""), str(error)
        except HainaError as error:
            return self._failed(task, error.what, ""), str(error)
        kept = dict(learnt.memory) | ({} if residual is None else {_RESIDUAL: residual})
        data = memoryview(body.data).cast("B")
        # A document (bytes, of a collected payload) has no length in numbers.
        length = 0 if update.vector.dtype == np.uint8 else len(update.vector)
        manifest = self._manifest(task, data, task.codec, length, update.report)
        return Packed(manifest, [data], kept)

    def masked(self, task: Task, masked: Masked) -> Manifest:
        """The manifest of masked words: beside them, it says nothing."""
        return self._manifest(task, masked.words, masked.codec, masked.length, SILENT)

    def _manifest(
        self, task: Task, body: bytes | memoryview, codec: str, length: int, report: Report
    ) -> Manifest:
        fields = {
            "node": self.credentials.name,
            "federation": task.federation,
            "round": task.round,
            "version": task.version,
            "sha256": hashlib.sha256(body).hexdigest(),
            "bytes": len(body),
            "codec": codec,
            "length": length,
            "report": report.to_json(),
        }
        return sign(self.credentials.key, Manifest.model_validate(fields))

    def _failed(self, task: Task, reason: str, where: str) -> Failed:
        return Failed(
            federation=task.federation, round=task.round, reason=reason[:1000], where=where[:10_000]
        )


def _limit(task: Task) -> float:
    """Seconds that training may take: a round's own time, with a margin for slow clocks."""
    return max(60.0, 2.0 * task.seconds)
