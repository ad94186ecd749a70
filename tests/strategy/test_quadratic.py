"""Client k minimises F_k(x) = (x - e_k)^2 / 2 with tau_k steps of gradient descent: what each method converges to is known exactly."""

import numpy as np
import pytest

from haina.report import Report
from haina.strategy.combine import Mean, Nova
from haina.strategy.local import Control, Local
from haina.strategy.parts import Aggregate
from haina.strategy.server import SGD, FedDyn, Scaffold
from haina.update import Cohort

E, P, TAU = np.array([-1.0, 0.0, 3.0]), np.array([0.2, 0.3, 0.5]), np.array([2, 5, 20])
OPTIMUM = 1.3


def train(x, k, eta, proximal, offset):
    y = x
    for _ in range(TAU[k]):
        y -= eta * (y - E[k] + proximal * (y - x) + offset)
    return y - x


def run(rounds, eta, combine=None, server=None, local=None):
    combine, server, local = combine or Mean(), server or SGD(), local or Local()
    model, memories = np.zeros(1), np.zeros((3, 1))
    state = server.init(model)
    times = TAU * eta
    norms = TAU if not local.proximal else (1 - (1 - eta * local.proximal) ** TAU) / (eta * local.proximal)
    reports = tuple(
        Report(1, int(t), normalizer=float(a), learning_rate=eta) for t, a in zip(TAU, norms, strict=True)
    )
    for number in range(1, rounds + 1):
        control = server.control(state)
        offsets = local.offset(control, memories)
        pulls = [0.0] * 3 if offsets is None else offsets[:, 0].tolist()
        x = float(model[0])
        deltas = np.array([[train(x, k, eta, local.proximal, pulls[k])] for k in range(3)])
        cohort = Cohort(("a", "b", "c"), reports, deltas)
        drift = cohort.combine(P / times) if server.uses_drift else None
        vector = combine.combine(cohort, P).vector
        if local.remembers:
            memories = np.stack(
                [local.remember(memories[k], control, deltas[k], reports[k]) for k in range(3)]
            )
        stepped = server.step(model, Aggregate(vector, number, drift=drift), state)
        moved = abs(float(stepped.model[0]) - x)
        model, state = stepped.model, stepped.state
        if moved < 1e-13:
            break
    return float(model[0])


def fixed_point(weights):
    return float((weights * E).sum() / weights.sum())


@pytest.mark.parametrize(("eta", "expected"), [(0.1, 2.132495), (0.01, 2.452937), (0.001, 2.483984)])
def test_fedavg_is_pulled_to_those_who_take_more_steps(eta, expected):
    closed = fixed_point(P * (1 - (1 - eta) ** TAU))
    assert closed == pytest.approx(expected, abs=1e-6)
    assert run(4000, eta) == pytest.approx(closed, abs=1e-8)


@pytest.mark.parametrize(("eta", "expected"), [(0.1, 1.837021), (0.01, 2.417801), (0.001, 2.480565)])
def test_fedprox_is_pulled_less(eta, expected):
    # With mu = 1 the local map contracts by 1 - 2 eta a step.
    closed = fixed_point(P * (1 - (1 - 2 * eta) ** TAU))
    assert closed == pytest.approx(expected, abs=1e-6)
    assert run(4000, eta, local=Local(proximal=1.0)) == pytest.approx(closed, abs=1e-8)


@pytest.mark.parametrize(("eta", "expected"), [(0.1, 0.715411), (0.01, 1.230315), (0.001, 1.292944)])
def test_fednova_is_unbiased_as_the_learning_rate_falls(eta, expected):
    closed = fixed_point(P * (1 - (1 - eta) ** TAU) / TAU)
    assert closed == pytest.approx(expected, abs=1e-6)
    assert run(4000, eta, combine=Nova()) == pytest.approx(closed, abs=1e-8)


@pytest.mark.parametrize(("eta", "expected"), [(0.1, 0.912736), (0.01, 1.232407), (0.001, 1.292965)])
def test_fednova_with_a_proximal_term(eta, expected):
    result = run(4000, eta, combine=Nova("steps"), local=Local(proximal=1.0))
    assert result == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("eta", [0.1, 0.01, 0.001])
def test_scaffold_finds_the_optimum(eta):
    result = run(20000, eta, server=Scaffold(), local=Local(control=Control.SCAFFOLD))
    assert result == pytest.approx(OPTIMUM, abs=1e-6)


@pytest.mark.parametrize("eta", [0.1, 0.01])
def test_feddyn_finds_the_optimum(eta):
    result = run(20000, eta, server=FedDyn(0.1), local=Local(0.1, Control.FEDDYN))
    assert result == pytest.approx(OPTIMUM, abs=1e-6)


def test_feddyn_with_tiny_steps_is_still_on_its_way_after_20000_rounds():
    result = run(20000, 0.001, server=FedDyn(0.1), local=Local(0.1, Control.FEDDYN))
    assert result == pytest.approx(1.303155, abs=1e-6)
