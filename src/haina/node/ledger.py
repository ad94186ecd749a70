"""The owner's own ledger: what may still leave this node, whatever the coordinator's ledger says.

One SQLite file. A charge is on the disk (WAL, `synchronous=FULL`) before anything of it is sent, and a kill between the two leaves it charged. The
rules are `haina.privacy.ledger`'s, as the coordinator's. Several processes may hold the file at once: each writing transaction begins with `BEGIN
IMMEDIATE`, so that what it reads is what it writes on.

It also remembers the newest round of each federation for which an upload was begun. A node that would answer for that round, or an older one, once
more could give away both its masks and the shares that open them (Bell et al. 2020 assume one answer a round), or what its noise covers, which was
paid for once. So it must not.

The trap is the file itself: whoever deletes it, or puts an old copy in its place, gives the budget back.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from haina.errors import PrivacyError
from haina.privacy import ledger
from haina.privacy.ledger import Account, Budget, Charge, ChargeState, Key, Total

#: Seconds until a file that others hold is given up on.
_PATIENCE = 30.0

#: `user_version` of the file.
_VERSION = 1

#: Columns in the order of the fields of `Budget`, `Charge` and, after the key, `Total`.
_TABLES = """
CREATE TABLE budget(owner TEXT NOT NULL, dataset TEXT NOT NULL, epsilon REAL NOT NULL, delta REAL NOT NULL, composition TEXT NOT NULL,
    opened REAL NOT NULL, parts TEXT NOT NULL, PRIMARY KEY(owner, dataset));
CREATE TABLE total(owner TEXT NOT NULL, dataset TEXT NOT NULL, part TEXT NOT NULL, epsilon TEXT NOT NULL, delta TEXT NOT NULL, rho TEXT NOT NULL,
    PRIMARY KEY(owner, dataset, part));
CREATE TABLE charge(id TEXT PRIMARY KEY, owner TEXT NOT NULL, dataset TEXT NOT NULL, part TEXT NOT NULL, federation TEXT NOT NULL,
    round INTEGER NOT NULL, mechanism TEXT NOT NULL, epsilon REAL, delta REAL NOT NULL, rho REAL NOT NULL, state TEXT NOT NULL, at REAL NOT NULL,
    why TEXT NOT NULL);
