"""Federations and the versions of their models."""

from __future__ import annotations

from collections.abc import Set

import sqlalchemy as sa

from haina.coordinator.contract import Refusal
from haina.coordinator.store import tables
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.rounds import cancel, hold
from haina.coordinator.store.rows import FederationRow, FederationState, ModelRow, by, read, read_one, written

_federation, _model, _round = tables.federation, tables.model, tables.round_


class Federations(Part):
    """What is federated, and what came of it."""

    def put_federation(self, row: FederationRow, first: ModelRow | None = None) -> FederationRow:
        """Make a federation with its first model. One that is there keeps its state, rounds and models, and takes the row's text and columns.

        Returns:
            The federation as it stands.
        """

        def work(transaction: Transaction) -> FederationRow:
            new = transaction.insert(_federation).values(written(row))
            update = {"text": new.excluded["text"], "columns": new.excluded["columns"]}
            transaction.execute(new.on_conflict_do_update(index_elements=["name"], set_=update))
            if first is not None:
                transaction.execute(
                    transaction.insert(_model).values(written(first)).on_conflict_do_nothing()
                )
            transaction.notify(f"round:{row.name}")
            stored = _read(transaction, row.name)
            assert stored is not None
            return stored

        return self._database.write(work)

    def federation(self, name: str) -> FederationRow | None:
        """One federation."""
        return self._database.read(lambda transaction: _read(transaction, name))

    def federations(self) -> list[FederationRow]:
        """All federations, by name."""
        return by(
            self._database.read(lambda t: read(FederationRow, t.execute(sa.select(_federation)))), "name"
        )

    def set_state(self, name: str, state: FederationState, reason: str = "") -> FederationRow | None:
        """Pause, stop, finish or go on; None where there is no such federation."""

        def work(transaction: Transaction) -> FederationRow | None:
            change = (
                sa.update(_federation).where(_federation.c.name == name).values(state=state, reason=reason)
            )
            transaction.execute(change)
            transaction.notify(f"round:{name}")
            return _read(transaction, name)

        return self._database.write(work)

    def set_result(self, name: str, result: str) -> None:
        """Write down what a finished federation found."""
        change = sa.update(_federation).where(_federation.c.name == name).values(result=result)
        self._database.write(lambda transaction: transaction.execute(change) and None)

    def model(self, federation: str, version: int | None = None) -> ModelRow | None:
        """One version of a model; the newest without a version."""
        query = sa.select(_model).where(_model.c.federation == federation)
        query = (
            query.order_by(_model.c.version.desc()).limit(1)
            if version is None
            else query.where(_model.c.version == version)
        )
        return self._database.read(lambda transaction: read_one(ModelRow, transaction.execute(query)))

    def models(self, federation: str) -> list[ModelRow]:
        """All versions, oldest first."""
        query = sa.select(_model).where(_model.c.federation == federation).order_by(_model.c.version)
        return self._database.read(lambda transaction: read(ModelRow, transaction.execute(query)))

    def forget_models(self, federation: str, keep: Set[int]) -> set[str]:
        """Keep the bytes of some versions only. The newest, and that of a round under way, are kept whether named or not.

        Returns:
            The SHA-256s that nothing refers to any more, whose bytes may now be dropped.
        """

        def work(transaction: Transaction) -> set[str]:
            row = hold(transaction, federation)
            if row is None:
                return set()
            under_way = sa.select(_round.c.version).where(
                _round.c.federation == federation, _round.c.state.in_(["open", "closing"])
            )
            needed = {*keep, row.version, *transaction.execute(under_way).scalars()}
            forgotten = sa.and_(
                _model.c.federation == federation, _model.c.kept, _model.c.version.not_in(needed)
            )
            rows = read(ModelRow, transaction.execute(sa.select(_model).where(forgotten)))
            transaction.execute(sa.update(_model).where(forgotten).values(kept=False))
            gone = {sha for model in rows for sha in (model.sha256, model.state_sha256) if sha is not None}
            return gone - referenced(transaction)

        return self._database.write(work)

    def rollback(self, federation: str, version: int, note: str, now: float) -> ModelRow:
        """A new version with the bytes and the strategy's state of an old one. A round under way fails: it works on what is being taken back.

        Raises:
            Refusal: "not_found": no such version; "gone": its bytes are not kept.
        """

        def work(transaction: Transaction) -> ModelRow:
            row = hold(transaction, federation)
            query = sa.select(_model).where(_model.c.federation == federation, _model.c.version == version)
            old = read_one(ModelRow, transaction.execute(query))
            if row is None or old is None:
                raise Refusal("not_found", f"{federation} has no model {version}")
            if not old.kept:
                raise Refusal(
                    "gone", f"the bytes of model {version} are not kept", allowed="a version that is kept"
                )
            cancel(transaction, federation, f"the model was rolled back to version {version}", now)
            new = ModelRow(
                **written(old) | {"version": row.version + 1, "parent": version, "created": now, "note": note}
            )
            transaction.execute(sa.insert(_model).values(written(new)))
            change = (
                sa.update(_federation).where(_federation.c.name == federation).values(version=new.version)
            )
            transaction.execute(change)
            transaction.notify(f"round:{federation}")
            return new

        return self._database.write(work)

    def referenced(self) -> set[str]:
        """The SHA-256s of all bytes that are kept for a model, a strategy's state or a contribution; other blobs are left-overs."""
        return self._database.read(referenced)


def referenced(transaction: Transaction) -> set[str]:
    """As `Federations.referenced`, within a transaction."""
    kept = tables.contribution.c
    query = sa.union(
        sa.select(_model.c.sha256).where(_model.c.kept),
        sa.select(_model.c.state_sha256).where(_model.c.kept, _model.c.state_sha256.is_not(None)),
        sa.select(kept.sha256).where(kept.kept, kept.sha256.is_not(None)),
    )
    return set(transaction.execute(query).scalars())


def _read(transaction: Transaction, name: str) -> FederationRow | None:
    return read_one(
        FederationRow, transaction.execute(sa.select(_federation).where(_federation.c.name == name))
    )
