"""The log of dynamic settings: changes in order, numbered without gaps. What follows from them is `haina.coordinator.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from haina.coordinator.store import tables
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.rows import Conflict, SettingRow, read, written

_setting = tables.setting


class Settings(Part):
    """The log. Versions are 1, 2, 3, and are seen in that order."""

    def append_setting(
        self,
        scope: str,
        values: Mapping[str, Any],
        *,
        expect: int | None,
        who: str,
        why: str = "",
        expires: float | None = None,
    ) -> SettingRow | Conflict:
        """Write one change down.

        Args:
            scope: `global`, `group:NAME`, `node:NAME`, or `all` for a roll-back.
            values: what the change says of the scope's keys.
            expect: the newest version that the writer has seen; None takes whatever is there.
            who, why: for the log.
            expires: until when it counts, seconds since 1970.
        """

        def work(transaction: Transaction) -> SettingRow | Conflict:
            transaction.alone("setting")
            newest = transaction.execute(
                sa.select(sa.func.coalesce(sa.func.max(_setting.c.version), 0))
            ).scalar_one()
            if expect is not None and expect != newest:
                return Conflict(newest)
            row = SettingRow(newest + 1, scope, dict(values), who, self._database.clock(), why, expires)
            transaction.execute(sa.insert(_setting), written(row))
            transaction.notify("settings")
            return row

        return self._database.write(work)

    def settings_log(self, last: int) -> list[SettingRow]:
        """The last changes, oldest first."""
        query = sa.select(_setting).order_by(_setting.c.version.desc()).limit(last)
        return self._database.read(lambda transaction: read(SettingRow, transaction.execute(query)))[::-1]
