"""Bring a database to the version of this program, or say that it is newer.

One transaction holds the check and every step, and on PostgreSQL a lock, so that of three replicas that start at once one migrates and two wait and
find it done; a crash in the middle leaves the database as it was. An empty database gets today's tables at once, under today's revision; Alembic
(10 MB) is imported when there is a step to take from an older one. Tests hold the steps and the tables to each other.
"""

from __future__ import annotations

import sqlalchemy as sa

from haina.coordinator.store.database import Database, Transaction
from haina.coordinator.store.engines import StoreError
from haina.coordinator.store.tables import POSTGRESQL_ONLY, REVISION, metadata, writer

_version = sa.table("alembic_version", sa.column("version_num"))

#: Seconds after which the row of a writer belongs to nobody.
_FORGOTTEN = 24 * 3600.0


def migrate(database: Database) -> None:
    """Take the steps that are missing.

    Raises:
        StoreError: the database belongs to a newer Haina.
    """
    if database.read(lambda transaction: _revision(transaction.connection)) != REVISION:
        database.write_repeatable(_upgrade)
    if database.postgresql:
        old = database.clock() - _FORGOTTEN
        database.write_repeatable(
            lambda transaction: transaction.execute(sa.delete(writer).where(writer.c.at < old))
        )


def _upgrade(transaction: Transaction) -> None:
    transaction.alone("migration")
    found = _revision(transaction.connection)
    if found == REVISION:
        return
    if found is None:
        _make(transaction)
        return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", "haina.coordinator.store:migrations")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found not in known:
        raise StoreError(
            f"the database is of a newer Haina (revision {found!r})",
            allowed=f"revisions up to {REVISION}",
            remedy="Upgrade Haina, or restore the backup that was made before the upgrade",
        )
    config.attributes["connection"] = transaction.connection
    command.upgrade(config, "head")


def _make(transaction: Transaction) -> None:
    """Today's tables in an empty database."""
    wanted = [
        table
        for name, table in metadata.tables.items()
        if transaction.postgresql or name not in POSTGRESQL_ONLY
    ]
    metadata.create_all(transaction.connection, tables=wanted, checkfirst=False)
    number = sa.Column("version_num", sa.String(32), primary_key=True)
    stamp = sa.Table("alembic_version", sa.MetaData(), number)
    stamp.create(transaction.connection)
    transaction.execute(sa.insert(stamp), {"version_num": REVISION})


def _revision(connection: sa.Connection) -> str | None:
    """What Alembic wrote down; None for an empty database."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(sa.select(_version.c.version_num)).scalar_one_or_none()
    return revision
