import subprocess
import sys
from math import exp, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.accounting import (
    EVERYONE,
    Releases,
    Sampling,
    advanced,
    calibrated,
    distributed_rho,
    epsilon,
    epsilon_of,
    epsilon_of_schedule,
    jointly,
    rho_of,
)
from haina.privacy.mechanisms import DiscreteGaussian, DiscreteLaplace, Gaussian, Laplace

pytest.importorskip("dp_accounting")


def poisson(rate, **cut):
    return Sampling("poisson", rate, **cut)


#: privacy.md, section 4: mechanism and schedule, delta, epsilon by PLD and by RDP; None where the accountant does not know it.
POINTS = {
    "Laplace b=2, 1": ([Releases(Laplace(1 / 2))], 1e-6, 0.5000, 0.5051),
    "Laplace b=2, 10": ([Releases(Laplace(1 / 2), 10)], 1e-6, 4.9990, 4.9990),
    "Laplace b=20, 100": ([Releases(Laplace(1 / 20), 100)], 1e-6, 2.1933, 2.3423),
    "Laplace b=2, q=0.1, 100": ([Releases(Laplace(1 / 2), 100, poisson(0.1))], 1e-6, 2.1434, None),
    "Gaussian 1, 1": ([Releases(Gaussian(1.0))], 1e-5, 4.3772, 4.7285),
    "Gaussian 4, 100": ([Releases(Gaussian(4.0), 100)], 1e-5, 13.2067, 14.1322),
    "q=0.01 4, 10,000": ([Releases(Gaussian(4.0), 10_000, poisson(0.01))], 1e-5, 0.9470, 1.0355),
    "q=256/60000 1.1, 14,062": (
        [Releases(Gaussian(1.1), 14_062, poisson(256 / 60_000))],
        1e-5,
        2.3817,
        2.5966,
    ),
    "q=0.01 1, 1,000": ([Releases(Gaussian(1.0), 1000, poisson(0.01))], 1e-6, 2.1245, 2.4367),
    "the same, cut at 150 of 10,000": (
        [Releases(Gaussian(1.0), 1000, poisson(0.01, population=10_000, cohort=150))],
        1e-6,
        2.1378,
        None,
    ),
    "q=0.1 1, 100": ([Releases(Gaussian(1.0), 100, poisson(0.1))], 1e-5, 7.0466, 7.9039),
    "8, 50": ([Releases(Gaussian(8.0), 50)], 1e-5, 3.7965, 4.1057),
    "50 of q=0.1 2 and 5 of Laplace b=10": (
        [Releases(Gaussian(2.0), 50, poisson(0.1)), Releases(Laplace(1 / 10), 5)],
        1e-5,
        1.8497,
        2.0460,
    ),
    "1 and 10 in each of 200 rounds, q=0.05": (
        [Releases(Gaussian(jointly([1.0, 10.0])), 200, poisson(0.05))],
        1e-5,
        4.8138,
        5.4237,
    ),
    "discrete 8, 100": ([Releases(DiscreteGaussian(8.0), 100)], 1e-5, 5.6846, None),
}


@pytest.mark.parametrize(("schedule", "delta", "by_pld", "by_rdp"), POINTS.values(), ids=POINTS)
def test_the_published_points(schedule, delta, by_pld, by_rdp):
    assert epsilon_of_schedule(schedule, delta) == pytest.approx(by_pld, abs=1e-3)
    if by_rdp is not None:
        assert epsilon_of_schedule(schedule, delta, "rdp") == pytest.approx(by_rdp, abs=1e-3)


def test_the_published_point_of_a_fixed_cohort():
    # There the library is told 2 for one client against another: std is 2 times the distance of two clients, which is 4 times the bound of each.
    fixed = Sampling("fixed", population=1000, cohort=100)
    assert epsilon(Gaussian(4.0), 100, 1e-5, fixed) == pytest.approx(5.3790, abs=1e-3)
    assert epsilon(Gaussian(4.0), 100, 1e-5, fixed, "rdp") == epsilon(Gaussian(4.0), 100, 1e-5, fixed)


def test_the_published_noise_for_epsilon_one():
    assert calibrated("gaussian", 1.0, 1e-5, 1).noise_multiplier == pytest.approx(3.7306, abs=1e-3)


def test_the_published_values_of_advanced_composition():
    assert advanced(0.05, 100, 1e-6) == pytest.approx(2.885, abs=1e-3)
    # For ten strong releases it is no better than to add them up.
    assert advanced(0.5, 10, 1e-6) == pytest.approx(sqrt(20 * log(1e6)) * 0.5 + 5 * (exp(0.5) - 1), abs=1e-9)
    assert advanced(0.5, 10, 1e-6) > 5 > epsilon(Laplace(0.5), 10, 1e-6)


def test_several_releases_about_the_same_clients_are_one():
    assert jointly([1.0, 10.0]) == pytest.approx(0.99504, abs=1e-5)
    # Andrew et al. 2021: z_delta = (z^-2 - (2 sigma_b)^-2)^(-1/2) on the vectors, 2 sigma_b on the bits.
    z, bits = 1.5, 20.0
    assert jointly([(z**-2 - bits**-2) ** -0.5, bits]) == pytest.approx(z)


