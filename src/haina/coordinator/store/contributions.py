"""What nodes sent, and a replica's running sums of it, in step with each other.

Claim before fold: the rows are written first, only those that were new are folded, and the sum goes into the same transaction. So whatever dies
when, the rows of an epoch are exactly what is in its sum, and a contribution counts once. Locks are taken in one order (round, then rows by node),
so that replicas with the same contributions in other orders wait for each other and never in a circle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa

from haina.coordinator.store import tables
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.engines import BYTES
from haina.coordinator.store.federations import referenced
from haina.coordinator.store.rows import ContributionRow, Outcome, by, read, read_one, written

_contribution, _partial, _round = tables.contribution, tables.partial, tables.round_

#: Bytes of a row of `partial` or `blob`.
PIECE = 1 << 20

#: Federation, the task's round, node.
Key = tuple[str, int, str]

#: Takes the new contributions of a batch, in its order, and gives the replica's running sum with them in it (any buffer; None: nothing to keep).
Fold = Callable[[Sequence[ContributionRow]], "bytes | bytearray | memoryview | None"]


class Contributions(Part):
    """The contributions to all rounds."""

    def record(self, batch: Sequence[ContributionRow], fold: Fold | None = None) -> list[Outcome]:
        """Write a batch, all of it durable at once, and fold what is new in it.

        Args:
            batch: contributions of one replica; with `fold`, all of them counted in one round.
            fold: called between the writing and the commit, when anything is new. It may be called again for the same batch when the commit is tried
                again, so it must leave the sum that it starts from as it was until `record` has returned. It may read the store, and not write to it.
                After "unavailable", only `partials` tells whether the sum has the batch in it.

        Returns:
            For each of the batch, in its order: "new"; the row that was there under its key (it is a duplicate, or another one for the same
            task); "closed": the round it would count in takes no more (or, with secure aggregation, none at this stage); "taken": another
            contribution of the node counts in that round.
        """

        def work(transaction: Transaction) -> list[Outcome]:
            takes = _rounds_that_take(transaction, batch)

            def taken(row: ContributionRow) -> bool:
                key = row.federation, row.counted_in
                return key in takes and (row.status != "accepted" or takes[key] in (None, "upload"))

            first = {row.key: number for number, row in reversed(list(enumerate(batch)))}
            one_each = [batch[number] for number in first.values()]
            new = _insert(transaction, [row for row in one_each if taken(row)])
            fresh = {first[key]: batch[first[key]] for key in new}
            there = _read(transaction, {row.key for number, row in enumerate(batch) if number not in fresh})

            def outcome(number: int, row: ContributionRow) -> Outcome:
                if number in fresh:
                    return "new"
                late: Outcome = "taken" if taken(row) else "closed"
                return there.get(row.key, late)

            if fresh and fold is not None:
                ordered = [fresh[number] for number in sorted(fresh)]
                _keep(transaction, ordered[0], fold(ordered))
            for federation in {row.federation for row in fresh.values()}:
                transaction.notify(f"round:{federation}")
            return [outcome(number, row) for number, row in enumerate(batch)]

        return self._database.write(work)

    def contribution(self, federation: str, round: int, node: str) -> ContributionRow | None:
        """What a node sent for a task."""
        query = sa.select(_contribution).where(
            _contribution.c.federation == federation,
            _contribution.c.round == round,
            _contribution.c.node == node,
        )
        return self._database.read(lambda transaction: read_one(ContributionRow, transaction.execute(query)))

    def contributions(self, federation: str, counted_in: int) -> list[ContributionRow]:
        """What counts in a round, by node."""
        query = sa.select(_contribution).where(*_counted(federation, counted_in))
        return by(self._database.read(lambda t: read(ContributionRow, t.execute(query))), "node")

    def tally(self, federation: str, counted_in: int) -> dict[str, int]:
        """How many contributions of each status count in a round, without reading them."""
        query = sa.select(_contribution.c.status, sa.func.count()).where(*_counted(federation, counted_in))
        query = query.group_by(_contribution.c.status)
        return self._database.read(lambda t: {row[0]: row[1] for row in t.execute(query)})

    def partials(self, federation: str, round: int) -> list[tuple[str, bytes]]:
        """The running sum of each epoch that folded into a round, by epoch."""

        def work(transaction: Transaction) -> list[tuple[str, bytes]]:
            query = sa.select(_partial.c.epoch, _partial.c.data)
            query = query.where(_partial.c.federation == federation, _partial.c.round == round)
            query = query.execution_options(**{BYTES: True})
            pieces: dict[str, list[bytes]] = {}
            for epoch, data in transaction.execute(query.order_by(_partial.c.epoch, _partial.c.seq)):
                pieces.setdefault(epoch, []).append(data)
            return [(epoch, b"".join(pieces[epoch])) for epoch in sorted(pieces)]

        return self._database.read(work)

    def forget_contributions(self, federation: str, counted_in: int) -> set[str]:
        """The bytes of what counts in a round are needed no longer: the SHA-256s that nothing refers to any more."""

        def work(transaction: Transaction) -> set[str]:
            kept = sa.and_(*_counted(federation, counted_in), _contribution.c.kept)
            gone = set(transaction.execute(sa.select(_contribution.c.sha256).where(kept)).scalars()) - {None}
            transaction.execute(sa.update(_contribution).where(kept).values(kept=False))
            return gone - referenced(transaction)

        return self._database.write(work)


def _rounds_that_take(
    transaction: Transaction, batch: Iterable[ContributionRow]
) -> dict[tuple[str, int], str | None]:
    """Of the rounds that a batch counts in, those that are open, and at which stage of a secure sum; both stay so until the transaction ends."""
    takes: dict[tuple[str, int], str | None] = {}
    for federation, number in sorted({(row.federation, row.counted_in) for row in batch}):
        query = sa.select(_round.c.state, _round.c.stage)
        query = query.where(_round.c.federation == federation, _round.c.number == number)
        row = transaction.execute(query.with_for_update(read=True)).first()
        if row is not None and row.state == "open":
            takes[federation, number] = (row.stage or {}).get("name")
    return takes


def _insert(transaction: Transaction, rows: Sequence[ContributionRow]) -> set[Key]:
    """The keys of those that were not there."""
    if not rows:
        return set()
    insert = transaction.insert(_contribution).on_conflict_do_nothing()
    keys = insert.returning(_contribution.c.federation, _contribution.c.round, _contribution.c.node)
    parameters = [written(row) for row in by(rows, "federation", "node", "round", "counted_in")]
    return {(key[0], key[1], key[2]) for key in transaction.execute(keys, parameters)}


def _read(transaction: Transaction, keys: set[Key]) -> dict[Key, ContributionRow]:
    there: dict[Key, ContributionRow] = {}
    for federation, number in sorted({key[:2] for key in keys}):
        nodes = [key[2] for key in keys if key[:2] == (federation, number)]
        task = _contribution.c.federation == federation, _contribution.c.round == number
        query = sa.select(_contribution).where(*task, _contribution.c.node.in_(nodes))
        there |= {row.key: row for row in read(ContributionRow, transaction.execute(query))}
    return there


def _keep(
    transaction: Transaction, row: ContributionRow, data: bytes | bytearray | memoryview | None
) -> None:
    """Put an epoch's running sum in the place of its last one, in pieces."""
    if data is None:
        return
    own = {"federation": row.federation, "round": row.counted_in, "epoch": row.epoch}
    transaction.execute(
        sa.delete(_partial).where(*(_partial.c[name] == value for name, value in own.items()))
    )
    view = memoryview(data).cast("B")
    for seq, start in enumerate(range(0, max(len(view), 1), PIECE)):
        transaction.execute(sa.insert(_partial), own | {"seq": seq, "data": view[start : start + PIECE]})


def _counted(federation: str, counted_in: int) -> tuple[sa.ColumnElement[bool], ...]:
    return _contribution.c.federation == federation, _contribution.c.counted_in == counted_in
