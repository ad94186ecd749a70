from decimal import Decimal, localcontext
from fractions import Fraction
from math import exp, log, pi, sqrt

import numpy as np
import pytest
from goodness import fit, gaussian_pmf, laplace_pmf, rounded_laplace_pmf
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest, laplace

from haina.errors import PrivacyError
from haina.privacy.grid import Grid
from haina.privacy.mechanisms import (
    MECHANISMS,
    Cost,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    Laplace,
    laplace_scalar,
    release,
)
from haina.privacy.stream import Stream

KEY = bytes(range(32))
KINDS = [Gaussian, DiscreteGaussian, Laplace, DiscreteLaplace]
N = 1_000_000


def cells(draws, reach):
    return np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)


def test_each_kind_is_scaled_by_the_sensitivity():
    stream = Stream.derived(KEY, "kinds")
    for mechanism, sensitivity, pmf in [
        (DiscreteGaussian(0.5), 6.0, gaussian_pmf(3.0, 30)),
        # The real Gaussian's variance and 4 units^2 for the rounding.
        (Gaussian(0.5), 6.0, gaussian_pmf(sqrt(13), 30)),
        (DiscreteLaplace(0.5), 2.0, laplace_pmf(4.0, 100)),
        (Laplace(0.5), 2.0, rounded_laplace_pmf(4.0, 100)),
    ]:
        draws = mechanism.noise(N, sensitivity, stream)
        assert draws.dtype == np.int64
        assert fit(cells(draws, len(pmf) // 2), pmf) > 1e-3, mechanism
        assert np.abs(draws).max() <= mechanism.tail(sensitivity)
    assert Gaussian(2.0).std(3.0) == DiscreteGaussian(2.0).std(3.0) == 6.0
    assert Laplace(0.5).std(1.0) == DiscreteLaplace(0.5).std(1.0) == pytest.approx(sqrt(8))
    assert [kind.norm for kind in KINDS] == [2, 2, 1, 1]


@pytest.mark.parametrize("kind", [Gaussian, DiscreteGaussian])
@pytest.mark.parametrize("parties", [2, 10])
def test_the_parties_noises_add_up_to_the_whole(kind, parties):
    mechanism, stream = kind(1.0), Stream.derived(KEY, f"parties {parties}")
    total = sum(mechanism.noise(N, 10.0, stream, parties) for _ in range(parties))
    variance = 100 + 4 * (kind is Gaussian)
    assert fit(cells(total, 70), gaussian_pmf(sqrt(variance), 70)) > 1e-3
    part = mechanism.noise(N, 10.0, stream, parties)
    assert part.var() == pytest.approx(variance / parties, rel=0.01)
    assert np.abs(part).max() <= mechanism.tail(10.0, parties) < mechanism.tail(10.0)


@pytest.mark.parametrize("kind", [Laplace, DiscreteLaplace])
def test_laplace_noise_is_not_made_in_parts(kind):
    for ask in (lambda m: m.noise(3, 1.0, Stream(KEY), 2), lambda m: m.tail(1.0, 2)):
        with pytest.raises(PrivacyError, match="discrete_gaussian"):
            ask(kind(1.0))


def test_parties_whose_noises_would_not_add_up_to_one_are_refused():
    # Of the distance 10 exp(-pi^2 sigma^2) and more, over a million coordinates.
    with pytest.raises(
        PrivacyError, match=r"one of 100 parties has a standard deviation of 1 units.* finer grid"
    ):
        DiscreteGaussian(1.0).noise(10**6, 10.0, Stream(KEY), 100)
    DiscreteGaussian(1.0).noise(10**6, 30.0, Stream(KEY), 100)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 3.0])
def test_laplace_noise_keeps_its_epsilon_for_every_shift_within_the_sensitivity(epsilon):
    sensitivity, reach = 5, 400
    scale = sensitivity / epsilon
    for pmf in (laplace_pmf(scale, reach), rounded_laplace_pmf(scale, reach)):
        for shift in range(1, sensitivity + 1):
            ratio = np.log(pmf[shift:] / pmf[:-shift])
            assert np.abs(ratio).max() <= epsilon * (1 + 1e-9)
    # At the whole sensitivity there is nothing to spare.
    assert np.abs(np.log(pmf[sensitivity:] / pmf[:-sensitivity])).max() == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize("sigma", [3.0, 10.0])
def test_discrete_gaussian_noise_is_no_worse_than_real_noise_in_every_renyi_order(sigma):
    # Canonne, Kamath & Steinke 2020, proposition 5: alpha Delta^2 / (2 sigma^2).
    k = np.arange(-int(60 * sigma), int(60 * sigma) + 1)
    whole = np.exp(-(k**2) / (2 * sigma**2)).sum()
    for shift in (1, 2, 7):
        for alpha in (1.5, 2.0, 3.7):
            exponents = -(alpha * k**2 + (1 - alpha) * (k + shift) ** 2) / (2 * sigma**2)
            divergence = log(float(np.exp(exponents).sum() / whole)) / (alpha - 1)
            assert divergence <= alpha * shift**2 / (2 * sigma**2) + 1e-9


def test_rounding_at_random_makes_real_gaussian_noise_discrete_to_111_bits():
    # The sum over k of exp(-(k - y)^2 / 8), by which the rounding divides, hardly depends on y. Worst at 0 and 1/2.
    with localcontext() as context:
        context.prec = 60

        def total(y):
            return sum((-((Decimal(k) - y) ** 2) / 8).exp() for k in range(-40, 41))

        spread = total(Decimal(0)) / total(Decimal("0.5")) - 1
        assert 0 < spread < Decimal(5) * Decimal(exp(-8 * pi**2))
        assert 5 * exp(-8 * pi**2) < 2.0**-111


