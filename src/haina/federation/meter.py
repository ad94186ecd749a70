"""Meter: what a process has cost its machine, in processor seconds and memory.

The trap is in `ru_maxrss`: a process on Linux inherits it from the one that started it, so a small worker of a large driver would look large. Where
the kernel tells the peak of this process's own memory, that is taken.
"""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Usage:
    """What a process has used since it began, and what its last answer took.

    Args:
        process: which process, as a worker may have been replaced.
        cpu: processor seconds, of the process and of those of its children that have ended.
        peak: largest resident memory, in MB.
        busy: seconds that the last answer took.
    """

    process: str
    cpu: float
    peak: float
    busy: float = 0.0

    @classmethod
    def here(cls, busy: float = 0.0) -> Self:
        """Of this process."""
        return cls(f"{os.uname().nodename}/{os.getpid()}", cpu_seconds(children=True), peak_memory(), busy)

    def to_json(self) -> dict[str, str | float]:
        """Plain JSON values."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, said: Mapping[str, str | float]) -> Self:
        """The inverse of `to_json`."""
        return cls(str(said["process"]), float(said["cpu"]), float(said["peak"]), float(said["busy"]))


def cpu_seconds(*, children: bool) -> float:
    """Processor seconds of this process so far; with those of `children` that have ended, if asked."""
    whom = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN) if children else (resource.RUSAGE_SELF,)
    used = [resource.getrusage(who) for who in whom]
    return sum(one.ru_utime + one.ru_stime for one in used)


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MB of 10^6 bytes."""
    try:
        status = _STATUS.read_text(encoding="ascii")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6
    except (OSError, IndexError):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
