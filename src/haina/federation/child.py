"""Child: a training process and the calls to it, each with a limit of time.

It is started when first called and started again when it died; a call that kills it three times is given up. A process that does not answer in time,
because it hangs or was stopped, is killed, and whatever it started with it.

The trap: on Linux a child that asks to die with its parent dies with the *thread* that started it. So one thread, which lives as long as this
process, starts all children.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Self

from haina.artifact import Array, Pieces, load
from haina.errors import HainaError
from haina.federation.frames import read_frame, write_frame

#: A call that kills its process so often is given up: the fault is in the data or the model, not in the process.
TRIES = 3

#: Arrays and words, as they came.
Message = tuple[dict[str, Array], dict[str, str]]


class BenchError(HainaError):
    """A call could not be answered.

    The message is for this machine: it may repeat what an error said of local rows. `reason` and `where` are for anybody.

    Args:
        kind: `died`, `slow`, `closed`, or the type of the error in the process.
        reason: in one sentence, without any data.
        what, allowed, remedy: as for every error.
        where: the places in the code, a line each.
    """

    def __init__(
        self, kind: str, reason: str, what: str = "", *, allowed: str = "", remedy: str = "", where: str = ""
    ) -> None:
        self.kind, self.reason, self.where = kind, reason, where
        super().__init__(what or reason, allowed=allowed, remedy=remedy)

    @property
    def own(self) -> bool:
        """True when the process failed, and not what it was asked to do."""
        return self.kind in ("died", "slow", "closed")


class Died(BenchError):  # noqa: N818 -- it is said of the process
    """A call killed its process `TRIES` times.

    Args:
        how: it died the last time.
    """

    def __init__(self, how: str) -> None:
        self.how = how
        what = f"its training process died {TRIES} times on the same call ({how})"
        super().__init__("died", what, remedy="It may be short of memory")


class Child:
    """One process; calls come one at a time, `close` from any thread.

    Args:
        hello: the first frame that each process gets.
        niceness: added to the priority of this process, 0 to 19.
        threads: of the numerical libraries; None for what they choose themselves.
        environment: variables beside those of this process.

    `niceness` and `threads` may be changed: the next call starts the process anew.
    """

    def __init__(
        self,
        hello: bytes,
        niceness: int = 0,
        threads: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._hello, self.niceness, self.threads = hello, niceness, threads
        self._environment = dict(environment or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._settings: tuple[int, int | None] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def call(self, request: Pieces, answers: int, limit: float | None) -> list[Message]:
        """Send a frame and read so many.

        Args:
            request: the frame, in pieces.
            answers: how many are expected; an error ends them early.
            limit: seconds for all of it, the process's start included; None for no limit.

        Raises:
            BenchError: the process died three times, took too long or was closed, or answered with an error.
        """
        with self._lock, _Watch(self._kill, limit) as watch:
            code: int | None = None
            for _ in range(TRIES):
                process = self._running(watch)
                assert process.stdin is not None
                assert process.stdout is not None
                try:
                    write_frame(process.stdin, *request)
                    found: list[Message] = []
                    while len(found) < answers:
                        found.append(load(read_frame(process.stdout)))
                        refuse_error(found[-1][1])
                    return found
                except BenchError:
                    raise
                except (EOFError, OSError):
                    code = self._end()
                except BaseException:
                    # Interrupted in the middle of an answer: the next call must not read the rest of this one.
                    self._end()
                    raise
            self._check(watch)
            raise Died(_ending(code))

    def close(self) -> None:
        """End the process for good, in the middle of a call if need be; that call then raises."""
        self._closed = True
        self._kill()
        with self._lock:
            self._end()

    def _running(self, watch: _Watch) -> subprocess.Popen[bytes]:
        self._check(watch)
        if self._settings != (self.niceness, self.threads):
            self._end()
        process = self._process or self._start()
        # Whoever gave up while the process was being started found nothing to kill.
        self._check(watch)
        return process

    def _check(self, watch: _Watch) -> None:
        if not self._closed and not watch.over:
            return
        self._end()
        if self._closed:
            raise BenchError("closed", "its training process was ended")
        raise BenchError(
            "slow",
            f"its training process did not answer within {watch.limit:g} s and was ended",
            remedy="Give it more time, or less to do",
        )

    def _start(self) -> subprocess.Popen[bytes]:
        self._settings = (self.niceness, self.threads)
        process = self._process = _nursery().submit(_spawn, *self._settings, self._environment).result()
        assert process.stdin is not None
        # With a broken pipe the call meets the closed end, and counts the try.
        with suppress(OSError):
            write_frame(process.stdin, self._hello)
        return process

    def _kill(self) -> None:
        process = self._process
        # Until it is waited for, the number is the process's own; its group holds whatever it started.
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def _end(self) -> int | None:
        process = self._process
        if process is None:
            return None
        self._kill()
        process.communicate()
        self._process = None
        return process.returncode


class _Watch:
    """The time of a call: when it is over, `kill` is called."""

    def __init__(self, kill: Callable[[], None], limit: float | None) -> None:
        self.limit, self.over, self._kill = limit, False, kill
        self._timer = threading.Timer(0.0 if limit is None else limit, self._expire)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        if self.limit is not None:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()

    def _expire(self) -> None:
        self.over = True
        self._kill()


def refuse_error(words: Mapping[str, str]) -> None:
    """Raise what an answer says went wrong, if it says so (`haina.federation.answers.error_bytes`)."""
    if "error" in words:
        raise BenchError(
            words["error"],
            words["reason"],
            words["what"],
            allowed=words["allowed"],
            remedy=words["remedy"],
            where=words["where"],
        )


@cache
def _nursery() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="haina-nursery")


def _spawn(niceness: int, threads: int | None, own: Mapping[str, str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **own}
    if threads is not None:
        environment |= {
            f"{library}_NUM_THREADS": str(threads) for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
        }
    # In a session of its own: Ctrl-C is for this process, which then ends its children.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "haina.federation.worker", str(os.getpid()), str(niceness)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def _ending(code: int | None) -> str:
    if code is None:
        return "it could not be started"
    if code == -signal.SIGKILL:
        return "killed, as the kernel does when memory runs out"
    return f"signal {-code}" if code < 0 else f"exit status {code}"
