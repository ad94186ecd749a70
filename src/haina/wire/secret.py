"""Files that hold a secret: for their owner's eyes, and there whole or not at all.

A file is written beside its place, made durable, and put there in one step, so a kill at any moment leaves the old bytes or the new ones (and at
worst a hidden file of the same mode that nobody reads).
"""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from haina.errors import TrustError

#: Keys, certificates and invitations are a few kilobytes; what is longer is something else.
MAX_FILE = 64 * 1024


def write_secret(path: Path, data: bytes, *, keep: bool = False) -> None:
    """Write a file that its owner alone can read (0600), durably and in one step.

    Args:
        path: the file; its folder is made (0700) where there is none.
        data: what it shall hold.
        keep: leave a file that is there as it is; of several writers at once exactly one wins. Needs hard links.

    Raises:
        TrustError: it cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(path, data, keep)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise TrustError(
            f"{path} cannot be written ({error.strerror})",
            remedy="Choose a folder on a local disk with room, which this user may write to",
        ) from error


def _write(path: Path, data: bytes, keep: bool) -> None:
    # mkstemp opens with O_EXCL and mode 0600.
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep:
            with suppress(FileExistsError):
                os.link(name, path)
        else:
            os.replace(name, path)  # noqa: PTH105
    finally:
        Path(name).unlink(missing_ok=True)


def read_secret(path: Path, *, remedy: str = "") -> bytes:
    """The bytes of such a file. Its group may read it, because orchestrators mount secrets so; the world may not.

    Raises:
        TrustError: it is missing, everyone can read it, or it is too long to be one of ours.
    """
    try:
        with path.open("rb") as file:
            if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o007:
                raise TrustError(f"everyone on this machine can read {path}", remedy=f"chmod 600 {path}")
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise TrustError(f"{path} cannot be read ({error.strerror})", remedy=remedy) from error
    if len(data) > MAX_FILE:
        raise TrustError(f"{path} is longer than a key and its certificates can be")
    return data
