import json
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.audit import bounds, finding, gaussian
from haina.privacy.audit.finding import Estimate, Finding

DELTA = 1e-5


def seen(mu, m=1000, seed=0):
    """Scores of canaries through noise of a mu-Gaussian-DP mechanism, and the coins."""
    rng = np.random.default_rng(seed)
    coins = rng.random(m) < 0.5
    return rng.standard_normal(m) * 7 + 7 * mu * coins - 3, coins


def test_the_prototype_s_bound_is_found_again():
    # research/privacy.md, section 6: sigma 8, 50 rounds, 1000 canaries; a correct run shows 0.96, noise 4x too small 4.08 of at most 4.68.
    correct = [finding.bound(*seen(sqrt(50) / 8, seed=seed), DELTA) for seed in range(5)]
    assert 0.5 < np.median(correct) < 1.6
    small = [finding.bound(*seen(4 * sqrt(50) / 8, seed=seed), DELTA) for seed in range(5)]
    assert 3.9 < min(small) <= max(small) <= finding.reach(1000, DELTA)


@pytest.mark.parametrize("mu", [0.3, 0.9, 2.0])
def test_the_estimate_is_near_and_its_ends_hold_the_truth(mu):
    truth = gaussian.epsilon_of(mu, DELTA)
    found = [finding.estimate(*seen(mu, seed=seed), DELTA) for seed in range(100)]
    assert np.median([one.epsilon for one in found]) == pytest.approx(truth, rel=0.05)
    # Three standard errors: 0.3 in a hundred fall outside.
    assert sum(not one.low <= truth <= one.high for one in found) <= 2


@pytest.mark.parametrize("claim", ["any", "gaussian"])
def test_a_mechanism_that_keeps_its_claim_is_refuted_no_oftener_than_was_said(claim):
    mu = 1.5
    claimed = gaussian.epsilon_of(mu, DELTA)
    found = [finding.judge(*seen(mu, 300, seed), claimed, DELTA, claim) for seed in range(60)]
    # 60 audits at 95 %: 3 expected at most, 9 have a probability of 0.3 %. The alarm is rarer still.
    assert sum(one.verdict == "violated" for one in found) < 9
    assert sum(one.alarm for one in found) <= 1


@pytest.mark.parametrize("mu", [1.0, 1.8, 2.5])
def test_the_curve_of_a_gaussian_mechanism_proves_more_than_a_point(mu):
    scores, coins = seen(mu)
    point, curve = (finding.bound(scores, coins, DELTA, claim) for claim in ("any", "gaussian"))
    assert point < curve < gaussian.epsilon_of(mu, DELTA)
    assert finding.reach(1000, DELTA, "gaussian") > 1.5 * finding.reach(1000, DELTA)
    # At a large delta a point proves next to nothing, however many canaries.
    assert finding.reach(10_000, 1e-3) < 2 < finding.bound(scores, coins, 1e-3, "gaussian") + 1


@given(st.integers(8, 300), st.integers(0, 2**32), st.sampled_from([0.0, 1e-5]))
def test_no_bound_is_beyond_its_reach_and_the_best_of_several_is_paid_for(m, seed, delta):
    rng = np.random.default_rng(seed)
    coins = rng.random(m) < 0.5
    assert finding.bound(coins.astype(float), coins, delta) <= finding.reach(m, delta)
    assert finding.reach(m, delta) < bounds.lower_bound(m, m, m, 0.0)


def test_scores_that_tell_nothing_prove_nothing():
    rng = np.random.default_rng(3)
    found = finding.judge(rng.standard_normal(1000), rng.random(1000) < 0.5, 1.0, DELTA)
    assert found.lower_bound < 0.2
    assert found.estimate.low == 0.0
    assert (found.verdict, found.alarm) == ("holds", False)


def test_the_words():
    def word(claimed, bound, reach):
        return Finding(claimed, DELTA, None, bound, reach, 0.95, 100).verdict

    assert word(3.0, 1.0, 4.0) == "holds"
    assert word(3.0, 3.1, 4.0) == "violated"
    assert word(3.0, 2.0, 2.5) == "not enough canaries to tell"
    assert word(3.0, 3.0, 3.0) == "not enough canaries to tell"
    assert word(inf, 4.0, 4.0) == "nothing is promised"


def test_the_alarm_is_the_lower_end_of_the_estimate():
    assert Finding(3.0, DELTA, Estimate(4.0, 3.1, 5.0), 0, 9, 0.95, 100).alarm
    assert not Finding(3.0, DELTA, Estimate(4.0, 2.9, 5.0), 0, 9, 0.95, 100).alarm
    assert not Finding(3.0, DELTA, None, 0, 9, 0.95, 100).alarm


def test_a_finding_is_plain_json():
    found = finding.judge(*seen(0.9), inf, DELTA)
    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert told["claimed"] is None
    assert told["verdict"] == "nothing is promised"
    assert told["estimate_low"] < told["estimate"] < told["estimate_high"]
    assert (told["canaries"], told["confidence"], told["alarm"]) == (1000, 0.95, False)


@pytest.mark.parametrize(
    ("scores", "coins", "claimed", "message"),
    [
        (np.zeros(4), np.ones(4, bool), 1.0, "4 canaries are in and 0 out"),
        (np.zeros(4), np.array([1, 1, 0, 0], bool), 1.0, "score the same"),
        (np.zeros(4), np.ones(3, bool), 1.0, "shape"),
        (np.zeros(4), np.ones(4), 1.0, "float64"),
        (np.array([np.nan] * 4), np.array([1, 1, 0, 0], bool), 1.0, "not a finite"),
        (np.arange(4.0), np.array([1, 1, 0, 0], bool), 0.0, "epsilon is 0"),
        (np.arange(4.0), np.array([1, 1, 0, 0], bool), float("nan"), "epsilon is nan"),
    ],
)
def test_what_cannot_be_judged_is_refused(scores, coins, claimed, message):
    with pytest.raises(PrivacyError, match=message):
        finding.judge(scores, coins, claimed, DELTA)
