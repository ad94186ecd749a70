from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.clipping import clip_l2
from haina.privacy.mechanisms import Gaussian, Laplace
from haina.privacy.output import perturbed, sensitivity_logistic, sensitivity_ridge
from haina.privacy.stream import Stream

KEY = bytes(range(32))


def logistic(x, y, l2):
    """The minimiser by Newton's method with halved steps, labels -1 and 1."""
    n, d = x.shape

    def objective(w):
        return np.mean(np.logaddexp(0, -y * (x @ w))) + l2 / 2 * w @ w

    w = np.zeros(d)
    for _ in range(200):
        p = 1 / (1 + np.exp(np.clip(y * (x @ w), -700, 700)))
        gradient = -(x.T @ (y * p)) / n + l2 * w
        if np.linalg.norm(gradient) < 1e-13:
            break
        hessian = (x.T * (p * (1 - p))) @ x / n + l2 * np.eye(d)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-9 and objective(w - size * step) > objective(w):
            size /= 2
        w = w - size * step
    return w, float(np.linalg.norm(gradient))


def ridge(x, y, l2):
    return np.linalg.solve(x.T @ x / len(y) + l2 * np.eye(x.shape[1]), x.T @ y / len(y))


@st.composite
def neighbours(draw, labels):
    """Two data sets that differ in a row, with rows and targets within their bounds."""
    n, d = draw(st.integers(1, 12)), draw(st.integers(1, 3))
    row, target = draw(st.floats(0.1, 5)), draw(st.floats(0.1, 5))
    coordinate = st.floats(-1, 1) | st.sampled_from([1.0, -1.0, 0.0])
    numbers = st.lists(coordinate, min_size=d, max_size=d)
    x = np.array([clip_l2(np.array(draw(numbers)) * row, row) for _ in range(n + 1)])
    of = st.sampled_from([-1.0, 1.0]) if labels else coordinate.map(lambda t: t * target)
    y = np.array([draw(of) for _ in range(n + 1)])
    return x, y, row, target, draw(st.sampled_from([1e-3, 0.03, 0.5, 4.0]))


@settings(max_examples=150)
@given(neighbours(labels=True))
def test_no_row_moves_a_logistic_regression_further_than_its_sensitivity(case):
    x, y, row, _, l2 = case
    n = len(y) - 1
    one, left = logistic(x[:-1], y[:-1], l2)
    two, right = logistic(np.r_[x[1:]], np.r_[y[1:]], l2)
    bound = sensitivity_logistic(n, l2, row=row, gradient=max(left, right))
    assert np.linalg.norm(one - two) <= bound * (1 + 1e-9)
    # A row more, where n is the larger number.
    three, left = logistic(x, y, l2)
    bound = sensitivity_logistic(n + 1, l2, row=row, gradient=max(left, right))
    assert np.linalg.norm(three - two) <= bound * (1 + 1e-9)
    # L1 is what `perturbed` measures Laplace noise against.
    assert np.abs(one - two).sum() <= sqrt(x.shape[1]) * np.linalg.norm(one - two) * (1 + 1e-9)


@settings(max_examples=150)
@given(neighbours(labels=False))
def test_no_row_moves_a_ridge_regression_further_than_its_sensitivity(case):
    x, y, row, target, l2 = case
    n = len(y) - 1
    one, two, three = ridge(x[:-1], y[:-1], l2), ridge(x[1:], y[1:], l2), ridge(x, y, l2)
    assert np.linalg.norm(one - two) <= sensitivity_ridge(n, l2, row=row, target=target) * (1 + 1e-9)
    assert np.linalg.norm(three - two) <= sensitivity_ridge(n + 1, l2, row=row, target=target) * (1 + 1e-9)


def test_the_bounds_are_not_far_from_what_a_row_can_do():
    # One row at the edge, turned around. The gradient of a logistic loss at 0 is half of its bound; a ridge regression that hardly bends has it all.
    l2 = 100.0
    x, y = np.array([[1.0]]), np.array([1.0])
    moved = np.linalg.norm(logistic(x, y, l2)[0] - logistic(-x, y, l2)[0])
    assert 0.49 < moved / sensitivity_logistic(1, l2) <= 0.5
    moved = np.linalg.norm(ridge(x, y, l2) - ridge(-x, y, l2))
    assert 0.97 < moved / sensitivity_ridge(1, l2) <= 1


def test_sensitivities_are_the_papers():
    assert sensitivity_logistic(2000, 0.01) == pytest.approx(2 / (2000 * 0.01))
    assert sensitivity_logistic(100, 0.1, row=3.0) == pytest.approx(0.6)
    # Where it stops early, the answer may be that much off, twice.
    assert sensitivity_logistic(100, 0.1, gradient=1e-4) == pytest.approx(0.2 + 2e-3)
    assert sensitivity_ridge(100, 0.25, row=1.0, target=2.0) == pytest.approx(2 * 2 * (1 + 1) / 25)


@pytest.mark.parametrize("make", [Laplace, Gaussian])
def test_coefficients_are_covered_in_the_norm_of_the_mechanism(make):
    mechanism, d, n = make(0.7), 4, 4000
    coefficients = np.array([0.5, -20.0, 3e5, 0.0])
    stream = Stream.derived(KEY, make.__name__)
    errors = np.array([perturbed(coefficients, 0.02, mechanism, stream) for _ in range(n)]) - coefficients
    std = mechanism.std(0.02 * (sqrt(d) if make is Laplace else 1))
    assert np.abs(errors.mean(axis=0)).max() < 5 * std / sqrt(n)
    assert errors.std(axis=0) == pytest.approx(np.full(d, std), rel=5 * sqrt(1.5 / n))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sensitivity_logistic(0, 1.0), "0 rows"),
        (lambda: sensitivity_logistic(10, 0.0), "without limit: regularise"),
        (lambda: sensitivity_logistic(10, 1.0, row=float("inf")), "row is inf"),
        (lambda: sensitivity_logistic(10, 1.0, gradient=-1.0), "gradient of -1"),
        (lambda: sensitivity_ridge(10, 0.0), "without limit: regularise"),
        (lambda: sensitivity_ridge(10, 1.0, target=0.0), "target is 0"),
        (lambda: perturbed([1.0], 0.0, Laplace(1.0), Stream(KEY)), "sensitivity is 0"),
    ],
)
def test_models_that_one_row_can_move_anywhere_are_refused(call, words):
    with pytest.raises(PrivacyError, match=words):
        call()
