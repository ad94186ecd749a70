"""A digit, read off the update that it made: from the plain update, after clipping and noise, and out of a sum."""

from math import inf, sqrt

import numpy as np
import pytest
from sklearn.datasets import load_digits

from haina.errors import PrivacyError
from haina.privacy.audit import inversion

UNITS = 24


@pytest.fixture(scope="module")
def digits():
    images, labels = load_digits(return_X_y=True)
    return images / 16.0, labels


@pytest.fixture(scope="module")
def network():
    """Weights of 64 -> 24 -> 10 with ReLU, as a federation begins."""
    rng = np.random.default_rng(0)
    return (
        rng.standard_normal((UNITS, 64)) * sqrt(2 / 64),
        np.zeros(UNITS),
        rng.standard_normal((10, UNITS)) * sqrt(2 / UNITS),
        np.zeros(10),
    )


def trained(network, x, y, steps=1, rate=0.1):
    """Increment of all weights after some steps of gradient descent on rows `[n, 64]`."""
    before, (w, b, v, c) = network, [part.copy() for part in network]
    for _ in range(steps):
        hidden = np.maximum(x @ w.T + b, 0)
        logits = hidden @ v.T + c
        wrong = np.exp(logits - logits.max(axis=1, keepdims=True))
        wrong /= wrong.sum(axis=1, keepdims=True)
        wrong[np.arange(len(x)), y] -= 1
        wrong /= len(x)
        back = (wrong @ v) * (hidden > 0)
        w, b = w - rate * back.T @ x, b - rate * back.sum(axis=0)
        v, c = v - rate * wrong.T @ hidden, c - rate * wrong.sum(axis=0)
    return [after - old for after, old in zip((w, b, v, c), before, strict=True)]


def clipped(update, limit=1.0, noise=0.0, seed=0):
    """The update as one vector of length `limit`, with Gaussian noise of so many limits, as parts again."""
    flat = np.concatenate([part.ravel() for part in update])
    flat *= min(1.0, limit / np.linalg.norm(flat))
    flat += noise * limit * np.random.default_rng(seed).standard_normal(len(flat))
    ends = np.cumsum([part.size for part in update])[:-1]
    return [piece.reshape(part.shape) for piece, part in zip(np.split(flat, ends), update, strict=True)]


@pytest.mark.parametrize("steps", [1, 5])
def test_one_row_is_read_off_to_the_last_digit(digits, network, steps):
    images, labels = digits
    for k in range(5):
        weight, bias, *_ = trained(network, images[k : k + 1], labels[k : k + 1], steps)
        match = inversion.best(weight, bias, images[k], images.mean(axis=0))
        assert match.similarity > 1 - 1e-9
        assert match.psnr > 200
        np.testing.assert_allclose(match.row, images[k], atol=1e-9)


def test_clipping_hides_nothing(digits, network):
    images, labels = digits
    weight, bias, *_ = clipped(trained(network, images[:1], labels[:1]), limit=1e-3)
    assert inversion.best(weight, bias, images[0], images.mean(axis=0)).similarity > 1 - 1e-9


def test_of_a_small_batch_some_rows_stand_alone(digits, network):
    images, labels = digits
    weight, bias, *_ = trained(network, images[:4], labels[:4])
    found = [inversion.best(weight, bias, image, images.mean(axis=0)).similarity for image in images[:4]]
    assert max(found) > 0.99
    # A guess is as like as another digit is.
    assert inversion.best(weight, bias, images[100], images.mean(axis=0)).similarity < 0.9


def test_noise_of_a_federation_leaves_a_guess(digits, network):
    images, labels = digits
    mean = images.mean(axis=0)
    plain, noisy, guess = [], [], []
    for k in range(20):
        update = trained(network, images[k : k + 1], labels[k : k + 1])
        for noise, out in ((0.0, plain), (1.0, noisy)):
            weight, bias, *_ = clipped(update, noise=noise, seed=k)
            out.append(inversion.best(weight, bias, images[k], mean).similarity)
        guess.append(inversion.best(weight, bias, images[k + 500], mean).similarity)
    assert min(plain) > 1 - 1e-9
    # The best of 24 candidates finds as much likeness with a digit that was not there.
    assert abs(np.mean(noisy) - np.mean(guess)) < 0.1
    assert np.mean(noisy) < 0.4


def test_a_sum_hides_by_how_many_are_in_it_and_not_everyone(digits, network):
    images, labels = digits
    mean, gap = images.mean(axis=0), {}
    for clients in (1, 10, 100):
        within, without, most = [], [], 0.0
        for start in range(0, 1200, 300):
            taking = range(start, start + clients)
            updates = [clipped(trained(network, images[[k]], labels[[k]]), 1e-3) for k in taking]
            weight, bias, *_ = (np.sum(parts, axis=0) for parts in zip(*updates, strict=True))
            found = [inversion.best(weight, bias, images[k], mean).similarity for k in taking[:10]]
            within += found
            without += [inversion.best(weight, bias, images[k + 250], mean).similarity for k in taking[:10]]
            most = max(most, *found, 0.0)
        gap[clients] = np.mean(within) - np.mean(without)
        # Some digit stands alone in a unit, in every one of these sums: secrecy of the summands is no privacy of the sum.
        assert most > 0.99
    assert gap[1] > 0.8 > gap[10] > 0.3 > gap[100] > 0.1


def test_silent_units_give_nothing_and_the_loudest_come_first():
    units, rows = inversion.invert([[1.0, 2.0], [0.0, 0.0], [3.0, 9.0]], [0.5, 0.0, -3.0])
    assert units.tolist() == [2, 0]
    assert rows.tolist() == [[-1.0, -3.0], [2.0, 4.0]]


def test_similarity_is_a_correlation_beyond_the_mean():
    rng = np.random.default_rng(0)
    a, mean = rng.random(50), rng.random(50)
    assert inversion.similarity(a, a) == pytest.approx(1.0)
    assert inversion.similarity(-a, a) == pytest.approx(-1.0)
    assert inversion.similarity(3 * (a - mean) + 2 + mean, a, mean) == pytest.approx(1.0)
    assert inversion.similarity(mean, a, mean) == 0.0
    # Two rows that share much are alike until that is taken off.
    one, other = mean + 0.1 * rng.random(50), mean + 0.1 * rng.random(50)
    assert inversion.similarity(one, other) > 0.9
    assert abs(inversion.similarity(one, other, mean)) < 0.5


def test_an_exact_copy_has_no_error():
    match = inversion.best([[0.5, 1.0]], [1.0], [0.5, 1.0])
    assert (match.psnr, match.unit) == (inf, 0)


@pytest.mark.parametrize(
    ("weight", "bias", "truth", "message"),
    [
        (np.zeros(3), np.zeros(3), np.zeros(3), r"shape \(3,\)"),
        (np.zeros((2, 3)), np.zeros(3), np.zeros(3), r"biases of shape \(3,\)"),
        (np.ones((2, 3)), np.ones(2), np.zeros(2), r"row has shape \(2,\)"),
        (np.ones((2, 3)), np.zeros(2), np.zeros(3), "silent"),
    ],
)
def test_layers_that_do_not_fit_are_refused(weight, bias, truth, message):
    with pytest.raises(PrivacyError, match=message):
        inversion.best(weight, bias, truth)
