import json
from pathlib import Path

import numpy as np
import pytest

from haina.errors import StrategyError
from haina.strategy.parts import Aggregate, Payload
from haina.strategy.server import SGD, Adagrad, Adam, FedDyn, FedExP, Scaffold, Yogi

VECTORS = {
    v["id"]: v
    for v in json.loads((Path(__file__).parents[1] / "vectors" / "aggregation.json").read_text())["vectors"]
}

PUBLISHED = {
    "fedavgm_m0.9_lr1": SGD(1.0, 0.9),
    "fedavgm_m0.9_lr0.5": SGD(0.5, 0.9),
    "fedadagrad_tau1e-3": Adagrad(0.1, beta1=0.0, eps=1e-3, v0=0.0),
    "fedadam_b2_0.99_tau1e-3": Adam(0.1, 0.9, 0.99, 1e-3, bias_correction="flower"),
    "fedadam_spec_b2_0.999_tau1e-3": Adam(0.1, 0.9, 0.999, 1e-3, bias_correction="flower"),
    "fedyogi_tau1e-3": Yogi(0.01, 0.9, 0.99, 1e-3, v0=0.0),
    "fedadam_paper_alg2": Adam(0.1, 0.9, 0.99, 1e-3),
    "fedadam_kingma_bias": Adam(0.1, 0.9, 0.999, 1e-3, bias_correction="kingma"),
}

STEPS = [SGD(), SGD(0.5, 0.9), Adagrad(), Adam(), Yogi(), FedExP(), Scaffold(), FedDyn(0.1)]


def trajectory(step, vector):
    inputs = vector["inputs"]
    model = np.array(inputs["x0"])
    shares = np.array(inputs["num_examples"]) / sum(inputs["num_examples"])
    state, models = step.init(model), []
    for number, deltas in enumerate(np.array(inputs["client_deltas"]), 1):
        stepped = step.step(model, Aggregate(shares @ deltas, number), state)
        model, state = stepped.model, stepped.state
        models.append(model)
    return np.array(models)


@pytest.mark.parametrize("name", PUBLISHED)
def test_server_optimisers_match_the_vectors(name):
    vector = VECTORS[name]
    assert trajectory(PUBLISHED[name], vector) == pytest.approx(np.array(vector["expected"]), abs=1e-9)


def test_the_vectors_tell_the_bias_corrections_apart():
    vector = VECTORS["fedadam_kingma_bias"]
    other = Adam(0.1, 0.9, 0.999, 1e-3, bias_correction="flower")
    assert np.abs(trajectory(other, vector) - np.array(vector["expected"])).max() > 1e-2


def test_the_specification_of_fedadam_can_be_expressed():
    step = Adam(lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8, bias_correction="kingma")
    stepped = step.step(np.zeros(2), Aggregate(np.array([0.3, -2.0]), 1), step.init(np.zeros(2)))
    # The first step of corrected Adam has the length of the learning rate in every coordinate.
    assert stepped.model == pytest.approx([0.1, -0.1], rel=2e-6)


def test_a_round_that_kept_its_model_does_not_age_the_bias_correction():
    step = Adam(bias_correction="kingma")
    model, delta = np.zeros(1), np.ones(1)
    late = step.step(model, Aggregate(delta, 7), step.init(model))
    assert late.model == step.step(model, Aggregate(delta, 1), step.init(model)).model


def test_yogi_forgets_a_large_square_more_slowly_than_adam():
    model, spike, quiet = np.zeros(1), np.array([1.0]), np.array([1e-3])
    v = {}
    for step in (Adam(beta2=0.9), Yogi(beta2=0.9)):
        state = step.step(model, Aggregate(spike, 1), step.init(model)).state
        for number in range(2, 60):
            state = step.step(model, Aggregate(quiet, number), state).state
        v[type(step)] = float(state["v"][0])
    assert v[Adam] < 1e-3 < 0.09 < v[Yogi]


