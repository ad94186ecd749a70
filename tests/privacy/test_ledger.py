"""The rules of the budget ledger: exact at the cap, closed forms, and what is refused and why."""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledgers import budget, charge, reckoned, written

from haina.errors import PrivacyError
from haina.privacy.accounting import epsilon_of, rho_of
from haina.privacy.ledger import (
    Account,
    Budget,
    Charge,
    Total,
    admits,
    decide,
    reopened,
    settled,
    spent,
    totals,
)


def granted(account: Account, charges: list[Charge]) -> tuple[list[Charge], dict[str, str], Account]:
    """What a ledger holds after a batch."""
    decision = decide(charges, {}, {account.budget.key: account}, at=5.0)
    sums = dict(account.totals) | decision.totals.get(account.budget.key, {})
    return decision.new, decision.refused, Account(account.budget, sums)


def fits(terms: Budget, most: int, **values) -> int:
    """How many equal charges a budget takes."""
    new, refused, account = granted(Account(terms, {}), [charge(str(n), **values) for n in range(most)])
    assert all("would be overspent" in reason for reason in refused.values())
    assert account.totals == totals(terms, new)
    return len(new)


@pytest.mark.parametrize(
    ("total", "each", "exactly"),
    [(4.0, 1e-3, 4000), (0.3, 0.1, 3), (1.0, 0.1, 10), (8.0, 0.7, 11), (1e-6, 1e-9, 1000), (1e6, 1e6, 1)],
)
def test_a_budget_takes_exactly_what_decimals_say(total, each, exactly):
    """Sums of floats do not: three times 0.1 comes to more than 0.3, and 4,000 times 1e-3 to less than 4."""
    assert 0.1 + 0.1 + 0.1 > 0.3
    assert sum([1e-3] * 4000) < 4.0
    assert fits(budget(total), exactly + 2, epsilon=each) == exactly


@pytest.mark.parametrize("rounds", [3, 6, 7, 9, 49, 200, 1000])
@pytest.mark.parametrize("epsilon", [0.3, 1.0, 8.0])
def test_a_budget_divided_by_its_rounds_is_enough_for_all_of_them(epsilon, rounds):
    assert fits(budget(epsilon), rounds + 1, epsilon=epsilon / rounds) == rounds
    rho = rho_of(epsilon, 1e-5)
    assert fits(budget(epsilon, 1e-5, "zcdp"), rounds + 1, epsilon=None, rho=rho / rounds) == rounds


def test_deltas_add_too_and_have_a_cap_of_their_own():
    terms = budget(100.0, 1e-5)
    assert fits(terms, 20, epsilon=0.5, delta=1e-6) == 10
    _, refused, account = granted(Account(terms, {}), [charge(str(n), 0.5, delta=1e-6) for n in range(11)])
    assert "delta 1e-05 of 1e-05 is spent, and the charge is 1e-06 more" in refused["10"]
    assert account.spent == spent(terms, account.totals)
    assert (account.spent.epsilon, account.spent.delta, account.spent.fraction) == (5.0, 1e-5, 1.0)
    assert fits(budget(1.0, 0.0), 1, epsilon=0.1, delta=1e-9) == 0


def test_gaussian_noise_lasts_as_long_as_its_rho_says():
    """Sigma 16 times the sensitivity is rho = 1 / 512 a round; the filter admits as many as fit below rho(epsilon, delta)."""
    terms = budget(4.0, 1e-6, "zcdp")
    rounds = int(Fraction(rho_of(4.0, 1e-6)) * 512)
    assert fits(terms, 400, epsilon=None, rho=1 / 512) == rounds > 100
    _, _, account = granted(Account(terms, {}), [charge(str(n), None, 1 / 512) for n in range(rounds)])
    assert account.spent.rho == rounds / 512
    assert account.spent.epsilon == epsilon_of(rounds / 512, 1e-6) <= 4.0
    assert account.spent.delta == 1e-6
    assert account.spent.fraction == pytest.approx(rounds / 512 / rho_of(4.0, 1e-6))


