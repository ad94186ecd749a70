from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from sgd_reference import OPTIONS, logistic_loss, logistic_sgd, work_of
from torch import nn

from haina.errors import LearnerError
from haina.learners.learner import Training
from haina.learners.models import Model
from haina.learners.normalizer import norm_a
from haina.learners.torch import TorchLearner, learner
from haina.update import Failure

pytestmark = pytest.mark.torch

MLP = Model("mlp", (6,), 3, (5,))
LOGISTIC = Model("logistic", (6,), 3)
EVERYTHING = frozenset({"loss_before", "loss_after", "accuracy", "label_counts"})


@pytest.fixture(scope="module")
def mlp():
    return learner(MLP)


@pytest.fixture(scope="module")
def logistic():
    return learner(LOGISTIC)


def normalised():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.2), nn.Linear(5, 3))


def vectors(source, work):
    return {update.client: update.vector.tobytes() for update in source.train(work)}


@pytest.mark.parametrize("option", OPTIONS)
def test_equals_sgd_written_out(logistic, option):
    training, settings = OPTIONS[option]
    work = work_of(logistic, training=Training(batch_size=8, **training), **settings)
    updates = list(logistic.train(work))
    assert [update.client for update in updates] == list(work.shards.clients)
    for k, update in enumerate(updates):
        np.testing.assert_allclose(update.vector, logistic_sgd(work, k, 3), atol=1e-6)


@pytest.mark.parametrize("option", OPTIONS)
def test_agrees_with_jax(mlp, option):
    pytest.importorskip("jax")
    from haina.learners import jax

    training, settings = OPTIONS[option]
    other = jax.learner(MLP)
    work = work_of(mlp, training=Training(batch_size=8, measure=EVERYTHING, **training), **settings)
    for ours, theirs in zip(mlp.train(work), other.train(work), strict=True):
        np.testing.assert_allclose(ours.vector, theirs.vector, atol=1e-5)
        assert replace(ours.report, seconds=0, loss_before=0, loss_after=0) == replace(
            theirs.report, seconds=0, loss_before=0, loss_after=0
        )
        assert ours.report.loss_after == pytest.approx(theirs.report.loss_after, rel=1e-5)


@pytest.mark.parametrize("kind", ["logistic", "mlp", "cnn"])
def test_builtin_models_are_the_same_bytes_and_function_as_in_jax(kind):
    pytest.importorskip("jax")
    from haina.learners import jax

    model = Model(kind, (8, 8), 4)
    ours, theirs = learner(model), jax.learner(model)
    vector = ours.initial(7)
    assert ours.to_bytes(vector) == theirs.to_bytes(theirs.initial(7))
    vector = vector + np.float32(0.01)
    x = np.random.default_rng(0).integers(0, 3, (20, 8, 8))
    np.testing.assert_allclose(ours.predict(vector, x), theirs.predict(vector, x), atol=1e-5)
    labels = np.arange(20) % 4
    assert ours.evaluate(vector, x, labels).loss == pytest.approx(
        theirs.evaluate(vector, x, labels).loss, rel=1e-5
    )


@pytest.mark.parametrize(
    "build", [normalised, lambda: nn.Sequential(nn.Linear(6, 40), nn.Tanh(), nn.Linear(40, 3))]
)
def test_same_bytes_alone_together_and_in_any_order(build):
    maker = TorchLearner(build)
    work = work_of(maker, (23, 8, 2, 40), training=Training(batch_size=8, epochs=2, momentum=0.9))
    work = replace(work, shards=work.shards.take([0, 1, 3]))
    together = vectors(maker, work)
    assert vectors(maker, replace(work, shards=work.shards.take([2, 0, 1]))) == together
    for k in range(3):
        assert (
            vectors(TorchLearner(build), replace(work, shards=work.shards.take([k]))).items()
            <= together.items()
        )


def test_training_leaves_the_process_as_it_was(mlp):
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    threads = torch.get_num_threads()
    list(mlp.train(work_of(mlp)))
    mlp.initial(99)
    assert torch.get_num_threads() == threads
    assert torch.rand(1) == expected


