from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.audit import canary, finding
from haina.privacy.audit.canary import Canaries

SEED = bytes(range(32))


def matrix(canaries):
    return np.stack([canaries.vector(i) for i in range(canaries.count)]).astype(np.float64)


@given(st.integers(1, 20), st.integers(20, 300), st.sampled_from([1, 2]), st.integers(0, 50))
def test_a_contribution_has_the_length_that_it_should(count, dimension, norm, round):
    canaries = Canaries(count, dimension, SEED, norm=norm, length=3.0)
    for i in range(count):
        sent = canaries.contribution(i, round, 0.5)
        assert sent.shape == (dimension,)
        assert np.linalg.norm(sent, norm) == pytest.approx(1.5, rel=1e-6)
        np.testing.assert_allclose(sent, canaries.vector(i) * canaries.signs(round)[i] * 1.5, rtol=1e-6)


def test_directions_are_isotropic_and_their_cosines_are_those_of_chance():
    canaries = Canaries(2000, 400, SEED)
    vectors = matrix(canaries)
    # Covariance I / d: all eigenvalues within Marchenko and Pastur's law for 2000 rows, (1 +- sqrt(d / m))^2.
    eigenvalues = np.linalg.eigvalsh(vectors.T @ vectors * 400 / 2000)
    spread = sqrt(400 / 2000)
    assert (1 - spread) ** 2 * 0.9 < eigenvalues[0]
    assert eigenvalues[-1] < (1 + spread) ** 2 * 1.1
    # Cosines with any direction are N(0, 1/d), as Andrew et al. have it.
    direction = np.random.default_rng(0).standard_normal(400)
    cosines = vectors @ direction / np.linalg.norm(direction) * sqrt(400)
    assert abs(cosines.mean()) < 4 / sqrt(2000)
    assert abs(np.mean(cosines**2) - 1) < 4 * sqrt(2 / 2000)
    assert abs(np.mean(cosines**4) - 3) < 4 * sqrt(96 / 2000)


def test_coins_are_fair_and_belong_to_the_seed():
    canaries = Canaries(4000, 10, SEED)
    assert abs(canaries.included.mean() - 0.5) < 4 * 0.5 / sqrt(4000)
    assert abs(canaries.signs(3).mean()) < 4 / sqrt(4000)
    assert abs(np.mean(canaries.signs(3) * canaries.signs(4))) < 4 / sqrt(4000)
    assert abs(np.mean(canaries.signs(3) * (2.0 * canaries.included - 1))) < 4 / sqrt(4000)
    again, other = Canaries(4000, 10, SEED), Canaries(4000, 10, bytes(32))
    assert (again.included == canaries.included).all()
    assert (again.vector(7) == canaries.vector(7)).all()
    assert not (other.included == canaries.included).all()


def test_the_seed_is_not_shown():
    assert "seed" not in repr(Canaries(5, 10, SEED))


