from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from rounds import EVERY
from toys import Centre, follow, simulation

from haina.artifact import dump, load, sha256
from haina.errors import ConfigError, RoundError
from haina.learners.learner import Training
from haina.simulation.attacks import IPM, LabelFlip, LyingReports, NaNSender, SignFlip
from haina.simulation.faults import Devices, Dropout, Stragglers
from haina.simulation.turn import Turn
from haina.strategy.partial import Partial
from haina.strategy.parts import Needs
from haina.strategy.presets import PRESETS
from haina.strategy.record import Outcome, Verdict
from haina.strategy.select import BySamples
from haina.strategy.server import SGD
from haina.strategy.strategy import Strategy
from haina.strategy.weigh import Accuracy, Link, Samples, Weigh


def models(records):
    return [record.model for record in records]


def verdicts(records, verdict):
    return {client.client for record in records for client in record.clients if client.verdict is verdict}


def told(records):
    """Records without the one part that the seed does not reproduce."""
    return [replace(record, timing={}) for record in records]


@pytest.mark.parametrize("name", EVERY)
def test_the_same_seed_gives_the_same_bytes(name):
    faults = {"dropout": Dropout(0.1), "stragglers": Stragglers(0.3), "attack": SignFlip(fraction=0.2)}
    sim = simulation(EVERY[name], clients=10, rounds=4, seed=7, **faults)
    run, records = follow(sim)
    again, told_again = follow(simulation(EVERY[name], clients=10, rounds=4, seed=7, **faults))
    assert run.model.tobytes() == again.model.tobytes()
    assert told(records) == told(told_again)
    _, others = follow(replace(sim, seed=8))
    assert models(records) != models(others)
    assert any(record.outcome is Outcome.STEPPED for record in records)


@pytest.mark.parametrize("name", EVERY)
def test_advancing_leaves_a_run_as_it_was(name):
    sim = simulation(EVERY[name], clients=10, rounds=3)
    run, _ = follow(sim, rounds=1)
    kept = (
        run.model.tobytes(),
        {n: a.tobytes() for n, a in run.state.to_arrays().items()},
        {c: m.tobytes() for c, m in run.memories.items()},
    )
    first, one = sim.advance(run)
    second, two = sim.advance(run)
    assert first.model.tobytes() == second.model.tobytes()
    assert told([one]) == told([two])
    assert run.model.tobytes() == kept[0]
    assert {n: a.tobytes() for n, a in run.state.to_arrays().items()} == kept[1]
    assert {c: m.tobytes() for c, m in run.memories.items()} == kept[2]


def test_a_record_is_a_link_in_a_chain():
    sim = simulation(PRESETS["fedavg"](), rounds=3)
    start = sha256(sim.learner.to_bytes(sim.start().model))
    run, records = follow(sim)
    assert [record.parent for record in records] == [start, *models(records)[:-1]]
    assert records[-1].model == sha256(sim.learner.to_bytes(run.model))
    assert [record.round for record in records] == [1, 2, 3]
    assert run.round == 3
    for record in records:
        assert set(record.timing) == {"select", "train", "combine", "evaluate", "total"}
        assert record.timing["total"] == pytest.approx(
            sum(s for phase, s in record.timing.items() if phase != "total"), abs=1e-5
        )
        assert record.notes["learning_rate"] == 0.1


def test_a_federation_learns():
    sim = simulation(PRESETS["fedavg"](), rounds=30)
    untrained = sim.learner.evaluate(sim.start().model, *sim.data.test)
    _, records = follow(sim)
    assert records[-1].metrics["loss"] < 0.6 * untrained.loss
    assert records[-1].metrics["accuracy"] > untrained.accuracy + 0.15


