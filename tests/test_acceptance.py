"""What is promised of whole federations, on real or published data, with seeds that nothing was tuned on."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haina.data.federated import federate
from haina.data.partition import NaturalKey
from haina.data.sources import load
from haina.federation import Federation
from haina.learners.learner import Training
from haina.simulation.simulation import Simulation
from haina.strategy.presets import PRESETS
from haina.strategy.record import Verdict
from haina.strategy.schedule import Constant
from haina.strategy.weigh import Weigh

pytestmark = pytest.mark.slow

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

digits = pytest.importorskip("digits")
pytest.importorskip("jax")


@pytest.mark.parametrize("preset", ["trusted", "robust"])
@pytest.mark.parametrize("attack", list(digits.ATTACKS))
def test_defences_hold_on_digits(preset, attack):
    """The full table, with rivals and more seeds, is `./dev bench digits`; here one fresh seed a cell must pass the bar of the worst run."""
    result = digits.play((preset, 0.3, attack, 401))
    assert result["accuracy"] > 0.86
    assert result["false_quarantine"] <= 0.05


def test_the_trusted_preset_holds_under_severe_skew():
    for attack in ("none", "sign 40%", "label 40%"):
        assert digits.play(("trusted", 0.1, attack, 402))["accuracy"] > 0.88


@pytest.mark.parametrize("preset", ["trusted", "robust"])
@pytest.mark.parametrize("attack", ["", "sign_flip = {fraction = 0.2}"])
def test_ten_of_a_hundred_clients_a_round(preset, attack):
    words = f"[simulation]\nattack = {{{attack}}}\n" if attack else ""
    federation = Federation.of(
        f"""
seed = 403
[model]
learner = "jax"
[data]
source = "sklearn:digits"
partition = {{dirichlet = 0.3, clients = 100, min_examples = 4}}
test = 400
held = 50
[train]
rounds = 80
clients_per_round = 10
steps = 8
batch_size = 16
learning_rate = 0.2
[strategy]
preset = "{preset}"
{words}"""
    )
    simulation = federation.simulation()
    run, accuracies, met = simulation.start(), [], set()
    false = total = 0
    for _ in range(simulation.rounds):
        run, record = simulation.advance(run)
        assert len(record.clients) == 10
        accuracies.append(record.metrics["accuracy"])
        met |= {client.client for client in record.clients}
        honest = [client for client in record.clients if client.client not in simulation.hostile]
        false += sum(client.verdict is Verdict.QUARANTINED for client in honest)
        total += len(honest)
    assert np.mean(accuracies[-10:]) > 0.88
    assert len(met) > 95
    assert len(run.state.members) == len(met)
    assert false / total < 0.05


@pytest.mark.parametrize("skew", ["0,0", "0.5,0.5", "1,1"])
def test_fedprox_ends_with_lower_loss_on_its_synthetic_data(skew):
    """Li et al. 2020: on each Non-IID set and for each of three data seeds, mu = 1 ends below FedAvg.

    Shares are not capped here, as in the paper. The cap of 2/K by itself takes most of FedAvg's disadvantage away: one giant client no longer leads.
    """
    from haina.learners.jax import learner
    from haina.learners.models import Model

    losses = np.array(
        [[_synthetic_loss(learner, Model, skew, seed, mu) for mu in (0.0, 1.0)] for seed in (0, 1, 2)]
    )
    assert (losses[:, 1] < losses[:, 0]).all()


def _synthetic_loss(learner, model, skew, seed, mu):
    dataset = load(f"synthetic:{skew}", seed=seed).in_float32()
    data = federate(dataset, NaturalKey(dataset.key), np.random.default_rng(seed), test=0.1)
    rounds = 200
    simulation = Simulation(
        replace(PRESETS["fedprox"](mu), rate=Constant(0.01), weigh=Weigh(cap=None)),
        learner(model("logistic", (60,), 10)),
        data,
        Training(epochs=20, batch_size=10),
        rounds=rounds,
        cohort=10,
        seed=seed,
        evaluate_every=rounds,
    )
    run, losses = simulation.start(), []
    first = int(data.clients.offsets[0, 0])
    for number in range(rounds):
        run, _ = simulation.advance(run)
        if number >= rounds - 20:
            metrics = simulation.learner.evaluate(run.model, data.clients.x[first:], data.clients.y[first:])
            losses.append(metrics.loss)
    return float(np.mean(losses))


@pytest.mark.parametrize("preset", ["trusted", "robust"])
def test_clients_that_join_and_leave_keep_their_standing(preset):
    """Twenty clients begin, ten join in round 21, ten of the first leave in round 41; six of the thirty attack throughout."""
    everyone = digits.federation(preset, 0.3, "sign_flip = {fraction = 0.2}", 404).simulation()
    run, accuracies = everyone.start(), []
    for first, last in ((0, 20), (0, 30), (10, 30)):
        present = everyone.data.clients.take(range(first, last))
        simulation = replace(everyone, data=replace(everyone.data, clients=present))
        simulation.__dict__["hostile"] = everyone.hostile
        for _ in range(20):
            run, record = simulation.advance(run)
            accuracies.append(record.metrics["accuracy"])
            assert {client.client for client in record.clients} == set(present.clients)
    assert len(run.state.members) == 30
    assert np.mean(accuracies[-10:]) > 0.88
    names = list(everyone.data.clients.clients)
    trust = dict(zip(names, run.state.members.get("trust", names), strict=True))
    hostile = [trust[name] for name in everyone.hostile]
    honest = [trust[name] for name in names if name not in everyone.hostile]
    # Attackers who join late, when there is less left to learn, are damped (0.35 lets a fifth through) and not all shut out.
    assert np.median(honest) > 0.6
    assert np.median(hostile) < 0.35
