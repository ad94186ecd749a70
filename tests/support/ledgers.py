"""Budgets and charges for tests, and the sums of charges reckoned apart from the ledger: in fractions of the decimals that were written."""

from collections.abc import Iterable
from fractions import Fraction

from haina.privacy.ledger import WHOLE, Account, Budget, Charge


def budget(epsilon: float = 1.0, delta: float = 0.0, composition: str = "pure", **values) -> Budget:
    told = {"owner": "ward", "dataset": "patients"}
    return Budget(**told | {"epsilon": epsilon, "delta": delta, "composition": composition} | values)


def charge(
    name: str, epsilon: float | None = 0.001, rho: float = 0.0, delta: float = 0.0, **values
) -> Charge:
    told = {"owner": "ward", "dataset": "patients", "part": WHOLE, "federation": "iris", "round": 1}
    return Charge(
        **{"id": name, "mechanism": "laplace", "epsilon": epsilon, "delta": delta, "rho": rho} | told | values
    )


def written(value: float) -> Fraction:
    """A float as the decimal a person would write for it."""
    return Fraction(repr(float(value)))


def reckoned(charges: Iterable[Charge], number: str) -> Fraction:
    """What charges come to in one number, parts in parallel; for a `rho` that is not stated, of their epsilon."""
    sums: dict[str, Fraction] = {}
    for one in charges:
        value = written(getattr(one, number) or 0)
        if number == "rho" and not value:
            value = written(one.epsilon) ** 2 / 2
        if one.state != "void":
            sums[one.part] = sums.get(one.part, Fraction()) + value
    return sums.pop(WHOLE, Fraction()) + max(sums.values(), default=Fraction())


def sums_are_those_of_the_charges(account: Account, charges: Iterable[Charge]) -> bool:
    """Whether the running sums of a store are what its charges come to; a part that nothing is left of may be missing or 0."""
    from haina.privacy.ledger import Total, totals

    found = totals(account.budget, [one for one in charges if one.key == account.budget.key])
    parts = {*found, *account.totals}
    return all(account.totals.get(part, Total()) == found.get(part, Total()) for part in parts)
