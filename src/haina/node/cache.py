"""Models by their SHA-256: fetched once, resumed where a broken download stopped, verified before use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from haina.errors import Unreachable
from haina.wire.refusal import Refusal

#: Bytes hashed at a time.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Cache:
    """A folder of files named by their SHA-256.

    Args:
        folder: made when needed.
        keep: files kept; the least recently used go first.
    """

    folder: Path
    keep: int = 4

    def get(self, sha256: str, fetch: Callable[[Path, int], None]) -> Path:
        """The file with these bytes.

        Args:
            sha256: of the whole file.
            fetch: appends the bytes from an offset on to a file.

        Raises:
            Unreachable: what came does not have this SHA-256; it is thrown away, so that the next try begins afresh.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        final, part = self.folder / sha256, self.folder / f"{sha256}.part"
        if final.exists():
            os.utime(final)
            return final
        # Killed between the last byte and the new name, there is nothing left to fetch.
        if not part.exists() or _sha256(part) != sha256:
            try:
                fetch(part, part.stat().st_size if part.exists() else 0)
            except Refusal as error:
                if error.code == "range":
                    part.unlink(missing_ok=True)
                    raise Unreachable("a model came too long", remedy="It will be fetched again") from error
                raise
            if _sha256(part) != sha256:
                part.unlink()
                raise Unreachable("a model came damaged", remedy="It will be fetched again")
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(final)
        self._sweep(sha256)
        return final

    def _sweep(self, newest: str) -> None:
        files = sorted(self.folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in [path for path in files if path.name != newest][max(0, self.keep - 1) :]:
            path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
