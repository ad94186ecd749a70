from dataclasses import replace

import numpy as np
import pytest
from rounds import play, updates_of, whole

from haina.errors import RoundError
from haina.report import Report
from haina.strategy.combine import Collect, Sum, split
from haina.strategy.gather import Folding, Keeping
from haina.strategy.members import Members
from haina.strategy.parts import Needs, View
from haina.strategy.presets import PRESETS
from haina.strategy.server import FedExP, Merge
from haina.strategy.server.newton import Newton
from haina.strategy.strategy import Strategy
from haina.strategy.validate import FixedClip, squared_norm
from haina.strategy.weigh import Uniform, Weigh
from haina.update import Update

D = 5


def gathered(strategy, updates, dtype=np.float32):
    clients = tuple(update.client for update in updates)
    reports = tuple(update.report for update in updates)
    norms = np.sqrt([squared_norm(update.vector) for update in updates])
    clip = np.ones(len(updates)) if strategy.clip is None else strategy.clip.scales(norms, {})
    view = View(1, clients, reports, Members.empty({}))
    keeping = Keeping(strategy, strategy.init(np.zeros(D)), view.members, None, D)
    gather = (
        Folding(strategy, strategy.init(np.zeros(D)), view, D, dtype)
        if strategy.needs < Needs.VECTORS
        else keeping
    )
    for update, norm, scale in zip(updates, norms, clip, strict=True):
        gather.add(update, float(norm**2), float(scale))
    return gather.gather(clients, clip)


BOTH = [lambda s: s, whole]


@pytest.mark.parametrize("path", BOTH, ids=["folding", "keeping"])
def test_the_numbers_of_a_round_in_closed_form(path):
    updates = updates_of(0)
    strategy = replace(PRESETS["scaffold"](), weigh=Weigh(), clip=FixedClip(1.2))
    out = gathered(path(strategy), updates)
    rows = np.stack([u.vector for u in updates]).astype(np.float64)
    rows *= np.minimum(1, 1.2 / np.linalg.norm(rows, axis=1))[:, None]
    examples = np.array([u.report.examples for u in updates])
    times = np.array([u.report.steps * 0.1 for u in updates])
    shares = examples / examples.sum()
    assert shares.max() < 2 / len(updates)
    np.testing.assert_allclose(out.prior, shares)
    np.testing.assert_allclose(out.vector, shares @ rows, rtol=1e-5)
    np.testing.assert_allclose(out.drift, (shares / times) @ rows, rtol=1e-5)
    assert out.mean_square == pytest.approx(shares @ (rows**2).sum(axis=1), rel=1e-5)
    np.testing.assert_array_equal(out.factors["samples"], examples)


def test_a_long_sum_of_small_updates_loses_nothing():
    # In float32 one million times 1e-4 on top of 1e4 would stay 1e4.
    many = [Update("big", np.full(D, 1e4, np.float32), Report(1))]
    many += [Update(str(k), np.full(D, 1e-4, np.float32), Report(1)) for k in range(2000)]
    out = gathered(Strategy(weigh=Weigh((Uniform(),))), many)
    np.testing.assert_allclose(out.vector * len(many), 1e4 + 0.2, rtol=1e-7)
    assert out.vector.dtype == np.float32


def test_the_mean_square_is_what_fedexp_extrapolates_by():
    updates = [Update(c, np.array(v, np.float32), Report(1)) for c, v in {"a": [3, 0], "b": [0, 3]}.items()]
    closed = play(Strategy(server=FedExP(1e-9)), updates, np.zeros(2, np.float32))
    # mean of squares 9, squared mean 4.5: eta = 9 / (2 * 4.5) = 1, the least there is.
    assert closed.record.notes["server_rate"] == pytest.approx(1.0)
    many = [Update(str(k), 3 * row, Report(1)) for k, row in enumerate(np.eye(4, dtype=np.float32))]
    closed = play(Strategy(server=FedExP(1e-9)), many, np.zeros(4, np.float32))
    assert closed.record.notes["server_rate"] == pytest.approx(9 / (2 * 9 / 4))


def test_statistics_are_added_and_not_averaged():
    strategy = Strategy(weigh=Weigh((Uniform(),)), combine=Sum(), server=Newton("gaussian", True, ("a",)))
    updates = updates_of(1, dtype=np.float64)
    out = gathered(strategy, updates, np.float64)
    np.testing.assert_allclose(out.vector, np.sum([u.vector for u in updates], axis=0), rtol=1e-12)
    assert out.vector.dtype == np.float64


