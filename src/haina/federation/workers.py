"""Workers: local training in several processes, with the same result as in one.

Each worker is a bench that builds the federation from the same file, so a message holds only the model and the names of the clients to train; each
worker gets its whole share in one message, longest clients first. What comes back is put in the order of the cohort, so nothing depends on which
worker was faster. A worker that dies is started again and its share is redone.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from haina.errors import LearnerError, RunError
from haina.federation.bench import Bench, BenchError, simulated
from haina.federation.child import TRIES
from haina.federation.federation import Federation
from haina.learners.learner import Work
from haina.update import Result
from haina.wire.messages import Task


class Workers:
    """A pool of worker processes; use as a context manager.

    Args:
        federation: what they train.
        count: how many processes, >= 1.
    """

    def __init__(self, federation: Federation, count: int) -> None:
        self._federation, self._count = federation, count
        self.benches: tuple[Bench, ...] = ()

    def __enter__(self) -> Self:
        # As many threads as this process: the sums of exact learners must be those of a run without workers.
        self.benches = tuple(Bench(self._federation, threads=None, limit=None) for _ in range(self._count))
        self._threads = ThreadPoolExecutor(self._count, thread_name_prefix="haina-worker")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for bench in self.benches:
            bench.close()
        self._threads.shutdown(cancel_futures=True)

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
        task = simulated(work)
        jobs = [
            self._threads.submit(_share, bench, work, sorted(share), task)
            for bench, share in zip(self.benches, shares, strict=True)
            if share
        ]
        results = {result.client: result for job in jobs for result in job.result()}
        yield from (results[client] for client in work.shards.clients)


def _share(bench: Bench, work: Work, share: list[int], task: Task) -> list[Result]:
    try:
        return bench.share(work, share, task)
    except BenchError as error:
        remedy = "Run with --workers 1 to see the error where it happens; it may be short of memory"
        if error.kind in ("died", "closed"):
            what = f"a worker died {TRIES} times on the same {len(share)} clients"
            raise RunError(what, remedy=remedy) from error
        if error.what == error.reason:
            raise RunError(f"a worker met {error.kind} at\n{error.where}", remedy=remedy) from error
        raise LearnerError(error.what, allowed=error.allowed, remedy=error.remedy) from error
