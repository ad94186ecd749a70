import gc
import json
import tracemalloc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import EVERY, play, updates_of, whole

from haina.errors import RoundError
from haina.report import Report
from haina.strategy.members import HISTORY
from haina.strategy.parts import Needs, Payload
from haina.strategy.presets import PRESETS
from haina.strategy.record import Outcome, RoundRecord, Verdict
from haina.strategy.server import SGD
from haina.strategy.strategy import Strategy
from haina.strategy.validate import AdaptiveClip, FixedClip, squared_norm
from haina.strategy.weigh import Samples, Weigh
from haina.update import Failure, Update

D = 5
STREAMING = {name: strategy for name, strategy in EVERY.items() if strategy.needs < Needs.VECTORS}
WHOLE = {name: strategy for name, strategy in EVERY.items() if strategy.needs is Needs.VECTORS}


def fresh(seed=0):
    return np.random.default_rng([seed, 9]).normal(size=D).astype(np.float32)


def shares_of(record):
    return {client.client: client.share for client in record.clients}


def test_the_weighted_mean_of_the_three_nodes():
    # 500, 300 and 200 samples: 0.5 * 0.8 + 0.3 * 0.6 + 0.2 * 0.9 = 0.76 and 0.5 * -0.5 + 0.3 * -0.7 + 0.2 * -0.3 = -0.52. The request that this
    # example comes from prints [0.77, -0.51]; that is an arithmetic slip.
    nodes = {"A": (500, [0.8, -0.5]), "B": (300, [0.6, -0.7]), "C": (200, [0.9, -0.3])}
    updates = [Update(name, np.array(row), Report(examples)) for name, (examples, row) in nodes.items()]
    closed = play(PRESETS["fedavg"](), updates, np.zeros(2))
    np.testing.assert_allclose(closed.model, [0.76, -0.52], rtol=1e-12)
    assert shares_of(closed.record) == pytest.approx({"A": 0.5, "B": 0.3, "C": 0.2})
    assert [client.verdict for client in closed.record.clients] == [Verdict.ADMITTED] * 3
    assert closed.record.outcome is Outcome.STEPPED
    np.testing.assert_allclose(play(whole(PRESETS["fedavg"]()), updates, np.zeros(2)).model, [0.76, -0.52])


