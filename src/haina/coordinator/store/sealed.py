"""The messages of secure aggregation, and the stage at which a round waits for them.

An open round without secure aggregation has no stage. With it, a stage asks each node for one message; when enough have come, a replica moves the
round on, and of several replicas one does (compare-and-set on the name of the stage). A message holds the round's row in share, so that a stage
that is over has all the messages it will ever have. The first message of a node for a stage stays: to answer twice is how secrets are lost.

The bytes are sealed for other nodes, or signed; nobody reads them here. They go when the round ends.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from haina.coordinator.store import tables
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.engines import BYTES
from haina.coordinator.store.rows import Taken

_round, _sealed = tables.round_, tables.sealed


class Sealed(Part):
    """The stages of a round, and what nodes sent for them."""

    def set_stage(self, federation: str, number: int, expected: str | None, stage: dict[str, Any]) -> bool:
        """Move an open round on to its next stage.

        Args:
            federation, number: the round.
            expected: the name of the stage that it is to leave; None: it has none yet.
            stage: `{"name": ..., ...}`.

        Returns:
            False when the round is not open, or at another stage: somebody else was first.
        """

        def work(transaction: Transaction) -> bool:
            held = _stage(transaction, federation, number, writing=True)
            if held != (True, expected):
                return False
            move = sa.update(_round).where(_round.c.federation == federation, _round.c.number == number)
            transaction.execute(move.values(stage=stage))
            transaction.notify(f"round:{federation}")
            return True

        return self._database.write(work)

    def put_sealed(
        self, federation: str, round: int, stage: str, node: str, data: bytes, now: float
    ) -> Taken:
        """Keep a node's message for a stage, while the round is open and at that stage.

        Returns:
            "new"; "same": these bytes were there (also after the stage); "other": others were, and stay; "closed": the stage is not, or no longer.
        """
        key = {"federation": federation, "round": round, "stage": stage, "node": node}

        def work(transaction: Transaction) -> Taken:
            takes = _stage(transaction, federation, round, writing=False) == (True, stage)
            if takes:
                insert = transaction.insert(_sealed).values(key | {"data": data, "received": now})
                new = insert.on_conflict_do_nothing().returning(_sealed.c.node)
                if transaction.execute(new).first() is not None:
                    transaction.notify(f"round:{federation}")
                    return "new"
            query = sa.select(_sealed.c.data).where(*(_sealed.c[name] == key[name] for name in key))
            there = transaction.execute(query.execution_options(**{BYTES: True})).scalar_one_or_none()
            if there is None:
                return "closed"
            return "same" if bytes(there) == data else "other"

        return self._database.write(work)

    def sealed(self, federation: str, round: int, stage: str) -> dict[str, bytes]:
        """The messages for a stage, by node."""
        query = sa.select(_sealed.c.node, _sealed.c.data).where(*_at(federation, round, stage))
        query = query.execution_options(**{BYTES: True})
        rows = self._database.read(lambda transaction: transaction.execute(query).all())
        return {node: bytes(data) for node, data in sorted(rows)}

    def senders(self, federation: str, round: int, stage: str) -> set[str]:
        """Whose messages for a stage are there, without reading them."""
        query = sa.select(_sealed.c.node).where(*_at(federation, round, stage))
        return self._database.read(lambda transaction: set(transaction.execute(query).scalars()))

    def sizes(self, federation: str, round: int, stage: str) -> dict[str, int]:
        """Whose messages for a stage are there, and how long they are, without reading them."""
        query = sa.select(_sealed.c.node, sa.func.length(_sealed.c.data))
        query = query.where(*_at(federation, round, stage))
        return self._database.read(lambda transaction: {row[0]: row[1] for row in transaction.execute(query)})


def forget_sealed(transaction: Transaction, federation: str, number: int) -> None:
    """Drop a round's messages."""
    transaction.execute(
        sa.delete(_sealed).where(_sealed.c.federation == federation, _sealed.c.round == number)
    )


def _stage(
    transaction: Transaction, federation: str, number: int, writing: bool
) -> tuple[bool, str | None] | None:
    """Whether a round is open, and at which stage; it stays so until the transaction ends. None: there is no such round."""
    query = sa.select(_round.c.state, _round.c.stage)
    query = query.where(_round.c.federation == federation, _round.c.number == number)
    row = transaction.execute(query.with_for_update(read=not writing, key_share=writing)).first()
    return None if row is None else (row.state == "open", (row.stage or {}).get("name"))


def _at(federation: str, round: int, stage: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _sealed.c.federation == federation, _sealed.c.round == round, _sealed.c.stage == stage
