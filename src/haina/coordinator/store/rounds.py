"""Rounds: opened by one replica, closed by one, whichever dies in between.

    open -> closing -> closed | failed

Who opens is decided by the row of the federation, which is held while its rules are checked. Who closes holds a lease on the row of the round; each
claim raises its `fence`, and nothing is written under an old fence, so that a closer that slept through its lease cannot publish over its successor
(https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html). Contributions hold the round's row in share, so a claim waits for
those that are being written, and finds them.

The trap is the order of locks: the federation's row before the round's before those of budgets, always.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import sqlalchemy as sa

from haina.coordinator.contract import Refusal
from haina.coordinator.store import budgets, tables
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.rows import (
    FederationRow,
    ModelRow,
    Overspent,
    RoundRow,
    Settlement,
    read,
    read_one,
    written,
)
from haina.coordinator.store.sealed import forget_sealed
from haina.privacy.ledger import Charge

_federation, _round, _partial = tables.federation, tables.round_, tables.partial

_UNDER_WAY = ("open", "closing")


class Rounds(Part):
    """The rounds of all federations."""

    @overload
    def open_round(self, row: RoundRow) -> bool: ...

    @overload
    def open_round(self, row: RoundRow, charges: Sequence[Charge]) -> bool | Overspent: ...

    def open_round(self, row: RoundRow, charges: Sequence[Charge] = ()) -> bool | Overspent:
        """Open the next round; of several replicas one wins.

        Args:
            row: the round.
            charges: what it will cost whom, reserved with it: all of them, or there is no round.

        Returns:
            False when a round is under way, `row.number` is not the next, `row.version` is not the newest model, or the federation is not running.
            `Overspent`, which is false too, when a charge is refused: plan again without its owner.
        """
        at = self._database.clock()

        def work(transaction: Transaction) -> bool | Overspent:
            federation = hold(transaction, row.federation)
            if (
                federation is None
                or federation.state != "running"
                or federation.closed + 1 != row.number
                or federation.version != row.version
                or _under_way(transaction, row.federation) is not None
            ):
                return False
            decision = budgets.decided(transaction, charges, at)
            if decision.refused:
                return Overspent(decision.refused)
            budgets.reserve(transaction, decision)
            transaction.execute(sa.insert(_round).values(written(row)))
            transaction.notify(f"round:{row.federation}")
            return True

        return self._database.write(work)

    def current_round(self, federation: str) -> RoundRow | None:
        """The round under way."""
        return self._database.read(lambda transaction: _under_way(transaction, federation))

    def round(self, federation: str, number: int) -> RoundRow | None:
        """One round."""
        query = sa.select(_round).where(*_is(federation, number))
        return self._database.read(lambda transaction: read_one(RoundRow, transaction.execute(query)))

    def rounds(self, federation: str, last: int) -> list[RoundRow]:
        """The last rounds, oldest first."""
        query = (
            sa.select(_round)
            .where(_round.c.federation == federation)
            .order_by(_round.c.number.desc())
            .limit(last)
        )
        return self._database.read(lambda transaction: read(RoundRow, transaction.execute(query)))[::-1]

    def claim_close(self, federation: str, number: int, holder: str, now: float, lease: float) -> int | None:
        """The right to close a round for `lease` seconds, when nobody has it: a fence that no other has or had. No contribution is taken any more."""

        def work(transaction: Transaction) -> int | None:
            claim = (
                sa.update(_round)
                .where(*_is(federation, number), _round.c.state.in_(_UNDER_WAY), _round.c.lease_until <= now)
                .values(state="closing", holder=holder, fence=_round.c.fence + 1, lease_until=now + lease)
                .returning(_round.c.fence)
            )
            fence: int | None = transaction.execute(claim).scalar_one_or_none()
            if fence is not None:
                transaction.notify(f"round:{federation}")
            return fence

        return self._database.write(work)

    def renew_lease(self, federation: str, number: int, fence: int, now: float, lease: float) -> bool:
        """Hold a round for `lease` seconds from now; False when another has it, and closing must be left to it."""
        renewal = (
            sa.update(_round)
            .where(*_is(federation, number), _round.c.state == "closing", _round.c.fence == fence)
            .values(lease_until=now + lease)
        )
        return self._database.write(lambda transaction: transaction.execute(renewal).rowcount == 1)

    def publish(
        self,
        federation: str,
        number: int,
        fence: int,
        model: ModelRow,
        record: dict[str, Any],
        closed_at: float,
        finished: bool,
        reason: str = "",
        settle: Settlement | None = None,
    ) -> bool:
        """End a round with a new model; all of it or nothing.

        Args:
            federation, number, fence: the round, and the right to close it.
            model: version must be the next.
            record: `RoundRecord.to_json`.
            closed_at: now.
            finished: this was the last round.
            reason: why it was, for people.
            settle: what becomes of the charges that were reserved for the round.

        Returns:
            Whether the round is closed by this fence; False under an old one: nothing was written.

        Raises:
            Refusal: "conflict": the model's version is not the next, or a charge is not reserved.
        """

        def work(transaction: Transaction) -> bool:
            held = hold(transaction, federation)
            end = {"state": "closed", "closed": closed_at, "record": record, "lease_until": 0.0}
            if held is None or not _end(transaction, federation, number, fence, end):
                return _ended(transaction, federation, number, fence, "closed")
            if (model.federation, model.version) != (federation, held.version + 1):
                raise Refusal(
                    "conflict",
                    f"model {model.version} of {model.federation}",
                    allowed=f"{held.version + 1} of {federation}",
                )
            transaction.execute(sa.insert(tables.model).values(written(model)))
            news = {"version": model.version} | ({"state": "finished", "reason": reason} if finished else {})
            change = sa.update(_federation).where(_federation.c.name == federation).values(**news)
            transaction.execute(change)
            if settle is not None:
                budgets.settle(transaction, settle)
            return True

        return self._database.write(work)

    def fail_round(
        self,
        federation: str,
        number: int,
        fence: int,
        reason: str,
        record: dict[str, Any] | None,
        now: float,
        settle: Settlement | None = None,
    ) -> bool:
        """End a round without a model; its number is used up. `settle`: as in `publish`.

        Returns:
            Whether the round failed by this fence; False under an old one: nothing was written.
        """

        def work(transaction: Transaction) -> bool:
            held = hold(transaction, federation)
            end = {"state": "failed", "closed": now, "record": record, "reason": reason, "lease_until": 0.0}
            if held is None or not _end(transaction, federation, number, fence, end):
                return _ended(transaction, federation, number, fence, "failed")
            if settle is not None:
                budgets.settle(transaction, settle)
            return True

        return self._database.write(work)


def hold(transaction: Transaction, federation: str) -> FederationRow | None:
    """A federation, whose row nobody else changes until the transaction ends."""
    query = sa.select(_federation).where(_federation.c.name == federation).with_for_update(key_share=True)
    return read_one(FederationRow, transaction.execute(query))


def cancel(transaction: Transaction, federation: str, reason: str, now: float) -> None:
    """Fail the round under way, whoever closes it; the caller holds the federation.

    Charges that it reserved stay so: what its nodes have released by now, nobody here knows.
    """
    row = _under_way(transaction, federation)
    if row is not None:
        raise_fence = sa.update(_round).where(*_is(federation, row.number)).values(fence=_round.c.fence + 1)
        fence = transaction.execute(
            raise_fence.values(state="closing").returning(_round.c.fence)
        ).scalar_one()
        end = {"state": "failed", "closed": now, "reason": reason, "lease_until": 0.0}
        _end(transaction, federation, row.number, fence, end)


def _end(transaction: Transaction, federation: str, number: int, fence: int, values: dict[str, Any]) -> bool:
    """Close or fail a round under its fence, and drop its running sums and messages; False under an old fence."""
    end = (
        sa.update(_round)
        .where(*_is(federation, number), _round.c.state == "closing", _round.c.fence == fence)
        .values(**values)
    )
    if transaction.execute(end).rowcount != 1:
        return False
    change = sa.update(_federation).where(_federation.c.name == federation).values(closed=number)
    transaction.execute(change)
    transaction.execute(
        sa.delete(_partial).where(_partial.c.federation == federation, _partial.c.round == number)
    )
    forget_sealed(transaction, federation, number)
    transaction.notify(f"round:{federation}")
    return True


def _ended(transaction: Transaction, federation: str, number: int, fence: int, state: str) -> bool:
    """Whether this very fence ended the round so: the caller asks again after an answer that was lost."""
    query = sa.select(_round.c.number).where(
        *_is(federation, number), _round.c.state == state, _round.c.fence == fence
    )
    return transaction.execute(query).first() is not None


def _under_way(transaction: Transaction, federation: str) -> RoundRow | None:
    query = sa.select(_round).where(_round.c.federation == federation, _round.c.state.in_(_UNDER_WAY))
    return read_one(RoundRow, transaction.execute(query))


def _is(federation: str, number: int) -> tuple[sa.ColumnElement[bool], ...]:
    return _round.c.federation == federation, _round.c.number == number
