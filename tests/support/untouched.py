"""What a coordinator remembers, as one value: equal before and after a call that must have had no effect."""

import hashlib

import sqlalchemy as sa

from haina.coordinator.store import tables

#: Signs of life are written whenever somebody who is known has called, whatever came of it.
SIGNS = {"last_seen", "doing", "settings_version"}


def rows(store, *without):
    """Every row of every table but those named, without signs of life."""

    def work(transaction):
        out = {}
        for table in tables.metadata.sorted_tables:
            if table.name in without or table.name in tables.POSTGRESQL_ONLY:
                continue
            columns = [column for column in table.columns if column.name not in SIGNS]
            out[table.name] = sorted(repr(tuple(row)) for row in transaction.execute(sa.select(*columns)))
        return out

    return store._database.read(work)


def files(folder):
    """Every file below a folder, by name and content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def remembered(ground, *without):
    """The store's rows, and the files of spool and blobs."""
    return rows(ground.store, *without), files(ground.spool._folder), files(ground.blobs._folder)