@pytest.mark.parametrize(
    "strategy",
    [
        *(PRESETS[n]() for n in ("fedavg", "fedavgm", "fednova", "fedadam", "scaffold", "feddyn", "qfedavg")),
        PRESETS["fednova"](proximal=0.1),
        PRESETS["qfedavg"](q=0.3),
        replace(PRESETS["fednova"](), clip=FixedClip(0.7)),
        replace(PRESETS["qfedavg"](), clip=FixedClip(0.7)),
        replace(PRESETS["scaffold"](), clip=AdaptiveClip(start=0.7)),
        *(EVERY[n] for n in ("clipped", "adaptively clipped", "all factors", "disco")),
    ],
    ids=lambda s: f"{s.name} {type(s.clip).__name__}",
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_streaming_gives_what_the_whole_cohort_gives(strategy, dtype):
    assert strategy.needs < Needs.VECTORS
    together = whole(strategy)
    model = fresh().astype(dtype)
    folded = kept = None
    for seed in range(4):
        updates = updates_of(seed, dtype=dtype)
        if folded is None:
            folded, kept = play(strategy, updates, model), play(together, updates, model)
        else:
            folded = play(strategy, updates, folded.model, state=folded.state)
            kept = play(together, updates, kept.model, state=kept.state)
        np.testing.assert_allclose(folded.model, kept.model, rtol=2e-6, atol=2e-6)
        for name, array in folded.state.to_arrays().items():
            np.testing.assert_allclose(
                array, kept.state.to_arrays()[name], rtol=2e-6, atol=2e-6, err_msg=name
            )
        for one, other in zip(folded.record.clients, kept.record.clients, strict=True):
            assert one.verdict is other.verdict
            assert (one.share, one.prior, one.clip) == pytest.approx((other.share, other.prior, other.clip))
        assert folded.record.notes == pytest.approx(kept.record.notes, rel=1e-5)


def test_folding_does_not_hold_on_to_the_vectors():
    updates = updates_of(0, d=1000)
    alive = [weakref.ref(update.vector) for update in updates]
    model = np.zeros(1000, np.float32)
    strategy = PRESETS["fedavg"]()
    roster = {update.client: update.report for update in updates}
    opened = strategy.open(strategy.init(model), model, roster)
    while updates:
        opened.add(updates.pop())
    gc.collect()
    assert all(reference() is None for reference in alive)
    assert opened.close().record.outcome is Outcome.STEPPED


@pytest.mark.parametrize("name", EVERY)
def test_the_order_of_arrival_does_not_matter(name):
    strategy, updates, model = EVERY[name], updates_of(3), fresh()
    there = play(strategy, updates, model)
    back = play(strategy, updates, model, arrivals=updates[::-1])
    assert there.model.tobytes() == back.model.tobytes()
    assert there.record == back.record


@given(
    st.sampled_from(["fedavg", "fednova", "all factors", "geometric_median", "multikrum", "median clipped"]),
    st.lists(st.floats(1e-3, 1e12), min_size=1, max_size=12),
)
def test_no_prior_share_exceeds_two_over_k(name, examples):
    honest = updates_of(1, n=len(examples))
    updates = [
        replace(u, report=replace(u.report, examples=e)) for u, e in zip(honest, examples, strict=True)
    ]
    record = play(EVERY[name], updates, fresh()).record
    priors = [client.prior for client in record.clients if client.prior is not None]
    if record.outcome is Outcome.STEPPED:
        assert sum(priors) == pytest.approx(1)
        assert max(priors) <= 2 / len(examples) + 1e-12 or len(examples) <= 2
    if name == "fedavg":
        assert [client.share for client in record.clients] == pytest.approx(priors)


def test_a_claim_of_many_examples_buys_no_more_than_two_over_k():
    updates = updates_of(4, n=10)
    updates[3] = replace(updates[3], report=replace(updates[3].report, examples=1e12))
    for strategy in (PRESETS["fedavg"](), whole(PRESETS["fedavg"]())):
        assert shares_of(play(strategy, updates, fresh()).record)["client-3"] == pytest.approx(0.2)
    # The claim is shown as it was made.
    record = play(PRESETS["fedavg"](), updates, fresh()).record
    assert record.clients[3].report["examples"] == record.clients[3].factors["samples"] == 1e12


GOOD = updates_of(7, n=6)
#: Enough for every rule, with a few to spare.
CROWD = updates_of(8, n=9)
VECTORS = {
    "NaN": np.array([0, np.nan, 0, 0, 0], np.float32),
    "infinite": np.array([np.inf, 0, 0, 0, 0], np.float32),
    "short": np.zeros(D - 1, np.float32),
    "long": np.zeros(D + 1, np.float32),
    "empty": np.zeros(0, np.float32),
    "a matrix": np.zeros((1, D), np.float32),
    "integers": np.zeros(D, np.int64),
    "bytes": np.zeros(D, np.uint8),
    "text": np.array(list("abcde")),
    "objects": np.array([None] * D),
    "too long to measure": np.full(D, 1e200),
}
CLAIMS = [
    {"examples": 0},
    {"examples": -5.0},
    {"examples": float("nan")},
    {"examples": 10**400},
    {"examples": "many"},
    {"steps": 0},
    {"steps": 10**400},
    {"normalizer": -1.0},
    {"learning_rate": 0.0},
    {"accuracy": float("nan")},
    {"accuracy": 1.5},
    {"loss_before": float("inf")},
    {"loss_after": float("nan")},
    {"seconds": -1.0},
    {"staleness": -1},
    {"label_counts": (-1, 2)},
    {"label_counts": (10**400,)},
    {"extra": {"f1": 10**5000}},
]
#: Strange, but nobody can say that it is false.
ODD = [
    {"extra": {"examples": float("nan"), "f1": float("inf")}},
    {"label_counts": ()},
    {"label_counts": (0, 0, 0)},
    {"label_counts": (1, 2, 3, 4, 5, 6)},
    {"loss_before": -1e308, "loss_after": 1e308},
    {"loss_before": None, "accuracy": None, "seconds": None, "label_counts": None},
    {"learning_rate": 5e-324},
    {"examples": 5e-324},
    {"examples": 1e12, "steps": 10**12, "normalizer": 1e-300},
    {"seconds": 0.0, "accuracy": 0.0},
]
LONG = [np.float32(3e38), np.float32(1e25), 1e-45, 0.0]


@st.composite
def arrivals(draw):
    """Some of nine invited clients send something: good, odd, or impossible."""
    out, good = [], set()
    for update in draw(st.permutations(CROWD)):
        kind = draw(st.sampled_from(["good", "good", "odd", "long", "vector", "claim", "nothing", "failure"]))
        if kind == "nothing":
            continue
        if kind == "failure":
            out.append(Failure(update.client, "it has no examples"))
        elif kind == "odd":
            report = replace(update.report, **draw(st.sampled_from(ODD)))
            out.append(replace(update, report=report))
        elif kind == "long":
            out.append(replace(update, vector=np.full(D, draw(st.sampled_from(LONG)), np.float32)))
        elif kind == "vector":
            out.append(replace(update, vector=draw(st.sampled_from(list(VECTORS.values())))))
        elif kind == "claim":
            report = replace(update.report, **draw(st.sampled_from(CLAIMS)))
            out.append(replace(update, report=report))
        else:
            out.append(update)
            good.add(update.client)
    return out, good


@settings(max_examples=300)
@given(st.sampled_from(sorted(EVERY)), arrivals(), st.booleans())
def test_a_round_survives_whatever_clients_send(name, arrived, honest_announcement):
    strategy, (results, good), model = EVERY[name], arrived, fresh()
    state = strategy.init(model)
    before = {name: array.copy() for name, array in state.to_arrays().items()}
    sent = {result.client: result.report for result in results if isinstance(result, Update)}
    announced = {u.client: u.report if honest_announcement else sent.get(u.client) for u in CROWD}
    opened = strategy.open(state, model, announced, dimension=D)
    refused = {}
    for result in results:
        if isinstance(result, Failure):
            opened.fail(result)
        else:
            refused[result.client] = opened.add(result)
    closed = opened.close()
    record = closed.record

    verdicts = {client.client: client.verdict for client in record.clients}
    assert list(verdicts) == [update.client for update in CROWD]
    for client in good:
        assert refused[client] is None
    for client in record.clients:
        if client.client not in refused:
            assert client.verdict in {Verdict.ABSENT, Verdict.FAILED}
        else:
            assert (client.verdict is Verdict.REFUSED) == (refused[client.client] is not None)
        if client.verdict in {Verdict.REFUSED, Verdict.ABSENT, Verdict.FAILED}:
            assert client.share == 0.0
            assert client.reason
    assert np.isfinite(closed.model).all()
    assert closed.model.dtype == np.float32
    if record.outcome is Outcome.KEPT:
        assert record.reason
        assert closed.model is model
    else:
        assert not record.reason
        shares = [client.share for client in record.clients if client.share is not None]
        assert sum(shares) == pytest.approx(1) or not strategy.combine.gives_coefficients
    assert closed.state.round == 1
    for part in ("server", "clip"):
        arrays = closed.state.parts.get(part, {})
        assert all(np.isfinite(array).all() for array in arrays.values())
        if record.outcome is Outcome.KEPT and part == "server":
            assert all(array.tobytes() == before[f"server/{n}"].tobytes() for n, array in arrays.items())
    # What went in is as it was, what came out can be stored.
    assert all(array.tobytes() == before[name].tobytes() for name, array in state.to_arrays().items())
    line = json.dumps(record.to_json(), allow_nan=False)
    assert RoundRecord.from_json(json.loads(line)).to_json() == record.to_json()
    again = strategy.open(strategy.restore(closed.state.to_arrays()), closed.model, announced, dimension=D)
    assert again.close().record.outcome is Outcome.KEPT


@given(st.sampled_from(sorted(WHOLE)), arrivals())
def test_what_is_refused_leaves_no_trace_in_the_model(name, arrived):
    strategy, (results, good), model = EVERY[name], arrived, fresh()
    updates = [result for result in results if isinstance(result, Update)]
    mixed = play(strategy, CROWD, model, arrivals=updates, registered=10)
    usable = {client.client for client in mixed.record.clients if client.norm is not None}
    assert good <= usable
    admitted = [u for u in updates if u.client in usable]
    admitted.sort(key=lambda u: u.client)
    alone = play(strategy, admitted, model, registered=10)
    assert mixed.model.tobytes() == alone.model.tobytes()
    assert mixed.record.outcome is alone.record.outcome


@pytest.mark.parametrize("name", EVERY)
def test_nothing_admissible_keeps_the_model_bit_for_bit(name):
    strategy, model = EVERY[name], fresh()
    bad = [replace(u, vector=v) for u, v in zip(GOOD, VECTORS.values(), strict=False)]
    for arrived in ([], bad):
        closed = play(strategy, GOOD, model, arrivals=arrived)
        assert closed.record.outcome is Outcome.KEPT
        assert closed.record.reason == "no client sent a usable update"
        assert closed.model is model
        verdict = Verdict.REFUSED if arrived else Verdict.ABSENT
        assert {client.verdict for client in closed.record.clients} == {verdict}


@pytest.mark.parametrize("name", EVERY)
def test_one_endless_update_cannot_stop_a_federation(name):
    """Whole-cohort rules square the vectors; an update beyond that is refused, and the round goes on."""
    strategy, model = EVERY[name], fresh()
    evil = replace(CROWD[0], vector=np.full(D, 1e30, np.float32))
    closed = play(strategy, CROWD, model, arrivals=[evil, *CROWD[1:]])
    if name in WHOLE:
        assert closed.record.outcome is Outcome.STEPPED
        assert closed.record.clients[0].verdict is Verdict.REFUSED
        assert "too long to measure" in closed.record.clients[0].reason
    else:
        assert np.isfinite(closed.model).all()


class Overflowing:
    """A server step whose model comes out infinite, though every update was finite."""

    uses_drift, accepts = False, Payload.AVERAGE

    def __init__(self, inner):
        self.inner, self.init, self.control = inner, inner.init, inner.control

    def step(self, model, aggregate, state):
        return replace(self.inner.step(model, aggregate, state), model=np.full_like(model, np.inf))


@pytest.mark.parametrize("name", ["fedavg", "fedadam", "fedadagrad", "fedyogi", "fedavgm"])
def test_a_step_that_overflows_keeps_the_model_and_the_memory_of_the_step(name):
    strategy, model = PRESETS[name](), fresh()
    strategy = replace(strategy, server=Overflowing(strategy.server))
    last = play(replace(strategy, server=strategy.server.inner), GOOD, model)
    closed = play(strategy, GOOD, last.model, state=last.state)
    assert closed.record.outcome is Outcome.KEPT
    assert "not finite" in closed.record.reason
    assert closed.model is last.model
    for part, array in last.state.parts["server"].items():
        assert closed.state.parts["server"][part].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "strategy", [PRESETS["scaffold"](), whole(PRESETS["scaffold"]())], ids=["folding", "whole"]
)
@pytest.mark.parametrize("claim", [None, 1e-30, 1e30])
def test_what_a_client_says_of_its_learning_rate_changes_nothing_in_scaffold(strategy, claim):
    liar = replace(GOOD[2], report=replace(GOOD[2].report, learning_rate=claim))
    honest = play(strategy, GOOD, fresh())
    closed = play(strategy, GOOD, fresh(), arrivals=[liar if u is GOOD[2] else u for u in GOOD])
    assert closed.record.outcome is Outcome.STEPPED
    assert closed.state.parts["server"]["c"].tobytes() == honest.state.parts["server"]["c"].tobytes()