def test_a_pure_epsilon_enters_zcdp_as_half_its_square():
    terms = budget(4.0, 1e-6, "zcdp")
    assert totals(terms, [charge("a", 0.3)]) == {"*": Total(rho=Decimal("0.045"))}
    assert totals(terms, [charge("a", 0.3, rho=0.01)]) == totals(terms, [charge("a", None, 0.01)])


def test_parts_that_are_disjoint_compose_in_parallel():
    terms = budget(1.0, parts=("a", "b"))
    charges = [charge("1", 0.6, part="a"), charge("2", 0.9, part="b"), charge("3", 0.1)]
    new, refused, account = granted(Account(terms, {}), charges)
    assert (len(new), refused, account.spent.epsilon) == (3, {}, 1.0)
    assert "would be overspent" in admits(terms, account.totals, charge("4", 0.05, part="b"))
    assert "would be overspent" in admits(terms, account.totals, charge("5", 0.05))
    assert admits(terms, account.totals, charge("6", 0.3, part="a")) is None
    assert "epsilon 1 of 1" in admits(terms, account.totals, charge("7", 0.4, part="a"))
    assert "no part 'c'; allowed: '*', 'a', 'b'" in admits(terms, account.totals, charge("8", 0.1, part="c"))


@pytest.mark.parametrize(
    ("terms", "values", "words"),
    [
        (budget(), {"epsilon": nan}, "epsilon is nan"),
        (budget(), {"epsilon": -0.1}, "epsilon is -0.1"),
        (budget(), {"epsilon": inf}, "epsilon is inf"),
        (budget(), {"epsilon": None}, "counts epsilon, and it states none"),
        (budget(), {"epsilon": None, "rho": 0.1}, "counts epsilon"),
        (budget(), {"epsilon": 0.0}, "counts epsilon"),
        (budget(1.0, 0.1), {"delta": 1.0}, "delta is 1.0; allowed: 0 <= delta < 1"),
        (budget(1.0, 0.1), {"delta": nan}, "delta is nan"),
        (budget(1.0, 0.1), {"delta": -1e-9}, "delta is -1e-09"),
        (budget(1.0, 0.1, "zcdp"), {"rho": nan}, "rho is nan"),
        (budget(1.0, 0.1, "zcdp"), {"rho": -1.0}, "rho is -1.0"),
        (budget(1.0, 0.1, "zcdp"), {"rho": inf}, "rho is inf"),
        (budget(1.0, 0.1, "zcdp"), {"epsilon": None}, "counts rho, and it states none"),
        (budget(1.0, 0.1, "zcdp"), {"epsilon": 0.1, "delta": 1e-6}, "counts rho, and it states none"),
        (budget(1.0, 0.1, "zcdp"), {"epsilon": 0.0}, "counts rho"),
        (budget(), {"owner": "nobody"}, "'nobody' has opened no budget for 'patients'"),
        (budget(), {"dataset": "other"}, "'ward' has opened no budget for 'other'"),
        (budget(), {"part": ""}, "part is ''"),
        (budget(), {"owner": "a\0b"}, "owner is"),
        (budget(), {"round": -1}, "round is -1"),
        (budget(), {"mechanism": "x" * 201}, "mechanism is"),
    ],
)  # fmt: skip
def test_what_cannot_be_counted_is_refused_in_words(terms, values, words):
    new, refused, account = granted(Account(terms, {}), [charge("bad", **values), charge("good", 0.01)])
    assert words in refused["bad"]
    assert (len(new), set(account.totals)) == (1, {"*"})


@pytest.mark.parametrize("name", ["", "x" * 201, "a\0b", "a\ud800", "a\nb"])
def test_what_no_store_can_keep_is_no_id(name):
    _, refused, _ = granted(Account(budget(), {}), [charge(name)])
    assert "its id is" in refused[name]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epsilon": nan}, "epsilon nan"), ({"epsilon": 0.0}, "epsilon 0.0"), ({"epsilon": -1.0}, "epsilon -1.0"),
        ({"epsilon": inf}, "epsilon inf"), ({"delta": nan}, "delta nan"), ({"delta": 1.0}, "delta 1.0"), ({"delta": -0.1}, "delta -0.1"),
        ({"composition": "zcdp"}, "delta 0 and the composition 'zcdp'"), ({"composition": "advanced"}, "composition 'advanced'"),
        ({"owner": ""}, "owner ''"), ({"dataset": "\0"}, "data set"), ({"parts": ("a", "a")}, "parts"), ({"parts": ("*",)}, "parts"),
    ],
)  # fmt: skip
def test_a_budget_that_promises_nothing_is_refused(values, words):
    with pytest.raises(PrivacyError, match="a budget has") as caught:
        budget(**values)
    assert words in caught.value.what
    assert caught.value.allowed