def test_ten_of_a_hundred_are_invited_and_newcomers_are_met():
    sim = simulation(PRESETS["fedavg"](), clients=100, rounds=40, cohort=10, seed=3)
    run, met = sim.start(), 0
    invited = []
    for _ in range(40):
        run, record = sim.advance(run)
        names = [client.client for client in record.clients]
        assert len(set(names)) == len(names) == 10
        invited.append(frozenset(names))
        assert met <= len(run.state.members) <= met + 10
        met = len(run.state.members)
    assert len(set(invited)) == 40
    # 100 (1 - 0.9^40) = 98.5 on average.
    assert 92 <= met <= 100
    counts = run.state.members.get("invited", sorted(set().union(*invited)))
    assert counts.sum() == 400
    assert run.state.members.get("delivered", sorted(set().union(*invited))).sum() == 400


def test_a_selector_is_asked_only_where_there_is_a_choice():
    large = simulation(Strategy(select=BySamples()), clients=10, rounds=1, cohort=10)
    _, records = follow(large)
    assert [client.client for client in records[0].clients] == list(large.data.clients.clients)
    _, records = follow(replace(large, cohort=4))
    assert len(records[0].clients) == 4


def test_dropouts_are_absent_and_the_others_go_on():
    sim = simulation(PRESETS["fedavg"](), rounds=20, dropout=Dropout(0.25))
    run, records = follow(sim)
    counts = [sum(c.verdict is Verdict.ABSENT for c in record.clients) for record in records]
    assert 0.1 < np.mean(counts) / 8 < 0.4
    assert all(record.outcome is Outcome.STEPPED for record in records)
    delivered = run.state.members.get("delivered", sim.data.clients.clients)
    assert delivered.sum() == 160 - sum(counts)


def test_when_everybody_drops_out_the_model_is_kept():
    run, records = follow(simulation(PRESETS["fedadam"](), rounds=2, dropout=Dropout(1.0)))
    assert [record.outcome for record in records] == [Outcome.KEPT] * 2
    assert records[-1].model == records[0].parent
    assert run.round == 2


def test_stragglers_do_less_and_keep_their_place():
    sim = simulation(
        PRESETS["fednova"](), rounds=3, stragglers=Stragglers(0.5), training=Training(epochs=5, batch_size=4)
    )
    _, records = follow(sim)
    full = {
        c: sim.training.steps_of(int(s))
        for c, s in zip(sim.data.clients.clients, sim.data.clients.sizes, strict=True)
    }
    for record in records:
        steps = {client.client: client.report["steps"] for client in record.clients}
        assert list(steps) == list(full)
        assert sum(steps[c] < full[c] for c in full) == 4
        assert all(steps[c] >= full[c] / 5 for c in full)
    _, others = follow(replace(sim, stragglers=Stragglers(0.0)))
    assert models(others) != models(records)
    with pytest.raises(ConfigError, match="less than 1 epoch"):
        follow(replace(sim, training=Training(epochs=1)))


def test_results_of_stragglers_come_in_the_order_of_the_cohort():
    sim = simulation(PRESETS["fedavg"](), stragglers=Stragglers(0.5), training=Training(epochs=4))
    turn = sim.turn(sim.start())
    assert len(set(turn.epochs)) > 2
    positions = turn.present[::-1]
    assert [result.client for result in sim.train(turn, positions)] == turn.names(positions)


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "qfedavg", "krum", "geometric_median"])
def test_clients_without_rows_fail_by_name_and_change_nothing(name):
    strategy = PRESETS[name]()
    _, records = follow(simulation(strategy, rounds=3, empty=(2, 5)))
    assert verdicts(records, Verdict.FAILED) == {"client-002", "client-005"}
    for record in records:
        assert record.outcome is Outcome.STEPPED
        assert {c.reason for c in record.clients if c.verdict is Verdict.FAILED} == {"it has no examples"}