@pytest.mark.parametrize(
    "strategy", [PRESETS["qfedavg"](), whole(PRESETS["qfedavg"]())], ids=["folding", "whole"]
)
def test_weights_that_sum_to_nothing_keep_the_model(strategy):
    speechless = [replace(u, report=replace(u.report, loss_before=None)) for u in GOOD]
    closed = play(strategy, speechless, fresh())
    assert closed.record.outcome is Outcome.KEPT
    assert closed.record.reason == "the weights of all usable updates are zero."
    assert {client.share for client in closed.record.clients} == {0.0}


@pytest.mark.parametrize("name", ["krum", "bulyan", "multikrum"])
def test_too_few_clients_for_a_rule_keep_the_model_and_say_so(name):
    closed = play(PRESETS[name](byzantine=2), GOOD[:3], fresh())
    assert closed.record.outcome is Outcome.KEPT
    assert "got 3 clients and assumes 2 of them hostile" in closed.record.reason


def test_only_invited_clients_are_heard_and_only_once():
    strategy, model = PRESETS["fedavg"](), fresh()
    opened = strategy.open(strategy.init(model), model, {u.client: u.report for u in GOOD[:3]})
    with pytest.raises(RoundError, match="'client-5' was not invited to round 1"):
        opened.add(GOOD[5])
    with pytest.raises(RoundError, match="not invited"):
        opened.fail(Failure("a stranger", "hello"))
    opened.add(GOOD[0])
    opened.add(replace(GOOD[1], vector=VECTORS["NaN"]))
    assert opened.partial().heard(u.client for u in GOOD) == ["client-0", "client-1"]
    for again in GOOD[:2]:
        with pytest.raises(RoundError, match="heard already"):
            opened.add(again)
    closed = opened.close()
    assert [c.verdict for c in closed.record.clients] == [Verdict.ADMITTED, Verdict.REFUSED, Verdict.ABSENT]
    np.testing.assert_allclose(closed.model, model + GOOD[0].vector, rtol=1e-6)