def test_documents_are_collected_whatever_their_length():
    strategy = Strategy(
        weigh=Weigh((Uniform(),)), combine=Collect(), server=Merge(lambda documents: b"|".join(documents))
    )
    documents = {"a": b"tree", "b": b"another tree", "c": b""}
    updates = [Update(name, np.frombuffer(text, np.uint8), Report(3)) for name, text in documents.items()]
    closed = play(strategy, updates, np.zeros(0, np.uint8))
    assert closed.model.tobytes() == b"tree|another tree"
    assert closed.finished
    assert [client.verdict for client in closed.record.clients] == ["admitted", "admitted", "refused"]
    assert len(split(gathered(strategy, updates[:2]).vector)) == 2


def test_a_refused_update_leaves_a_folded_sum_as_it_was():
    updates = updates_of(2)
    strategy = PRESETS["scaffold"]()
    view = View(1, tuple(u.client for u in updates), tuple(u.report for u in updates), Members.empty({}))
    folding = Folding(strategy, strategy.init(np.zeros(D)), view, D, np.float32)
    for update in updates[:-1]:
        folding.add(update, squared_norm(update.vector), 1.0)
    stranger = replace(updates[-1], client="a stranger")
    with pytest.raises(RoundError, match="announced as absent"):
        folding.add(stranger, squared_norm(stranger.vector), 1.0)
    with pytest.raises(RoundError, match="too long to measure"):
        folding.add(updates[-1], float("inf"), 1.0)
    names = [update.client for update in updates[:-1]]
    out = folding.gather(names, np.ones(len(names)))
    np.testing.assert_allclose(out.vector, np.mean([u.vector for u in updates[:-1]], axis=0), rtol=1e-5)


def test_those_who_stay_away_lift_nobody_above_the_cap():
    reports = {name: Report(examples) for name, examples in zip("abcdefghij", [1000, *[10] * 9], strict=True)}
    rows = {name: np.eye(10, dtype=np.float32)[k] for k, name in enumerate(reports)}
    strategy = PRESETS["fedavg"]()
    model = np.zeros(10, np.float32)
    open_round = strategy.open(strategy.init(model), model, reports)
    for name in "abcd":
        assert open_round.add(Update(name, rows[name], reports[name])) is None
    closed = open_round.close()
    # Announced, the large client was capped at 2/10; among the four who came it would have 3/7, below 2/4.
    assert closed.model[0] <= 2 / 4
    assert (closed.model[1:4] > 0).all()
    alone = strategy.open(
        strategy.init(model), model, dict.fromkeys("abcdef", Report(10)) | {"g": Report(10_000)}
    )
    for name in "abcg":
        alone.add(Update(name, rows[name], Report(10_000 if name == "g" else 10)))
    kept = alone.close().model
    assert kept[6] <= 2 / 4 + 1e-6


def test_more_examples_than_were_announced_are_refused():
    strategy = PRESETS["fedavg"]()
    model = np.zeros(2, np.float32)
    open_round = strategy.open(strategy.init(model), model, {"a": Report(10), "b": Report(10)})
    reason = open_round.add(Update("a", np.ones(2, np.float32), Report(1_000_000)))
    assert "announced" in reason
    assert open_round.add(Update("b", np.ones(2, np.float32), Report(10))) is None
    np.testing.assert_allclose(open_round.close().model, 1.0)


def test_weights_in_units_of_the_rule_cost_no_precision():
    # q-FedAvg with a high power of small losses: weights near 1e-40 that the denominator takes back.
    updates = [
        replace(u, report=replace(u.report, loss_before=1e-5 * (k + 1))) for k, u in enumerate(updates_of(3))
    ]
    strategy = PRESETS["qfedavg"](q=8.0)
    out = gathered(strategy, updates, np.float64)
    rows = np.stack([u.vector for u in updates]).astype(np.float64)
    np.testing.assert_allclose(out.vector, out.coefficients @ rows, rtol=1e-9)


def test_a_round_takes_fewer_clients_than_wrap_a_sum(monkeypatch):
    monkeypatch.setattr("haina.strategy.gather.MOST", 4)
    gathered(PRESETS["fedavg"](), updates_of(0, n=3))
    with pytest.raises(RoundError, match="4 clients are in one round"):
        gathered(PRESETS["fedavg"](), updates_of(0, n=4))
