"""`haina audit` on federations as their files run them: one that keeps its promise, and three that do not."""

from dataclasses import fields, replace

import numpy as np
import pytest

from haina.errors import ConfigError
from haina.federation import Federation
from haina.federation import audit as audits
from haina.federation.audit import inverted, members, with_canaries
from haina.privacy.mechanisms import Gaussian
from haina.privacy.policy import Policy
from haina.simulation.veil import Veil

TEXT = """
name = "audited"
[model]
learner = "jax"
kind = "mlp"
hidden = [32]
[data]
source = "sklearn:digits"
partition = {iid = {clients = 40}}
test = 0.6
[train]
rounds = 12
steps = 1
batch_size = 8
learning_rate = 0.1
evaluate_every = 100
[strategy]
weigh = ["uniform"]
[privacy]
clip = 0.5
secure_aggregation = true
noise = "distributed"
mechanism = {gaussian = 8.0}
"""


@pytest.fixture
def federation():
    return Federation.of(TEXT)


def test_a_federation_keeps_its_promise(federation):
    found = with_canaries(federation, 400).to_json()
    assert found["claimed"] == pytest.approx(1.70, abs=0.02)
    assert found["verdict"] == "holds"
    assert not found["alarm"]
    assert found["canaries_in"] + 40 > 200
    assert "distributed Gaussian noise" in found["mechanism"]


class Weak(Gaussian):
    """Noise a quarter as strong as is said."""

    def noise(self, size, sensitivity, stream, parties=1):
        return np.rint(super().noise(size, sensitivity, stream, parties) / 4).astype(np.int64)


def quarter(policy):
    return replace(policy, mechanism=Weak(policy.mechanism.noise_multiplier))


class Unbounded(Policy):
    """Clips nothing below five times the limit."""

    def bound(self, vector, limit):
        return super().bound(vector, 5 * limit)

    def terms(self, dimension, limit, clients):
        honest = super().terms(dimension, limit, clients)
        wide = replace(honest.grid, most=5 * honest.grid.most)
        return replace(honest, grid=wide)


@pytest.mark.parametrize("bug", ["noise 4x too small", "clipping off", "noise used again"])
def test_planted_bugs_are_caught(federation, bug, monkeypatch):
    real = Federation.simulation

    def broken(self):
        simulation = real(self)
        policy = simulation.veil.policy
        if bug == "noise 4x too small":
            policy = quarter(policy)
        elif bug == "clipping off":
            policy = Unbounded(**{part.name: getattr(policy, part.name) for part in fields(policy)})
        veil = Veil(policy, simulation.veil.seed)
        return replace(simulation, veil=veil)

    monkeypatch.setattr(Federation, "simulation", broken)
    if bug == "noise used again":
        monkeypatch.setattr(
            Veil, "_key", lambda self, turn, purpose: b"the same in every round, so noise "[:32]
        )
    found = with_canaries(federation, 400).to_json()
    assert found["verdict"] == "violated", found
    assert found["alarm"]
    assert found["lower_bound"] > found["claimed"]


def test_without_a_promise_there_is_nothing_to_break(federation):
    text = TEXT[: TEXT.index("[privacy]")]
    found = with_canaries(Federation.of(text), 100).to_json()
    assert found["claimed"] is None
    assert found["verdict"] == "nothing is promised"
    assert found["lower_bound"] > 0.5


def test_membership_inference_tells_members_of_an_overfitted_model():
    text = TEXT[: TEXT.index("[privacy]")]
    text = text.replace("test = 0.6", "test = 0.9").replace("clients = 40", "clients = 5")
    text = text.replace("steps = 1", "epochs = 30").replace("rounds = 12", "rounds = 6")
    found = members(Federation.of(text), 8)
    assert found["LiRA"]["auc"] > 0.55
    assert found["loss threshold"]["auc"] > 0.52
    with pytest.raises(ConfigError, match="even number"):
        members(Federation.of(text), 7)


def test_a_row_is_read_off_a_plain_update_and_not_off_a_covered_one(federation):
    found = inverted(federation, examples=5)
    assert found["likeness_plain"] > 0.99
    assert found["likeness_in a sum of 40"] < 0.5


@pytest.mark.parametrize(
    ("old", "new", "way"),
    [
        ('learner = "jax"\nkind = "mlp"\nhidden = [32]', 'learner = "glm"\nfamily = "gaussian"', "shadows"),
    ],
)
def test_what_canaries_cannot_imitate(old, new, way):
    text = TEXT[: TEXT.index("[strategy]")].replace(old, new)
    with pytest.raises(ConfigError) as refused:
        with_canaries(Federation.of(text.replace("sklearn:digits", "sklearn:diabetes")), 10)
    assert way in refused.value.remedy


def test_canaries_weigh_as_much_as_the_heaviest(federation):
    simulation = federation.simulation()
    canaries = audits.Canaries(20, simulation.learner.layout.size, bytes(32))
    inside = audits.inhabited(simulation, canaries, 0.5)
    assert len(inside.data) == 40 + int(canaries.included.sum())
    assert inside.data.examples(45) == max(simulation.data.clients.sizes)
