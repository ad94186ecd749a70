"""What a coordinator stands on: its memory, its disk, its authority, its clock, and the threads that touch them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from haina.coordinator.authority import Authority
from haina.coordinator.blobs import Blobs
from haina.coordinator.settings import SettingsService
from haina.coordinator.spool import Spool
from haina.coordinator.store import Store
from haina.coordinator.vault import Vault

T = TypeVar("T")


@dataclass(frozen=True)
class Ground:
    """What a coordinator stands on.

    Args:
        store: rows.
        blobs: bytes of models and states.
        vault: bytes of updates that wait for their round to close.
        spool: uploads under way.
        authority: who certifies nodes and operators.
        settings: dynamic settings.
        clock: seconds since 1970.
        scratch: a folder for what is being made.
        epoch: the name of this incarnation of this process; never used twice.
        http: address of the HTTP door for invitations, such as `https://fed.example.org:8443`.
        grpc: address of the gRPC door, such as `fed.example.org:8444`.
        shared: True where replicas share the store.
        largest_upload: most bytes of one upload.
    """

    store: Store
    blobs: Blobs
    vault: Vault
    spool: Spool
    authority: Authority
    settings: SettingsService
    clock: Callable[[], float]
    scratch: Path
    epoch: str
    http: str
    grpc: str
    shared: bool = False
    largest_upload: int = 16 << 30
    _rows: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(4, thread_name_prefix="haina-store"), repr=False
    )
    _bulk: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(4, thread_name_prefix="haina-spool"), repr=False
    )

    async def run(self, call: Callable[..., T], *args: Any) -> T:
        """Call something that waits for the database."""
        return await asyncio.get_running_loop().run_in_executor(self._rows, call, *args)

    async def run_bulk(self, call: Callable[..., T], *args: Any) -> T:
        """Call something that moves many bytes; it never waits behind the database, nor the database behind it."""
        return await asyncio.get_running_loop().run_in_executor(self._bulk, call, *args)

    def close(self) -> None:
        """End the threads, then the memory."""
        self._bulk.shutdown(wait=True)
        self._rows.shutdown(wait=True)
        self.store.close()
