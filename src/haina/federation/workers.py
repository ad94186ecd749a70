"""Workers: local training in several processes, with the same result as in one.

Each worker builds the federation from the same file, so a message holds only the model and the names of the clients to train; each worker gets its
whole share in one message, longest clients first. What comes back is put in the order of the cohort, so nothing depends on which worker was faster.

Messages are canonical bytes behind an 8-byte length, over the worker's standard input and output. A worker that dies is started again and its share
is redone.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from types import TracebackType
from typing import IO, Self

import numpy as np

from haina.artifact import Array, dump, load
from haina.errors import HainaError, LearnerError, RunError
from haina.federation.federation import Federation
from haina.learners.learner import Work
from haina.report import Report
from haina.update import Failure, Result, Update

#: A share that kills its worker this many times is given up: the fault is in the data or the model, not in the process.
_TRIES = 3


class Workers:
    """A pool of worker processes; use as a context manager.

    Args:
        federation: what they train.
        count: how many processes, >= 1.
    """

    def __init__(self, federation: Federation, count: int) -> None:
        self._federation, self._count = federation, count
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        self._workers = [_Worker(self._federation) for _ in range(self._count)]
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="haina-worker")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.close()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def train(self, work: Work) -> Iterator[Result]:
        """As `Learner.train`, divided among the processes.

        Raises:
            RunError: a worker keeps dying on its share.
            LearnerError: training cannot be done as asked.
        """
        steps = [work.training.steps_of(int(size)) for size in work.shards.sizes]
        loads, shares = [0] * self._count, [list[int]() for _ in range(self._count)]
        for k in sorted(range(len(steps)), key=lambda k: -steps[k]):
            lightest = loads.index(min(loads))
            loads[lightest] += steps[k]
            shares[lightest].append(k)
        jobs = [
            self._threads.submit(worker.train, _request(work, sorted(share)), len(share))
            for worker, share in zip(self._workers, shares, strict=True)
            if share
        ]
        results = {result.client: result for job in jobs for result in job.result()}
        yield from (results[client] for client in work.shards.clients)


class _Worker:
    """One process, started when first needed and again when it died."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def train(self, request: bytes, clients: int) -> list[Result]:
        for _ in range(_TRIES):
            if self._closed:
                break
            process = self._process or self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                write_frame(process.stdin, request)
                return [_result(read_frame(process.stdout)) for _ in range(clients)]
            except (EOFError, BrokenPipeError):
                self.stop()
        raise RunError(
            f"a worker died {_TRIES} times on the same {clients} clients",
            remedy="Run with --workers 1 to see the error where it happens; it may be short of memory",
        )

    def _start(self) -> subprocess.Popen[bytes]:
        # In a session of its own: Ctrl-C is for the run, which then ends its workers.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "haina.federation.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        federation = self._federation
        assert self._process.stdin is not None
        hello = {"text": federation.text, "file": federation.file, "folder": str(federation.folder.resolve())}
        # With a broken pipe the caller meets the closed end, and counts the try.
        with suppress(BrokenPipeError):
            write_frame(self._process.stdin, json.dumps(hello).encode())
        return self._process

    def close(self) -> None:
        """End the process for good, in the middle of a share if need be; the thread that waits for it then calls `stop`."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def serve(stdin: IO[bytes], stdout: IO[bytes]) -> None:
    """A worker's life: the federation first, then shares until the pipe closes."""
    hello = json.loads(read_frame(stdin))
    simulation = Federation.of(**hello).simulation()
    learner = simulation.learner
    while True:
        try:
            arrays, request = load(read_frame(stdin))
        except EOFError:
            return
        job = json.loads(request["job"])
        training = replace(simulation.training, epochs=job["epochs"], measure=frozenset(job["measure"]))
        work = Work(
            model=arrays["model"],
            round=job["round"],
            shards=simulation.shards(job["round"], job["clients"]),
            training=training,
            learning_rate=job["learning_rate"],
            proximal=job["proximal"],
            offsets=arrays.get("offsets"),
            seed=simulation.seed,
        )
        try:
            for result in learner.train(work):
                write_frame(stdout, _reply(result))
        except HainaError as error:
            write_frame(stdout, _complaint(error))


def _request(work: Work, share: list[int]) -> bytes:
    arrays: dict[str, Array] = {"model": work.model}
    if work.offsets is not None:
        arrays["offsets"] = work.offsets[share]
    job = {
        "round": work.round,
        "clients": [work.shards.clients[k] for k in share],
        "epochs": work.training.epochs,
        "measure": sorted(work.training.measure),
        "learning_rate": work.learning_rate,
        "proximal": work.proximal,
    }
    return dump(arrays, {"job": json.dumps(job)})


def _reply(result: Result) -> bytes:
    if isinstance(result, Failure):
        return dump({}, {"client": result.client, "failure": result.reason})
    report = json.dumps(asdict(result.report))
    return dump({"vector": result.vector}, {"client": result.client, "report": report})


def _complaint(error: HainaError) -> bytes:
    return dump({}, {"error": error.what, "allowed": error.allowed, "remedy": error.remedy})


def _result(data: bytes) -> Result:
    arrays, reply = load(data)
    if "error" in reply:
        raise LearnerError(reply["error"], allowed=reply["allowed"], remedy=reply["remedy"])
    if "failure" in reply:
        return Failure(reply["client"], reply["failure"])
    numbers = json.loads(reply["report"])
    if numbers["label_counts"] is not None:
        numbers["label_counts"] = tuple(numbers["label_counts"])
    return Update(reply["client"], np.asarray(arrays["vector"]), Report(**numbers))


def write_frame(pipe: IO[bytes], data: bytes) -> None:
    """Write bytes behind their length (8 bytes, little-endian)."""
    pipe.write(len(data).to_bytes(8, "little"))
    pipe.write(data)
    pipe.flush()


def read_frame(pipe: IO[bytes]) -> bytes:
    """Read what `write_frame` wrote.

    Raises:
        EOFError: the other side is gone.
    """
    head = pipe.read(8)
    data = pipe.read(int.from_bytes(head, "little")) if len(head) == 8 else b""
    if len(head) < 8 or len(data) < int.from_bytes(head, "little"):
        raise EOFError
    return data
