"""Where the memory lies: one SQLite file for one process, or a PostgreSQL database for many replicas.

SQLite: WAL, and every commit is flushed (`synchronous=FULL`: with NORMAL a power cut may take back what was acknowledged). Writing transactions
begin with `BEGIN IMMEDIATE`: one that begins as a reader and writes later can be refused in the middle (https://sqlite.org/lang_transaction.html).
PostgreSQL: psycopg 3; large bytes are read in binary form (the text form costs five times the CPU).

The trap: a connection that nobody answers on must fail within seconds, and not when TCP gives up, or a replica hangs with its peer.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event

from haina.errors import HainaError

#: The execution option of a connection whose transactions write.
WRITES = "haina_writes"

#: The execution option of a statement that reads large bytes.
BYTES = "haina_bytes"

_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")


class StoreError(HainaError):
    """The coordinator's memory cannot be opened."""


def parse(url: str) -> sa.URL:
    """The address of a PostgreSQL database.

    Raises:
        StoreError: it is not one.
    """
    allowed = (
        "postgresql://USER:PASSWORD@HOST:PORT/DATABASE; without an address, a SQLite file in the state folder"
    )
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        # Without a word of the address: it may hold a password.
        raise StoreError("the address of the database cannot be read", allowed=allowed) from error
    if parsed.drivername not in _SCHEMES:
        raise StoreError(
            f"the address of the database begins with {parsed.drivername!r}",
            allowed=allowed,
            remedy="A SQLite file serves one process and needs no address",
        )
    return parsed.set(drivername="postgresql+psycopg")


def postgresql(url: sa.URL, patience: float) -> sa.Engine:
    """An engine on a PostgreSQL database; no connection is made yet.

    Args:
        url: from `parse`. What its query names goes before what is set here.
        patience: seconds to wait for a lock or a free connection.
    """
    import psycopg

    wanted: dict[str, Any] = {
        "application_name": "haina",
        "connect_timeout": 5,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
        # A replica that freezes in the middle of a transaction must not hold its locks for ever.
        "options": f"-c lock_timeout={int(patience * 1000)} -c idle_in_transaction_session_timeout=15000",
    }
    engine = sa.create_engine(
        url,
        hide_parameters=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=patience,
        isolation_level="READ COMMITTED",
        connect_args={name: value for name, value in wanted.items() if name not in url.query},
    )

    @event.listens_for(engine, "before_cursor_execute")
    def executes(
        _: sa.Connection,
        cursor: Any,
        statement: str,
        parameters: Any,
        context: sa.ExecutionContext,
        many: bool,
    ) -> None:
        if context.execution_options.get(BYTES):
            cursor.format = psycopg.pq.Format.BINARY

    return engine


def sqlite(path: Path, patience: float) -> sa.Engine:
    """An engine on a SQLite file, which is made with access for its owner only."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        hide_parameters=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=patience,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: sqlite3.Connection, _: object) -> None:
        # The driver begins no transactions of its own; `began` does.
        connection.isolation_level = None
        for pragma in (
            f"busy_timeout = {int(patience * 1000)}",
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "journal_size_limit = 67108864",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def began(connection: sa.Connection) -> None:
        connection.exec_driver_sql(
            "BEGIN IMMEDIATE" if connection.get_execution_options().get(WRITES) else "BEGIN"
        )

    return engine


class OnlyOne:
    """The right to use a state folder with SQLite, held until `release` or the end of the process.

    Raises:
        StoreError: another process has it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "coordinator.lock"
        self._file = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._file, 20).decode("ascii", "replace").strip()
            os.close(self._file)
            raise StoreError(
                f"another coordinator (process {holder or 'unknown'}) uses {folder}",
                allowed="one coordinator a state folder; several replicas share a PostgreSQL database",
                remedy="Stop the other one, or name another folder",
            ) from None
        os.ftruncate(self._file, 0)
        os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another have it."""
        os.close(self._file)
