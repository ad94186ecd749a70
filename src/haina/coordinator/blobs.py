"""Bytes named by their SHA-256: models, states of strategies, and updates that are kept.

A file gets its final name when all of it is on the disk, in one rename, so under such a name there is never half a blob, whatever died when. With
PostgreSQL the bytes lie in the database, where every replica finds them, and each replica keeps what it used lately in a folder. Nothing here reads
a blob into memory; a row or a block of 1 MB is the most.

The trap: to drop a blob is right only when nothing refers to it any more, and only the store knows (`forget_models`, `forget_contributions`,
`referenced`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

import sqlalchemy as sa

from haina.coordinator.contract import Refusal
from haina.coordinator.store import Store
from haina.coordinator.store.contributions import PIECE
from haina.coordinator.store.database import Transaction
from haina.coordinator.store.engines import BYTES
from haina.coordinator.store.tables import blob

_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

#: Seconds for which a file of a cache stays after its path was given to somebody, who may not have opened it yet.
GRACE = 300.0


class Blobs(Protocol):
    """Where bytes lie by their SHA-256 (64 lower-case hexadecimal digits; anything else is refused as "malformed").

    What a `put` returned from is durable; to put it again changes nothing.
    """

    def put_bytes(self, data: bytes | bytearray | memoryview) -> str:
        """Keep bytes; their SHA-256."""

    def put_file(self, path: Path, sha256: str) -> None:
        """Keep a finished file, which is gone from `path` afterwards. That `sha256` is its own is taken for granted: it was hashed as it came in."""

    def path(self, sha256: str) -> Path:
        """A local file with the bytes, to be opened soon.

        Raises:
            Refusal: "not_found".
        """

    def has(self, sha256: str) -> bool:
        """Whether the bytes are there."""

    def drop(self, sha256: str) -> None:
        """Forget bytes; harmless when they are not there."""

    def sizes(self) -> dict[str, int]:
        """All that is there, and its length in bytes."""


class FolderBlobs:
    """Blobs as files of a folder, which belongs to this process alone.

    Args:
        folder: made when it is not there; what a crash left half-written in it is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in folder.glob("*.part"):
            left_over.unlink()

    def put_bytes(self, data: bytes | bytearray | memoryview) -> str:
        """As `Blobs`."""
        sha256 = hashlib.sha256(data).hexdigest()
        if not self.has(sha256):
            with self.landing() as file:
                file.write(data)
                self.land(file, sha256)
        _sync(self._folder)
        return sha256

    def put_file(self, path: Path, sha256: str) -> None:
        """As `Blobs`. From another file system, the bytes are copied."""
        if self.has(sha256):
            path.unlink()
        else:
            _sync(path)
            try:
                path.replace(self.file(sha256))
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                with path.open("rb") as source, self.landing() as file:
                    shutil.copyfileobj(source, file, PIECE)
                    self.land(file, sha256)
                path.unlink()
        _sync(self._folder)

    def path(self, sha256: str) -> Path:
        """As `Blobs`."""
        if not self.has(sha256):
            raise _not_here(sha256)
        return self.file(sha256)

    def has(self, sha256: str) -> bool:
        """As `Blobs`."""
        return self.file(sha256).exists()

    def drop(self, sha256: str) -> None:
        """As `Blobs`."""
        self.file(sha256).unlink(missing_ok=True)

    def sizes(self) -> dict[str, int]:
        """As `Blobs`."""
        return {name: status.st_size for name, status in self.statuses().items()}

    def statuses(self) -> dict[str, os.stat_result]:
        """All that is there, and what the file system says of it."""
        found = {}
        for path in self._folder.iterdir():
            # Another thread may drop it meanwhile.
            with suppress(FileNotFoundError):
                found[path.name] = path.stat()
        return {name: status for name, status in found.items() if _SHA256.fullmatch(name)}

    @contextmanager
    def landing(self) -> Iterator[BinaryIO]:
        """A new file without a final name; gone afterwards unless it was landed."""
        part = self._folder / f"{uuid.uuid4().hex}.part"
        part.touch(0o600, exist_ok=False)
        with part.open("r+b") as file:
            try:
                yield file
            finally:
                part.unlink(missing_ok=True)

    def land(self, file: BinaryIO, sha256: str) -> None:
        """Give a file of `landing` its final name."""
        file.flush()
        os.fsync(file.fileno())
        Path(file.name).replace(self.file(sha256))

    def file(self, sha256: str) -> Path:
        """Where the bytes lie, or would."""
        return self._folder / _checked(sha256)


