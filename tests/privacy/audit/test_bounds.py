from math import exp, lgamma, log, log1p

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.audit import bounds

COUNTS = st.integers(1, 60).flatmap(lambda r: st.tuples(st.integers(0, r), st.just(r), st.integers(r, 200)))


def mass(n, k, p):
    return exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(p) + (n - k) * log1p(-p))


@pytest.mark.parametrize("guesses", [20, 100, 1000])
def test_guesses_that_are_all_right_have_a_closed_form(guesses):
    # Without delta the p-value is q^r with q = 1 / (1 + e^-epsilon), so the bound is the logit of alpha^(1/r).
    q = 0.05 ** (1 / guesses)
    assert bounds.lower_bound(guesses, guesses, guesses, 0.0) == pytest.approx(log(q / (1 - q)), abs=1e-9)


def test_a_hundred_right_guesses_of_five_hundred_canaries():
    # Found in published audits that run the authors' code: m = 500, r = v = 100, delta = 1e-5.
    assert bounds.lower_bound(100, 100, 500, 1e-5) == pytest.approx(3.4791953936219215, abs=1e-8)


@given(COUNTS, st.sampled_from([0.0, 1e-6, 1e-4, 1e-2]))
def test_the_p_value_is_the_theorem_s(counts, delta):
    correct, guesses, total = counts
    bound = bounds.lower_bound(guesses, correct, total, delta)
    q = 1 / (1 + exp(-bound))
    tail = sum(mass(guesses, k, q) for k in range(correct, guesses + 1))
    worst = max(
        (sum(mass(guesses, k, q) for k in range(correct - i, correct)) / i for i in range(1, correct + 1)),
        default=0.0,
    )
    p = tail + 2 * total * delta * worst
    # Where something is proved, the p-value at the bound is the level; where nothing is, even epsilon 0 is likely.
    assert p == pytest.approx(0.05, abs=1e-6) if bound else p > 0.05


@pytest.mark.parametrize(("canaries", "epsilon"), [(50, 0.5), (50, 2.0), (400, 1.0), (400, 4.0)])
def test_the_bound_is_wrong_as_often_as_it_says_and_no_oftener(canaries, epsilon):
    # Randomised response answers each coin rightly with probability 1 / (1 + e^-epsilon): the worst that is epsilon-DP.
    q = 1 / (1 + exp(-epsilon))
    wrong = sum(
        mass(canaries, v, q)
        for v in range(canaries + 1)
        if bounds.lower_bound(canaries, v, canaries, 0.0) > epsilon
    )
    assert 0.005 < wrong <= 0.05


@given(COUNTS)
def test_more_right_guesses_prove_more_and_a_larger_delta_proves_less(counts):
    correct, guesses, total = counts
    bound = bounds.lower_bound(guesses, correct, total, 1e-5)
    assert bound <= bounds.lower_bound(guesses, correct, total, 0.0)
    assert bound >= bounds.lower_bound(guesses, correct, total, 1e-5, 0.99)
    if correct:
        assert bound >= bounds.lower_bound(guesses, correct - 1, total, 1e-5)


def test_limits_of_a_proportion_are_clopper_and_pearson_s():
    # All of n: the lower limit is (alpha/2)^(1/n). One half of 20: tables have 0.2720 to 0.7280. 4 of 20: 0.0573 to 0.4366.
    assert bounds.proportion(0, 10) == pytest.approx((0.0, 1 - 0.025 ** (1 / 10)), abs=1e-9)
    assert bounds.proportion(10, 10) == pytest.approx((0.025 ** (1 / 10), 1.0), abs=1e-9)
    assert bounds.proportion(10, 20) == pytest.approx((0.2720, 0.7280), abs=5e-5)
    assert bounds.proportion(4, 20) == pytest.approx((0.0573, 0.4366), abs=5e-5)


def test_rates_bound_epsilon_from_both_sides():
    # 100 of 100 against 0 of 100: log of the ratio of the two limits.
    low = 0.025 ** (1 / 100)
    assert bounds.rates(100, 100, 0, 100, 0.0) == pytest.approx(log(low / (1 - low)), abs=1e-9)
    # Few false alarms prove by accusing; few misses prove by acquitting.
    assert bounds.rates(20, 1000, 0, 1000, 0.0) == pytest.approx(
        bounds.rates(1000, 1000, 980, 1000, 0.0), abs=1e-9
    )
    assert bounds.rates(50, 100, 50, 100, 0.0) == 0.0
    assert bounds.rates(100, 100, 0, 100, 0.1) < bounds.rates(100, 100, 0, 100, 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bounds.lower_bound(10, 11, 20, 0.0), "11 of 10"),
        (lambda: bounds.lower_bound(30, 10, 20, 0.0), "10 of 30"),
        (lambda: bounds.lower_bound(0, 0, 0, 0.0), "0 of 0"),
        (lambda: bounds.lower_bound(10, 5, 10, 1.0), "delta is 1"),
        (lambda: bounds.lower_bound(10, 5, 10, float("nan")), "delta is nan"),
        (lambda: bounds.lower_bound(10, 5, 10, 0.0, 1.0), "confidence is 1"),
        (lambda: bounds.proportion(3, 2), "3 of 2"),
        (lambda: bounds.rates(1, 2, 3, 2, 0.0), "3 of 2"),
    ],
)
def test_impossible_counts_are_refused(call, message):
    with pytest.raises(PrivacyError, match=message):
        call()
