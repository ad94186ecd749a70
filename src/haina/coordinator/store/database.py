"""A transaction that happens once: the one place where transactions begin, end, and are tried again.

A connection can die between COMMIT and its answer, and then nobody knows whether the transaction happened. Each writing transaction on PostgreSQL
therefore first moves the row of its writer (a thread of a replica) to the next number. When it is tried again under the same number and the row has
it already, the first try was committed, and its result is the answer. The row also holds off the second try until the first has ended for certain,
since it cannot be moved by two at once. So `Database.write` is exactly once, and no method of the store needs a rule of its own. (SQLite needs none
of it: its commit is a call of a function, which returns or dies with us.)

Errors that may pass (server gone or starting, deadlock, lock not free) are tried again with growing pauses until `patience` is over; then the
caller hears "unavailable". The trap: `work` may run more than once, so all it does outside of the transaction must be repeatable.
"""

from __future__ import annotations

import itertools
import random
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from haina.coordinator.contract import Refusal
from haina.coordinator.store import tables
from haina.coordinator.store.engines import WRITES

T = TypeVar("T")

#: The channel of PostgreSQL's NOTIFY.
CHANNEL = "haina"

#: First half of the keys of advisory locks; the second is the place in `_LOCKS`.
_LOCK_CLASS = 0x4841494E
_LOCKS = ("migration", "audit", "setting")
LockName = Literal["migration", "audit", "setting"]

#: PostgreSQL: serialization, deadlock, lock_timeout, shutdown, crash, starting up, too many connections, idle in transaction.
_PASSING_STATES = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05", "53300", "25P03"}
_PASSING_SQLITE = ("SQLITE_BUSY", "SQLITE_LOCKED")