def test_the_same_id_is_the_same_charge():
    terms = budget()
    there = charge("a", 0.4, at=1.0)
    known = {"a": there}
    account = {terms.key: Account(terms, totals(terms, [there]))}
    same = decide([charge("a", 0.4, at=9.0)] * 2, known, account, 5.0)
    assert (same.new, same.refused, same.totals) == ([], {}, {})
    other = decide([charge("a", 0.3)], known, account, 5.0)
    assert (other.new, other.refused) == ([], {"a": "another charge has its id"})
    for state in ("released", "void"):
        told = decide([there], {"a": replace(there, state=state)}, account, 5.0).refused
        assert told == {"a": f"it is {state} already; another release needs a charge of its own"}
    fresh = decide([charge("b", 0.3), charge("b", 0.3)], {}, account, 5.0)
    assert ([one.at for one in fresh.new], fresh.refused) == ([5.0], {})
    assert float(fresh.totals[terms.key]["*"].epsilon) == 0.7
    twice = decide([charge("b", 0.3), charge("b", 0.2)], {}, account, 5.0)
    assert (twice.new, list(twice.refused)) == ([], ["b"])


def test_what_is_released_is_not_taken_back():
    known = {state: charge(state, state=state) for state in ("reserved", "released", "void")}
    assert settled(["reserved", "released", "reserved"], known, "released") == [known["reserved"]]
    assert settled(["reserved", "void"], known, "void") == [known["reserved"]]
    for ids, state, words in [
        (["released"], "void", "is released, and cannot be void"),
        (["void"], "released", "is void, and cannot be released"),
        (["reserved", "x"], "released", "'x' is unknown"),
    ]:
        with pytest.raises(PrivacyError, match=words):
            settled(ids, known, state)


def test_a_budget_is_fixed_when_it_is_opened():
    there = budget(2.0, opened=7.0)
    assert reopened(there, budget(2.0, opened=9.0)) is there
    for other in (budget(3.0), budget(2.0, 1e-6), budget(2.0, 1e-6, "zcdp"), budget(2.0, parts=("a",))):
        with pytest.raises(PrivacyError, match=r"epsilon 2, delta 0\), as it was opened"):
            reopened(there, other)


numbers = st.floats(1e-9, 0.6, exclude_min=True) | st.sampled_from([1e-3, 0.1, 0.25, 1 / 3])
asked = st.tuples(numbers, numbers, st.sampled_from(["*", "a", "b"]), st.booleans())


@given(st.lists(asked, max_size=40), st.sampled_from(["pure", "zcdp"]))
def test_whatever_is_asked_for_the_cap_holds_and_is_used(wishes, composition):
    """Reckoned apart, in fractions: what is admitted fits, and what is refused would not have."""
    terms = budget(1.5, 0.01, composition, parts=("a", "b"))
    number = "rho" if composition == "zcdp" else "epsilon"
    cap = written(rho_of(1.5, 0.01) if composition == "zcdp" else 1.5) * (1 + Fraction(1, 10**12))
    charges = [
        charge(str(n), epsilon, 0.0 if pure else rho, part=part)
        for n, (epsilon, rho, part, pure) in enumerate(wishes)
    ]
    new, refused, account = granted(Account(terms, {}), charges)
    taken: list[Charge] = []
    for one in charges:
        after = reckoned([*taken, one], number)
        assert (one.id in refused) == (after > cap)
        taken += [] if one.id in refused else [one]
    assert account.totals == totals(terms, new)
    assert 0 <= account.spent.fraction <= 1 + 1e-12