def test_an_unannounced_client_is_refused_and_not_a_crash():
    strategy, model = PRESETS["fedavg"](), fresh()
    opened = strategy.open(
        strategy.init(model), model, {GOOD[0].client: GOOD[0].report, GOOD[1].client: None}
    )
    assert opened.add(GOOD[0]) is None
    assert "announced as absent" in opened.add(GOOD[1])
    assert opened.close().record.clients[1].verdict is Verdict.REFUSED


def test_verdicts_say_what_became_of_each_update():
    strategy = Strategy(
        clip=FixedClip(1.0), combine=PRESETS["krum"](0.2).combine, weigh=PRESETS["krum"]().weigh
    )
    updates = updates_of(5, n=7, size=0.2)
    updates[2] = replace(updates[2], vector=updates[2].vector * 100)
    record = play(strategy, updates, fresh()).record
    verdicts = [client.verdict for client in record.clients]
    assert verdicts.count(Verdict.ADMITTED) == 1
    assert set(verdicts) == {Verdict.ADMITTED, Verdict.PASSED_OVER}
    chosen = record.clients[verdicts.index(Verdict.ADMITTED)]
    assert chosen.share == 1.0
    assert {"distance", "score"} & set(chosen.evidence)
    mean = play(replace(strategy, combine=PRESETS["fedavg"]().combine), updates, fresh()).record
    clipped = mean.clients[2]
    assert clipped.verdict is Verdict.CLIPPED
    assert clipped.clip == pytest.approx(1 / clipped.norm)
    assert clipped.reason.startswith("longer than the limit: scaled to ")
    assert mean.notes["update_norm"] <= 1.0 + 1e-6


