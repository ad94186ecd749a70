"""Ray: workers as actors, on the machines of a cluster or on this one. The one room that imports ray.

An actor holds the same `Worker` as a child process and gets the same messages, so a run gives the same bytes here as there. `RAY_ADDRESS` names the
cluster; without it a Ray of our own is started on this machine and ended with the run.

Two traps. Ray itself pickles, and believes everybody who reaches its ports: a cluster belongs in a network of one's own. And the text of a federation
file travels, its folder does not: data and `build` files must lie under the same path on every machine (their SHA-256 is compared).
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import re
import socket
import threading
import warnings
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from haina.artifact import Pieces, load
from haina.errors import ConfigError, Unreachable
from haina.federation.child import TRIES, BenchError, Died, Message, refuse_error
from haina.federation.worker import Worker, answers

#: Seconds that an actor may take until its first answer: Ray looks for a place, and a process starts.
_START = 300.0

#: Seconds in which a cluster must answer its door, and what an address with a door looks like.
_KNOCK = 10.0
_HOST = re.compile(r"(?:ray://)?(.+):(\d{1,5})")

#: Libraries whose number of threads decides the order of sums.
_LIBRARIES = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")


class Cluster:
    """A connection to Ray; use as a context manager.

    Args:
        workers: actors that will be asked for.
        gpus: whether they train on GPUs.

    Raises:
        ConfigError: ray is not installed, or the cluster is too small.
        Unreachable: there is no cluster at `RAY_ADDRESS`.
    """

    def __init__(self, workers: int, *, gpus: bool = False) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ConfigError(
                'engine "ray" needs the package ray, which is not installed',
                remedy='Install it: pip install "haina[ray]"',
            )
        self._workers, self._wants_gpus = workers, gpus
        self._options: dict[str, Any] = {}
        self._started = False

    def __enter__(self) -> Self:
        # Read when ray is imported: nothing is told to its makers, and devices stay as they are.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        import ray

        if not ray.is_initialized():
            self._connect(ray, os.environ.get("RAY_ADDRESS"))
            self._started = True
        there: dict[str, float] = ray.cluster_resources()
        if there.get("CPU", 0) < self._workers:
            self.__exit__(None, None, None)
            raise ConfigError(
                f"{self._workers} workers are asked for, and the Ray cluster has {there.get('CPU', 0):g} processors",
                allowed=f"--workers up to {there.get('CPU', 0):g}",
            )
        self._options = {
            "num_cpus": 1,
            "num_gpus": self._gpus(there.get("GPU", 0.0)) if self._wants_gpus else 0.0,
            "scheduling_strategy": "SPREAD",
            # Otherwise Ray gives each actor one thread, and sums of exact learners another order than in this process.
            "runtime_env": {"env_vars": {f"{name}_NUM_THREADS": _threads(name) for name in _LIBRARIES}},
        }
        return self

    def _connect(self, ray: Any, address: str | None) -> None:
        own: dict[str, Any] = {"num_cpus": self._workers, "include_dashboard": False}
        try:
            if address is not None and (at := _HOST.fullmatch(address)):
                # Ray itself would try for minutes.
                socket.create_connection((at[1].strip("[]"), int(at[2])), timeout=_KNOCK).close()
            with warnings.catch_warnings():
                # JAX warns of every fork; Ray forks to start programs, not to go on as this one.
                warnings.simplefilter("ignore", RuntimeWarning)
                ray.init(
                    address or "local",
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                    **({} if address else own),
                )
        except (OSError, ValueError, RuntimeError) as error:
            said = str(error).partition("\n")[0]
            if address is None:
                what, remedy = f"Ray could not be started: {said}", "Run with --engine local"
            else:
                what = f"there is no Ray at RAY_ADDRESS={address}: {said}"
                remedy = "Start one there (ray start --head), or unset it to have one on this machine"
            raise Unreachable(what, remedy=remedy) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        if self._started:
            ray.shutdown()

    def _gpus(self, there: float) -> float:
        """A GPU for each worker if there are enough, else an equal part of one: parts do not span two GPUs."""
        return 1.0 / math.ceil(self._workers / there) if there >= 1 else 0.0

    def hire(self, hello: bytes, number: int) -> Actor:
        """A seat for one worker (`haina.federation.workers.Hire`)."""
        return Actor(hello, self._options)


class Actor:
    """A seat in a Ray cluster (`haina.federation.workers.Seat`): one actor, started when first called, and again when it died.

    Args:
        hello: the first frame of its worker.
        options: of the actor.
    """

    def __init__(self, hello: bytes, options: Mapping[str, Any]) -> None:
        self._hello, self._options = hello, options
        self._closed = threading.Event()
        #: Ray's handle of the living actor.
        self.handle: Any = None

    def call(self, request: Pieces, answers: int, limit: float | None) -> list[Message]:
        """As `Child.call`, where a worker that cannot find its files is told where to put them."""
        import ray
        from ray.exceptions import GetTimeoutError, RayError

        data, how = b"".join(request), ""
        for _ in range(TRIES):
            if self._closed.is_set():
                raise BenchError("closed", "its training process was ended")
            try:
                if self.handle is None:
                    self.handle = ray.remote(_Desk).options(**self._options).remote(self._hello)
                    if self._closed.is_set():
                        # Ended by another thread, which did not see this one.
                        self._end()
                        continue
                    ray.get(self.handle.ready.remote(), timeout=_START)
                found = [load(frame) for frame in ray.get(self.handle.answer.remote(data), timeout=limit)]
            except GetTimeoutError as error:
                self._end()
                raise BenchError(
                    "slow", f"Ray found no place for a worker, or had no answer, in {limit or _START:g} s"
                ) from error
            except RayError as error:
                self._end()
                said = [line.strip() for line in str(error).splitlines() if line.strip()]
                how = f"{type(error).__name__} of Ray: {said[-1] if said else 'without a word'}"
            else:
                for _, words in found:
                    self._refuse(words)
                return found
        raise Died(how)

    def close(self) -> None:
        """End the actor for good; a call in the middle then raises."""
        self._closed.set()
        self._end()

    def _end(self) -> None:
        import ray

        handle, self.handle = self.handle, None
        if handle is not None:
            ray.kill(handle)

    def _refuse(self, words: Mapping[str, str]) -> None:
        try:
            refuse_error(words)
        except BenchError as error:
            if error.kind in ("ConfigError", "DataError"):
                error.remedy = "On a cluster every machine needs the federation's folder, with the same files, under the same path"
            raise


class _Desk:
    """What an actor does."""

    def __init__(self, hello: bytes) -> None:
        import json

        self._worker = Worker(json.loads(hello))

    def ready(self) -> None:
        """Answered when the process is there."""

    def answer(self, request: bytes) -> list[bytes]:
        """All answers to a frame."""
        return [b"".join(frame) for frame in answers(self._worker, request)]


def _threads(library: str) -> str:
    """How many threads a numerical library has in this process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get(f"{library}_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", str(cores)))