def test_one_gaussian_is_as_its_closed_form_says():
    # Balle & Wang 2018, theorem 8.
    from scipy.stats import norm

    for z in (0.7, 2.0, 9.0):
        for delta in (1e-3, 1e-8):
            e = epsilon(Gaussian(z), 1, delta)
            exact = norm.cdf(0.5 / z - e * z) - exp(e) * norm.cdf(-0.5 / z - e * z)
            assert exact <= delta * (1 + 1e-6)
            below = e - 1e-3
            assert norm.cdf(0.5 / z - below * z) - exp(below) * norm.cdf(-0.5 / z - below * z) > delta


def test_discrete_laplace_is_accounted_as_randomised_response():
    # k of n answers flipped: the exact sum over binomials.
    from math import comb

    e0, n = 0.3, 20
    p = exp(e0) / (1 + exp(e0))

    def delta(e):
        return sum(
            comb(n, k) * max(0.0, p ** (n - k) * (1 - p) ** k - exp(e) * p**k * (1 - p) ** (n - k))
            for k in range(n + 1)
        )

    got = epsilon(DiscreteLaplace(e0), n, 1e-4)
    assert delta(got) <= 1e-4 <= delta(got - 0.01)
    assert epsilon(Laplace(e0), n, 1e-4) < got


def test_a_vector_of_laplace_numbers_is_no_worse_than_one():
    # A change of L1 norm 1 in one coordinate, or in parts in several: the profile of the first lies above.
    from dp_accounting.pld import privacy_loss_distribution as pld

    for whole in (0.3, 1.0, 3.0):
        one = pld.from_laplace_mechanism(1 / whole)
        for parts in ((0.5, 0.5), (0.9, 0.1), (0.4, 0.3, 0.3), (0.1,) * 10):
            many = pld.identity()
            for part in parts:
                many = many.compose(pld.from_laplace_mechanism(1 / (whole * part)))
            for e in np.linspace(0, whole, 9):
                assert many.get_delta_for_epsilon(e) <= one.get_delta_for_epsilon(e) + 1e-4


def test_discrete_gaussian_noise_costs_no_less_than_real_noise_or_than_on_counts():
    for z, rounds in ((8.0, 100), (2.0, 10), (1.0, 1)):
        assert epsilon(DiscreteGaussian(z), rounds, 1e-5) >= epsilon(Gaussian(z), rounds, 1e-5)
    mixed = [Releases(DiscreteGaussian(2.0), 10), Releases(Laplace(0.1), 5)]
    assert epsilon_of_schedule(mixed, 1e-5) > epsilon(DiscreteGaussian(2.0), 10, 1e-5)


def test_nothing_released_costs_nothing():
    assert epsilon(Gaussian(1.0), 0, 1e-5) == 0
    assert epsilon_of_schedule([], 1e-5) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "target", "delta", "rounds", "sampling"),
    [
        ("gaussian", 8.0, 1e-5, 200, poisson(0.05)),
        ("gaussian", 2.0, 1e-6, 1000, poisson(0.01)),
        ("gaussian", 0.1, 1e-6, 10, EVERYONE),
        ("gaussian", 4.0, 1e-5, 100, Sampling("fixed", population=1000, cohort=100)),
        ("gaussian", 2.0, 1e-6, 100, poisson(0.01, population=10_000, cohort=150)),
        ("discrete_gaussian", 8.0, 1e-3, 30, EVERYONE),
        ("laplace", 2.0, 1e-6, 100, EVERYONE),
        ("laplace", 0.5, 1e-6, 1, EVERYONE),
        ("laplace", 1.0, 1e-6, 100, poisson(0.1)),
        ("discrete_laplace", 2.0, 1e-6, 100, EVERYONE),
    ],
)
def test_calibrated_noise_keeps_its_promise_and_is_hardly_more_than_enough(
    kind, target, delta, rounds, sampling
):
    mechanism = calibrated(kind, target, delta, rounds, sampling)
    assert epsilon(mechanism, rounds, delta, sampling) <= target
    setting = mechanism.epsilon if "laplace" in kind else 1 / mechanism.noise_multiplier
    weaker = type(mechanism)(setting * 1.002 if "laplace" in kind else 1 / (setting * 1.002))
    assert epsilon(weaker, rounds, delta, sampling) > target * 0.9999


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: epsilon(Gaussian(1.0), 1, 0.0), "delta is 0.0"),
        (lambda: epsilon(Gaussian(1.0), 1, 1.0), "delta is 1.0"),
        (lambda: epsilon(Gaussian(1.0), -1, 1e-5), "negative number of rounds"),
        (lambda: epsilon(Gaussian(1.0), 1, 1e-5, method="moments"), "accountant is 'moments'"),
        (
            lambda: epsilon(Laplace(1.0), 1, 1e-5, Sampling("fixed", population=10, cohort=2)),
            "not known for Laplace noise",
        ),
        (lambda: epsilon(Laplace(1.0), 1, 1e-5, poisson(0.1), "rdp"), "not known for Laplace noise"),
        (lambda: epsilon(DiscreteLaplace(1.0), 1, 1e-5, method="rdp"), "not known for DiscreteLaplace"),
        (
            lambda: epsilon(DiscreteGaussian(1.0), 1, 1e-5, poisson(0.1, population=9, cohort=2)),
            "cut to a size",
        ),
        (
            lambda: epsilon_of_schedule(
                [
                    Releases(Gaussian(1.0), 1, Sampling("fixed", population=9, cohort=2)),
                    Releases(Gaussian(1.0)),
                ],
                1e-5,
            ),
            "one kind, as they compare different things",
        ),
        (lambda: Sampling("often"), "sampling is 'often'"),
        (lambda: Sampling("poisson", 0.0), "rate of sampling is 0.0"),
        (lambda: Sampling("poisson", 1.5), "rate of sampling is 1.5"),
        (lambda: Sampling("fixed"), "no size"),
        (lambda: Sampling("fixed", population=3, cohort=4), "cohort of 4 is drawn from 3"),
        (lambda: calibrated("uniform", 1.0, 1e-5, 1), "mechanism is 'uniform'"),
        (lambda: calibrated("gaussian", float("inf"), 1e-5, 1), "epsilon is inf"),
        (lambda: calibrated("gaussian", 1.0, 1e-5, 0), "0 rounds"),
        (lambda: epsilon_of(-1.0, 1e-5), "rho is -1"),
        (lambda: rho_of(0.0, 1e-5), "epsilon is 0"),
        (lambda: distributed_rho(0.0, 3.0, 3, 5), "sensitivity 0"),
    ],
)
def test_what_cannot_be_accounted_for_is_refused(call, words):
    with pytest.raises(PrivacyError, match=words):
        call()


