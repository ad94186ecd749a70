from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
from rounds import EVERY, play, updates_of

from haina.errors import RoundError, StrategyError
from haina.strategy.combine import QFair
from haina.strategy.parts import Aggregate, Assessment, Combined, Needs, Payload, Stepped
from haina.strategy.presets import PRESETS
from haina.strategy.record import Outcome, Verdict
from haina.strategy.robust import NNM, GeometricMedian
from haina.strategy.schedule import Cosine, OnPlateau
from haina.strategy.server import Adam
from haina.strategy.strategy import Strategy
from haina.strategy.validate import MedianClip
from haina.strategy.weigh import Accuracy, Participation, Samples, Weigh

D = 5
MODEL = np.zeros(D, np.float32)


@dataclass(frozen=True)
class Doubter:
    """A trust of the tests' own: believes nobody who was in the cohort before."""

    columns: ClassVar = {"seen": 0.0}
    needs_judge: bool = False

    def init(self):
        return {"rounds": np.array(0)}

    def assess(self, view, prior, cap, state, combine):
        seen = view.recall("seen")
        gate = np.where(seen > 0, 0.0, 1.0)
        verdicts = tuple(
            (Verdict.ADMITTED, "") if g else (Verdict.QUARANTINED, "was here before") for g in gate
        )
        return Assessment(
            gate,
            view.members.put(view.clients, seen=seen + 1),
            {"rounds": state["rounds"] + 1},
            evidence={"seen": seen},
            verdicts=verdicts,
            notes={"doubted": float((gate == 0).sum())},
            decisions={"mood": "sour"},
        )


@dataclass(frozen=True)
class Loudest:
    """A combiner of the tests' own: the longest vector."""

    needs: ClassVar = Needs.VECTORS
    payload: ClassVar = Payload.AVERAGE
    uses_shares: bool = True
    gives_coefficients: bool = True

    def combine(self, cohort, shares):
        weights = np.zeros(len(cohort))
        weights[np.argmax(cohort.norms * (shares > 0))] = 1.0
        return Combined(cohort.combine(weights), weights, {"length": cohort.norms})


@dataclass(frozen=True)
class Signed:
    """A server step of the tests' own: signSGD, over after `rounds`."""

    uses_drift: ClassVar = False
    accepts: ClassVar = Payload.AVERAGE
    rounds: int = 2

    def init(self, model):
        return {"t": np.array(0)}

    def control(self, state):
        return None

    def step(self, model, aggregate: Aggregate, state):
        t = int(state["t"]) + 1
        return Stepped(model + np.sign(aggregate.vector), {"t": np.array(t)}, finished=t >= self.rounds)


def test_any_screen_goes_with_any_weighting_any_rule_and_any_server():
    strategy = Strategy(
        clip=MedianClip(),
        weigh=Weigh((Samples(), Accuracy(), Participation())),
        combine=NNM(0.2, GeometricMedian()),
        server=Adam(0.1),
        rate=Cosine(0.05, 50, 1e-6),
        name="all my own",
    )
    closed = play(strategy, updates_of(1), MODEL)
    assert closed.record.outcome is Outcome.STEPPED
    assert strategy.needs is Needs.VECTORS
    assert strategy.measure == {"accuracy"}
    assert strategy.instructions(closed.state).learning_rate == pytest.approx(
        1e-6 + (0.05 - 1e-6) * (1 + np.cos(np.pi / 50)) / 2
    )