def test_coordinate_wise_rules_have_no_shares():
    record = play(PRESETS["median"](), GOOD, fresh()).record
    assert {client.share for client in record.clients} == {None}
    assert {client.verdict for client in record.clients} == {Verdict.ADMITTED}


def test_the_record_does_not_hold_the_histogram_and_extra_numbers_hide_nothing():
    report = replace(GOOD[0].report, extra={"examples": 1e9, "f1": 0.5})
    updates = [replace(GOOD[0], report=report), *GOOD[1:]]
    said = play(PRESETS["fedavg"](), updates, fresh()).record.clients[0].report
    assert said["examples"] == GOOD[0].report.examples
    assert said["f1"] == 0.5
    assert "label_counts" not in said


def test_the_table_of_members_meets_newcomers_and_counts_deliveries():
    strategy, model = PRESETS["fedavg"](), fresh()
    first = play(strategy, GOOD[:3], model, absent=["client-3"])
    assert first.state.members.ids == ("client-0", "client-1", "client-2", "client-3")
    bad = replace(GOOD[1], vector=VECTORS["NaN"])
    second = play(strategy, GOOD[1:6], first.model, state=first.state, arrivals=[bad, *GOOD[2:6]])
    members = second.state.members
    names = [update.client for update in GOOD] + ["never seen"]
    assert set(members.columns) == set(HISTORY)
    np.testing.assert_array_equal(members.get("invited", names), [1, 2, 2, 2, 1, 1, 0])
    np.testing.assert_array_equal(members.get("delivered", names), [1, 1, 2, 1, 1, 1, 0])
    np.testing.assert_array_equal(members.get("last_round", names), [1, 1, 2, 2, 2, 2, -1])
    np.testing.assert_array_equal(
        members.get("last_loss", names), [u.report.loss_before for u in GOOD] + [np.nan]
    )


