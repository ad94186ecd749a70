"""Charges: who can pay for a round in privacy, what it is charged, and what becomes of the charges when it ends.

Every node's data set has a budget on its coordinator, opened on the federation's terms when the node is first invited, unless it stands already. A
round is charged to all who are invited, in the transaction that opens it, and settled in the one that ends it. Who sent nothing is given its charge
back; whatever was sent counts, also where the round then failed: that nothing was made of it is a thing nobody can prove afterwards. Only central
noise is another matter, where the release is the model and not the update.

The trap is a node that is killed: its charge must be there before its update can be, so it is not the node that asks for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace

from haina.coordinator.contract import Refusal
from haina.coordinator.store import NodeRow, RoundRow, Settlement, Store
from haina.privacy.budget import Budget, Charge
from haina.privacy.ledger import admits, totals
from haina.privacy.policy import Policy


def counts(policy: Policy | None) -> bool:
    """True where rounds are charged to budgets."""
    return policy is not None and policy.mechanism is not None and policy.allowance is not None


def charges_of(policy: Policy | None, federation: str, number: int, nodes: Iterable[NodeRow]) -> list[Charge]:
    """What a round is charged to those who are invited; nothing where nothing is counted."""
    if policy is None or not counts(policy):
        return []
    return [policy.charge(federation, number, node.name, node.dataset) for node in nodes]


def insolvent(
    policy: Policy | None, store: Store, federation: str, number: int, nodes: Sequence[NodeRow]
) -> dict[str, str]:
    """Those whose budgets cannot bear another round, and why."""
    if policy is None or not counts(policy):
        return {}
    accounts = {account.budget.key: account for account in store.budgets()}
    # A schedule is reserved once, as a whole, and paid for all its rounds.
    paid = {charge.id for charge in store.charges(federation=federation, state="reserved", last=1 << 31)}
    gone: dict[str, str] = {}
    for node in nodes:
        charge = policy.charge(federation, number, node.name, node.dataset)
        account = accounts.get(charge.key)
        planned = policy.budget(node.name, node.dataset)
        refused = (
            admits(planned, {}, charge) if account is None else admits(account.budget, account.totals, charge)
        )
        if account is not None and refused is None and not _alike(account.budget, planned):
            # A budget that stands on larger terms may bear more than this federation promises to take.
            mine = store.charges(node.name, node.dataset, federation, last=1 << 31)
            refused = admits(planned, totals(planned, mine), charge)
        if refused is not None and charge.id not in paid:
            gone[node.name] = refused
    return gone


def open_budgets(policy: Policy | None, store: Store, nodes: Iterable[NodeRow]) -> None:
    """Budgets for those who have none; one that stands on other terms stays as it is."""
    if policy is None or not counts(policy):
        return
    there = {account.budget.key for account in store.budgets()}
    for node in nodes:
        if (node.name, node.dataset) not in there:
            # Another replica may have been first.
            with suppress(Refusal):
                store.open_budget(policy.budget(node.name, node.dataset))


def settlement(
    policy: Policy | None, row: RoundRow, sent: Collection[str], *, published: bool
) -> Settlement | None:
    """What a round's end means for its charges.

    Args:
        policy: what is promised.
        row: the round.
        sent: whose update arrived.
        published: True when a model came of the round.
    """
    if policy is None or not counts(policy):
        return None
    charges = {node: policy.charge(row.federation, row.number, node, "") for node in row.roster}
    # A schedule stays reserved, which counts as much, until all its rounds are over.
    own = {node: charge.id for node, charge in charges.items() if charge.round == row.number}
    released = own.keys() & set(sent) if published or policy.noise != "central" else set[str]()
    return Settlement(
        release=tuple(own[node] for node in sorted(released)),
        void=tuple(own[node] for node in sorted(own.keys() - released)),
        why=f"nothing of it was released in round {row.number}",
    )


def _alike(one: Budget, other: Budget) -> bool:
    """True for the same terms, whenever they were opened."""
    return replace(one, opened=0.0) == replace(other, opened=0.0)