def test_fedexp_extrapolates_when_increments_disagree_and_never_shortens():
    step, model = FedExP(eps=1e-3), np.zeros(2)
    rows = np.array([[1.0, 3.0], [1.0, -3.0]])
    mean, mean_square = rows.mean(axis=0), float((rows**2).sum(axis=1).mean())
    stepped = step.step(model, Aggregate(mean, 1, mean_square=mean_square), {})
    assert stepped.notes["server_rate"] == pytest.approx(10 / (2 * (1 + 1e-3)))
    assert stepped.model == pytest.approx(mean * stepped.notes["server_rate"])
    agreeing = step.step(model, Aggregate(mean, 1, mean_square=float(mean @ mean)), {})
    assert agreeing.notes["server_rate"] == 1
    cancelled = step.step(model, Aggregate(np.zeros(2), 1, mean_square=9.0), {})
    assert np.isfinite(cancelled.model).all()


def test_scaffold_control_follows_the_clients_controls():
    # c stays the mean of all clients' controls when a random half takes part in each round (Alg. 1 keeps both sides apart).
    rng = np.random.default_rng(0)
    clients, dimension, tau, eta = 4, 3, 5, 0.1
    controls, step, model = np.zeros((clients, dimension)), Scaffold(), np.zeros(dimension)
    state = step.init(model)
    for number in range(1, 20):
        taking = rng.choice(clients, 2, replace=False)
        c = step.control(state)
        deltas = rng.normal(size=(2, dimension))
        drift = deltas.mean(axis=0) / (tau * eta)
        controls[taking] += -c - deltas / (tau * eta)
        aggregate = Aggregate(deltas.mean(axis=0), number, participation=0.5, drift=drift)
        stepped = step.step(model, aggregate, state)
        model, state = stepped.model, stepped.state
        assert step.control(state) == pytest.approx(controls.mean(axis=0), abs=1e-12)
    with pytest.raises(StrategyError, match="drift"):
        step.step(model, Aggregate(model, 1), state)


def test_feddyn_under_partial_participation():
    step, model = FedDyn(alpha=0.1), np.array([1.0])
    first = step.step(model, Aggregate(np.array([0.4]), 1, participation=0.25), step.init(model))
    # h = -0.1 * 0.25 * 0.4, and the model moves by delta - h / alpha.
    assert first.state["h"] == pytest.approx([-0.01])
    assert first.model == pytest.approx([1.5])


@pytest.mark.parametrize("step", STEPS, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_are_pure_and_keep_the_models_dtype(step, dtype):
    rng = np.random.default_rng(1)
    model = rng.normal(size=8).astype(dtype)
    delta = rng.normal(size=8)
    aggregate = Aggregate(delta, 1, mean_square=2.0, participation=0.5, drift=delta * 3)
    state = step.init(model)
    before = {name: array.copy() for name, array in state.items()}
    kept_model, kept_delta = model.copy(), delta.copy()
    first, again = step.step(model, aggregate, state), step.step(model, aggregate, state)
    assert first.model.dtype == dtype
    assert first.model.tobytes() == again.model.tobytes()
    assert set(first.state) == set(state)
    for name, array in first.state.items():
        assert array.dtype == state[name].dtype
        assert array.shape == state[name].shape
        assert (state[name] == before[name]).all()
    assert (model == kept_model).all()
    assert (delta == kept_delta).all()
    assert not first.finished
    assert step.accepts is Payload.AVERAGE
    assert step.uses_drift is isinstance(step, Scaffold)
    assert (step.control(state) is not None) is isinstance(step, Scaffold)


def test_fedavg_remembers_nothing():
    assert SGD().init(np.zeros(3)) == {}
    assert SGD().step(np.ones(3), Aggregate(np.full(3, 0.5), 1), {}).model == pytest.approx([1.5] * 3)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(lr=0),
        lambda: SGD(momentum=1),
        lambda: Adagrad(beta1=1),
        lambda: Adam(eps=0),
        lambda: Adam(v0=-1),
        lambda: Adam(beta2=1),
        lambda: Yogi(bias_correction="paper"),
        lambda: FedExP(eps=0),
        lambda: Scaffold(lr=float("nan")),
        lambda: FedDyn(alpha=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(StrategyError):
        make()
