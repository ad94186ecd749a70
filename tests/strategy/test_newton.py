from itertools import pairwise

import numpy as np
import pytest

from haina.errors import LayoutError, RoundError, StrategyError
from haina.strategy.families import FAMILIES
from haina.strategy.parts import Aggregate, Payload
from haina.strategy.server.newton import COX, Newton, Status, dependent_column, newton_direction
from haina.strategy.sums import Sums


def sums_at(name, X, y, beta):
    law = FAMILIES[name]
    eta = X @ beta
    mu = law.mean(eta)
    hessian = X.T @ (X * law.variance(mu)[:, None])
    return Sums(X.T @ (y - mu), hessian, law.deviance(y, eta), len(y), y.sum(), law.saturated(y)).pack()


def rounds(server, name, X, y, start=None, limit=80):
    model = np.zeros(X.shape[1]) if start is None else start
    state = server.init(model)
    for number in range(1, limit):
        stepped = server.step(model, Aggregate(sums_at(name, X, y, model), number), state)
        yield model, state, stepped
        model, state = stepped.model, stepped.state
        if stepped.finished:
            return
    raise AssertionError("never finished")


def problem(n=200, seed=0):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(n), rng.normal(size=(n, 2))])
    return X, rng.poisson(np.exp(0.5 + 0.4 * X[:, 1])).astype(float)


def test_the_first_round_goes_to_the_null_model_and_the_second_records_its_deviance():
    X, y = problem()
    trace = list(rounds(Newton("poisson"), "poisson", X, y, start=np.array([3.0, -1.0, 2.0])))
    assert trace[0][2].model == pytest.approx([np.log(y.mean()), 0, 0], rel=1e-14)
    null = FAMILIES["poisson"].deviance(y, np.full(len(y), np.log(y.mean())))
    assert float(trace[1][2].state["null_deviance"]) == pytest.approx(null, rel=1e-12)


def test_steps_shrink_quadratically_and_the_last_gradient_vanishes():
    X, y = problem()
    trace = list(rounds(Newton("poisson"), "poisson", X, y))
    lengths = [stepped.notes["step"] for _, _, stepped in trace[1:]]
    assert all(later < earlier**1.5 for earlier, later in pairwise(lengths[1:]))
    final = Sums.unpack(sums_at("poisson", X, y, trace[-1][2].model), 3)
    assert newton_direction(final)[1] < 1e-12
    assert trace[-1][2].notes["converged"] == 1


def test_a_gaussian_fit_takes_three_rounds():
    X, y = problem()
    assert len(list(rounds(Newton("gaussian"), "gaussian", X, y))) == 3


def test_a_step_that_raises_the_deviance_is_halved():
    # One outlier in x and y: the first Newton step from the null model overshoots by far.
    X, y = problem(40)
    X[0], y[0] = [1, 12.0, 0.0], 3000.0
    trace = list(rounds(Newton("poisson"), "poisson", X, y))
    halved = [i for i, (_, _, stepped) in enumerate(trace) if int(stepped.state["halvings"])]
    assert halved
    i = halved[0]
    model, state, stepped = trace[i]
    assert stepped.model == pytest.approx((model + state["anchor"]) / 2, rel=1e-15)
    accepted = [
        s.state["sums"]
        for _, _, s in trace
        if not int(s.state["halvings"]) and s.state["status"] >= Status.FITTING
    ]
    deviances = [Sums.unpack(v, 3).deviance for v in accepted]
    assert deviances == sorted(deviances, reverse=True)
    assert trace[-1][2].notes["converged"] == 1


def test_arguments_are_not_changed_and_the_same_call_gives_the_same_bytes():
    X, y = problem()
    for model, state, stepped in rounds(Newton("poisson"), "poisson", X, y):
        again = Newton("poisson").step(model, Aggregate(sums_at("poisson", X, y, model), 9), state)
        assert again.model.tobytes() == stepped.model.tobytes()
        assert {k: v.tobytes() for k, v in again.state.items()} == {
            k: v.tobytes() for k, v in stepped.state.items()
        }


def test_a_stopped_fit_says_so():
    X, y = problem()
    *_, last = rounds(Newton("poisson", max_iterations=2), "poisson", X, y)
    assert last[2].finished
    assert last[2].notes["converged"] == 0
    assert int(last[2].state["status"]) == Status.STOPPED


def test_units_of_columns_do_not_matter():
    X, y = problem()
    scale = np.array([1.0, 1e-6, 1e8])
    *_, here = rounds(Newton("poisson"), "poisson", X, y)
    *_, there = rounds(Newton("poisson"), "poisson", X * scale, y)
    assert there[2].model * scale == pytest.approx(here[2].model, rel=1e-10)


def test_dependent_columns():
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(100), 2020 + rng.normal(size=100), rng.normal(size=100)])
    assert dependent_column(X.T @ X) is None
    assert dependent_column(np.column_stack([X, X[:, 1] - 7]).T @ np.column_stack([X, X[:, 1] - 7])) == 3
    X[:, 1] = 0
    assert dependent_column(X.T @ X) == 1


def test_sums_of_other_columns_and_of_no_rows():
    server = Newton("poisson")
    with pytest.raises(LayoutError):
        server.step(np.zeros(2), Aggregate(np.zeros(13), 1), server.init(np.zeros(2)))
    with pytest.raises(RoundError, match="no rows"):
        server.step(np.zeros(2), Aggregate(np.zeros(Sums.size(2)), 1), server.init(np.zeros(2)))


def test_settings_and_contract():
    for setting in ({"family": "gamma"}, {"tolerance": 0.0}, {"max_iterations": 0}):
        with pytest.raises(StrategyError):
            Newton(**setting)
    assert Newton.accepts is Payload.SUM
    assert Newton().control({}) is None


def test_the_null_model_with_an_offset_is_found_in_one_step():
    # Rates: counts 3 and 9 in 1 and 2 units of time, so that the null model is log(12 / 3).
    offset, y = np.log([1.0, 2.0]), np.array([3.0, 9.0])

    def sums(b):
        mu = np.exp(offset + b)
        deviance = 2 * float(np.sum(y * np.log(y / mu) - (y - mu)))
        return Sums(np.array([(y - mu).sum()]), np.array([[mu.sum()]]), deviance, 2.0, 12.0, 0.0)

    server = Newton("poisson", offset=True)
    model, state = np.zeros(1), server.init(np.zeros(1))
    stepped = server.step(model, Aggregate(sums(0.0).pack(), 1), state)
    assert stepped.model == pytest.approx([np.log(4)], rel=1e-14)
    stepped = server.step(stepped.model, Aggregate(sums(stepped.model[0]).pack(), 2), stepped.state)
    assert stepped.finished
    assert float(stepped.state["null_deviance"]) == pytest.approx(sums(np.log(4)).deviance)


def test_the_score_statistic_is_of_the_null_model():
    sums = Sums(np.array([2.0, 0.5]), np.array([[4.0, 0.0], [0.0, 1.0]]), 30.0, 50.0, 20.0, 0.0)
    server = Newton(COX, intercept=False)
    stepped = server.step(np.zeros(2), Aggregate(sums.pack(), 1), server.init(np.zeros(2)))
    assert float(stepped.state["score"]) == pytest.approx(2.0**2 / 4 + 0.5**2)
    assert stepped.model == pytest.approx([0.5, 0.5])
    with pytest.raises(StrategyError, match="no intercept"):
        Newton(COX)
