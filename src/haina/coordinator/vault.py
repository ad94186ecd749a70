"""The vault: bytes of accepted updates until their round is closed.

One process has them where they were spooled: a rename, and they are durable. Replicas need to read each other's, so there they lie in the database
as well (`haina.coordinator.blobs.TableBlobs`), or have been folded into a partial sum and are not kept at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from haina.coordinator.blobs import Blobs
from haina.coordinator.spool import Spool
from haina.coordinator.store import ContributionRow, Store


class Vault(Protocol):
    """Keeps the bytes of updates."""

    def keep(self, row: ContributionRow) -> None:
        """Make a verified upload readable by whoever closes the round. It is durable in the spool already."""

    def sync(self) -> None:
        """What was kept is on the disk when this returns; called before its rows are committed."""

    def path(self, row: ContributionRow) -> Path:
        """A file with the bytes."""

    def drop(self, federation: str, number: int, rows: Iterable[ContributionRow]) -> None:
        """A round is closed: the bytes of what counted in it may go."""


@dataclass(frozen=True)
class SpoolVault:
    """One coordinator process: the bytes stay in the spool."""

    spool: Spool

    def keep(self, row: ContributionRow) -> None:
        """See `Vault.keep`."""

    def sync(self) -> None:
        """See `Vault.sync`."""
        self.spool.sync()

    def path(self, row: ContributionRow) -> Path:
        """See `Vault.path`."""
        assert row.sha256 is not None
        return self.spool.path(row.federation, row.round, row.node, row.sha256)

    def drop(self, federation: str, number: int, rows: Iterable[ContributionRow]) -> None:
        """See `Vault.drop`."""
        for row in rows:
            self.spool.drop(row.federation, row.round, row.node)


@dataclass(frozen=True)
class SharedVault:
    """Replicas: what is kept lies in the database; what is folded in the spool of the process that folds it, until that is done."""

    store: Store
    blobs: Blobs
    spool: Spool

    def keep(self, row: ContributionRow) -> None:
        """See `Vault.keep`."""
        assert row.sha256 is not None
        if row.kept:
            # Durable when this returns.
            self.blobs.put_file(self.spool.path(row.federation, row.round, row.node, row.sha256), row.sha256)

    def sync(self) -> None:
        """See `Vault.sync`: what is kept is durable already, and what is folded lies in the database."""

    def path(self, row: ContributionRow) -> Path:
        """See `Vault.path`."""
        assert row.sha256 is not None
        if row.kept:
            return self.blobs.path(row.sha256)
        return self.spool.path(row.federation, row.round, row.node, row.sha256)

    def drop(self, federation: str, number: int, rows: Iterable[ContributionRow]) -> None:
        """See `Vault.drop`."""
        for sha256 in self.store.forget_contributions(federation, number):
            self.blobs.drop(sha256)
        for row in rows:
            self.spool.drop(row.federation, row.round, row.node)
