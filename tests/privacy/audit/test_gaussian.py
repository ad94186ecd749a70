from math import erf, exp, lgamma, log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.audit import gaussian


@pytest.mark.parametrize(
    ("mu", "delta", "epsilon"),
    [
        (1.0, 1e-5, 4.3772),  # dp-accounting 0.6.0, PLD: sigma 1, one release
        (10 / 4, 1e-5, 13.2067),  # sigma 4, 100 releases
        (sqrt(50) / 8, 1e-5, 3.7965),  # sigma 8, 50 rounds of everyone
        (1 / 3.7306, 1e-5, 1.0),  # the noise for epsilon 1
    ],
)
def test_epsilon_is_the_accountant_s(mu, delta, epsilon):
    assert gaussian.epsilon_of(mu, delta) == pytest.approx(epsilon, abs=1e-4)


@given(st.floats(0.01, 60), st.floats(1e-12, 0.4))
def test_epsilon_is_the_inverse_of_delta(mu, delta):
    epsilon = gaussian.epsilon_of(mu, delta)
    if epsilon > 0:
        assert gaussian.delta_of(mu, epsilon) == pytest.approx(delta, rel=1e-5)
    else:
        # Total variation distance of the two bells.
        assert erf(mu / 2 / sqrt(2)) <= delta * (1 + 1e-9)


def test_delta_at_zero_is_the_distance_of_the_two_bells():
    for mu in (0.1, 1.0, 5.0):
        assert gaussian.delta_of(mu, 0.0) == pytest.approx(erf(mu / 2 / sqrt(2)), rel=1e-12)


def test_the_far_tail_continues_the_near_one():
    below, above = gaussian._log_tail(30 - 1e-9), gaussian._log_tail(30 + 1e-9)
    assert above == pytest.approx(below, abs=1e-6)
    assert gaussian._log_tail(-50.0) == 0.0


@pytest.mark.parametrize("mu", [0.3, 0.9, 2.0, 3.5])
@pytest.mark.parametrize("share", [1.0, 0.4])
def test_the_bound_is_wrong_no_oftener_than_it_says(mu, share):
    """Each of m coins is seen through N(mu coin, 1), and the surest of them are guessed at."""
    m, rng = 200, np.random.default_rng(0)
    half = round(m * share / 2)
    wrong = 0
    for _ in range(400):
        coins = rng.random(m) < 0.5
        order = np.argsort(rng.standard_normal(m) + mu * coins)
        correct = int(coins[order[-half:]].sum() + (~coins[order[:half]]).sum())
        wrong += gaussian._refuted(mu, 2 * half, correct, m, 0.05)
    # 400 trials at 5 %: 20 expected at most, and 33 have a probability of 0.3 %.
    assert wrong < 33


@pytest.mark.parametrize("mu", [0.5, 1.0, 2.0])
def test_guessing_at_every_coin_is_wrong_no_oftener_than_it_says(mu):
    # Right guesses are independent with probability Phi(mu / 2), the best there is: no simulation is needed.
    m, q = 300, 0.5 * (1 + erf(mu / 2 / sqrt(2)))
    ways = [lgamma(m + 1) - lgamma(v + 1) - lgamma(m - v + 1) for v in range(m + 1)]
    mass = [exp(w + v * log(q) + (m - v) * log(1 - q)) for v, w in enumerate(ways)]
    assert sum(p for v, p in enumerate(mass) if gaussian._refuted(mu, m, v, m, 0.05)) <= 0.05


@given(st.integers(1, 80).flatmap(lambda c: st.tuples(st.integers(1, c), st.just(c))))
def test_more_right_guesses_prove_more(counts):
    correct, guesses = counts
    bound = gaussian.lower_bound(guesses, correct, 100)
    assert bound >= gaussian.lower_bound(guesses, correct - 1, 100)
    assert bound >= gaussian.lower_bound(guesses, correct, 100, 0.99)
    if bound:
        assert gaussian._refuted(bound * 0.999, guesses, correct, 100, 0.05)
        assert not gaussian._refuted(bound * 1.001, guesses, correct, 100, 0.05)


def test_chance_proves_nothing_and_certainty_much():
    assert gaussian.lower_bound(1000, 500, 1000) == 0.0
    assert gaussian.lower_bound(0, 0, 1000) == 0.0
    # Steinke's bound for epsilon at delta 1e-5 stops at 4.7 here.
    assert gaussian.epsilon_of(gaussian.lower_bound(500, 500, 1000, 0.9875), 1e-5) > 8


@pytest.mark.parametrize(("mu", "delta"), [(-1.0, 1e-5), (float("nan"), 1e-5), (1.0, 0.0), (1.0, 1.0)])
def test_impossible_numbers_are_refused(mu, delta):
    with pytest.raises(PrivacyError, match="mu is"):
        gaussian.epsilon_of(mu, delta)
