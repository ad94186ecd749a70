"""Running: an R process and its pipes.

It never outlives this process, however that ends: a small shell beside it, in its process group, waits at a pipe that closes with this process, and
then kills the group. (The kernel's own signal for a parent's death, Linux only, is tied to the thread that started the child, and does not reach
what the script started.)
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import subprocess
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic

from haina.errors import LearnerError

#: Seconds between looks whether the process still lives, as a child of it may keep its pipes open.
_TICK = 0.25
#: What a pipe holds, where the kernel lets us choose: fewer turns of the two processes.
_PIPE = 1 << 20

_WORKER = Path(__file__).with_name("worker.R")

# The watch keeps neither pipe of the messages open; the shell itself becomes Rscript, and its number is that of the group.
_SHELL = """\
(exec 0</dev/fd/$1 1>&2; read -r _; kill -s KILL -- -$$) &
exec 3<&0 4>&1 0</dev/null 1>&2
shift
exec "$@"
"""


class Running:
    """A running process and its pipes; it is ended when nobody holds it any more.

    Args:
        folder: where R starts.

    Raises:
        LearnerError: there is no Rscript, or no such folder.
    """

    def __init__(self, folder: Path) -> None:
        self.process, self._to, self._of, life = _spawn(folder)
        self._fds = (self._to, self._of, life)
        self._end = weakref.finalize(self, _end, self.process, self._fds)

    def write(self, pieces: list[bytes | memoryview], deadline: float) -> None:
        """Send bytes.

        Raises:
            TimeoutError: `deadline`, in monotonic seconds, is over.
            EOFError, OSError: the process is gone.
        """
        for piece in pieces:
            left = memoryview(piece).cast("B")
            while len(left):
                self._wait(self._to, select.POLLOUT, deadline)
                with suppress(BlockingIOError):
                    left = left[os.write(self._to, left) :]

    def reader(self, deadline: float) -> Callable[[int], bytearray]:
        """A function that reads exactly so many bytes; it raises as `write` does."""

        def read(count: int) -> bytearray:
            data = bytearray(count)
            left = memoryview(data)
            while len(left):
                self._wait(self._of, select.POLLIN, deadline)
                got = os.readv(self._of, [left])
                if not got:
                    raise EOFError
                left = left[got:]
            return data

        return read

    def end(self, patience: float) -> str:
        """Kill the process and all that it started, after so many seconds to end by itself, and say how it ended."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        ended = self.process.returncode
        self._end()
        if ended is None:
            return "killed"
        return f"signal {-ended}" if ended < 0 else f"exit status {ended}"

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        while True:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError
            if poll.poll(1000 * min(left, _TICK)):
                return
            if self.process.poll() is not None:
                raise EOFError


def _end(process: subprocess.Popen[bytes], fds: tuple[int, ...]) -> None:
    # The group holds the watch, so its number is not anybody else's, also when R itself is gone.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for fd in fds:
        os.close(fd)
    process.wait()


def _spawn(folder: Path) -> tuple[subprocess.Popen[bytes], int, int, int]:
    rscript = shutil.which("Rscript")
    if rscript is None:
        raise LearnerError(
            "Rscript is not on the PATH of this machine",
            remedy="Install R (Debian: apt-get install r-base-core r-cran-jsonlite)",
        )
    if not folder.is_dir():
        raise LearnerError(f"there is no folder {folder} for R to start in")
    requests, to = os.pipe()
    of, answers = os.pipe()
    watched, life = os.pipe()
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _SHELL, "haina-r", str(watched), rscript, str(_WORKER)],
            stdin=requests,
            stdout=answers,
            stderr=2,
            pass_fds=(watched,),
            cwd=folder,
            # Without TZ, R asks a service that containers lack, and warns.
            env={"TZ": "UTC", **os.environ},
            # In a session of its own: Ctrl-C is for this process, and a group can be killed whole.
            start_new_session=True,
        )
    except BaseException:
        for fd in (to, of, life):
            os.close(fd)
        raise
    finally:
        for fd in (requests, answers, watched):
            os.close(fd)
    os.set_blocking(to, False)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        for fd in (to, of):
            with suppress(OSError):
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)
    return process, to, of, life
