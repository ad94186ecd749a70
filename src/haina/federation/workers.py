"""Workers: local training in several processes, with the same result as in one.

Each worker builds the federation from the same file, so a message holds the model and who was invited, and no rows; each worker gets its whole
share in one message, heaviest clients dealt out first. Where the round folds, one partial sum of the share comes back, else the vectors of its
clients. Sums are exact and vectors are put in the order of the cohort, so nothing depends on which worker was faster, or on how many there are.

A worker sits in a seat: a child process here (`haina.federation.child`), or an actor somewhere in a cluster (`haina.federation.ray`). One that dies
is replaced, and its share is redone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from haina.artifact import Pieces, pieces
from haina.errors import ConfigError, DataError, LearnerError, RunError
from haina.federation.answers import results_of
from haina.federation.bench import hello
from haina.federation.child import TRIES, BenchError, Child, Died, Message
from haina.federation.federation import Federation
from haina.federation.meter import Usage
from haina.simulation.simulation import Heard
from haina.simulation.turn import Turn
from haina.strategy.partial import Partial
from haina.update import Result


class Seat(Protocol):
    """Where a worker sits."""

    def call(self, request: Pieces, answers: int, limit: float | None) -> list[Message]:
        """Ask the worker; arguments and errors as for `Child.call`."""

    def close(self) -> None:
        """End the worker, in the middle of a call if need be; that call then raises."""


#: Makes the k-th seat from the first frame of its worker, without starting it.
Hire = Callable[[bytes, int], Seat]


class Workers:
    """A pool of workers; use as a context manager.

    Args:
        federation: what they train.
        count: how many, >= 1.
        hire: makes their seats; child processes of this one if not given, each with a GPU of its own where there are several.
        data: SHA-256 of the rows, for workers that may find others (`haina.federation.bench.hello`).
    """

    def __init__(self, federation: Federation, count: int, hire: Hire | None = None, data: str = "") -> None:
        self._simulation, self._count = federation.simulation(), count
        self._hire, self._hello = hire or child, hello(federation, data=data)
        self.seats: tuple[Seat, ...] = ()
        #: What each process has used, by its name; those that died stay.
        self.usage: dict[str, Usage] = {}
        #: What the processes have used that answered last, one a seat.
        self.working: list[Usage] = []
        #: Seconds that all workers together have trained.
        self.busy = 0.0

    def __enter__(self) -> Self:
        self.seats = tuple(self._hire(self._hello, k) for k in range(self._count))
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="haina-worker")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for seat in self.seats:
            seat.close()
        self._threads.shutdown(cancel_futures=True)

    def train(self, turn: Turn) -> Iterator[Heard]:
        """As `Simulation.train`, divided among the workers, who begin at once.

        Raises:
            RunError: a worker keeps dying on its share, or met an error that is none of Haina's.
            HainaError: training cannot be done as asked.
        """
        jobs = [
            self._threads.submit(_share, seat, turn, share)
            for seat, share in zip(self.seats, self._shares(turn), strict=True)
            if share
        ]
        return self._heard(turn, jobs)

    def _heard(self, turn: Turn, jobs: list[Future[list[Message]]]) -> Iterator[Heard]:
        folds = self._simulation.folds(turn)
        results: dict[str, Result] = {}
        self.working = []
        for job in jobs:
            heard, (_, words) = job.result()
            used = Usage.from_json(json.loads(words["usage"]))
            self.usage[used.process], self.busy = used, self.busy + used.busy
            self.working.append(used)
            if folds:
                yield Partial.from_arrays(*heard)
            else:
                results |= {result.client: result for result in results_of(*heard)}
        if not folds:
            yield from (results[client] for client in turn.names(turn.present))

    def _shares(self, turn: Turn) -> list[list[int]]:
        """Positions of the clients of each worker: the heaviest first, each to whom has least to do."""
        steps = dict(zip(turn.present, self._simulation.steps(turn, turn.present), strict=True))
        loads, shares = [0] * self._count, [list[int]() for _ in range(self._count)]
        for k in sorted(steps, key=lambda k: -steps[k]):
            lightest = loads.index(min(loads))
            loads[lightest] += steps[k]
            shares[lightest].append(k)
        return [sorted(share) for share in shares]


def child(first: bytes, number: int) -> Child:
    """A seat for the worker of that number in a process of its own, on a GPU of its own if there are enough."""
    devices = gpus()
    # As many threads as this process: the sums of exact learners must be those of a run without workers.
    return Child(
        first, environment={"CUDA_VISIBLE_DEVICES": devices[number % len(devices)]} if devices else {}
    )


def gpus() -> list[str]:
    """CUDA devices that this process may use, by the names that `CUDA_VISIBLE_DEVICES` takes; without asking a framework."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:
        return [name for name in said.split(",") if name.strip()]
    cards = [path for path in Path("/dev").glob("nvidia*") if path.name.removeprefix("nvidia").isdigit()]
    return [str(k) for k in range(len(cards))]


def _share(seat: Seat, turn: Turn, positions: list[int]) -> list[Message]:
    arrays, words = turn.to_arrays(positions)
    try:
        return seat.call(pieces(arrays, {**words, "call": "share"}), 2, None)
    except Died as error:
        raise RunError(
            f"a worker died {TRIES} times on the same {len(positions)} clients ({error.how})",
            remedy="Give it fewer --workers if memory is short; --workers 1 shows an error where it happens",
        ) from error
    except BenchError as error:
        if error.kind == "closed":
            raise RunError("a worker was ended in the middle of its share") from error
        if error.own:
            raise RunError(error.what, remedy=error.remedy) from error
        if error.what == error.reason:
            places = "\n".join(f"  {line}" for line in error.where.splitlines())
            raise RunError(
                f"a worker met {error.kind}",
                remedy=f"Run with --workers 1 on the local engine to see what it says. It happened in\n{places}",
            ) from error
        kind = {"ConfigError": ConfigError, "DataError": DataError}.get(error.kind, LearnerError)
        raise kind(error.what, allowed=error.allowed, remedy=error.remedy) from error