def test_a_share_takes_no_part_in_what_a_rule_does_not_weigh():
    weighed = Strategy(weigh=Weigh((Samples(limit=1.0),)))
    np.testing.assert_allclose(
        play(weighed, GOOD, fresh()).model,
        fresh() + np.mean([u.vector for u in GOOD], axis=0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_round_closes_once():
    strategy, model = PRESETS["fedavg"](), fresh()
    opened = strategy.open(strategy.init(model), model, {u.client: u.report for u in GOOD})
    opened.add(GOOD[0])
    opened.close()
    for call in (
        opened.close,
        opened.partial,
        lambda: opened.add(GOOD[1]),
        lambda: opened.fail(Failure(GOOD[1].client, "late")),
    ):
        with pytest.raises(RoundError, match="round 1 is closed already"):
            call()


@pytest.mark.parametrize("lr", [1.0, 0.5])
def test_closing_takes_no_more_than_three_models(lr):
    # The int64 sum is two, the aggregate the third; the new model comes after the sum is gone.
    d = 4_000_000
    strategy, model = Strategy(server=SGD(lr)), np.ones(d, np.float32)
    reports = {name: Report(10) for name in "ab"}
    opened = strategy.open(strategy.init(model), model, reports)
    vector = np.full(d, 0.25, np.float32)
    tracemalloc.start()
    try:
        for name in reports:
            opened.add(Update(name, vector, Report(10)))
        assert tracemalloc.get_traced_memory()[1] < 2.5 * model.nbytes
        closed = opened.close()
        assert tracemalloc.get_traced_memory()[1] < 3.2 * model.nbytes
    finally:
        tracemalloc.stop()
    assert (closed.model == 1 + lr * 0.25).all()


def test_a_strategy_says_whether_it_can_fold_what_arrives():
    assert {name for name, strategy in EVERY.items() if strategy.streams} >= {"fedavg", "scaffold", "fednova"}
    assert not any(EVERY[name].streams for name in ("qfedavg", "disco", *WHOLE))


def test_a_vector_that_was_looked_at_before_is_not_read_until_the_end():
    class OnDisk:
        shape, dtype, read = (D,), np.dtype(np.float32), 0

        def __init__(self, vector):
            self.vector = vector

        def __getitem__(self, columns):
            self.read += 1
            return self.vector[columns]

    vectors, strategy, model = [fresh(i) for i in range(3)], PRESETS["fedavg"](), np.zeros(D, np.float32)
    updates = [Update(f"c{i}", vector, Report(10.0 + i)) for i, vector in enumerate(vectors)]
    there = play(strategy, updates, model)
    here = strategy.open(strategy.init(model), model, {u.client: u.report for u in updates})
    disk = [OnDisk(vector) for vector in vectors]
    for update, vector in zip(updates, disk, strict=True):
        square = squared_norm(update.vector)
        assert here.add(replace(update, vector=vector), square) is None
    short = replace(updates[0], client="c9", vector=OnDisk(vectors[0]))
    with pytest.raises(RoundError, match="not invited"):
        here.add(short, 1.0)
    assert [vector.read for vector in disk] == [0, 0, 0]
    closed = here.close()
    assert [vector.read for vector in disk] == [1, 1, 1]
    assert closed.model.tobytes() == there.model.tobytes()
    assert closed.record == there.record


def test_a_vector_that_was_looked_at_must_still_have_the_right_shape():
    strategy, model = PRESETS["fedavg"](), np.zeros(D, np.float32)
    opened = strategy.open(strategy.init(model), model, {"a": Report(1.0)})
    assert "shape" in opened.add(Update("a", np.ones(D + 1, np.float32), Report(1.0)), 6.0)
