from dataclasses import replace

import numpy as np
import pytest

from haina.errors import RoundError, StrategyError
from haina.report import Report
from haina.strategy.presets import PRESETS
from haina.strategy.record import Verdict
from haina.strategy.trust import Arbiter, Trust
from haina.update import Update

NAMES = [f"c{k}" for k in range(10)]
TRUTH = np.linspace(-1, 1, 60)


class Bowl:
    """A judge whose samples say that the model should be at `TRUTH`."""

    examples = 20

    def __init__(self, model, truth=TRUTH):
        self.model, self.truth = model, truth

    def losses(self, increments):
        return np.array([float(np.sum((self.model + row - self.truth) ** 2)) for row in increments])

    def direction(self):
        return (0.3 * (self.truth - self.model)).astype(np.float32)

    def witnesses(self):
        halves = np.zeros((2, 60), np.float32)
        halves[0, :30], halves[1, 30:] = self.direction()[:30], self.direction()[30:]
        return halves


def play(strategy, rounds, hostile=(), truth=TRUTH, seed=0):
    """Clients move towards `TRUTH` with noise; hostile ones move away."""
    rng = np.random.default_rng(seed)
    model = np.zeros(60, np.float32)
    state = strategy.init(model)
    records = []
    for _ in range(rounds):
        judge = Bowl(model, truth) if strategy.needs_judge else None
        open_round = strategy.open(state, model, dict.fromkeys(NAMES), judge=judge)
        for name in NAMES:
            delta = 0.2 * (TRUTH - model) + rng.normal(0, 0.05, 60)
            delta = -delta if name in hostile else delta
            open_round.add(Update(name, delta.astype(np.float32), Report(100)))
        closed = open_round.close()
        model, state = closed.model, closed.state
        records.append(closed.record)
    return model, state, records


@pytest.mark.parametrize("preset", ["robust", "trusted"])
@pytest.mark.parametrize("hostile", [(), ("c1", "c4"), ("c0", "c1", "c2", "c3")])
def test_the_model_gets_there_and_attackers_count_nothing(preset, hostile):
    model, state, records = play(PRESETS[preset](), 30, hostile)
    assert np.abs(model - TRUTH).max() < 0.25
    quarantined = {c.client for c in records[-1].clients if c.verdict is Verdict.QUARANTINED}
    assert quarantined == set(hostile)
    for client in records[-1].clients:
        assert (client.share == 0) is (client.client in hostile)
        assert set(client.evidence) >= {"agreement", "consistency", "deviation", "trust"}
        assert bool(client.reason) is (client.verdict is not Verdict.ADMITTED)
    assert state.members.get("strikes", list(hostile)).tolist() == [1.0] * len(hostile)


@pytest.mark.parametrize("preset", ["robust", "trusted"])
def test_a_resumed_state_goes_on_bit_for_bit(preset):
    strategy = PRESETS[preset]()
    _, state, _ = play(strategy, 5, ("c1",))
    arrays = state.to_arrays()
    restored = strategy.restore(arrays)
    again = restored.to_arrays()
    assert list(arrays) == list(again)
    assert all(arrays[name].tobytes() == again[name].tobytes() for name in arrays)


def test_the_server_must_have_samples_for_the_trusted_preset():
    strategy = PRESETS["trusted"]()
    model = np.zeros(60, np.float32)
    with pytest.raises(RoundError, match=r"held = 50.*robust"):
        strategy.open(strategy.init(model), model, dict.fromkeys(NAMES))


def test_the_arbiter_overrules_trust_that_makes_a_worse_model_and_then_starts_it_over():
    arbiter = Arbiter(memory=0.0)
    state = arbiter.init()
    for lost in (1, 2, 3):
        chosen, state = arbiter.decide(np.array([5.0, 1.0, 2.0, 3.0]), state)
        assert chosen == 1
        assert float(state["lost"]) == lost
    chosen, state = arbiter.decide(np.array([1.0, 1.0, 2.0, 3.0]), state)
    assert chosen == 0
    assert float(state["lost"]) == 0


def test_the_arbiter_lets_trust_be_a_little_worse():
    chosen, _ = Arbiter(memory=0.0).decide(np.array([1.12, 1.0, 1.0, 1.0]), Arbiter().init())
    assert chosen == 0


def test_the_arbiter_does_not_take_what_is_not_there():
    chosen, state = Arbiter().decide(np.array([np.inf, np.inf, 3.0, 4.0]), Arbiter().init())
    assert chosen == 2
    chosen, _ = Arbiter().decide(np.full(4, np.inf), state)
    assert chosen == 0


def test_lost_rounds_teach_nothing():
    # The server's samples contradict the clients, who are many and agree: the arbiter takes the server's side.
    strategy = replace(
        PRESETS["trusted"](), trust=Trust("server", arbiter=Arbiter(memory=0.0, ratio=1.0, margin=0.0))
    )
    model = np.zeros(60, np.float32)
    state = strategy.init(model)

    class Stubborn(Bowl):
        def losses(self, increments):
            return np.array([9.0]) if len(increments) == 1 else np.array([1.0, 2.0, 3.0])

    open_round = strategy.open(state, model, dict.fromkeys(NAMES), judge=Stubborn(model))
    for name in NAMES:
        open_round.add(Update(name, (0.2 * TRUTH).astype(np.float32), Report(100)))
    closed = open_round.close()
    assert closed.record.decisions["arbiter"] == "took robust centre"
    assert closed.state.members.get("trust", NAMES).tolist() == [0.65] * 10


def test_one_client_and_equal_updates_do_not_break_a_round():
    for preset in ("robust", "trusted"):
        strategy = PRESETS[preset]()
        model = np.zeros(60, np.float32)
        for vectors in ([TRUTH], [TRUTH] * 3, [np.zeros(60)] * 3):
            names = NAMES[: len(vectors)]
            judge = Bowl(model) if strategy.needs_judge else None
            open_round = strategy.open(strategy.init(model), model, dict.fromkeys(names), judge=judge)
            for name, vector in zip(names, vectors, strict=True):
                open_round.add(Update(name, vector.astype(np.float32), Report(10)))
            assert np.isfinite(open_round.close().model).all()


@pytest.mark.parametrize("settings", [{"evidence": "stars"}, {"hostile": 0.5}, {"clip": 0.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(StrategyError, match="Allowed"):
        Trust(**settings)