CREATE TABLE used(federation TEXT PRIMARY KEY, round INTEGER NOT NULL);
"""


class NodeLedger:
    """A node's ledger, for threads and processes.

    Args:
        path: the file; made, for its owner only, where there is none. Its folder must be there.
        clock: seconds since 1970 (UTC).

    Raises:
        PrivacyError: the file cannot be read or written. Every method raises it for that reason, and then nothing may be released.
    """

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        self.path = path
        self._clock = clock
        self._lock = threading.Lock()
        with self._words():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._db = sqlite3.connect(path, _PATIENCE, isolation_level=None, check_same_thread=False)
            try:
                _keep_a_log(self._db)
                self._db.execute("PRAGMA synchronous = FULL")
                self._make()
            except BaseException:
                self._db.close()
                raise

    def open(self, budget: Budget) -> Budget:
        """Open a budget. To open it again on the same terms changes nothing.

        Returns:
            The budget as it stands.

        Raises:
            PrivacyError: it stands on other terms, which are fixed.
        """
        with self._writing() as db:
            there = _budgets(db, {budget.key}).get(budget.key)
            if there is not None:
                return ledger.reopened(there, budget)
            row = vars(budget) | {"opened": self._clock(), "parts": json.dumps(budget.parts)}
            _insert(db, "budget", [tuple(row.values())])
            return _budgets(db, {budget.key})[budget.key]

    def reserve(self, charges: Sequence[Charge]) -> dict[str, str]:
        """Reserve what can be reserved of a batch; durable when it returns, so that the releases may follow.

        Args:
            charges: one that is reserved already is not counted again. Their `at` is set to now.

        Returns:
            Why charges are refused, by their id. The others are reserved.
        """
        with self._writing() as db:
            decision = self._decided(db, charges)
            _insert(db, "charge", [tuple(vars(charge).values()) for charge in decision.new])
            for key, totals in decision.totals.items():
                _keep(db, key, totals)
            return decision.refused

    def refusals(self, charges: Sequence[Charge]) -> dict[str, str]:
        """What `reserve` would refuse of a batch now, and why, by id; nothing is written."""
        with self._reading() as db:
            return self._decided(db, charges).refused

    def released(self, ids: Collection[str]) -> None:
        """Charges whose release has taken place.

        Raises:
            PrivacyError: one is unknown, or void; nothing is written.
        """
        self._settle(ids, "released", "")

    def void(self, ids: Collection[str], why: str) -> None:
        """Charges whose release has not taken place, and never will: they are given back.

        Raises:
            PrivacyError: one is unknown, or released; nothing is written.
        """
        self._settle(ids, "void", why)

    def budgets(self) -> list[Account]:
        """All budgets and what is spent of them, by owner and data set."""
        with self._reading() as db:
            accounts = _accounts(db, None)
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
        asked = (owner, dataset, federation, state)
        query = (
            "SELECT * FROM charge WHERE owner = coalesce(?, owner) AND dataset = coalesce(?, dataset) AND federation = coalesce(?, federation)"
            " AND state = coalesce(?, state) ORDER BY at DESC, id DESC LIMIT ?"
        )
        with self._reading() as db:
            return [Charge(*row) for row in db.execute(query, (*asked, last))][::-1]

    def used_round(self, federation: str) -> int:
        """The newest round that `use_round` was granted for; 0 before the first."""
        with self._reading() as db:
            row = db.execute("SELECT round FROM used WHERE federation = ?", (federation,)).fetchone()
            return int(row[0]) if row else 0

    def use_round(self, federation: str, number: int) -> bool:
        """Begin an upload for a round, once; durable when it returns.

        Returns:
            False for the newest round so far, and for every older one: the node must not take part in it (again).
        """
        use = "INSERT INTO used VALUES(?, ?) ON CONFLICT(federation) DO UPDATE SET round = excluded.round WHERE used.round < excluded.round"
        if number < 1:
            return False
        with self._writing() as db:
            return db.execute(use, (federation, number)).rowcount == 1

    def close(self) -> None:
        """Give the file back."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decided(self, db: sqlite3.Connection, charges: Sequence[Charge]) -> ledger.Decision:
        asked = [charge for charge in charges if charge.fault() is None]
        accounts = _accounts(db, {charge.key for charge in asked})
        known = _known(db, [charge.id for charge in asked])
        return ledger.decide(charges, known, accounts, self._clock())

    def _settle(self, ids: Collection[str], state: Literal["released", "void"], why: str) -> None:
        with self._writing() as db:
            changing = ledger.settled(ids, _known(db, ids), state)
            db.executemany(
                "UPDATE charge SET state = ?, why = ? WHERE id = ?", [(state, why, c.id) for c in changing]
            )
            if state == "void":
                accounts = _accounts(db, {charge.key for charge in changing})
                for charge in changing:
                    budget, totals = accounts[charge.key].budget, dict(accounts[charge.key].totals)
                    totals[charge.part] -= ledger.counted(budget, charge)
                    accounts[charge.key] = Account(budget, totals)
                    _keep(db, charge.key, {charge.part: totals[charge.part]})

    def _make(self) -> None:
        """Make the tables in an empty file."""
        with self._transaction("BEGIN IMMEDIATE") as db:
            (found,) = db.execute("PRAGMA user_version").fetchone()
            if found > _VERSION:
                raise PrivacyError(
                    f"the ledger {self.path} is of a newer Haina (version {found})",
                    allowed=f"versions up to {_VERSION}",
                    remedy="Upgrade Haina",
                )
            if found == 0:
                for statement in _TABLES.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_VERSION}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._words(), self._lock, self._transaction("BEGIN") as db:
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block ends, or has left nothing behind when it raises."""
        with self._words(), self._lock, self._transaction("BEGIN IMMEDIATE") as db:
            yield db

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        self._db.execute(begin)
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise PrivacyError(
                f"the privacy ledger {self.path} cannot be used ({error})",
                remedy="Nothing is released without it. Free the disk, or restore the newest copy of the file; never begin a new one",
            ) from error


def _keep_a_log(db: sqlite3.Connection) -> None:
    """Write ahead. Of several processes that open a new file at once SQLite refuses all but one here without waiting."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _budgets(db: sqlite3.Connection, keys: set[Key] | None) -> dict[Key, Budget]:
    """The budgets of some keys, as far as there are any; of None, all."""
    budgets = (
        Budget(owner, dataset, epsilon, delta, composition, opened, tuple(json.loads(parts)))
        for owner, dataset, epsilon, delta, composition, opened, parts in _rows(
            db, "SELECT * FROM budget", keys
        )
    )
    return {budget.key: budget for budget in budgets}


def _accounts(db: sqlite3.Connection, keys: set[Key] | None) -> dict[Key, Account]:
    sums: dict[Key, dict[str, Total]] = {}
    for owner, dataset, part, *numbers in _rows(db, "SELECT * FROM total", keys):
        sums.setdefault((owner, dataset), {})[part] = Total(*map(Decimal, numbers))
    return {key: Account(budget, sums.get(key, {})) for key, budget in _budgets(db, keys).items()}


def _rows(db: sqlite3.Connection, query: str, keys: set[Key] | None) -> Iterator[tuple[Any, ...]]:
    if keys is None:
        yield from db.execute(query)
        return
    for key in sorted(keys):
        yield from db.execute(f"{query} WHERE owner = ? AND dataset = ?", key)


def _known(db: sqlite3.Connection, ids: Iterable[str]) -> dict[str, Charge]:
    rows = (db.execute("SELECT * FROM charge WHERE id = ?", (name,)).fetchone() for name in set(ids))
    return {row[0]: Charge(*row) for row in rows if row is not None}


def _keep(db: sqlite3.Connection, key: Key, totals: dict[str, Total]) -> None:
    """Put sums in the place of the last ones."""
    rows = [
        (*key, part, *(format(number, "f") for number in vars(total).values()))
        for part, total in totals.items()
    ]
    _insert(db, "total", rows, "OR REPLACE ")


def _insert(db: sqlite3.Connection, table: str, rows: Sequence[tuple[Any, ...]], how: str = "") -> None:
    if rows:
        marks = ", ".join("?" * len(rows[0]))
        db.executemany(f"INSERT {how}INTO {table} VALUES({marks})", rows)
