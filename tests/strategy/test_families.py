import numpy as np
import pytest
from scipy import stats

from haina.errors import StrategyError
from haina.strategy.families import FAMILIES, family

OUTCOMES = {"gaussian": [-1.5, 0.0, 3.0], "binomial": [0.0, 1.0, 1.0], "poisson": [0.0, 1.0, 7.0]}
ETA = np.array([-1.2, 0.3, 2.0])


@pytest.mark.parametrize("name", FAMILIES)
def test_link_and_mean_are_inverse_and_variance_is_the_slope_of_the_mean(name):
    law, h = FAMILIES[name], 1e-6
    mu = law.mean(ETA)
    assert [law.link(m) for m in mu] == pytest.approx(ETA, rel=1e-12)
    slope = (law.mean(ETA + h) - law.mean(ETA - h)) / (2 * h)
    assert law.variance(mu) == pytest.approx(slope, rel=1e-8)


@pytest.mark.parametrize("name", FAMILIES)
def test_deviance_is_twice_the_distance_to_the_saturated_log_likelihood(name):
    law, y = FAMILIES[name], np.array(OUTCOMES[name])
    mu = law.mean(ETA)
    likelihood = {
        "gaussian": lambda m: stats.norm.logpdf(y, m),
        "binomial": lambda m: stats.bernoulli.logpmf(y.astype(int), m),
        "poisson": lambda m: stats.poisson.logpmf(y, m),
    }[name]
    saturated = likelihood(y).sum()
    assert law.deviance(y, ETA) == pytest.approx(2 * (saturated - likelihood(mu).sum()), rel=1e-12)
    if not law.dispersed:
        assert law.saturated(y) == pytest.approx(saturated, abs=1e-12)


@pytest.mark.parametrize("name", FAMILIES)
def test_absurd_predictors_give_finite_numbers(name):
    law, y = FAMILIES[name], np.array([0.0, 1.0])
    for eta in (np.array([1e6, -1e6]), np.array([-1e6, 1e6])):
        mu = law.mean(eta)
        assert np.isfinite([law.deviance(y, eta), *mu, *law.variance(mu)]).all()


def test_near_perfect_fits_keep_their_digits():
    assert FAMILIES["binomial"].deviance(np.array([1.0]), np.array([40.0])) == pytest.approx(
        2 * np.exp(-40.0), rel=1e-12
    )


def test_outcomes_that_are_allowed():
    y = np.array([0.0, 1.0, 0.5, -1.0, np.inf, np.nan])
    assert FAMILIES["binomial"].allows(y).tolist() == [True, True, False, False, False, False]
    assert FAMILIES["poisson"].allows(y).tolist() == [True, True, True, False, False, False]
    assert FAMILIES["gaussian"].allows(y).tolist() == [True, True, True, True, False, False]


def test_an_unknown_family_is_refused():
    with pytest.raises(StrategyError, match="gaussian, binomial, poisson"):
        family("gamma")
