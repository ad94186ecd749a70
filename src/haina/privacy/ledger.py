"""The budget ledger: what may still be released, of whose data. Rules only; whoever keeps the numbers hands them in.

A charge is reserved, durably, before anything is released. Then it is released; or, before that, it is void and given back. A crash gives nothing
back, so a ledger may count too much and never too little. The coordinator keeps one for all owners (`haina.coordinator.store.budgets`), each node
one for its own data (`haina.node.ledger`), and both ask the functions here.

How charges add up is fixed when a budget is opened; both ways stay valid when a release is chosen after earlier ones were seen:

* "pure": epsilons add, and deltas add (Rogers et al. 2016, "Privacy Odometers and Filters"). A schedule that was accounted for as a whole, by its
  privacy loss distribution, is one charge.
* "zcdp": rhos add, against the rho that implies (epsilon, delta) (Bun & Steinke 2016; as a filter: Feldman & Zrnic 2021, and Whitehouse et al.
  2023, whose filter for advanced composition is this inequality). A pure epsilon enters as epsilon^2 / 2.

To take whichever turns out smaller is not valid, so it cannot be asked for. Parts that a budget declares disjoint compose in parallel (McSherry
2009): what was spent on the whole, and the most of what was spent on a part.

The trap is arithmetic: 4,000 charges of 1e-3 fit into 4.0, and not one more, and sums of floats know neither. Here a number is the decimal that a
person wrote (the shortest that gives back the float), rounded up to 30 places, and sums are exact. A cap is one part in 10^12 larger than it says,
so that a plan that divides a budget by its rounds in float64 gets all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context, Decimal, Inexact, InvalidOperation
from functools import lru_cache
from typing import Literal

from haina.errors import PrivacyError
from haina.privacy.accounting import epsilon_of, rho_of
from haina.privacy.budget import WHOLE, Budget, Charge, ChargeState, Composition, Key

__all__ = [
    "WHOLE",
    "Account",
    "Budget",
    "Charge",
    "ChargeState",
    "Composition",
    "Decision",
    "Key",
    "Spent",
    "Total",
    "admits",
    "counted",
    "decide",
    "reopened",
    "settled",
    "spent",
    "totals",
]

_PLACES = Decimal("1e-30")
_ROUNDING = Context(prec=80, rounding=ROUND_CEILING, traps=[InvalidOperation])
_EXACT = Context(prec=80, traps=[InvalidOperation, Inexact])
_SLACK = Decimal("1.000000000001")
_NOTHING = Decimal(0)


@dataclass(frozen=True)
class Total:
    """A sum of charges, in the numbers of their budget's composition: epsilon and delta, or rho. Exact."""

    epsilon: Decimal = _NOTHING
    delta: Decimal = _NOTHING
    rho: Decimal = _NOTHING

    def __add__(self, other: Total) -> Total:
        add = _EXACT.add
        return Total(add(self.epsilon, other.epsilon), add(self.delta, other.delta), add(self.rho, other.rho))

    def __sub__(self, other: Total) -> Total:
        # `-x` would round to the caller's context.
        return self + Total(other.epsilon.copy_negate(), other.delta.copy_negate(), other.rho.copy_negate())

    def most(self, other: Total) -> Total:
        """The larger of each number."""
        return Total(max(self.epsilon, other.epsilon), max(self.delta, other.delta), max(self.rho, other.rho))


@dataclass(frozen=True)
class Spent:
    """What a budget has given away.

    Args:
        epsilon: with "zcdp", what rho means at the budget's delta.
        delta: what this epsilon holds with.
        rho: 0 with "pure", which does not count it.
        fraction: of the budget, 0 to 1; where epsilon and delta are both counted, the larger.
    """

    epsilon: float
    delta: float
    rho: float
    fraction: float


