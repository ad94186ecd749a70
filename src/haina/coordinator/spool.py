"""The spool: uploads on their way in. One file each, written as chunks arrive, verified at the end, durable before anything is promised.

    FOLDER/<SHA-256 of federation, round and node>.<SHA-256 of the body>

The name says whose bytes these are and which bytes they shall become, and nothing from the network is part of a path. Whether an upload counts is not
written here but in the store. So a file that may be whole goes when the store needs it no more (`drop`, `sweep`), never because other bytes come.

The trap: a disk that is full must be found when an upload begins, not in the middle of one, so space counts as taken from the moment it is announced.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from threading import Lock

from haina.coordinator.incoming import Incoming, Rest, Verified, full
from haina.wire.messages import Received
from haina.wire.refusal import Refusal

__all__ = ["Incoming", "Spool", "Verified"]

_FILE = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{64}")


class Spool:
    """A folder of uploads. Calls may come from any thread.

    Args:
        folder: made when needed; nobody else writes there.
        limit: bytes that all uploads may take together.
        spare: bytes of the disk that are left to others (the database must be able to write).

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path, limit: int, spare: int = 64 << 20) -> None:
        self._folder, self._limit, self._spare = folder, limit, spare
        # Innermost: whoever holds it asks for no other lock, and does not wait for a disk's bytes.
        self._lock = Lock()
        self._live: dict[str, Incoming] = {}
        #: By whose upload it is, then by the SHA-256 of the whole body; the newest last.
        self._rests: dict[str, dict[str, Rest]] = {}
        #: Bytes of all rests, and of all bodies under way: to add them up at each upload of a thousand nodes would be a million steps a round.
        self._resting = self._announced = 0
        self._keys: dict[tuple[str, str], set[str]] = {}
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in filter(Path.is_file, folder.iterdir()):
            if _FILE.fullmatch(path.name):
                key, sha256 = path.name.split(".")
                self._leave(key, sha256, Rest(path.stat().st_size))
            else:
                path.unlink()

    def received(self, federation: str, round: int, node: str) -> Received:
        """How much lies here of a node's upload, the newest if there are several: where to go on."""
        key = _key(federation, round, node)
        with self._lock:
            here = [(sha256, rest.bytes) for sha256, rest in self._rests.get(key, {}).items()]
            if key in self._live:
                here.append((self._live[key].sha256, self._live[key].here))
        sha256, count = here[-1] if here else (None, 0)
        return Received(bytes=count, sha256=sha256 if count else None)

    def open(
        self, federation: str, round: int, node: str, sha256: str, bytes: int, offset: int = 0
    ) -> Incoming:
        """Begin an upload, or go on with it. Whoever was sending it is cut off: its connection may be broken without anyone having noticed.

        Args:
            federation: with `round` and `node`, whose upload it is. A node sends one at a time; others of its that are unfinished go,
                of whatever round, or they would lie here for ever.
            round: see `federation`.
            node: see `federation`.
            sha256: of the whole body, 64 hexadecimal digits.
            bytes: length of the whole body.
            offset: 0 to begin anew, else exactly what `received` says is here.

        Raises:
            Refusal: range: another offset than what is here; full: no room for so many bytes; conflict: two connections begin at once;
                unavailable: the disk failed.
        """
        key = _key(federation, round, node)
        self._cut_off(key)
        with self._lock:
            if key in self._live:
                raise Refusal("conflict", "another connection begins this upload", retry=1.0)
            rest = self._rests.get(key, {}).get(sha256)
            here = 0 if rest is None else rest.bytes
            if offset not in (0, here) or offset > bytes:
                raise Refusal(
                    "range",
                    f"the upload cannot go on at byte {offset}",
                    allowed=f"{here}, or 0 to begin anew" if here else "0",
                    remedy="Ask what was received, and go on from there",
                )
            if offset == 0 and here != bytes:
                self._remove(key, sha256)
                rest = None
            for place, other, unfinished in self._of_node(federation, node, key):
                if not unfinished.settled and (place, other) != (key, sha256):
                    self._remove(place, other)
            self._reserve(bytes, 0 if rest is None else here)
            self._take(key, sha256)
            incoming = Incoming(
                key, self._path(key, sha256), sha256, bytes, rest, offset, self._ended, self._forget
            )
            self._live[key] = incoming
            self._announced += bytes
        incoming.recall()
        return incoming

    def sync(self) -> None:
        """The names of all that is whole are on the disk; to be called before any of it is promised."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def path(self, federation: str, round: int, node: str, sha256: str) -> Path:
        """Where the verified bytes of an upload lie."""
        return self._path(_key(federation, round, node), sha256)

    def drop(self, federation: str, round: int, node: str) -> None:
        """Forget all that a node sent for a round; harmless if there is nothing. Who has mapped a file can read on."""
        key = _key(federation, round, node)
        self._cut_off(key)
        with self._lock:
            for sha256 in list(self._rests.get(key, ())):
                self._remove(key, sha256)

    def sweep(self, keep: Collection[tuple[str, int, str]]) -> int:
        """Drop all uploads that nobody is sending, but those of `keep` (federation, round, node). Returns how many files went."""
        kept = {_key(*upload) for upload in keep}
        with self._lock:
            gone = [
                (key, sha256) for key, rests in self._rests.items() if key not in kept for sha256 in rests
            ]
            for key, sha256 in gone:
                self._remove(key, sha256)
        return len(gone)

    def _path(self, key: str, sha256: str) -> Path:
        return self._folder / f"{key}.{sha256}"

    def _of_node(self, federation: str, node: str, key: str) -> list[tuple[str, str, Rest]]:
        """What lies here of a node's uploads, `key` among them: (key, SHA-256, rest)."""
        keys = self._keys.setdefault((federation, node), set())
        keys.add(key)
        keys -= {other for other in keys - {key} if other not in self._rests and other not in self._live}
        return [
            (whose, sha256, rest) for whose in keys for sha256, rest in self._rests.get(whose, {}).items()
        ]

    def _leave(self, key: str, sha256: str, rest: Rest) -> None:
        """Note what lies here."""
        self._take(key, sha256)
        self._rests.setdefault(key, {})[sha256] = rest
        self._resting += rest.bytes

    def _take(self, key: str, sha256: str) -> Rest | None:
        """What was noted, and is no longer."""
        rests = self._rests.get(key, {})
        rest = rests.pop(sha256, None)
        if rest is not None:
            self._resting -= rest.bytes
            if not rests:
                del self._rests[key]
        return rest

    def _cut_off(self, key: str) -> None:
        with self._lock:
            live = self._live.get(key)
        if live is not None:
            live.close()

    def _remove(self, key: str, sha256: str) -> None:
        if self._take(key, sha256) is not None:
            self._path(key, sha256).unlink(missing_ok=True)

    def _reserve(self, bytes: int, here: int) -> None:
        """Refuse what would not fit beside all that is here and all that is announced; `here` of these bytes are."""
        others = self._resting - here + self._announced
        if others + bytes > self._limit:
            raise full(f"{bytes} bytes do not fit beside {others} others", f"{self._limit} in all")
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize - self._spare
        if bytes - here > free - self._announced:
            # What has come of bodies under way is on the disk already, which is looked at only where it matters.
            free -= sum(incoming.bytes - incoming.here for incoming in self._live.values())
        if bytes - here > free:
            raise full(f"{bytes - here} more bytes do not fit", f"{max(0, free)} at the moment")

    def _ended(self, incoming: Incoming, rest: Rest | None) -> None:
        with self._lock:
            if self._live.get(incoming.key) is incoming:
                del self._live[incoming.key]
                self._announced -= incoming.bytes
                if rest is not None:
                    self._leave(incoming.key, incoming.sha256, rest)

    def _forget(self, incoming: Incoming, rest: Rest) -> None:
        with self._lock:
            # Unless another connection has taken it up since.
            if self._rests.get(incoming.key, {}).get(incoming.sha256) is rest:
                self._remove(incoming.key, incoming.sha256)


def _key(federation: str, round: int, node: str) -> str:
    return hashlib.sha256(json.dumps([federation, round, node]).encode()).hexdigest()