class TableBlobs:
    """Blobs in PostgreSQL, and those used lately in a folder of this replica's own.

    Args:
        store: on PostgreSQL.
        cache: the folder.
        keep_bytes: how much may lie in it; what was not used for longest goes first, though never within `GRACE` of its use.
    """

    def __init__(self, store: Store, cache: Path, keep_bytes: int) -> None:
        self._database = store.database
        self._cache = FolderBlobs(cache)
        self._keep = keep_bytes
        self._fetching = threading.Lock()
        self._making_room = threading.Lock()

    def put_bytes(self, data: bytes | bytearray | memoryview) -> str:
        """As `Blobs`."""
        with self._cache.landing() as file:
            file.write(data)
            file.flush()
            sha256 = hashlib.sha256(data).hexdigest()
            self.put_file(Path(file.name), sha256)
        return sha256

    def put_file(self, path: Path, sha256: str) -> None:
        """As `Blobs`."""

        def work(transaction: Transaction) -> None:
            if _there(transaction, sha256):
                return
            # Of two replicas that put the same at once, the second waits here and then finds all rows there.
            insert = transaction.insert(blob).on_conflict_do_nothing()
            with path.open("rb") as file:
                seq = 0
                while data := file.read(PIECE):
                    transaction.execute(insert, {"sha256": sha256, "seq": seq, "data": data})
                    seq += 1
                if seq == 0:
                    transaction.execute(insert, {"sha256": sha256, "seq": 0, "data": b""})

        self._database.write_repeatable(work)
        self._touch(path)
        self._cache.put_file(path, sha256)
        self._make_room()

    def path(self, sha256: str) -> Path:
        """As `Blobs`; fetched, and its SHA-256 compared, when it is not in the folder."""
        path = self._cache.file(sha256)
        if not self._touch(path):
            with self._fetching:
                if not self._touch(path):
                    self._fetch(sha256)
                    self._touch(path)
            self._make_room()
        return path

    def has(self, sha256: str) -> bool:
        """As `Blobs`."""
        return self._database.read(lambda transaction: _there(transaction, sha256))

    def drop(self, sha256: str) -> None:
        """As `Blobs`. Other replicas' folders forget it in time."""
        delete = sa.delete(blob).where(blob.c.sha256 == _checked(sha256))
        self._database.write_repeatable(lambda transaction: transaction.execute(delete))
        self._cache.drop(sha256)

    def sizes(self) -> dict[str, int]:
        """As `Blobs`."""
        total = sa.cast(sa.func.sum(sa.func.length(blob.c.data)), sa.BigInteger)
        query = sa.select(blob.c.sha256, total).group_by(blob.c.sha256)
        return self._database.read(lambda t: {row[0]: row[1] for row in t.execute(query)})

    def _fetch(self, sha256: str) -> None:
        def work(transaction: Transaction) -> None:
            digest, seq = hashlib.sha256(), 0
            with self._cache.landing() as file:
                piece = sa.select(blob.c.data).where(
                    blob.c.sha256 == sha256, blob.c.seq == sa.bindparam("number")
                )
                piece = piece.execution_options(**{BYTES: True})
                while (data := transaction.execute(piece, {"number": seq}).scalar_one_or_none()) is not None:
                    digest.update(data)
                    file.write(data)
                    seq += 1
                if seq > 0 and digest.hexdigest() == sha256:
                    self._cache.land(file, sha256)
                elif _there(transaction, sha256):
                    raise Refusal("internal", f"the bytes of {sha256} in the database are damaged")
                else:
                    raise _not_here(sha256)

        self._database.read(work)

    def _touch(self, path: Path) -> bool:
        """Note that a file is used now; False when it is not there."""
        now = self._database.clock()
        with self._making_room, suppress(FileNotFoundError):
            os.utime(path, (now, now))
            return True
        return False

    def _make_room(self) -> None:
        before = self._database.clock() - GRACE
        with self._making_room:
            statuses = self._cache.statuses()
            excess = sum(status.st_size for status in statuses.values()) - self._keep
            for name in sorted(statuses, key=lambda name: statuses[name].st_mtime):
                if excess > 0 and statuses[name].st_mtime < before:
                    self._cache.drop(name)
                    excess -= statuses[name].st_size


def _there(transaction: Transaction, sha256: str) -> bool:
    query = sa.select(blob.c.seq).where(blob.c.sha256 == _checked(sha256)).limit(1)
    return transaction.execute(query).first() is not None


def _checked(sha256: str) -> str:
    """What is named must be no other path."""
    if not _SHA256.fullmatch(sha256):
        raise Refusal(
            "malformed", f"{sha256[:80]!r} is no SHA-256", allowed="64 lower-case hexadecimal digits"
        )
    return sha256


def _not_here(sha256: str) -> Refusal:
    return Refusal("not_found", f"there are no bytes with the SHA-256 {sha256[:80]}")


def _sync(path: Path) -> None:
    """Make a file's bytes, or a folder's names, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
