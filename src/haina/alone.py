"""Alone: one process at a time in a folder. The kernel holds the lock, so a killed process lets go by itself."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from haina.errors import RunError


@contextmanager
def alone(folder: Path, option: str) -> Iterator[None]:
    """Keep other processes out of a folder while the block lasts.

    Args:
        folder: made where there is none.
        option: of the command line, by which another folder can be named.

    Raises:
        RunError: another process is in it, or the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("wb")
    except OSError as error:
        raise RunError(
            f"{folder} cannot be written to: {error.strerror}", remedy=f"Name another folder ({option})"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunError(
                f"another process is running in {folder}",
                remedy=f"Wait for it, or name another folder ({option})",
            ) from error
        yield
