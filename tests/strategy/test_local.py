import numpy as np
import pytest

from haina.errors import StrategyError
from haina.report import Report
from haina.strategy.local import Control, Local
from haina.strategy.parts import Aggregate
from haina.strategy.server import FedDyn, Scaffold

D = 4


def vectors(seed, n):
    return np.random.default_rng(seed).normal(size=(n, D))


def test_plain_training_remembers_and_adds_nothing():
    local = Local(proximal=0.1)
    assert not local.remembers
    assert local.offset(np.ones(D), np.ones(D)) is None


def test_scaffold_is_the_published_algorithm():
    # Karimireddy et al. 2020, Alg. 1, Option II: the correction is c - c_k; c_k+ = c_k - c + (x - y) / (tau eta); c moves by |S|/N mean(c_k+ - c_k).
    local, server = Local(control=Control.SCAFFOLD), Scaffold()
    rng = np.random.default_rng(1)
    n, model = 5, np.zeros(D)
    state, memory = server.init(model), {k: np.zeros(D) for k in range(n)}
    c, c_k = np.zeros(D), np.zeros((n, D))
    for number in range(1, 6):
        cohort = rng.choice(n, 3, replace=False)
        steps, rate = rng.integers(1, 9, 3), rng.uniform(0.01, 0.3, 3)
        delta = rng.normal(size=(3, D))
        for i, k in enumerate(cohort):
            offset = local.offset(server.control(state), memory[k])
            np.testing.assert_allclose(offset, c - c_k[k], atol=1e-12)
            report = Report(1, steps=int(steps[i]), learning_rate=float(rate[i]))
            memory[k] = local.remember(memory[k], server.control(state), delta[i], report)
        moved = -c - delta / (steps * rate)[:, None]
        drift = (delta / (steps * rate)[:, None]).mean(axis=0)
        stepped = server.step(
            model, Aggregate(delta.mean(axis=0), number, participation=3 / n, drift=drift), state
        )
        state, model = stepped.state, stepped.model
        c_k[cohort] += moved
        c = c + 3 / n * moved.mean(axis=0)
        np.testing.assert_allclose(state["c"], c, atol=1e-12)


def test_feddyn_is_the_published_algorithm():
    # Acar et al. 2021, Alg. 1: the gradient is corrected by -lambda_k, and lambda_k <- lambda_k - alpha (y - x).
    alpha, delta = 0.1, vectors(2, 3)
    local = Local(alpha, Control.FEDDYN)
    memory, lambda_k = np.zeros(D), np.zeros(D)
    for row in delta:
        np.testing.assert_allclose(local.offset(FedDyn(alpha).control({}), memory), -lambda_k)
        memory = local.remember(memory, None, row, Report(1))
        lambda_k = lambda_k - alpha * row
    np.testing.assert_allclose(memory, -lambda_k)


def test_the_offsets_of_many_clients_are_made_at_once():
    local, c, memories = Local(control=Control.SCAFFOLD), vectors(3, 1)[0], vectors(4, 6)
    together = local.offset(c, memories)
    np.testing.assert_array_equal(together, np.stack([local.offset(c, row) for row in memories]))
    np.testing.assert_array_equal(local.offset(None, memories), memories)
    np.testing.assert_array_equal(local.offset(c, None), c)


@pytest.mark.parametrize("control", [Control.SCAFFOLD, Control.FEDDYN])
def test_float32_stays_float32(control):
    local = Local(0.1, control)
    one = np.ones(D, np.float32)
    memory = local.remember(one, one, one, Report(1, steps=3, learning_rate=0.1))
    assert memory.dtype == np.float32
    assert local.offset(one, memory).dtype == np.float32


def test_scaffold_says_what_it_needs():
    with pytest.raises(StrategyError, match="learning rate"):
        Local(control=Control.SCAFFOLD).remember(np.zeros(D), None, np.ones(D), Report(1))


@pytest.mark.parametrize("proximal", [-0.1, np.nan, np.inf])
def test_an_impossible_proximal_weight_is_refused(proximal):
    with pytest.raises(StrategyError, match="proximal is"):
        Local(proximal)


def test_feddyn_without_a_regulariser_is_refused():
    with pytest.raises(StrategyError, match="proximal > 0"):
        Local(0.0, Control.FEDDYN)