def test_reports_what_was_asked_for(logistic):
    work = work_of(logistic, training=Training(batch_size=8, momentum=0.9, measure=EVERYTHING), proximal=0.1)
    for k, update in enumerate(logistic.train(work)):
        report, (x, y) = update.report, work.shards.of(k)
        assert report.fault() is None
        assert (report.examples, report.steps, report.learning_rate) == (len(y), -(-len(y) // 8), 0.1)
        assert report.normalizer == norm_a(report.steps, 0.9, 0.1 * 0.1)
        assert report.label_counts == tuple(np.bincount(y, minlength=3))
        assert report.loss_before == pytest.approx(logistic_loss(work.model, x, y, 3)[0], rel=1e-5)
        after, accuracy = logistic_loss(work.model + update.vector, x, y, 3)
        assert report.loss_after == pytest.approx(after, rel=1e-5)
        assert report.accuracy == pytest.approx(accuracy)


def test_buffers_stay_with_the_client_unless_told_otherwise():
    parameters = 6 * 5 + 5 + 2 * 5 + 5 * 3 + 3
    assert TorchLearner(normalised).layout.size == parameters
    averaged = TorchLearner(normalised, local=())
    assert averaged.layout.size == parameters + 2 * 5
    work = work_of(averaged, (40,), training=Training(batch_size=8))
    [update] = averaged.train(work)
    moved = averaged.layout.unpack(update.vector)
    assert np.abs(moved["1.running_mean"]).max() > 0
    assert "1.num_batches_tracked" not in moved


def test_local_buffers_begin_anew_without_a_memory_and_go_on_with_one():
    fresh, memory = TorchLearner(normalised), {}
    keeping = TorchLearner(normalised, memory=memory)
    work = work_of(fresh, (40, 24), training=Training(batch_size=8, measure=EVERYTHING))
    once, again = ([update.report.loss_before for update in fresh.train(work)] for _ in range(2))
    assert once == again
    assert [update.report.loss_before for update in keeping.train(work)] == once
    assert memory["client-0"]["1.num_batches_tracked"] == 5
    assert [update.report.loss_before for update in keeping.train(work)] != once


def test_a_personal_head_stays_with_its_client():
    memory = {}
    maker = learner(MLP, local=("output.*",), memory=memory)
    assert [field.name for field in maker.layout.shared] == ["hidden1.weight", "hidden1.bias"]
    work = work_of(maker, (20, 30), proximal=0.5, offset=True)
    first = vectors(maker, work)
    assert not np.array_equal(memory["client-0"]["output.weight"], memory["client-1"]["output.weight"])
    assert vectors(maker, work) != first
    with pytest.raises(LearnerError, match="memory="):
        learner(MLP, local=("output.*",))


def test_frozen_parameters_do_not_move():
    def build():
        network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        network[0].requires_grad_(False)
        return network

    maker = TorchLearner(build)
    [update] = maker.train(
        work_of(maker, (20,), training=Training(weight_decay=0.1), proximal=0.1, offset=True)
    )
    moved = maker.layout.unpack(update.vector)
    assert not moved["0.weight"].any()
    assert moved["2.weight"].all()


def test_shared_patterns_send_adapters_only():
    maker = learner(MLP, shared=("output.*",), memory={})
    assert maker.layout.size == 5 * 3 + 3


def test_clipping_bounds_the_increment(mlp):
    work = work_of(mlp, training=Training(batch_size=8, clip_norm=0.1))
    for update in mlp.train(work):
        assert np.linalg.norm(update.vector) <= 0.1 * 0.1 * update.report.steps * (1 + 1e-4)


def test_what_leaves_is_clipped_and_noisy_as_in_jax(mlp):
    pytest.importorskip("jax")
    from haina.learners import jax

    training = Training(batch_size=8, clip_update=0.01, noise=0.5, measure=EVERYTHING)
    work = work_of(mlp, training=training)
    plain = mlp.train(replace(work, training=Training(batch_size=8, measure=EVERYTHING)))
    for ours, theirs, bare in zip(mlp.train(work), jax.learner(MLP).train(work), plain, strict=True):
        np.testing.assert_allclose(ours.vector, theirs.vector, atol=1e-5)
        assert np.linalg.norm(bare.vector) > 0.01
        assert np.linalg.norm(ours.vector) == pytest.approx(0.01 * 0.5 * len(ours.vector) ** 0.5, rel=0.4)
        assert replace(ours.report, seconds=0) == replace(bare.report, seconds=0)


def test_one_class_one_example_and_empty_clients(mlp):
    work = work_of(mlp, (9, 0, 1))
    work.shards.y[:9] = 1
    first, second, third = mlp.train(work)
    assert np.isfinite(first.vector).all()
    assert second == Failure("client-1", "it has no examples")
    assert np.isfinite(third.vector).all()


def test_data_that_are_not_finite_spoil_their_own_client_only(mlp):
    work = work_of(mlp, (9, 9), training=Training(clip_norm=1.0))
    clean = vectors(mlp, work)
    work.shards.x[3] = np.nan
    spoilt, neighbour = mlp.train(work)
    assert not np.isfinite(spoilt.vector).all()
    assert neighbour.vector.tobytes() == clean["client-1"]


def test_evaluate_in_chunks(logistic, monkeypatch):
    work = work_of(logistic, (700,))
    x, y = work.shards.x, work.shards.y
    loss, accuracy = logistic_loss(work.model.astype(np.float64), x, y, 3)
    whole, everything = logistic.evaluate(work.model, x, y), logistic.predict(work.model, x)
    assert whole.loss == pytest.approx(loss, rel=1e-6)
    assert whole.accuracy == pytest.approx(accuracy)
    np.testing.assert_allclose(everything.sum(1), 1, atol=1e-6)
    monkeypatch.setattr(sys.modules["haina.learners.gradient"], "CHUNK", 97)
    assert logistic.evaluate(work.model, x, y).loss == pytest.approx(whole.loss, rel=1e-6)
    np.testing.assert_allclose(logistic.predict(work.model, x), everything, atol=1e-6)


def test_squared_and_own_losses():
    model = Model("mlp", (6,), 1, (4,))
    named = learner(model, loss="squared")
    own = learner(model, loss=lambda outputs, y: torch.square(outputs[:, 0] - y))
    work = work_of(named, (30,))
    work = replace(work, shards=replace(work.shards, y=work.shards.x.sum(1).astype(np.float64)))
    assert vectors(named, work) == vectors(own, work)
    assert named.predict(work.model, work.shards.x).shape == (30,)
    mean = np.mean((named.predict(work.model, work.shards.x) - work.shards.y) ** 2)
    assert named.evaluate(work.model, work.shards.x, work.shards.y).loss == pytest.approx(mean, rel=1e-5)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: replace(w, shards=replace(w.shards, y=w.shards.y + 1)), "label 3 occurs.*0 to 2"),
        (lambda w: replace(w, shards=replace(w.shards, y=w.shards.y * 1.0)), 'float64.*loss="squared"'),
        (
            lambda w: replace(w, shards=replace(w.shards, x=w.shards.x[:, :5])),
            r"rows of shape \(5,\).*\(6,\)",
        ),
        (lambda w: replace(w, proximal=11.0), "proximal <= 10"),
    ],
)
def test_wrong_use_is_told_with_the_way_out(mlp, spoil, says):
    with pytest.raises(LearnerError, match=says):
        list(mlp.train(spoil(work_of(mlp))))


def test_wrong_models_are_told_with_the_way_out():
    with pytest.raises(LearnerError, match="float64"):
        TorchLearner(lambda: nn.Linear(6, 3).double())
    with pytest.raises(LearnerError, match="nothing to train"):
        TorchLearner(lambda: nn.Linear(6, 3).requires_grad_(False))
    raw = TorchLearner(lambda: nn.Linear(6, 3))
    with pytest.raises(LearnerError, match="cannot read rows of shape"):
        raw.predict(raw.initial(0), np.zeros((2, 5)))
    single = TorchLearner(lambda: nn.Linear(6, 1))
    with pytest.raises(LearnerError, match="one logit per class"):
        next(single.train(work_of(single)))


def test_a_missing_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("haina.learners.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(LearnerError, match=r"pip install 'haina\[torch\]'"):
        importlib.import_module("haina.learners.torch")
