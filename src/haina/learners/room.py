"""Room: a client whose rows cannot be held in memory is refused in words, before the kernel ends the process without any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from haina.errors import LearnerError

_MEMINFO = Path("/proc/meminfo")

#: Bytes below which nobody is asked what is free.
_SMALL = 1 << 28


def check_room(clients: Sequence[str], sizes: Sequence[int], row: int) -> None:
    """Refuse clients that are copied whole and do not fit.

    Args:
        clients: k names.
        sizes: k numbers of rows.
        row: bytes of a row.

    Raises:
        LearnerError: a client needs more memory than is available; never where the system does not tell.
    """
    largest = max(range(len(sizes)), key=lambda k: sizes[k], default=None)
    if largest is None or sizes[largest] * row < _SMALL:
        return
    available, needed = _available(), sizes[largest] * row
    if available is not None and needed > available:
        raise LearnerError(
            f"client {clients[largest]!r} has {sizes[largest]} rows, {needed / 1e9:.1f} GB, and {available / 1e9:.1f} GB of memory are free",
            allowed="clients that fit into memory, where they are copied whole",
            remedy='Map its rows from a folder as float32 and use learner = "torch", which reads them batch by batch; or divide the client',
        )


def _available() -> int | None:
    """Bytes that can be had without swapping, as Linux estimates them."""
    try:
        return int(_MEMINFO.read_text(encoding="ascii").partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
