"""The coordinator's ledger: every owner's privacy budgets, and what is charged to them.

The rules are `haina.privacy.ledger`'s; here is what makes them hold between replicas. The row of a budget is locked before its sums are read, and
until the new charges and sums are committed, so that two replicas cannot both spend what is left once. The locks of a batch are taken in the order
of owner and data set, after those of a federation and a round, so replicas wait for each other and never in a circle.

A round reserves in the transaction that opens it and settles in the one that ends it (`rounds.py`), with the functions at the end of this file.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa

from haina.coordinator.contract import Refusal
from haina.coordinator.store import tables
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.rows import Settlement, by, read, written
from haina.errors import PrivacyError
from haina.privacy import ledger
from haina.privacy.ledger import Account, Budget, Charge, ChargeState, Decision, Key, Total

T = TypeVar("T")

_budget, _part, _charge = tables.budget, tables.budget_part, tables.charge

#: Keys in one statement; PostgreSQL takes 65,535 parameters, SQLite 32,766.
_TOGETHER = 1000


class Budgets(Part):
    """The privacy budgets."""

    def open_budget(self, budget: Budget) -> Budget:
        """Open a budget. To open it again on the same terms changes nothing.

        Returns:
            The budget as it stands; `opened` is when it was opened first.

        Raises:
            Refusal: "conflict": it stands on other terms, which are fixed.
        """
        row = written(budget) | {"opened": self._database.clock(), "parts": list(budget.parts)}

        def work(transaction: Transaction) -> Budget:
            transaction.execute(transaction.insert(_budget).values(row).on_conflict_do_nothing())
            there = _budgets(transaction, sa.select(_budget).where(*_is(budget.key)))[budget.key]
            try:
                return ledger.reopened(there, budget)
            except PrivacyError as error:
                raise _conflict(error) from None

        return self._database.write(work)

    def reserve(self, charges: Sequence[Charge]) -> dict[str, str]:
        """Reserve what can be reserved of a batch; durable when it returns, so that the releases may follow.

        Args:
            charges: one that is reserved already is not counted again. Their `at` is set to now.

        Returns:
            Why charges are refused, by their id. The others are reserved.
        """
        at = self._database.clock()

        def work(transaction: Transaction) -> dict[str, str]:
            decision = decided(transaction, charges, at)
            reserve(transaction, decision)
            return decision.refused

        return self._database.write(work)

    def release(self, ids: Collection[str]) -> None:
        """Charges whose release has taken place.

        Raises:
            Refusal: "conflict": one is unknown, or void; nothing is written.
        """
        self._database.write(lambda transaction: settle(transaction, Settlement(release=tuple(ids))))

    def void(self, ids: Collection[str], why: str) -> None:
        """Charges whose release has not taken place, and never will: they are given back.

        Raises:
            Refusal: "conflict": one is unknown, or released; nothing is written.
        """
        self._database.write(lambda transaction: settle(transaction, Settlement(void=tuple(ids), why=why)))

    def budgets(self) -> list[Account]:
        """All budgets and what is spent of them, by owner and data set."""

        def work(transaction: Transaction) -> dict[Key, Account]:
            return _accounts(transaction, _budgets(transaction, sa.select(_budget)), sa.select(_part))

        accounts = self._database.read(work)
        return [accounts[key] for key in sorted(accounts)]

    def charges(
        self,
        owner: str | None = None,
        dataset: str | None = None,
        federation: str | None = None,
        state: ChargeState | None = None,
        last: int = 1000,
    ) -> list[Charge]:
        """The last charges of those asked for, oldest first."""
        wanted = {"owner": owner, "dataset": dataset, "federation": federation, "state": state}
        query = sa.select(_charge).where(*(_charge.c[n] == v for n, v in wanted.items() if v is not None))
        query = query.order_by(_charge.c.at.desc(), _charge.c.id.desc()).limit(last)
        return by(self._database.read(lambda t: read(Charge, t.execute(query))), "at", "id")


def decided(transaction: Transaction, charges: Sequence[Charge], at: float) -> Decision:
    """What can be reserved of a batch. Until the transaction ends nobody else spends of its budgets, so that it stays true."""
    asked = [charge for charge in charges if charge.fault() is None]
    accounts = _hold(transaction, {charge.key for charge in asked})
    return ledger.decide(charges, _known(transaction, [charge.id for charge in asked]), accounts, at)


def reserve(transaction: Transaction, decision: Decision) -> None:
    """Write down what was decided in this transaction."""
    if decision.new:
        transaction.execute(sa.insert(_charge), [written(charge) for charge in decision.new])
        _keep(transaction, decision.totals)


def settle(transaction: Transaction, settlement: Settlement) -> None:
    """As `Budgets.release` and `Budgets.void`, both within a transaction."""
    ids = {*settlement.release, *settlement.void}
    # What a charge is counted against never changes, so it may be read before the lock; where it stands may not.
    accounts = _hold(transaction, {charge.key for charge in _known(transaction, ids).values()})
    known = _known(transaction, ids)
    try:
        released = ledger.settled(settlement.release, known, "released")
        voided = ledger.settled(settlement.void, known, "void")
    except PrivacyError as error:
        raise _conflict(error) from None
    if both := {charge.id for charge in released} & {charge.id for charge in voided}:
        raise Refusal("conflict", f"the charge {min(both)!r} is to be released and void")
    _move(transaction, released, {"state": "released"})
    _move(transaction, voided, {"state": "void", "why": settlement.why})
    back: dict[Key, dict[str, Total]] = {}
    for charge in voided:
        account, sums = accounts[charge.key], back.setdefault(charge.key, {})
        rest = sums.get(charge.part, account.totals[charge.part])
        sums[charge.part] = rest - ledger.counted(account.budget, charge)
    _keep(transaction, back)


def _hold(transaction: Transaction, keys: set[Key]) -> dict[Key, Account]:
    """The budgets of some keys, as far as there are any; nobody else spends of them until the transaction ends."""
    accounts: dict[Key, Account] = {}
    for some in _pieces(sorted(keys)):
        # In Python's order whatever the database's locale is, so that it is the same from piece to piece.
        order = [column.collate("C") if transaction.postgresql else column for column in _budget.primary_key]
        query = sa.select(_budget).where(_among(_budget, some)).order_by(*order)
        budgets = _budgets(transaction, query.with_for_update(key_share=True))
        accounts |= _accounts(transaction, budgets, sa.select(_part).where(_among(_part, some)))
    return accounts


def _budgets(transaction: Transaction, query: sa.Select[*tuple[Any, ...]]) -> dict[Key, Budget]:
    rows = (dict(row._mapping) for row in transaction.execute(query))
    budgets = [Budget(**row | {"parts": tuple(row["parts"])}) for row in rows]
    return {budget.key: budget for budget in budgets}


def _accounts(
    transaction: Transaction, budgets: dict[Key, Budget], parts: sa.Select[*tuple[Any, ...]]
) -> dict[Key, Account]:
    sums: dict[Key, dict[str, Total]] = {key: {} for key in budgets}
    for row in transaction.execute(parts):
        if (row.owner, row.dataset) in sums:
            sums[row.owner, row.dataset][row.part] = Total(row.epsilon, row.delta, row.rho)
    return {key: Account(budget, sums[key]) for key, budget in budgets.items()}


def _known(transaction: Transaction, ids: Iterable[str]) -> dict[str, Charge]:
    known: dict[str, Charge] = {}
    for some in _pieces(sorted(set(ids))):
        query = sa.select(_charge).where(_charge.c.id.in_(some))
        known |= {charge.id: charge for charge in read(Charge, transaction.execute(query))}
    return known


def _keep(transaction: Transaction, totals: dict[Key, dict[str, Total]]) -> None:
    """Put running sums in the place of the last ones."""
    rows = [
        {"owner": owner, "dataset": dataset, "part": part} | written(total)
        for (owner, dataset), sums in totals.items()
        for part, total in sums.items()
    ]
    insert = transaction.insert(_part)
    sums = {name: insert.excluded[name] for name in ("epsilon", "delta", "rho")}
    if rows:
        transaction.execute(
            insert.on_conflict_do_update(index_elements=["owner", "dataset", "part"], set_=sums), rows
        )


def _move(transaction: Transaction, charges: Sequence[Charge], values: dict[str, str]) -> None:
    for some in _pieces([charge.id for charge in charges]):
        transaction.execute(sa.update(_charge).where(_charge.c.id.in_(some)).values(**values))


def _among(table: sa.Table, keys: Sequence[Key]) -> sa.ColumnElement[bool]:
    return sa.tuple_(table.c.owner, table.c.dataset).in_(keys)


def _is(key: Key) -> tuple[sa.ColumnElement[bool], ...]:
    return _budget.c.owner == key[0], _budget.c.dataset == key[1]


def _pieces(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _TOGETHER] for start in range(0, len(items), _TOGETHER))


def _conflict(error: PrivacyError) -> Refusal:
    return Refusal("conflict", error.what, allowed=error.allowed, remedy=error.remedy)