def test_the_cost_of_one_release():
    assert Gaussian(2.0).cost() == DiscreteGaussian(2.0).cost() == Cost(None, 0.0, 1 / 8)
    assert Laplace(0.5).cost() == DiscreteLaplace(0.5).cost() == Cost(0.5, 0.0, 1 / 8)


def test_the_names_are_those_of_a_federation_file():
    assert {name: type(make(1.0)) for name, make in MECHANISMS.items()} == {
        "gaussian": Gaussian,
        "discrete_gaussian": DiscreteGaussian,
        "laplace": Laplace,
        "discrete_laplace": DiscreteLaplace,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_settings_that_cover_nothing_are_refused(kind):
    for value in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(PrivacyError, match=f"is {value}"):
            kind(value)
        with pytest.raises(PrivacyError, match=f"sensitivity is {value}"):
            kind(1.0).noise(1, value, Stream(KEY))
        with pytest.raises(PrivacyError, match=f"sensitivity is {value}"):
            kind(1.0).tail(value)
    with pytest.raises(PrivacyError, match="coarser grid"):
        kind(1.0).noise(1, 2.0**61, Stream(KEY))
    with pytest.raises(PrivacyError, match="0 parties"):
        kind(1.0).noise(1, 1.0, Stream(KEY), 0)


def test_the_same_stream_gives_the_same_noise():
    for kind in KINDS:
        one, other = (kind(0.7).noise(1000, 3.0, Stream(KEY)) for _ in range(2))
        assert one.tolist() == other.tolist()
        assert kind(0.7).noise(0, 3.0, Stream(KEY)).shape == (0,)


class Flood:
    """Bits that are all 0 or all 1, by which every draw lands in a tail."""

    def __init__(self, bit):
        self.word = np.uint64(0) if not bit else ~np.uint64(0)

    def uint64(self, n):
        return np.full(n, self.word)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clients", [2, 30, 1000])
def test_no_sum_wraps_when_every_coordinate_and_every_draw_is_extreme(kind, clients):
    mechanism, parties = kind(0.5), clients if kind.norm == 2 else 1

    def sensitivity(step):
        return Grid(step, 1).sensitivity(1.0, 2, kind.norm)

    grid = Grid.for_sum(1.0, clients, tail=lambda step: mechanism.tail(sensitivity(step), parties))
    for bit in (0, 1):
        noise = mechanism.noise(2, sensitivity(grid.step), Flood(bit), parties)
        sent = grid.quantise([1.0, -1.0], Flood(bit)) + noise
        assert np.abs(sent).max() > 0.9 * (grid.most + mechanism.tail(sensitivity(grid.step), parties)) - 9
        total = grid.words(sent) * np.uint32(clients)
        assert grid.integers(total).tolist() == [clients * int(x) for x in sent]


# ---------------------------------------------------------------------------------------------- the specification's example


def test_a_coefficient_of_two_and_a_half_at_epsilon_one_half_gets_scale_two():
    stream = Stream.derived(KEY, "scalar")
    n = 12_000
    draws = np.array([laplace_scalar(2.5, 0.5, stream) for _ in range(n)])
    # Laplace of scale 2: standard deviation sqrt(8), mean absolute deviation 2 with standard deviation 2.
    assert draws.mean() == pytest.approx(2.5, abs=4 * sqrt(8 / n))
    assert np.abs(draws - 2.5).mean() == pytest.approx(2.0, abs=4 * 2 / sqrt(n))
    assert kstest(draws, laplace(2.5, 2.0).cdf).pvalue > 1e-3
    # And the test would see a scale that is 15 % off.
    assert kstest(draws, laplace(2.5, 2.3).cdf).pvalue < 1e-6


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3), st.floats(1e-6, 1e6))
def test_a_number_is_released_on_the_same_fine_grid_whatever_it_is(value, epsilon, sensitivity):
    out = laplace_scalar(value, epsilon, Stream(KEY), sensitivity)
    step = Fraction(sensitivity) / 2**30
    # A whole number of steps, but for the rounding of the float that is handed out.
    nearest = round(Fraction(out) / step) * step
    assert out == float(nearest)


@given(st.floats(-10, 10), st.floats(0.01, 10), st.floats(-1, 1))
def test_neighbouring_numbers_are_as_near_on_the_grid(value, sensitivity, part):
    other = value + part * sensitivity
    if abs(Fraction(other) - Fraction(value)) <= Fraction(sensitivity):
        # The same noise on both: what is left is the difference of the rounded numbers.
        one, two = (laplace_scalar(x, 1.0, Stream(KEY), sensitivity) for x in (value, other))
        assert abs(one - two) <= sensitivity * (1 + 1e-9)


def test_a_vector_is_released_with_room_for_its_rounding():
    class Asked(Laplace):
        def noise(self, size, sensitivity, stream, parties=1):
            asked.append(sensitivity)
            return np.zeros(size, np.int64)

    asked = []
    assert release([1.0, 2.0, 3.0], 0.5, Asked(1.0), Stream(KEY)).tolist() == [1.0, 2.0, 3.0]
    assert release([1.0], 0.5, Asked(1.0), Stream(KEY)).tolist() == [1.0]
    assert asked == [2**30 + 3, 2**30]
    with pytest.raises(PrivacyError, match="not finite"):
        release([float("nan")], 1.0, Laplace(1.0), Stream(KEY))
