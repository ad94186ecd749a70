"""The coordinator's memory: every method is one transaction, durable when it returns, and safe to call again.

Synchronous: the core calls it in a few threads, never in its event loop. Methods raise `Refusal` "unavailable" when the database stays away, and
"full" when its disk is full; everything else that can happen is in what they return.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa

from haina.coordinator.contract import Refusal
from haina.coordinator.store import engines, tables
from haina.coordinator.store.audit import Audit
from haina.coordinator.store.budgets import Budgets
from haina.coordinator.store.changes import Changes
from haina.coordinator.store.contributions import Contributions
from haina.coordinator.store.database import Database
from haina.coordinator.store.federations import Federations
from haina.coordinator.store.migrate import migrate
from haina.coordinator.store.nodes import Invitations, Nodes
from haina.coordinator.store.rounds import Rounds
from haina.coordinator.store.sealed import Sealed
from haina.coordinator.store.settings import Settings


class Store(Federations, Rounds, Contributions, Sealed, Budgets, Nodes, Invitations, Settings, Audit):
    """Everything a coordinator must not forget, but for the bytes of models. Made by `open`.

    Attributes:
        changes: news of what any replica committed.
        database: for `TableBlobs`.
    """

    def __init__(self, database: Database, changes: Changes, lock: engines.OnlyOne | None) -> None:
        self.changes = changes
        self.database = self._database = database
        self._lock = lock

    @classmethod
    def open(
        cls, url: str | None, folder: Path, clock: Callable[[], float], *, patience: float = 10.0
    ) -> Store:
        """Open the memory, and bring it to this version.

        Args:
            url: `postgresql://...`; None for a SQLite file in `folder`.
            folder: the coordinator's state folder; made when it is not there.
            clock: seconds since 1970 (UTC).
            patience: seconds until a method says "unavailable".

        Raises:
            StoreError: another coordinator uses the folder (SQLite); the database cannot be reached, or belongs to a newer Haina.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        address = None if url is None else engines.parse(url)
        lock = engines.OnlyOne(folder) if address is None else None
        engine = (
            engines.sqlite(folder / "coordinator.sqlite", patience)
            if address is None
            else engines.postgresql(address, patience)
        )
        changes = Changes()
        store = cls(Database(engine, clock, patience, changes.tell), changes, lock)
        try:
            migrate(store.database)
        except (Refusal, sa.exc.SQLAlchemyError) as error:
            store.close()
            where = folder if address is None else address.render_as_string(hide_password=True)
            raise engines.StoreError(f"the database {where} cannot be opened ({_reason(error)})") from error
        except BaseException:
            store.close()
            raise
        if address is not None:
            changes.hear(engine, store._topics)
        return store

    def ping(self) -> None:
        """Ask the database for a sign of life.

        Raises:
            Refusal: "unavailable", within a few seconds.
        """
        self.database.read(lambda transaction: transaction.execute(sa.select(1)).scalar_one(), patience=0.5)

    def close(self) -> None:
        """Give everything back."""
        self.changes.close()
        self.database.engine.dispose()
        if self._lock is not None:
            self._lock.release()

    def _topics(self) -> list[str]:
        names = self.database.read(lambda t: list(t.execute(sa.select(tables.federation.c.name)).scalars()))
        return [*(f"round:{name}" for name in names), "settings", "nodes", "audit"]


def _reason(error: BaseException) -> str:
    """The driver's own words: the last cause, in one line."""
    cause = error.__cause__ if isinstance(error, Refusal) and error.__cause__ is not None else error
    return " ".join(str(getattr(cause, "orig", None) or cause).split())
