from fractions import Fraction
from itertools import combinations, pairwise
from math import floor, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.correlated import Banded, CorrelatedNoise
from haina.privacy.mechanisms import DiscreteGaussian, Gaussian, Laplace
from haina.privacy.stream import Stream

KEY = bytes(range(32))
MATRICES = st.tuples(st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.integers(1, 8)).map(
    lambda t: Banded(t[0], t[1], t[2], min(t[3], t[0]))
)


def square(column):
    """The lower triangular Toeplitz matrix of a first column."""
    n = len(column)
    return np.array([[column[r - c] if r >= c else 0.0 for c in range(n)] for r in range(n)])


def patterns(matrix):
    """Every way of taking part that is allowed."""
    for times in range(1, matrix.participations + 1):
        for rounds in combinations(range(matrix.rounds), times):
            if all(b - a >= matrix.separation for a, b in pairwise(rounds)):
                yield rounds


@pytest.mark.parametrize(
    ("setting", "gain", "band"),
    [
        ((100, 20, 5), "2.74", 20),
        ((1000, 100, 10), "5.85", 100),
        ((100, 1, 100), "1.00", 1),
        ((100, 100, 1), "3.00", 100),
        ((1000, 1000, 1), "7.21", 1000),
        ((1000, 50, 20), "4.91", 100),
    ],
)
def test_the_published_gains(setting, gain, band):
    # privacy.md, section 4, to the digits that the prototype printed.
    matrix = Banded(*setting)
    assert f"{matrix.gain:.2f}" == gain
    assert matrix.band == band


@given(MATRICES)
def test_the_sensitivity_is_the_worst_over_all_patterns(matrix):
    c = square(matrix.coefficients)
    worst = max(np.linalg.norm(c[:, list(rounds)].sum(axis=1)) for rounds in patterns(matrix))
    assert matrix.sensitivity == pytest.approx(worst, rel=1e-12)


@given(MATRICES, st.data())
def test_no_client_s_vectors_move_the_rounds_further_than_the_sensitivity(matrix, data):
    rounds = data.draw(st.sampled_from(list(patterns(matrix))))
    contributions = np.zeros((matrix.rounds, 2))
    for r in rounds:
        x = np.array(data.draw(st.tuples(st.floats(-1, 1), st.floats(-1, 1))))
        contributions[r] = x / max(1.0, float(np.linalg.norm(x)))
    assert np.linalg.norm(square(matrix.coefficients) @ contributions) <= matrix.sensitivity * (1 + 1e-12)
    assert matrix.allows(rounds)
    assert matrix.allows(list(reversed(rounds)))


@given(MATRICES)
def test_the_error_is_that_of_the_matrix(matrix):
    n = matrix.rounds
    inverse = np.linalg.inv(square(matrix.coefficients))
    assert square(matrix.inverse) == pytest.approx(inverse, abs=1e-12)
    prefix = np.tril(np.ones((n, n)))
    rmse = sqrt(np.square(prefix @ inverse).sum() / n)
    assert matrix.rmse == pytest.approx(rmse, rel=1e-9)
    loss = sqrt(len(range(0, n, matrix.separation)[: matrix.participations])) * sqrt((n + 1) / 2)
    assert matrix.gain == pytest.approx(loss / (matrix.sensitivity * rmse), rel=1e-9)


def test_the_square_root_s_square_is_the_prefix_sums():
    c = square(Banded(50, 50, 1, 50).coefficients)
    assert np.abs(c @ c - np.tril(np.ones((50, 50)))).max() < 50 * 2.0**-16


def test_who_takes_part_too_often_is_not_covered():
    matrix = Banded(10, 3, 2)
    assert matrix.allows([])
    assert matrix.allows([0, 3])
    assert not matrix.allows([0, 2])
    assert not matrix.allows([0, 3, 6])
    assert not matrix.allows([10])
    assert not matrix.allows([-1])