# ---------------------------------------------------------------------------------------------- zCDP


@given(st.floats(1e-9, 1e4), st.floats(1e-12, 0.3))
def test_the_conversion_of_zcdp_is_the_best_over_all_orders(rho, delta):
    alpha = 1 + np.geomspace(1e-6, 1e9, 40_001)
    dense = alpha * rho + np.log1p(-1 / alpha) + (log(1 / delta) - np.log(alpha)) / (alpha - 1)
    got = epsilon_of(rho, delta)
    assert got <= max(0.0, dense.min()) + 1e-12
    assert got >= max(0.0, dense.min()) * (1 - 1e-5) - 1e-9
    # Bun & Steinke 2016, proposition 1.3, is weaker.
    assert got <= rho + 2 * sqrt(rho * log(1 / delta))


@given(st.floats(1e-4, 100), st.floats(1e-12, 0.1))
def test_rho_of_is_the_inverse_on_the_safe_side(epsilon, delta):
    rho = rho_of(epsilon, delta)
    assert epsilon_of(rho, delta) <= epsilon
    assert epsilon_of(rho * (1 + 1e-9) + 1e-300, delta) >= epsilon * (1 - 1e-6)


def test_zcdp_of_gaussian_rounds_is_near_what_renyi_orders_give():
    # 100 rounds of sigma 4: rho = 3.125. RDP with its fixed orders is a little above.
    assert epsilon_of(100 * Gaussian(4.0).cost().rho, 1e-5) == pytest.approx(14.1322, abs=0.01)
    assert epsilon(Gaussian(4.0), 100, 1e-5) < epsilon_of(3.125, 1e-5) <= 14.1322 + 1e-4


def test_the_rounds_that_a_budget_pays_for():
    # privacy.md, section 5, at epsilon 4 and delta 1e-6: 45 rounds of Laplace noise, or of Gaussian noise of equal variance 130 with a looser
    # conversion.
    z = sqrt(2) / (4.0 / 45)
    assert int(rho_of(4.0, 1e-6) / Gaussian(z).cost().rho) == 157


@given(st.floats(0.5, 1e5), st.floats(3, 100), st.integers(1, 500), st.integers(1, 10**6))
@settings(max_examples=50)
def test_distributed_noise_costs_what_one_draw_does(sensitivity, sigma, parties, dimension):
    whole = sensitivity**2 / (2 * parties * sigma**2)
    rho = distributed_rho(sensitivity, sigma, parties, dimension)
    assert whole * (1 - 1e-12) <= rho <= whole * (1 + 1e-12) + 1e-9


def test_distributed_noise_of_too_small_parts_is_refused():
    with pytest.raises(PrivacyError, match=r"sigma 1, .* Take a finer grid"):
        distributed_rho(10.0, 1.0, 100, 1000)
    with pytest.raises(PrivacyError, match=r"sigma 0.3"):
        distributed_rho(10.0, 0.3, 1, 1000)
    assert distributed_rho(10.0, 2.5, 100, 1000) == pytest.approx(100 / (2 * 100 * 6.25))


def test_the_accountant_is_imported_when_it_is_asked():
    code = "import sys, haina.privacy.accounting as a; a.rho_of(1.0, 1e-5); assert not {'dp_accounting', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