class Transaction:
    """One transaction: statements, and the topics that wake others once it is committed."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        self.topics: dict[str, None] = {}

    def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[*tuple[Any, ...]]:
        """Run a statement; with a list of parameters, once for each."""
        return self.connection.execute(statement, parameters)

    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """An INSERT that knows `on_conflict_do_nothing` and `on_conflict_do_update`, which are the same in both dialects."""
        return postgresql.insert(table) if self.postgresql else sqlite.insert(table)

    def put(self, table: sa.Table, row: dict[str, Any]) -> None:
        """Write a row over the one with its key."""
        keys = [column.name for column in table.primary_key]
        insert = self.insert(table).values(row)
        rest = {name: insert.excluded[name] for name in row if name not in keys}
        self.execute(insert.on_conflict_do_update(index_elements=keys, set_=rest))

    def alone(self, name: LockName) -> None:
        """Until this transaction ends, no other passes here: what is numbered one by one is also seen in that order."""
        if self.postgresql:
            self.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_CLASS, _LOCKS.index(name))))

    def notify(self, topic: str) -> None:
        """Wake who listens to a topic, after the commit."""
        self.topics[topic] = None

    @property
    def postgresql(self) -> bool:
        """Whether others write at the same time."""
        return self.connection.dialect.name == "postgresql"


class Database:
    """Transactions on an engine.

    Args:
        engine: from `engines`.
        clock: seconds since 1970 (UTC).
        patience: seconds until "unavailable".
        committed: called with the topics of a committed transaction, where the database itself does not tell.
    """

    def __init__(
        self, engine: sa.Engine, clock: Callable[[], float], patience: float, committed: Callable[[str], None]
    ) -> None:
        self.engine = engine
        self._writer = engine.execution_options(**{WRITES: True})
        self.clock = clock
        self.patience = patience
        self.postgresql = engine.dialect.name == "postgresql"
        self._committed = committed
        self._thread = threading.local()
        self._incarnation = uuid.uuid4().hex
        # SQLite has one writer; to wait here is fair, where its own waiting is polling.
        self._writing = nullcontext() if self.postgresql else threading.Lock()

    def read(self, work: Callable[[Transaction], T], patience: float | None = None) -> T:
        """The result of `work`, of which each statement sees what was committed before it (on SQLite: before the first).

        Raises:
            Refusal: "unavailable".
        """

        def once() -> T:
            with self.engine.begin() as connection:
                return work(Transaction(connection))

        return self._until_it_passes(once, self.patience if patience is None else patience)

    def write(self, work: Callable[[Transaction], T]) -> T:
        """The result of `work`, once its writes are durable. When it raises, nothing is written.

        Raises:
            Refusal: "unavailable": whether it was written is unknown, and asking again tells; "full": the disk is.
        """
        return self.write_repeatable(self._numbered(work) if self.postgresql else work)

    def write_repeatable(self, work: Callable[[Transaction], T]) -> T:
        """As `write`, for work that changes nothing when it is done a second time."""

        def once() -> tuple[T, dict[str, None]]:
            with self._writer.begin() as connection:
                transaction = Transaction(connection)
                value = work(transaction)
                if self.postgresql:
                    _announce(transaction)
                return value, transaction.topics

        with self._writing:
            value, topics = self._until_it_passes(once, self.patience)
        if not self.postgresql:
            for topic in topics:
                self._committed(topic)
        return value

    def _numbered(self, work: Callable[[Transaction], T]) -> Callable[[Transaction], T]:
        thread = self._thread
        if not hasattr(thread, "name"):
            thread.name, thread.numbers = f"{self._incarnation}.{uuid.uuid4().hex}", itertools.count(1)
        number = {"name": thread.name, "seq": next(thread.numbers), "at": self.clock()}
        results: list[T] = []

        def again(transaction: Transaction) -> T:
            if _move(transaction, number):
                results.append(work(transaction))
            return results[-1]

        return again

    def _until_it_passes(self, once: Callable[[], T], patience: float) -> T:
        end = time.monotonic() + patience
        pause = 0.02
        while True:
            try:
                return once()
            except sa.exc.SQLAlchemyError as error:
                if _disk_is_full(error):
                    raise Refusal("full", "the disk of the coordinator's memory is full") from error
                if not _may_pass(error):
                    raise
                if time.monotonic() + pause > end:
                    raise Refusal(
                        "unavailable",
                        "the coordinator's memory does not answer",
                        remedy="Try again in a while",
                    ) from error
            # Jitter, so that replicas that met once do not meet again.
            time.sleep(pause * random.SystemRandom().uniform(0.5, 1.0))
            pause = min(2 * pause, 1.0)


def _move(transaction: Transaction, number: dict[str, Any]) -> bool:
    """Move the writer's row on; False when an earlier try under the same number was committed."""
    insert = transaction.insert(tables.writer).values(number)
    moved = insert.on_conflict_do_update(
        index_elements=["name"],
        set_={"seq": insert.excluded.seq, "at": insert.excluded.at},
        where=tables.writer.c.seq < insert.excluded.seq,
    ).returning(tables.writer.c.seq)
    return transaction.execute(moved).first() is not None


def _announce(transaction: Transaction) -> None:
    """PostgreSQL tells the topics to every replica that listens, once this transaction is committed."""
    if transaction.topics:
        topics = sa.func.unnest(sa.cast(list(transaction.topics), postgresql.ARRAY(sa.Text)))
        transaction.execute(sa.select(sa.func.pg_notify(CHANNEL, topics)))


def _may_pass(error: sa.exc.SQLAlchemyError) -> bool:
    if isinstance(error, sa.exc.TimeoutError):
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return _sqlite_name(error.orig).startswith(_PASSING_SQLITE)
    state = getattr(error.orig, "sqlstate", None)
    if state is None:
        # No answer from a server at all: the connection could not be made.
        return isinstance(error, sa.exc.OperationalError)
    return str(state).startswith("08") or state in _PASSING_STATES


def _disk_is_full(error: sa.exc.SQLAlchemyError) -> bool:
    orig = getattr(error, "orig", None)
    if isinstance(orig, sqlite3.Error):
        return _sqlite_name(orig) == "SQLITE_FULL"
    return getattr(orig, "sqlstate", None) == "53100"


def _sqlite_name(error: sqlite3.Error) -> str:
    return getattr(error, "sqlite_errorname", "")


class Part:
    """A part of the store: the methods on some tables, each one transaction on the store's database."""

    _database: Database
