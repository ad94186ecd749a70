import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.errors import RoundError
from haina.strategy.active_set import minimise


def violation(A, q, b, l1, l2):
    gradient = q - A @ b - l2 * b
    return np.where(b != 0, np.abs(gradient - l1 * np.sign(b)), np.maximum(np.abs(gradient) - l1, 0)).max()


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    p=st.integers(1, 25),
    rows=st.integers(1, 40),
    share=st.floats(0.01, 1.2),
    ridge=st.sampled_from([0.0, 0.1]),
)
def test_the_optimality_conditions_hold_from_any_start(seed, p, rows, share, ridge):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, p))
    A, q = X.T @ X / rows, X.T @ rng.normal(size=rows) / rows
    l1, l2 = share * np.abs(q).max(), ridge * share
    b = minimise(A, q, np.zeros(p), l1, l2)
    scale = np.abs(q).max()
    assert violation(A, q, b, l1, l2) <= 1e-9 * scale
    again = minimise(A, q, rng.normal(size=p), l1, l2)
    assert violation(A, q, again, l1, l2) <= 1e-9 * scale


def test_columns_that_repeat_each_other_exactly():
    rng = np.random.default_rng(1)
    X = rng.normal(size=(50, 4))
    X = np.column_stack([X, X, np.zeros(50)])
    A, q = X.T @ X / 50, X.T @ rng.normal(size=50) / 50
    b = minimise(A, q, np.zeros(9), 0.05, 0.0)
    assert violation(A, q, b, 0.05, 0.0) <= 1e-12
    assert b[8] == 0
    # With a ridge part the twins share.
    b = minimise(A, q, np.zeros(9), 0.05, 0.5)
    assert b[:4] == pytest.approx(b[4:8], abs=1e-14)


def test_without_absolute_values_it_is_a_linear_system():
    A = np.array([[2.0, 1.0], [1.0, 3.0]])
    b = minimise(A, np.array([1.0, -1.0]), np.zeros(2), 0.0, 0.5)
    assert b == pytest.approx(np.linalg.solve(A + 0.5 * np.eye(2), [1.0, -1.0]), rel=1e-14)


def test_a_tie_stays_out():
    assert minimise(np.eye(2), np.array([0.5, 0.1]), np.zeros(2), 0.5, 0.0).tolist() == [0.0, 0.0]


def test_a_slope_without_a_curve_has_no_minimum():
    with pytest.raises(RoundError, match="no minimum"):
        minimise(np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([1.0, -1.0]), np.zeros(2), 0.5, 0.0)