class TestAttacks:
    def test_the_same_clients_attack_in_all_rounds_and_the_record_does_not_know(self):
        sim = simulation(PRESETS["fedavg"](), clients=10, rounds=5, attack=SignFlip(scale=2.0, fraction=0.3))
        assert len(sim.hostile) == 3
        assert sim.hostile == replace(sim).hostile
        _, records = follow(sim)
        _, honest = follow(replace(sim, attack=None))
        for evil, good in zip(records[:1], honest[:1], strict=True):
            for one, other in zip(evil.clients, good.clients, strict=True):
                assert one.norm == pytest.approx(
                    other.norm * (2 if one.client in sim.hostile else 1), rel=1e-5
                )
        assert models(records) != models(honest)

    @pytest.mark.parametrize("name", ["fedavg", "qfedavg", "krum"])
    def test_a_sleeper_is_honest_before_its_start(self, name):
        sim = simulation(PRESETS[name](), clients=10, rounds=6)
        _, honest = follow(sim)
        _, records = follow(replace(sim, attack=IPM(start=4, fraction=0.3)))
        assert models(records)[:3] == models(honest)[:3]
        assert models(records)[3] != models(honest)[3]

    def test_an_on_off_attack_is_off_every_other_period(self):
        sim = simulation(PRESETS["fedavg"](), clients=10, rounds=8, attack=NaNSender(period=2, fraction=0.3))
        _, records = follow(sim)
        for record in records:
            attacking = verdicts([record], Verdict.REFUSED)
            assert attacking == (sim.hostile if record.round in {1, 2, 5, 6} else frozenset())
            assert record.outcome is Outcome.STEPPED

    @pytest.mark.parametrize("name", EVERY)
    def test_broken_senders_are_refused_with_the_reason(self, name):
        sim = simulation(EVERY[name], clients=12, rounds=2, attack=NaNSender(fraction=0.25))
        run, records = follow(sim)
        assert verdicts(records, Verdict.REFUSED) == sim.hostile
        assert np.isfinite(run.model).all()
        assert all(record.outcome is Outcome.STEPPED for record in records)

    @pytest.mark.parametrize(
        "strategy", [PRESETS["fedavg"](), PRESETS["krum"](), PRESETS["geometric_median"]()]
    )
    def test_lies_about_examples_are_told_before_training_too(self, strategy):
        sim = simulation(strategy, clients=10, rounds=1, attack=LyingReports(exaggerate=50.0, fraction=0.2))
        _, (record,) = follow(sim)
        _, (honest,) = follow(replace(sim, attack=None))
        for one, other in zip(record.clients, honest.clients, strict=True):
            factor = 50 if one.client in sim.hostile else 1
            assert one.report["examples"] == other.report["examples"] * factor
            if "samples" in one.factors:
                assert one.factors["samples"] == other.factors["samples"] * factor
                assert one.prior <= 2 / 10 + 1e-12

    def test_poisoned_labels_are_what_attackers_train_on_and_nobody_else(self):
        sim = simulation(PRESETS["fedavg"](), clients=10, rounds=1, attack=LabelFlip(fraction=0.3, start=2))
        names = sim.data.clients.clients
        assert not sim.shards(1, names).y.any()
        poisoned = sim.shards(2, names)
        for k, name in enumerate(names):
            assert (poisoned.of(k)[1] == (1 if name in sim.hostile else 0)).all()
        assert not sim.data.clients.y.any()
        _, records = follow(replace(sim, rounds=2))
        _, honest = follow(replace(sim, rounds=2, attack=None))
        assert models(records)[0] == models(honest)[0]
        assert models(records)[1] != models(honest)[1]

    def test_a_robust_rule_holds_where_the_mean_is_carried_off(self):
        attack = SignFlip(scale=20.0, fraction=0.2)
        losses = {}
        for name in ("fedavg", "krum", "median", "geometric_median", "nnm"):
            _, records = follow(simulation(PRESETS[name](), clients=15, rounds=20, attack=attack))
            losses[name] = records[-1].metrics["loss"]
        worst = max(loss for name, loss in losses.items() if name != "fedavg")
        assert losses["fedavg"] > 100 * worst

    def test_too_small_a_fraction_is_refused(self):
        with pytest.raises(ConfigError, match="is 0 attackers"):
            follow(simulation(PRESETS["fedavg"](), rounds=1, attack=SignFlip(fraction=0.01)))