@dataclass(frozen=True)
class Account:
    """A budget, and by part the sums of what is charged to it, reserved or released."""

    budget: Budget
    totals: Mapping[str, Total]

    @property
    def spent(self) -> Spent:
        """All of it together."""
        return spent(self.budget, self.totals)


def counted(budget: Budget, charge: Charge) -> Total:
    """What a charge counts for that `admits` has let in."""
    if budget.composition == "zcdp" and charge.rho > 0:
        return Total(rho=_amount(charge.rho))
    assert charge.epsilon is not None
    epsilon = _amount(charge.epsilon)
    if budget.composition == "pure":
        return Total(epsilon, _amount(charge.delta))
    return Total(rho=_up(_EXACT.multiply(_EXACT.multiply(epsilon, epsilon), Decimal("0.5"))))


def totals(budget: Budget, charges: Iterable[Charge]) -> dict[str, Total]:
    """The sums by part of all charges to a budget but those that are void. The running sums of a store equal them."""
    sums: dict[str, Total] = {}
    for charge in charges:
        if charge.state != "void":
            sums[charge.part] = sums.get(charge.part, Total()) + counted(budget, charge)
    return sums


def spent(budget: Budget, totals: Mapping[str, Total]) -> Spent:
    """What is spent of a budget: on the whole, and the most of what is on a part."""
    total, cap = _together(totals), _cap(budget)
    if budget.composition == "zcdp":
        rho = float(total.rho)
        epsilon = epsilon_of(rho, budget.delta) if rho else 0.0
        return Spent(epsilon, budget.delta if rho else 0.0, rho, float(total.rho / cap.rho))
    shares = [total.epsilon / cap.epsilon, total.delta / cap.delta if cap.delta else _NOTHING]
    return Spent(float(total.epsilon), float(total.delta), 0.0, float(max(shares)))


def admits(budget: Budget, totals: Mapping[str, Total], charge: Charge) -> str | None:
    """Why a charge cannot be reserved; None when it can.

    Args:
        budget: that of the charge's owner and data set.
        totals: by part, the sums of what is reserved or released.
        charge: the new one.
    """
    fault = charge.fault() or _missing(budget, charge)
    if fault is not None:
        return f"the charge cannot be counted: {fault}"
    cost, cap, before = counted(budget, charge), _cap(budget), _together(totals)
    after = _together({**totals, charge.part: totals.get(charge.part, Total()) + cost})
    for name in ("epsilon", "delta", "rho"):
        if getattr(after, name) > _EXACT.multiply(getattr(cap, name), _SLACK):
            had, most, asked = (float(getattr(total, name)) for total in (before, cap, cost))
            return f"{budget} would be overspent: {name} {had:.6g} of {most:.6g} is spent, and the charge is {asked:.6g} more"
    return None


@dataclass(frozen=True)
class Decision:
    """What becomes of a batch: the charges to write, why others are refused (by id), and the sums that change, by budget and part."""

    new: list[Charge]
    refused: dict[str, str]
    totals: dict[Key, dict[str, Total]]


def decide(
    charges: Sequence[Charge], known: Mapping[str, Charge], accounts: Mapping[Key, Account], at: float
) -> Decision:
    """Reserve what can be reserved of a batch, one after the other. Whoever keeps the ledger holds its budgets meanwhile.

    Args:
        charges: to be reserved; each on its own, so that one refused stops no other.
        known: the charges there are under their ids.
        accounts: the budgets that they name, as far as there are any.
        at: now.
    """
    decision = Decision([], {}, {})
    running = {key: dict(account.totals) for key, account in accounts.items()}
    meanings = Counter(charge.id for charge in {charge.asked() for charge in charges})
    there = dict(known)
    for charge in charges:
        account = accounts.get(charge.key)
        if meanings[charge.id] > 1:
            decision.refused[charge.id] = "two different charges of the batch have its id"
        elif charge.id in there:
            reason = _repeated(there[charge.id], charge)
            if reason is not None:
                decision.refused[charge.id] = reason
        elif account is None:
            none = f"{charge.owner!r:.80} has opened no budget for {charge.dataset!r:.220}"
            decision.refused[charge.id] = charge.fault() or none
        else:
            sums = running[charge.key]
            reason = admits(account.budget, sums, charge)
            if reason is not None:
                decision.refused[charge.id] = reason
                continue
            there[charge.id] = new = replace(charge, state="reserved", at=at, why="")
            decision.new.append(new)
            sums[charge.part] = sums.get(charge.part, Total()) + counted(account.budget, charge)
            decision.totals.setdefault(charge.key, {})[charge.part] = sums[charge.part]
    return decision