def test_parts_of_ones_own_are_parts():
    strategy = Strategy(combine=Loudest(), server=Signed(), trust=Doubter())
    assert strategy.needs is Needs.VECTORS
    updates = updates_of(2, n=4)
    first = play(strategy, updates[:3], MODEL)
    lengths = [np.linalg.norm(update.vector) for update in updates]
    loudest = int(np.argmax(lengths[:3]))
    np.testing.assert_array_equal(first.model, np.sign(updates[loudest].vector))
    assert first.record.clients[loudest].share == 1.0
    assert {c.verdict for i, c in enumerate(first.record.clients) if i != loudest} == {Verdict.PASSED_OVER}
    assert first.record.clients[0].evidence["length"] == pytest.approx(lengths[0], rel=1e-6)
    assert not first.finished

    second = play(strategy, updates, first.model, state=first.state)
    np.testing.assert_array_equal(second.model, first.model + np.sign(updates[3].vector))
    assert [c.verdict for c in second.record.clients] == [Verdict.QUARANTINED] * 3 + [Verdict.ADMITTED]
    assert [c.factors["trust"] for c in second.record.clients] == [0, 0, 0, 1]
    assert second.record.notes["doubted"] == 3
    assert second.record.decisions == {"mood": "sour"}
    assert second.finished

    third = play(strategy, updates, second.model, state=second.state)
    assert third.record.outcome is Outcome.KEPT
    assert third.model is second.model
    restored = strategy.restore(third.state.to_arrays())
    np.testing.assert_array_equal(restored.members.get("seen", [u.client for u in updates]), [2, 2, 2, 1])
    assert int(restored.parts["trust"]["rounds"]) == 2


def test_trust_that_leaves_a_few_keeps_them_under_the_cap():
    @dataclass(frozen=True)
    class Half(Doubter):
        def assess(self, view, prior, cap, state, combine):
            gate = np.array([1.0, 1.0, 1.0, 0.1, 0.1, 0.0, 0.0, 0.0])
            return Assessment(gate, view.members, state)

    strategy = Strategy(trust=Half())
    record = play(strategy, updates_of(3, n=8), MODEL).record
    shares = [client.share for client in record.clients]
    assert sum(shares) == pytest.approx(1)
    assert max(shares) <= 2 / 8 + 1e-12
    assert shares[5:] == [0, 0, 0]
    priors = [client.prior for client in record.clients]
    assert sum(priors) == pytest.approx(1)


@pytest.mark.parametrize("name", EVERY)
def test_a_strategy_is_settings_only(name):
    strategy = EVERY[name]
    one = play(strategy, updates_of(4, n=9), MODEL)
    two = play(strategy, updates_of(4, n=9), MODEL)
    assert one.model.tobytes() == two.model.tobytes()
    assert one.record == two.record
    assert replace(strategy) == strategy
    assert hash(strategy) == hash(replace(strategy))


def test_a_judge_that_is_not_there_is_missed_when_the_round_opens():
    strategy = Strategy(weigh=Weigh((Samples(), Accuracy(checked=True))), name="mine")
    assert strategy.needs_judge
    with pytest.raises(RoundError, match="'mine' judges updates on samples held by the server") as error:
        strategy.open(strategy.init(MODEL), MODEL, {})
    assert "held = 50" in error.value.remedy


def test_a_schedule_that_looks_at_the_loss_is_shown_it_and_saved():
    strategy = Strategy(rate=OnPlateau(0.1, factor=0.5, patience=1))
    assert strategy.measure == {"loss_before"}
    updates, state, rates = updates_of(5), strategy.init(MODEL), []
    for _ in range(6):
        rates.append(strategy.instructions(state).learning_rate)
        state = strategy.restore(play(strategy, updates, MODEL, state=state).state.to_arrays())
    assert rates == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.025])


@pytest.mark.parametrize("arrays", [{}, {"round": np.array(1)}, {"members/ids": np.zeros(0, np.uint8)}])
def test_arrays_that_are_no_state_are_refused(arrays):
    with pytest.raises(StrategyError, match="the saved state holds"):
        Strategy().restore(arrays)


def test_measured_fields_follow_from_the_parts():
    @dataclass(frozen=True)
    class Reader(Loudest):
        reads: tuple = field(default=("accuracy", "examples", "label_counts"))

    assert Strategy(combine=Reader()).measure == {"accuracy", "label_counts"}
    assert Strategy(combine=QFair()).measure == {"loss_before"}
    assert PRESETS["fedavg"]().measure == frozenset()
