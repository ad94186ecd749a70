"""Watch: start an engine, and read clocks and memory of all its processes from outside whenever it marks a round.

CPU seconds come from each process's own clock (nanoseconds; /proc counts in hundredths of a second, a whole round of a small workload). Memory is
the kernel's. Linux only. The trap is processes that leave their parents (daemons): this process adopts them, so that none is missed or left behind.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

#: prctl(2): orphaned descendants become children of this process.
_SUBREAPER = 36
#: Seconds that an engine has to go home after its last round.
_HOME = 60.0


class EngineError(Exception):
    """An engine that did not do its rounds; says why."""


@dataclass
class Tree:
    """All processes that descend from this one; those that have ended count as they were last seen."""

    _cpu: dict[int, float] = field(default_factory=dict)
    _peaks: dict[int, float] = field(default_factory=dict)

    def look(self) -> tuple[float, float]:
        """-> CPU seconds of all so far, and MB resident now."""
        resident = 0.0
        for process in descendants():
            try:
                # The kernel's name for the CPU clock of another process: clock_getcpuclockid(3).
                self._cpu[process.pid] = time.clock_gettime((~process.pid << 3) | 2)
                memory = _memory(process.pid)
            except (OSError, psutil.Error):
                continue
            resident += memory.get("VmRSS", 0.0)
            self._peaks[process.pid] = memory.get("VmHWM", 0.0)
        return sum(self._cpu.values()), resident

    def peak(self) -> float:
        """MB: sum over processes of their largest resident memory; pages that several share count in each."""
        return sum(self._peaks.values())


def descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _memory(pid: int) -> dict[str, float]:
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) / 1024 for words in lines if words[0].startswith("Vm")}


@dataclass
class Watched:
    """What was seen of one run.

    Args:
        cpu: CPU seconds of each round, the first included.
        wall: seconds of each round.
        resident: MB at the end of each round.
        first: seconds from the start of the process to the end of its first round.
        peak: MB (`Tree.peak`).
        load: the machine's load average before the start.
        told: what the engine said of itself besides.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    resident: list[float] = field(default_factory=list)
    first: float = 0.0
    peak: float = 0.0
    load: float = 0.0
    told: dict[str, Any] = field(default_factory=dict)


def watch(
    command: Sequence[object],
    rounds: int,
    *,
    env: Mapping[str, str],
    log: Path,
    timeout: float,
    cwd: Path | None = None,
) -> Watched:
    """Run an engine for so many rounds.

    Args:
        command: the engine; `--rounds` and `--marks` are added.
        rounds: the first one included.
        env: its environment.
        log: where its output goes.
        timeout: seconds for the whole.
        cwd: where it runs.

    Raises:
        EngineError: it ended early, or took too long; with the last lines of its log.
    """
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    seen = Watched(load=os.getloadavg()[0])
    tree, deadline = Tree(), time.monotonic() + timeout
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX) as door,
        log.open("wb") as out,
    ):
        address = f"{folder}/marks"
        door.bind(address)
        door.listen()
        door.settimeout(0.2)
        words = [*map(str, command), "--rounds", str(rounds), "--marks", address]
        started = time.perf_counter()
        child = subprocess.Popen(
            words, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd
        )
        try:
            with _accepted(door, child, deadline) as link:
                link.settimeout(max(deadline - time.monotonic(), 1.0))
                _follow(link, tree, seen, started)
            if len(seen.wall) < rounds:
                raise EngineError(f"ended in round {len(seen.wall) + 1} of {rounds}")
            child.wait(_HOME)
        except subprocess.TimeoutExpired:
            pass
        except TimeoutError:
            raise EngineError(f"no end after {timeout:g} s: {_last(log)}") from None
        except EngineError as error:
            raise EngineError(f"{error}: {_last(log)}") from None
        finally:
            seen.peak = tree.peak()
            end()
    return seen


def _accepted(door: socket.socket, child: subprocess.Popen[bytes], deadline: float) -> socket.socket:
    while time.monotonic() < deadline:
        try:
            return door.accept()[0]
        except TimeoutError:
            if child.poll() is not None:
                raise EngineError("ended before its first round") from None
    raise TimeoutError


def _follow(link: socket.socket, tree: Tree, seen: Watched, started: float) -> None:
    """Answer marks until the engine hangs up."""
    begun = (0.0, 0.0)
    with link.makefile("rw") as lines:
        for line in lines:
            now = time.perf_counter()
            said = json.loads(line)
            if "begin" in said or "end" in said:
                cpu, resident = tree.look()
            if "end" in said:
                seen.wall.append(now - begun[0])
                seen.cpu.append(cpu - begun[1])
                seen.resident.append(resident)
                seen.first = seen.first or now - started
            elif "begin" not in said:
                seen.told |= said
            if "begin" in said:
                begun = (time.perf_counter(), cpu)
            lines.write("\n")
            lines.flush()


def end() -> None:
    """End whatever the engine left: these are children of this process."""
    left = descendants()
    for process in left:
        try:
            process.terminate()
        except psutil.Error:
            continue
    _, stubborn = psutil.wait_procs(left, timeout=10)
    for process in stubborn:
        process.kill()
    psutil.wait_procs(stubborn, timeout=10)


def _last(log: Path) -> str:
    """The last line of a log that says something."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "it said nothing"