class TestMemories:
    @pytest.mark.parametrize("name", ["scaffold", "feddyn"])
    def test_only_those_who_trained_remember(self, name):
        sim = simulation(PRESETS[name](), clients=20, rounds=3, cohort=5, empty=(3,))
        run, records = follow(sim)
        trained = {c.client for r in records for c in r.clients if c.verdict is Verdict.ADMITTED}
        assert set(run.memories) == trained
        assert len(trained) < 20
        assert all(memory.dtype == np.float32 for memory in run.memories.values())

    def test_scaffold_controls_of_clients_and_server_agree(self):
        # With everybody in every round, c is the mean of the c_k (Karimireddy et al. 2020, sec. 4); memories hold -c_k.
        sim = simulation(PRESETS["scaffold"](), rounds=5)
        run, _ = follow(sim)
        mean = np.mean(list(run.memories.values()), axis=0)
        np.testing.assert_allclose(run.state.parts["server"]["c"], -mean, atol=1e-5)

    def test_scaffold_and_feddyn_have_the_right_fixed_point(self):
        # The mean of the clients' optima is the optimum of the mean loss; unequal steps pull FedAvg away from it, controls bring it back.
        for name in ("scaffold", "feddyn"):
            sim = simulation(
                PRESETS[name](**({"alpha": 0.5} if name == "feddyn" else {})),
                rounds=150,
                training=Training(epochs=3, batch_size=200),
            )
            run, _ = follow(replace(sim, learner=FullBatch()))
            optimum = np.mean([sim.data.clients.of(k)[0].mean(axis=0) for k in range(8)], axis=0)
            np.testing.assert_allclose(run.model, optimum, atol=2e-3)


@dataclass(frozen=True)
class FullBatch(Centre):
    """Gradient descent without noise, more steps for some clients."""

    def train(self, work):
        for k, update in enumerate(super().train(work)):
            x, _ = work.shards.of(k)
            offset = 0.0 if work.offsets is None else work.offsets[k]
            local, steps = work.model.astype(np.float64), 2 + 3 * (k % 3)
            for _ in range(steps):
                gradient = local - x.mean(axis=0) + work.proximal * (local - work.model) + offset
                local = local - work.learning_rate * gradient
            yield replace(
                update,
                vector=(local - work.model).astype(np.float32),
                report=replace(update.report, steps=steps),
            )


def test_seconds_are_simulated_so_that_the_seed_reproduces_them():
    strategy = Strategy(weigh=Weigh((Samples(), Link())))
    sim = simulation(strategy, rounds=2, devices=Devices(step_seconds=0.5, spread=1.0))
    _, records = follow(sim)
    seconds = [[client.report["seconds"] for client in record.clients] for record in records]
    assert seconds[0] == seconds[1]
    assert len(set(seconds[0])) == 8
    _, slower = follow(replace(sim, devices=Devices(step_seconds=1.0, spread=1.0)))
    assert slower[0].clients[0].report["seconds"] == pytest.approx(2 * seconds[0][0])


def test_what_the_strategy_reads_is_measured_and_nothing_else():
    _, (record,) = follow(simulation(PRESETS["fedavg"](), rounds=1))
    assert not {"loss_before", "loss_after", "accuracy"} & set(record.clients[0].report)
    _, (record,) = follow(simulation(Strategy(weigh=Weigh((Samples(), Accuracy()))), rounds=1))
    assert "accuracy" in record.clients[0].report
    training = Training(measure=frozenset({"loss_after"}))
    _, (record,) = follow(simulation(PRESETS["qfedavg"](), rounds=1, training=training))
    assert {"loss_before", "loss_after"} <= set(record.clients[0].report)


