"""The audit: who did what, and when. Lines are added, never changed.

Its numbers grow in the order in which lines can be seen: whoever has read up to n and asks for more misses none. A database's own sequence would
not do, since of two transactions the later number may be committed first; therefore lines are written one after another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from haina.coordinator.store import tables
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.rows import AuditRow, read, written

_audit = tables.audit


class Audit(Part):
    """The log of actions."""

    def add_audit(
        self, who: str, action: str, subject: str = "", detail: Mapping[str, Any] | None = None
    ) -> AuditRow:
        """Write a line."""
        when = self._database.clock()
        return self._database.write(
            lambda transaction: write_audit(transaction, when, who, action, subject, detail or {})
        )

    def add_audits(self, lines: Sequence[tuple[str, str, str, Mapping[str, Any]]]) -> None:
        """Write lines (who, action, subject, detail): all of them or none."""
        when = self._database.clock()

        def work(transaction: Transaction) -> None:
            for line in lines:
                write_audit(transaction, when, *line)

        self._database.write(work)

    def audit(self, after_id: int, last: int) -> list[AuditRow]:
        """The last lines among those with a number above `after_id`, oldest first."""
        query = sa.select(_audit).where(_audit.c.id > after_id).order_by(_audit.c.id.desc()).limit(last)
        return self._database.read(lambda transaction: read(AuditRow, transaction.execute(query)))[::-1]


def write_audit(
    transaction: Transaction, when: float, who: str, action: str, subject: str, detail: Mapping[str, Any]
) -> AuditRow:
    """As `Audit.add_audit`, as the last thing of a transaction that does what the line says."""
    transaction.alone("audit")
    newest = transaction.execute(sa.select(sa.func.coalesce(sa.func.max(_audit.c.id), 0))).scalar_one()
    row = AuditRow(newest + 1, when, who, action, subject, dict(detail))
    transaction.execute(sa.insert(_audit), written(row))
    transaction.notify("audit")
    return row
