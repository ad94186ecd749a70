import itertools
import math

import numpy as np
import pytest

from haina.learners.cox import partial_likelihood


def rows(n=60, p=3, seed=3):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, p))
    return X, np.ceil(rng.exponential(4, n)), (rng.random(n) < 0.7).astype(float)


def by_definition(X, time, event, beta, ties):
    """The log partial likelihood, risk set by risk set."""
    w, total = np.exp(X @ beta), 0.0
    for t in np.unique(time[event == 1]):
        dead = (time == t) & (event == 1)
        total += float((X @ beta)[dead].sum())
        for k in range(int(dead.sum())):
            part = k / dead.sum() if ties == "efron" else 0.0
            total -= math.log(w[time >= t].sum() - part * w[dead].sum())
    return total


@pytest.mark.parametrize("ties", ["efron", "breslow"])
def test_gradient_and_hessian_are_those_of_the_definition(ties):
    X, time, event = rows()
    beta = np.array([0.3, -0.5, 0.1])
    sums = partial_likelihood(X, time, event, beta, ties)
    assert -sums.deviance / 2 == pytest.approx(by_definition(X, time, event, beta, ties), rel=1e-13)
    step = 1e-5 * np.eye(3)
    for j in range(3):
        up, down = (by_definition(X, time, event, beta + s * step[j], ties) for s in (1, -1))
        assert sums.gradient[j] == pytest.approx((up - down) / 2e-5, rel=1e-6, abs=1e-6)
        up, down = (partial_likelihood(X, time, event, beta + s * step[j], ties).gradient for s in (1, -1))
        assert sums.hessian[j] == pytest.approx(-(up - down) / 2e-5, rel=1e-6, abs=1e-6)
    assert (sums.examples, sums.outcome) == (60, event.sum())


def test_efron_averages_over_the_orders_of_a_tie_nearly():
    # With two tied events and no effect, Efron's denominators are those of either order.
    X, time, event = np.array([[1.0], [2.0], [0.0]]), np.array([1.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0])
    likelihood = math.exp(-partial_likelihood(X, time, event, np.zeros(1), "efron").deviance / 2)
    orders = [(1 / 3) * (1 / 2) for _ in itertools.permutations(range(2))]
    assert likelihood == pytest.approx(np.mean(orders), rel=1e-14)
    assert math.exp(
        -partial_likelihood(X, time, event, np.zeros(1), "breslow").deviance / 2
    ) == pytest.approx(1 / 9)


def test_a_shift_of_columns_and_the_order_of_rows_change_nothing():
    X, time, event = rows()
    beta = np.array([0.3, -0.5, 0.1])
    sums = partial_likelihood(X, time, event, beta)
    far = partial_likelihood(X + np.array([1e6, -1e5, 0.0]), time, event, beta)
    assert far.gradient == pytest.approx(sums.gradient, abs=1e-6)
    assert far.hessian == pytest.approx(sums.hessian, abs=1e-6)
    order = np.random.default_rng(0).permutation(60)
    assert partial_likelihood(X[order], time[order], event[order], beta).pack() == pytest.approx(
        sums.pack(), rel=1e-12, abs=1e-12
    )


def test_times_that_differ_by_rounding_are_tied():
    X, time, event = rows()
    shaken = time * (1 + 1e-12 * np.arange(60))
    beta = np.array([0.3, -0.5, 0.1])
    assert partial_likelihood(X, shaken, event, beta).deviance == pytest.approx(
        partial_likelihood(X, time, event, beta).deviance, rel=1e-14
    )


def test_without_events_there_is_nothing():
    X, time, event = rows()
    sums = partial_likelihood(X, time, 0 * event, np.zeros(3))
    assert (sums.deviance, sums.outcome, sums.examples) == (0, 0, 60)
    assert not sums.hessian.any()