@pytest.mark.parametrize("band", [1, 2, 5, 12])
def test_what_is_released_is_made_of_the_covered_stream_alone(band):
    # u = 2^16 C x + z is what the privacy of is proved. From u and nothing else come, in exact arithmetic, the very numbers x + n.
    matrix, rounds, d, sensitivity = Banded(12, 4, 3, band), 12, 50, 30.0
    noise = CorrelatedNoise(matrix, Gaussian(0.5), sensitivity, d, KEY)
    x = np.random.default_rng(0).integers(-1000, 1000, (rounds, d))
    z = [
        Gaussian(0.5).noise(d, sensitivity * matrix.sensitivity * 2**16, Stream.derived(KEY, str(r)))
        for r in range(rounds)
    ]
    c = matrix.integers
    u = [sum(int(c[j]) * x[r - j] for j in range(r + 1)) + z[r] for r in range(rounds)]
    answers = []
    for r in range(rounds):
        left = [int(u[r][i]) - sum(int(c[j]) * answers[r - j][i] for j in range(1, r + 1)) for i in range(d)]
        answers.append([floor(Fraction(number, 2**16) + Fraction(1, 2)) for number in left])
        assert (x[r] + noise.noise(r)).tolist() == answers[r]


def test_the_covered_stream_has_the_noise_that_its_sensitivity_asks_for():
    # 2^16 (C n) is z but for the rounding, so its standard deviation is the multiplier times the sensitivity.
    matrix = Banded(20, 5, 4)
    noise = CorrelatedNoise(matrix, DiscreteGaussian(0.8), 100.0, 20_000, KEY)
    n = np.array([noise.noise(r) for r in range(20)])
    z = square(matrix.coefficients) @ n
    assert z.std(axis=1) == pytest.approx(np.full(20, 0.8 * 100 * matrix.sensitivity), rel=0.03)
    correlation = np.corrcoef(z)
    assert np.abs(correlation - np.eye(20)).max() < 5 / sqrt(20_000)
    # And the sums of the rounds have as little of it as was promised.
    rmse = sqrt(np.square(np.cumsum(n, axis=0).astype(float)).mean())
    assert rmse == pytest.approx(0.8 * 100 * matrix.sensitivity * matrix.rmse, rel=0.03)
    assert np.abs(n).max() <= noise.tail


def test_a_run_that_resumes_draws_the_same_noise():
    matrix = Banded(8, 2, 4, 4)

    def make():
        return CorrelatedNoise(matrix, Gaussian(1.0), 50.0, 100, KEY)

    noise = make()
    rounds = [noise.noise(r).tolist() for r in range(8)]
    assert make().noise(5).tolist() == rounds[5]
    again = make()
    assert [again.noise(r).tolist() for r in (0, 3, 3, 7, 1, 2)] == [rounds[r] for r in (0, 3, 3, 7, 1, 2)]
    assert CorrelatedNoise(matrix, Gaussian(1.0), 50.0, 100, bytes(32)).noise(0).tolist() != rounds[0]


def test_an_answer_that_is_changed_does_not_change_later_noise():
    matrix = Banded(4, 1, 1, 4)
    noise, other = (CorrelatedNoise(matrix, Gaussian(1.0), 50.0, 10, KEY) for _ in range(2))
    noise.noise(0)[:] = 10**6
    other.noise(0)
    assert noise.noise(1).tolist() == other.noise(1).tolist()


def test_a_band_of_one_is_independent_noise():
    matrix = Banded(5, 1, 5)
    assert matrix.band == 1
    assert matrix.sensitivity == pytest.approx(sqrt(5))
    noise = CorrelatedNoise(matrix, DiscreteGaussian(1.0), 40.0, 50_000, KEY)
    first, second = noise.noise(0), noise.noise(1)
    assert first.std() == pytest.approx(40 * sqrt(5), rel=0.02)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / sqrt(50_000)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Banded(0, 1, 1), "rounds of correlated noise is 0"),
        (lambda: Banded(5, 0, 1), "separation of correlated noise is 0"),
        (lambda: Banded(5, 1, 0), "participations of correlated noise is 0"),
        (lambda: Banded(5, 1, 1, 6), "band of correlated noise is 6"),
        (lambda: CorrelatedNoise(Banded(5, 1, 1), Laplace(1.0), 1.0, 3, KEY), "Laplace noise is to be"),
        (lambda: CorrelatedNoise(Banded(5, 1, 1), Gaussian(1.0), 2.0**50, 3, KEY), "coarser grid"),
        (lambda: CorrelatedNoise(Banded(5, 1, 1), Gaussian(1.0), 9.0, 3, KEY).noise(5), "noise of round 5"),
    ],
)
def test_matrices_and_rounds_that_there_are_not_are_refused(call, words):
    with pytest.raises(PrivacyError, match=words):
        call()
