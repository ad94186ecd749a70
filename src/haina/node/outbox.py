"""The outbox: what a node has trained and not yet delivered, and what it remembers between rounds.

A node may be killed at any moment, also between the coordinator's acknowledgement and its own note of it. So what follows from a round (the memory
of SCAFFOLD and FedDyn, the residual of a lossy codec) is written together with the update, in one step, before the first byte is sent, and becomes
the node's memory only when the update is acknowledged. Killed in between, the node sends the same bytes again, and the coordinator says
"duplicate".

    outbox/ROUND/           made whole, under another name, then renamed
        manifest.json       what is sent, signed
        body                the bytes
        memory.safetensors  what the node will remember once this is delivered
    memory.safetensors      what it remembers now
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haina.artifact import Array, dump, load
from haina.errors import LayoutError
from haina.wire.messages import Manifest


@dataclass(frozen=True)
class Parcel:
    """One update ready to be sent.

    Args:
        manifest: what it is, signed.
        folder: where its files lie.
    """

    manifest: Manifest
    folder: Path

    @property
    def body(self) -> Path:
        """The bytes to send."""
        return self.folder / "body"


@dataclass(frozen=True)
class Outbox:
    """A node's outbox in one federation.

    Args:
        folder: made when needed; nobody else writes there.
    """

    folder: Path

    def put(self, manifest: Manifest, body: Sequence[Any], memory: Mapping[str, Array]) -> Parcel:
        """Make a parcel durable.

        Args:
            manifest: what it is.
            body: its bytes, piece by piece (anything with a buffer).
            memory: named arrays to remember once it is delivered.
        """
        final = self.folder / f"{manifest.round:012d}"
        draft = self.folder / f".{final.name}.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        _write(draft / "body", body)
        _write(draft / "memory.safetensors", [dump(dict(memory))])
        _write(draft / "manifest.json", [manifest.model_dump_json().encode()])
        _sync(draft)
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        _sync(self.folder)
        return Parcel(manifest, final)

    def waiting(self) -> list[Parcel]:
        """Parcels not delivered yet, oldest first; what a kill left unfinished is removed."""
        parcels = []
        for folder in sorted(self.folder.glob("*")) if self.folder.is_dir() else []:
            try:
                if folder.name.startswith("."):
                    raise ValueError("unfinished")
                manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
                if (folder / "body").stat().st_size != manifest.bytes:
                    raise ValueError("incomplete")
            except (OSError, ValueError):
                if folder.is_dir():
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            parcels.append(Parcel(manifest, folder))
        return parcels

    def delivered(self, parcel: Parcel) -> None:
        """The coordinator has acknowledged it: what follows from it is remembered, and the parcel goes."""
        self._become(parcel.folder / "memory.safetensors")
        shutil.rmtree(parcel.folder, ignore_errors=True)

    def refused(self, parcel: Parcel) -> None:
        """The coordinator will never count it: nothing is remembered of it."""
        shutil.rmtree(parcel.folder, ignore_errors=True)

    def memory(self) -> dict[str, Array]:
        """What the node remembers between rounds; empty before the first delivery."""
        try:
            arrays, _ = load((self.folder.parent / "memory.safetensors").read_bytes())
        except (FileNotFoundError, LayoutError):
            return {}
        return {name: np.array(array) for name, array in arrays.items()}

    def remember(self, memory: Mapping[str, Array]) -> None:
        """What follows from an update that never lay here, because it must not be sent twice; called when it is acknowledged."""
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / ".memory.new"
        _write(draft, [dump(dict(memory))])
        self._become(draft)

    def _become(self, memory: Path) -> None:
        if memory.exists():
            memory.replace(self.folder.parent / "memory.safetensors")
            _sync(self.folder.parent)


def _write(path: Path, pieces: Sequence[Any]) -> None:
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
