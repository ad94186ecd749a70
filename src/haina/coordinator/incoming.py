"""One upload on its way in: chunks to a file, a running SHA-256, and at the end the question whether this vector can count.

Two traps. A file is never shortened, only unlinked, for whoever has mapped it would be killed by a read beyond its end: where bytes are wrong or
could not be written, nothing of the file is kept. And a node that lost patience may send again what another connection of its own has just delivered:
a body that is whole already is neither written nor thrown away by the second, because a row may count on it.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, NoReturn

from haina.coordinator.measure import measure
from haina.wire.codecs import CodecError
from haina.wire.refusal import Refusal

#: Bodies up to this length wait in memory, and touch the disk once.
SMALL = 256 * 1024

_CHUNK = 1 << 18
#: What a system says of a disk, a quota or a file that is full.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Verified:
    """A body that is what it was announced to be.

    Args:
        path: its file, durable; gone where there is a reason.
        square: squared L2 norm of the vector; 0 for documents.
        reason: why the vector can never count; None for a usable one.
    """

    path: Path
    square: float
    reason: str | None


@dataclass(frozen=True)
class Rest:
    """What lies here of an upload that nobody is sending.

    Args:
        bytes: how much.
        digest: the running SHA-256; None after a restart.
        settled: it may be whole, verified and counted on.
    """

    bytes: int
    digest: Any = None
    settled: bool = True


class Incoming:
    """One upload on its way in, made by `Spool.open`. Calls block: for a disk, and for a SHA-256 (about 0.5 s a GB).

    Args:
        key: whose upload it is, as a hash.
        path: its file.
        sha256: of the whole body.
        bytes: length of the whole body.
        rest: what to go on from, if anything.
        offset: where the sender goes on: at the end of `rest`, or at 0 if that is whole.
        ended: told once that this upload is not being sent any more, and what of it may be gone on from.
        forget: told that this is not needed either.
    """

    def __init__(
        self,
        key: str,
        path: Path,
        sha256: str,
        bytes: int,
        rest: Rest | None,
        offset: int,
        ended: Callable[[Incoming, Rest | None], None],
        forget: Callable[[Incoming, Rest], None],
    ) -> None:
        self.key, self.path, self.sha256, self.bytes = key, path, sha256, bytes
        self._ended, self._forget, self._lock = ended, forget, Lock()
        self._here = offset
        self._whole = rest is not None and rest.bytes == bytes
        self._digest = hashlib.sha256() if rest is None else rest.digest
        self._memory: bytearray | None = bytearray() if bytes <= SMALL and rest is None else None
        self._file: int | None = None
        self._open, self._resumed = True, rest is not None
        self._left: Rest | None = None

    @property
    def missing(self) -> int:
        """Bytes still to come."""
        return self.bytes - self._here

    @property
    def here(self) -> int:
        """Bytes that could be gone on from if the connection broke now; those in memory are soon sent again."""
        if self._whole:
            return self.bytes
        return 0 if self._memory is not None else self._here

    def recall(self) -> None:
        """After a restart: hash again what was written before it.

        Raises:
            Refusal: unavailable: the disk failed.
        """
        with self._lock:
            if self._digest is None:
                try:
                    self._digest = _digest(self.path)
                except OSError as error:
                    self._fail(error)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next chunk, of any length.

        Raises:
            Refusal: too_large: more bytes than announced; conflict: another connection sends this upload now; full: the disk is full, and
                nothing was kept; unavailable: the disk failed.
        """
        with self._lock:
            self._check_open()
            if len(chunk) > self.missing:
                raise Refusal(
                    "too_large",
                    f"{len(chunk) - self.missing} bytes more than announced",
                    allowed=f"{self.bytes} bytes",
                )
            if not self._whole:
                if self._memory is not None:
                    self._memory += chunk
                else:
                    self._put(chunk, self._here)
                self._digest.update(chunk)
            self._here += len(chunk)

    def finish(self, codec: str, length: int) -> Verified:
        """All is here: verify it, and make its bytes durable (its name is after `Spool.sync`).

        The file then stays, whatever else its node sends, until it is discarded here or dropped from the spool.

        Args:
            codec: how the vector is written (`haina.wire.codecs`).
            length: of the vector.

        Raises:
            Refusal: malformed: bytes are missing (what came stays), or they are not those announced (nothing stays); and as of `write`.
        """
        with self._lock:
            self._check_open()
            if self.missing:
                raise Refusal("malformed", f"{self.missing} bytes are missing", remedy="Send the rest")
            if self._digest.hexdigest() != self.sha256:
                self._whole = False
                self._end(keep=False)
                raise Refusal(
                    "malformed",
                    f"the bytes have SHA-256 {self._digest.hexdigest()}",
                    allowed=self.sha256,
                    remedy="Send them again from the start",
                )
            square, reason = 0.0, None
            try:
                square = measure(codec, self.path if self._memory is None else self._memory, length)
            except CodecError as error:
                reason, self._whole = str(error), False
            except OSError as error:
                self._fail(error)
            if reason is None:
                self._settle()
            self._end(keep=reason is None, settled=True)
            return Verified(self.path, square, reason)

    def close(self) -> None:
        """No more will come: what a file holds stays for resuming. Harmless after `finish`, and twice."""
        with self._lock:
            if self._open:
                self._end(keep=self.here > 0, settled=self._whole)

    def discard(self) -> None:
        """These bytes will not count: keep nothing of them, unless another connection brought them too. Harmless twice."""
        with self._lock:
            if self._open:
                self._end(keep=False)
            elif self._left is not None and not self._whole:
                self._forget(self, self._left)

    def _check_open(self) -> None:
        if not self._open:
            raise Refusal(
                "conflict",
                "this upload has ended, or another connection has taken it over",
                remedy="Ask what was received",
            )

    def _put(self, data: bytes | bytearray | memoryview, place: int) -> None:
        try:
            if self._file is None:
                flags = os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                # What is gone on from is there, or the upload has to begin anew.
                self._file = os.open(self.path, flags if self._resumed else flags | os.O_CREAT, 0o600)
            view = memoryview(data)
            while view:
                written = os.pwrite(self._file, view, place)
                view, place = view[written:], place + written
        except OSError as error:
            self._fail(error)

    def _settle(self) -> None:
        """The bytes are on the disk, whatever happens next; their name is when the folder is (`Spool.sync`), once for a batch of uploads."""
        memory, self._memory = self._memory, None
        self._put(b"" if memory is None else memory, 0)
        try:
            assert self._file is not None
            os.fsync(self._file)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> NoReturn:
        self._whole = self._whole and error.errno != errno.ENOENT
        self._end(keep=False)
        if error.errno in _FULL:
            raise full(f"the disk is full after {self._here} of {self.bytes} bytes", "") from error
        raise Refusal(
            "unavailable", f"the disk failed: {error.strerror}", remedy="Try again later", retry=30.0
        ) from error

    def _end(self, *, keep: bool, settled: bool = False) -> None:
        self._open = False
        if self._file is not None:
            os.close(self._file)
            self._file = None
        if keep or self._whole:
            self._left = Rest(self.here, self._digest, settled or self._whole)
        else:
            self.path.unlink(missing_ok=True)
        self._memory = None
        self._ended(self, self._left)


def _digest(path: Path) -> Any:
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest


def full(what: str, allowed: str) -> Refusal:
    """There is no room."""
    return Refusal("full", what, allowed=allowed, remedy="Try again later", retry=60.0)