def settled(
    ids: Iterable[str], known: Mapping[str, Charge], state: Literal["released", "void"]
) -> list[Charge]:
    """The charges that change when some are released, or are void. Those that are so already do not.

    Raises:
        PrivacyError: one is unknown, or cannot change: what was released is not taken back, and what is void is not released.
    """
    found = {name: known.get(name) for name in ids}
    for name, charge in found.items():
        if charge is None or charge.state not in ("reserved", state):
            raise PrivacyError(
                f"the charge {name!r} is {charge.state if charge else 'unknown'}, and cannot be {state}",
                allowed="a charge that is reserved",
            )
    return [charge for charge in found.values() if charge is not None and charge.state != state]


def reopened(there: Budget, asked: Budget) -> Budget:
    """The budget that stands, when it is opened again.

    Raises:
        PrivacyError: it was opened on other terms.
    """
    if replace(asked, opened=there.opened) != there:
        raise PrivacyError(
            f"{asked} is asked for",
            allowed=f"{there}, as it was opened",
            remedy="What a budget allows is fixed when it is opened",
        )
    return there


def _missing(budget: Budget, charge: Charge) -> str | None:
    """What the budget must know of a charge and is not told."""
    if charge.part != WHOLE and charge.part not in budget.parts:
        allowed = ", ".join(repr(part) for part in (WHOLE, *budget.parts))
        return f"{budget} has no part {charge.part!r}; allowed: {allowed}"
    if budget.composition == "pure" and (charge.epsilon is None or charge.epsilon == charge.delta == 0):
        return f"{budget} counts epsilon, and it states none"
    if budget.composition == "zcdp" and charge.rho == 0 and (not charge.epsilon or charge.delta > 0):
        return f"{budget} counts rho, and it states none, nor an epsilon with delta 0"
    return None


def _repeated(there: Charge, charge: Charge) -> str | None:
    """Why an id cannot be used again; None where it is the same charge, still reserved."""
    if there.asked() != charge.asked():
        return "another charge has its id"
    if there.state != "reserved":
        return f"it is {there.state} already; another release needs a charge of its own"
    return None


def _together(totals: Mapping[str, Total]) -> Total:
    """What was spent on the whole, and the most of what was spent on a part."""
    worst = Total()
    for part, total in totals.items():
        if part != WHOLE:
            worst = worst.most(total)
    return totals.get(WHOLE, Total()) + worst


def _cap(budget: Budget) -> Total:
    """What the sums may come to."""
    return _limit(budget.composition, budget.epsilon, budget.delta)


@lru_cache(maxsize=4096)
def _limit(composition: Composition, epsilon: float, delta: float) -> Total:
    # Of many owners with the same terms, the search for rho (2 ms) is done for one.
    return (
        Total(rho=_amount(rho_of(epsilon, delta)))
        if composition == "zcdp"
        else Total(_amount(epsilon), _amount(delta))
    )


def _amount(value: float) -> Decimal:
    """A float as the decimal that a person would write for it, rounded up to 30 places."""
    return _up(Decimal(repr(float(value))))


def _up(value: Decimal) -> Decimal:
    return value.quantize(_PLACES, context=_ROUNDING).normalize(_ROUNDING)