def test_canaries_of_norm_one_have_a_coordinate_each():
    vectors = matrix(Canaries(50, 50, SEED, norm=1))
    assert (np.abs(vectors).sum(axis=0) == 1).all()
    assert (np.abs(vectors).sum(axis=1) == 1).all()
    assert len(set(vectors.sum(axis=1))) == 2


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("dimension", [70, 1003, 20_011])
def test_scores_in_blocks_are_the_inner_products(monkeypatch, norm, dimension):
    monkeypatch.setattr(canary, "_COLUMNS", 4096)
    monkeypatch.setattr(canary, "_ROWS", 16)
    canaries = Canaries(50, dimension, SEED, norm=norm)
    increments = np.random.default_rng(1).standard_normal((4, dimension)).astype(np.float32)
    expected = matrix(canaries) @ increments.T.astype(np.float64)
    projections, products = canaries._projections(list(increments))
    np.testing.assert_allclose(projections, expected, atol=1e-5)
    np.testing.assert_allclose(products, increments.astype(np.float64) @ increments.T, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(canaries.scores(increments[2]), expected[:, 2], atol=1e-5)


def run(canaries, sigma, rounds, *, rate=1.0, seed=0, drift=0.0, scales=None):
    """Increments of a Gaussian mechanism in which those canaries take part that are in."""
    rng = np.random.default_rng(seed)
    lasting, vectors = drift * rng.standard_normal(canaries.dimension), matrix(canaries)
    out = []
    for number in range(rounds):
        taking = canaries.included & (rng.random(canaries.count) < rate)
        total = (taking * canaries.signs(number)) @ vectors
        total += sigma * rng.standard_normal(canaries.dimension) + lasting
        out.append(total * (1.0 if scales is None else scales[number]))
    return out


def shift(canaries, scores):
    inside, outside = scores[canaries.included], scores[~canaries.included]
    return (inside.mean() - outside.mean()) / sqrt((inside.var() + outside.var()) / 2)


def test_the_search_of_a_gaussian_mechanism_finds_all_there_is():
    # mu = sqrt(T) / sigma = 1, and no statistic of the releases has more.
    canaries = Canaries(1000, 3000, SEED)
    increments = run(canaries, 4.0, 16)
    assert shift(canaries, canaries.search(increments)) == pytest.approx(1.0, abs=0.15)


def test_what_lasts_and_steps_of_unlike_size_cost_the_search_nothing():
    canaries = Canaries(1000, 3000, SEED)
    scales = 2.0 ** -np.arange(16)
    assert shift(canaries, canaries.search(run(canaries, 4.0, 16, scales=scales))) == pytest.approx(
        1.0, abs=0.15
    )
    drift = run(canaries, 4.0, 16, drift=40.0)
    assert shift(canaries, canaries.search(drift)) == pytest.approx(1.0, abs=0.15)
    # The plain sum of the same inner products is lost in it.
    signs = np.stack([canaries.signs(t) for t in range(16)])
    plain = (signs * (np.array(drift) @ matrix(canaries).T)).sum(axis=0)
    assert shift(canaries, plain) < 0.4


def test_of_sampled_canaries_the_likelihood_ratio_finds_more_than_sum_or_maximum():
    canaries, rate, sigma = Canaries(1000, 3000, SEED), 0.1, 0.7
    increments = run(canaries, sigma, 60, rate=rate)
    ratio = shift(canaries, canaries.search(increments, rate=rate, shift=1 / sigma))
    total = shift(canaries, canaries.search(increments))
    released = np.array(increments)
    cosines = matrix(canaries) @ (released / np.linalg.norm(released, axis=1, keepdims=True)).T
    turned = cosines * np.stack([canaries.signs(t) for t in range(60)], axis=1)
    assert ratio > 1.2 * max(total, shift(canaries, turned.max(axis=1)))


def test_rounds_are_known_by_their_numbers():
    canaries = Canaries(1000, 3000, SEED)
    increments = run(canaries, 4.0, 16)
    some = [3, 4, 8, 9, 11, 13, 14, 15]
    found = shift(canaries, canaries.search([increments[t] for t in some], some))
    assert found == pytest.approx(sqrt(8) / 4, abs=0.15)
    assert abs(shift(canaries, canaries.search([increments[t] for t in some]))) < 0.4


def test_a_round_that_changed_nothing_is_passed_over():
    canaries = Canaries(200, 500, SEED)
    increments = run(canaries, 1.0, 4)
    still = np.zeros(500)
    np.testing.assert_allclose(
        canaries.search([increments[0], still, increments[2]], [0, 1, 2]),
        canaries.search([increments[0], increments[2]], [0, 2]),
    )


def test_more_rounds_than_coordinates_can_be_searched():
    canaries = Canaries(400, 40, SEED)
    increments = run(canaries, 40.0, 120)
    assert shift(canaries, canaries.search(increments)) > 0.1


def test_laplace_noise_is_searched_by_coordinates():
    canaries = Canaries(800, 1000, SEED, norm=1)
    rng, vectors = np.random.default_rng(0), matrix(canaries)
    increments = [
        (canaries.included * canaries.signs(t)) @ vectors + rng.laplace(0, 1, 1000) for t in range(8)
    ]
    # Eight releases of scale 1: sqrt(8) / sqrt(2) standard deviations.
    assert shift(canaries, canaries.search(increments)) == pytest.approx(2.0, abs=0.25)
    found = finding.audit(canaries, increments, 8.0, 1e-5)
    assert (found.estimate, found.verdict) == (None, "not enough canaries to tell")
    assert found.lower_bound > 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Canaries(0, 10, SEED), "0 canaries"),
        (lambda: Canaries(1, 0, SEED), "0 dimensions"),
        (lambda: Canaries(1, 10, SEED, length=0.0), "length 0"),
        (lambda: Canaries(11, 10, SEED, norm=1), "11 canaries"),
        (lambda: Canaries(5, 10, b"short").included, "5 bytes"),
        (lambda: Canaries(5, 10, SEED).vector(5), "no canary 5"),
        (lambda: Canaries(5, 10, SEED).search([]), "no round"),
        (lambda: Canaries(5, 10, SEED).search([np.zeros(10)]), "no round"),
        (lambda: Canaries(5, 10, SEED).search([np.ones(9)]), r"shape \(9,\)"),
        (lambda: Canaries(5, 10, SEED).search([np.full(10, np.nan)]), "not finite"),
        (lambda: Canaries(5, 10, SEED).search([np.ones(10)], [0, 1]), "2 round numbers"),
        (lambda: Canaries(5, 10, SEED).search([np.ones(10)], rate=0.0), "rate is 0"),
        (lambda: Canaries(5, 10, SEED).search([np.ones(10)], shift=0.0), "shift 0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(PrivacyError, match=message):
        make()
