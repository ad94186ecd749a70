"""Who takes part, and how they came: nodes, operators and viewers, and the invitations that let each in once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from haina.coordinator.store import tables
from haina.coordinator.store.audit import write_audit
from haina.coordinator.store.database import Part, Transaction
from haina.coordinator.store.rows import InvitationRow, NodeRow, Seen, Unusable, by, read, read_one, written

_node, _invitation = tables.node, tables.invitation


class Nodes(Part):
    """Everyone with a certificate."""

    def put_node(self, row: NodeRow) -> None:
        """Write a node over the one of its name."""

        def work(transaction: Transaction) -> None:
            transaction.put(_node, written(row))
            transaction.notify("nodes")

        self._database.write(work)

    def node(self, name: str) -> NodeRow | None:
        """One node."""
        return self._database.read(lambda transaction: _read(transaction, name))

    def nodes(self) -> list[NodeRow]:
        """All nodes, by name."""
        return by(
            self._database.read(lambda transaction: read(NodeRow, transaction.execute(sa.select(_node)))),
            "name",
        )

    def announce(
        self,
        name: str,
        *,
        examples: int,
        software: str,
        codec: str,
        mode: str,
        federation: str | None,
        now: float,
        identity: str | None = None,
        dataset: str = "",
    ) -> NodeRow | None:
        """What a node says of itself; None for one that is not active.

        The first `identity` stays until the node is enrolled anew: others hold on to it, and who could change it could stand in for the node. A node
        that announces another finds the first in what is returned.
        """
        key = {} if identity is None else {"identity": sa.func.coalesce(_node.c.identity, identity)}
        return self._change(
            name,
            examples=examples, software=software, codec=codec, mode=mode, federation=federation, last_seen=now, dataset=dataset, **key,
        )  # fmt: skip

    def certify(self, name: str, serial: int, held: int, expires: float) -> NodeRow | None:
        """The next certificate of a node that shows the one numbered `held`; None for one that is not active, which must not have one."""
        return self._change(name, previous=held, serial=serial, certificate_expires=expires)

    def revoke(self, name: str) -> NodeRow | None:
        """Shut a node out, and end the invitations of its name, used or not: they would let it in again. None where there is none of that name."""

        def work(transaction: Transaction) -> NodeRow | None:
            transaction.execute(sa.update(_invitation).where(_invitation.c.name == name).values(expires=0.0))
            transaction.execute(sa.update(_node).where(_node.c.name == name).values(state="revoked"))
            transaction.notify("nodes")
            return _read(transaction, name)

        return self._database.write(work)

    def see_nodes(self, batch: Iterable[Seen]) -> None:
        """Signs of life, all in one transaction; an older one than is known changes nothing. Nobody is woken by it."""
        signs = [
            {f"new_{name}": value for name, value in written(seen).items()}
            for seen in by(list(batch), "name")
        ]
        earlier = sa.or_(_node.c.last_seen.is_(None), _node.c.last_seen <= sa.bindparam("new_last_seen"))
        change = sa.update(_node).where(_node.c.name == sa.bindparam("new_name"), earlier)
        names = ("last_seen", "doing", "settings_version")
        change = change.values({name: sa.bindparam(f"new_{name}") for name in names})
        if signs:
            self._database.write(lambda transaction: transaction.execute(change, signs) and None)

    def _change(self, name: str, **values: Any) -> NodeRow | None:
        def work(transaction: Transaction) -> NodeRow | None:
            change = sa.update(_node).where(_node.c.name == name, _node.c.state == "active").values(**values)
            if transaction.execute(change).rowcount == 0:
                return None
            transaction.notify("nodes")
            return _read(transaction, name)

        return self._database.write(work)


class Invitations(Part):
    """The ways in."""

    def put_invitation(self, row: InvitationRow) -> None:
        """Write an invitation."""
        self._database.write(lambda transaction: transaction.put(_invitation, written(row)))

    def use_invitation(self, hash: str, now: float) -> InvitationRow | Unusable:
        """Use an invitation up; of two at once one has it. Or why it cannot be used."""
        return self._database.write(lambda transaction: _use(transaction, hash, now))

    def enrol(
        self, hash: str, now: float, key: str, make: Callable[[InvitationRow], NodeRow]
    ) -> NodeRow | Unusable:
        """Use an invitation up for a node, and write both down with a line of the audit: all of it or nothing.

        Args:
            hash: SHA-256 of the token.
            now: seconds since 1970.
            key: who asks (`authority.requested_key`); the same key may ask again.
            make: the node that the invitation lets in (it issues the certificate); it may be called again. What it raises undoes all.
        """

        def work(transaction: Transaction) -> NodeRow | Unusable:
            invitation = _use(transaction, hash, now, key)
            if not isinstance(invitation, InvitationRow):
                return invitation
            node = make(invitation)
            transaction.put(_node, written(node))
            transaction.notify("nodes")
            detail = {"role": node.role, "serial": str(node.serial)}
            write_audit(transaction, now, node.name, "enrol", node.name, detail)
            return node

        return self._database.write(work)


def _use(transaction: Transaction, hash: str, now: float, key: str | None = None) -> InvitationRow | Unusable:
    mine = _invitation.c.hash == hash
    again = _invitation.c.key == key if key is not None else sa.false()
    free = sa.or_(_invitation.c.used.is_(None), again)
    use = sa.update(_invitation).where(mine, free, _invitation.c.expires > now)
    used = read_one(InvitationRow, transaction.execute(use.values(used=now, key=key).returning(_invitation)))
    if used is not None:
        return used
    there = read_one(InvitationRow, transaction.execute(sa.select(_invitation).where(mine)))
    if there is None:
        return "unknown"
    return "used" if there.used is not None else "expired"


def _read(transaction: Transaction, name: str) -> NodeRow | None:
    return read_one(NodeRow, transaction.execute(sa.select(_node).where(_node.c.name == name)))