@pytest.mark.parametrize(("every", "evaluated"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (9, [5])])
def test_the_model_is_evaluated_every_so_often_and_in_the_end(every, evaluated):
    _, records = follow(simulation(PRESETS["fedavg"](), rounds=5, evaluate_every=every))
    assert [record.round for record in records if record.metrics] == evaluated


def test_samples_held_by_the_server_judge():
    strategy = Strategy(weigh=Weigh((Samples(), Accuracy(checked=True))))
    _, (record,) = follow(simulation(strategy, rounds=1, held=20))
    assert all(0.5 <= client.factors["accuracy"] <= 2 for client in record.clients)
    with pytest.raises(RoundError, match="there are none"):
        follow(simulation(strategy, rounds=1))


@dataclass(frozen=True)
class Once(SGD):
    """A step that is over after two rounds."""

    uses_drift: ClassVar[bool] = False

    def step(self, model, aggregate, state):
        return replace(super().step(model, aggregate, state), finished=aggregate.round == 2)


def test_a_step_may_end_the_run_and_then_the_model_is_evaluated():
    run, records = follow(simulation(Strategy(server=Once()), rounds=9, evaluate_every=9))
    assert run.finished
    assert len(records) == 2
    assert [bool(record.metrics) for record in records] == [False, True]


class Crew:
    """Workers without processes: each is told the turn as bytes and answers in bytes."""

    def __init__(self, sim, count):
        self.sim, self.count = sim, count
        self.sums = self.rows = 0

    def __call__(self, turn):
        for k in range(self.count):
            share = turn.present[k :: self.count]
            told = load(dump(*turn.to_arrays(share)))
            there, positions = Turn.from_arrays(*told, self.sim.strategy)
            assert positions == share
            assert self.sim.folds(there) == self.sim.folds(turn)
            if self.sim.folds(turn):
                self.sums += 1
                yield Partial.from_bytes(self.sim.partial(there, positions).to_bytes())
            else:
                self.rows += len(share)
                yield from self.sim.train(there, positions)


FAULTS = {
    "calm": {},
    "faults": {"dropout": Dropout(0.2), "stragglers": Stragglers(0.4), "empty": (2, 5)},
    "attack from round 2": {"attack": SignFlip(fraction=0.2, start=2), "dropout": Dropout(0.1)},
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("name", EVERY)
def test_shared_out_a_round_is_the_same_round(name, faults):
    sim = simulation(
        EVERY[name], clients=11, cohort=9, rounds=3, training=Training(epochs=3, batch_size=4), **faults
    )
    run, records = follow(sim)
    for count in (1, 3):
        crew, other, there = Crew(sim, count), sim.start(), []
        for _ in range(3):
            other, record = sim.advance(other, crew)
            there.append(record)
        assert told(there) == told(records)
        assert other.model.tobytes() == run.model.tobytes()
        state, expected = other.state.to_arrays(), run.state.to_arrays()
        assert {n: a.tobytes() for n, a in state.items()} == {n: a.tobytes() for n, a in expected.items()}
        assert {c: m.tobytes() for c, m in other.memories.items()} == {
            c: m.tobytes() for c, m in run.memories.items()
        }
        summed = sim.strategy.needs is Needs.COUNTS and not sim.strategy.local.remembers
        attacked = sim.attack is not None
        assert crew.sums == (0 if not summed else count if attacked else 3 * count)
        assert bool(crew.rows) == (not summed or attacked)


def test_what_a_worker_is_told_grows_with_the_cohort_and_not_with_the_population():
    def size(clients, cohort, seen):
        sim = simulation(PRESETS["fedadam"](), clients=clients, cohort=cohort, rounds=seen + 1)
        run, _ = follow(sim, rounds=seen)
        turn = sim.turn(run)
        return len(dump(*turn.to_arrays(turn.present[::2])))

    small, large = size(10, 8, 1), size(1000, 8, 30)
    assert large < small + 100
    assert size(1000, 16, 1) < 2 * small
