"""Processes that spend a privacy budget and are killed at it.

What begins a Python process and imports libraries takes most of a short life. So one process imports them, and forks a spender each time it is asked
to: a kill lands in the work. A release is a line of a file that outlives them all; it cannot be taken back, as what was sent cannot.
"""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ledgers import charge

#: Epsilon of a charge.
EACH = 1e-3


def node(folder: Path) -> tuple[Callable, Callable]:
    """Reserve and release in a node's ledger, which several processes may hold."""
    from haina.node.ledger import NodeLedger

    ledger = NodeLedger(folder / "ledger.sqlite", time.time)
    return ledger.reserve, ledger.released


def coordinator(folder: Path) -> tuple[Callable, Callable]:
    """Reserve and release in a coordinator's SQLite store, whose folder one process has at a time."""
    from haina.coordinator.store import Store

    store = Store.open(None, folder, time.time)
    return store.reserve, store.release


def spend(kind: str, folder: Path) -> None:
    """Reserve, release, say so; until the budget refuses."""
    reserve, released = {"node": node, "coordinator": coordinator}[kind](folder)
    outside = os.open(folder / "outside", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    number = 0
    while True:
        name = f"{os.getpid()}-{time.time_ns()}-{number}"
        refused = reserve([charge(name, EACH, round=number)])
        if refused:
            assert "would be overspent" in refused[name]
            (folder / f"refused-{os.getpid()}").touch()
            return
        os.write(outside, f"{name}\n".encode())
        released([name])
        number += 1


def fork_for_ever(kind: str, folder: Path) -> None:
    """The process that imports once: for each line that comes in, a spender, whose number is said."""
    import haina.coordinator.store
    import haina.node.ledger  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                spend(kind, folder)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            os._exit(0)
        print(child, flush=True)


@dataclass
class Spenders:
    """Those of one ledger."""

    mother: subprocess.Popen
    folder: Path
    seen: int = 0
    alive: list[int] = field(default_factory=list)

    def begin(self) -> None:
        """One more."""
        self.mother.stdin.write("go\n")
        self.mother.stdin.flush()
        # Not its number but a handle, which never means another process.
        self.alive.append(os.pidfd_open(int(self.mother.stdout.readline())))

    def kill(self, which: int) -> None:
        """SIGKILL, and wait until it is gone."""
        handle = self.alive.pop(which)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        self._gone(handle)

    def end(self) -> None:
        """Wait until the budget has refused all that are left."""
        while self.alive:
            self._gone(self.alive.pop())

    def releases(self) -> list[str]:
        """What was released so far."""
        try:
            return (self.folder / "outside").read_text().splitlines()
        except FileNotFoundError:
            return []

    def wait_for(self, count: int) -> None:
        """Wait until so many were released."""
        end = time.monotonic() + 60
        while len(self.releases()) < count:
            assert time.monotonic() < end, "the spenders do not get on"
            time.sleep(0.002)

    def _gone(self, handle: int) -> None:
        assert select.select([handle], [], [], 60)[0], "a spender does not end"
        os.close(handle)


@contextmanager
def spenders(kind: str, folder: Path) -> Iterator[Spenders]:
    """Spenders of the ledger of a kind in a folder; whoever is left over is killed."""
    code = f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}\n"
    code += f"from pathlib import Path; from spenders import fork_for_ever; fork_for_ever({kind!r}, Path({str(folder)!r}))"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        (folder / "errors").open("w") as errors,
        subprocess.Popen([sys.executable, "-c", code], stderr=errors, **pipes) as mother,
    ):
        these = Spenders(mother, folder)
        try:
            assert mother.stdout.readline() == "ready\n", (folder / "errors").read_text()
            yield these
        finally:
            while these.alive:
                these.kill(0)
            mother.kill()
