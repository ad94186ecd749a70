from __future__ import annotations

import importlib
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("jax")
import jax.numpy as jnp
from sgd_reference import OPTIONS, logistic_loss, logistic_sgd, work_of

from haina.errors import LayoutError, LearnerError
from haina.learners.jax import JaxLearner, learner
from haina.learners.jax.program import small
from haina.learners.learner import Training, client_rng
from haina.learners.models import Model
from haina.learners.normalizer import norm_a
from haina.learners.plan import batches
from haina.update import Failure

MLP = Model("mlp", (6,), 3, (5,))
LOGISTIC = Model("logistic", (6,), 3)


@pytest.fixture(scope="module")
def mlp():
    return learner(MLP)


@pytest.fixture(scope="module")
def logistic():
    return learner(LOGISTIC)


def linear_learner(**options):
    """One weight vector and a loss that is linear in it, so that every gradient is the mean row."""
    return JaxLearner(
        lambda key: jnp.zeros(6), lambda w, x: x @ w, loss=lambda outputs, y: outputs, **options
    )


@pytest.fixture(params=["one kernel", "many kernels"])
def kernels(request, monkeypatch):
    """Small models compile to one kernel; this has them compile as large ones do, too."""
    if request.param == "many kernels":
        monkeypatch.setattr(sys.modules["haina.learners.jax.program"], "SIDE", 0)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("option", OPTIONS)
def test_equals_sgd_written_out(logistic, option):
    training, settings = OPTIONS[option]
    work = work_of(logistic, training=Training(batch_size=8, **training), **settings)
    updates = list(logistic.train(work))
    assert [update.client for update in updates] == list(work.shards.clients)
    for k, update in enumerate(updates):
        np.testing.assert_allclose(update.vector, logistic_sgd(work, k, 3), atol=1e-6)


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("option", ["plain", "all"])
def test_same_bytes_alone_together_and_in_any_order(option):
    training, settings = OPTIONS[option]
    sizes = (23, 8, 1, 40, 300, 17)
    maker = learner(MLP)
    work = work_of(maker, sizes, training=Training(batch_size=8, **training), **settings)
    together = {update.client: update.vector.tobytes() for update in maker.train(work)}

    def some(source, index):
        offsets = None if work.offsets is None else work.offsets[index]
        part = replace(work, shards=work.shards.take(index), offsets=offsets)
        return {update.client: update.vector.tobytes() for update in source.train(part)}

    assert some(maker, [5, 3, 0, 4, 2, 1]) == together
    alone = learner(MLP)
    for k in range(len(sizes)):
        assert some(alone, [k]).items() <= together.items()


def test_what_is_one_kernel_depends_on_the_model_its_rows_and_the_batch():
    def asked(model, batch):
        return small(learner(model).layout, model.features, batch)

    assert asked(Model("logistic", (60,), 10), 10)
    assert asked(Model("mlp", (64,), 10, (32,)), 32)
    for model, batch in (
        (Model("logistic", (60,), 10), 300),
        (Model("logistic", (200,), 10), 10),
        (Model("mlp", (64,), 10, (32,)), 64),
        (Model("mlp", (20,), 2, (200,)), 8),
    ):
        assert not asked(model, batch)


def test_groups_bound_memory_and_change_nothing(mlp, monkeypatch):
    work = work_of(mlp)
    whole = [update.vector.tobytes() for update in mlp.train(work)]
    monkeypatch.setattr(sys.modules["haina.learners.jax.learner"], "GROUP", 1000)
    assert [update.vector.tobytes() for update in mlp.train(work)] == whole


def test_a_new_round_compiles_nothing():
    traces = []

    def apply(w, x):
        traces.append(x.shape)
        return x @ w

    counting = JaxLearner(lambda key: jnp.zeros((6, 3)), apply)
    work = work_of(counting, training=Training(batch_size=8, momentum=0.9, clip_norm=1.0), proximal=0.1)
    list(counting.train(work))
    before = len(traces)
    again = replace(
        work, round=4, learning_rate=0.01, proximal=0.2, training=replace(work.training, momentum=0.5)
    )
    list(counting.train(again))
    list(counting.train(replace(again, shards=work.shards.take([2, 1]))))
    assert len(traces) == before


def test_reports_what_was_asked_for(logistic):
    work = work_of(
        logistic,
        training=Training(
            batch_size=8,
            momentum=0.9,
            measure=frozenset({"loss_before", "loss_after", "accuracy", "label_counts"}),
        ),
        proximal=0.1,
    )
    for k, update in enumerate(logistic.train(work)):
        report, (x, y) = update.report, work.shards.of(k)
        assert report.fault() is None
        assert (report.examples, report.steps, report.learning_rate) == (len(y), -(-len(y) // 8), 0.1)
        assert report.normalizer == norm_a(report.steps, 0.9, 0.1 * 0.1)
        assert report.label_counts == tuple(np.bincount(y, minlength=3))
        before, _ = logistic_loss(work.model, x, y, 3)
        after, accuracy = logistic_loss(work.model + update.vector, x, y, 3)
        assert report.loss_before == pytest.approx(before, rel=1e-5)
        assert report.loss_after == pytest.approx(after, rel=1e-5)
        assert report.accuracy == pytest.approx(accuracy)


def test_reports_nothing_else(logistic):
    report = next(logistic.train(work_of(logistic))).report
    assert (report.loss_before, report.loss_after, report.accuracy, report.label_counts) == (None,) * 4


@pytest.mark.parametrize(("momentum", "proximal"), [(0.0, 0.0), (0.9, 0.0), (0.0, 2.0), (0.9, 2.0)])
def test_normalizer_is_the_distance_gone_under_a_constant_gradient(momentum, proximal):
    constant = linear_learner()
    work = work_of(
        constant, (4,), training=Training(steps=9, batch_size=4, momentum=momentum), proximal=proximal
    )
    [update] = constant.train(work)
    gone = -0.1 * update.report.normalizer * work.shards.x.mean(0)
    np.testing.assert_allclose(update.vector, gone, rtol=1e-4, atol=1e-6)


def test_the_strongest_proximal_term_leaves_one_step_only():
    constant = linear_learner()
    work = work_of(constant, (4,), training=Training(steps=50, batch_size=4), proximal=10.0)
    [update] = constant.train(work)
    np.testing.assert_allclose(update.vector, -0.1 * work.shards.x.mean(0), rtol=1e-5, atol=1e-7)


def test_clipping_bounds_the_increment(mlp):
    work = work_of(mlp, training=Training(batch_size=8, clip_norm=0.1))
    for update in mlp.train(work):
        assert np.linalg.norm(update.vector) <= 0.1 * 0.1 * update.report.steps * (1 + 1e-5)


def test_one_class_and_empty_clients(mlp):
    work = work_of(mlp, (9, 0, 5, 0))
    work.shards.y[:9] = 1
    first, second, third, fourth = mlp.train(work)
    assert np.isfinite(first.vector).all()
    assert np.isfinite(third.vector).all()
    assert second == Failure("client-1", "it has no examples")
    assert fourth == Failure("client-3", "it has no examples")


def test_data_that_are_not_finite_spoil_their_own_client_only(mlp):
    work = work_of(mlp, (9, 9))
    clean = [update.vector.tobytes() for update in mlp.train(work)]
    work.shards.x[3] = np.nan
    spoilt, neighbour = mlp.train(work)
    assert not np.isfinite(spoilt.vector).all()
    assert neighbour.vector.tobytes() == clean[1]


def test_a_spoilt_row_outside_the_batches_trained_on_does_nothing(mlp):
    work = work_of(mlp, (20,), training=Training(steps=1, batch_size=4))
    [clean] = mlp.train(work)
    rows, _ = batches(20, work.training, client_rng(work.seed, work.round, "client-0"))
    work.shards.x[np.setdiff1d(np.arange(20), rows)] = np.nan
    [update] = mlp.train(work)
    assert update.vector.tobytes() == clean.vector.tobytes()


def test_evaluate_in_chunks(logistic, monkeypatch):
    work = work_of(logistic, (700,))
    x, y = work.shards.x, work.shards.y
    loss, accuracy = logistic_loss(work.model.astype(np.float64), x, y, 3)
    whole = logistic.evaluate(work.model, x, y)
    assert (whole.examples, whole.accuracy) == (700, pytest.approx(accuracy))
    assert whole.loss == pytest.approx(loss, rel=1e-6)
    everything = logistic.predict(work.model, x)
    np.testing.assert_allclose(everything.sum(1), 1, atol=1e-6)
    assert (everything.argmax(1) == y).mean() == pytest.approx(accuracy)
    monkeypatch.setattr(sys.modules["haina.learners.gradient"], "CHUNK", 97)
    assert logistic.evaluate(work.model, x, y).loss == pytest.approx(whole.loss, rel=1e-6)
    np.testing.assert_allclose(logistic.predict(work.model, x), everything, atol=1e-6)


def test_squared_loss_finds_the_least_squares_line():
    regression = learner(Model("logistic", (2,), 1), loss="squared")
    rng = np.random.default_rng(0)
    work = work_of(regression, (64,), (2,), training=Training(steps=400, batch_size=64), learning_rate=0.2)
    x = work.shards.x
    y = x @ np.array([2.0, -1.0]) + 0.5 + 0.1 * rng.standard_normal(64)
    work = replace(work, shards=replace(work.shards, y=y))
    [update] = regression.train(work)
    exact, *_ = np.linalg.lstsq(np.column_stack([x, np.ones(64)]), y, rcond=None)
    fitted = work.model + update.vector
    np.testing.assert_allclose(fitted, exact, atol=1e-5)
    metrics = regression.evaluate(fitted, x, y)
    assert metrics.accuracy is None
    assert metrics.loss == pytest.approx(np.mean((regression.predict(fitted, x) - y) ** 2), rel=1e-5)
    assert regression.predict(fitted, x).shape == (64,)


def personal(memory, **options):
    def init(key):
        return {"body": jnp.ones((6, 4)), "head": jnp.zeros((4, 3)), "version": jnp.int32(7)}

    return JaxLearner(
        init,
        lambda p, x: jnp.tanh(x @ p["body"]) @ p["head"] * (p["version"] / 7),
        local=("head",),
        memory=memory,
        **options,
    )


def test_a_personal_head_stays_with_its_client():
    memory = {}
    maker = personal(memory)
    assert [field.name for field in maker.layout.shared] == ["body"]
    work = work_of(maker, (20, 30))
    first = list(maker.train(work))
    heads = {client: tensors["head"].copy() for client, tensors in memory.items()}
    assert not np.array_equal(heads["client-0"], heads["client-1"])
    second = list(maker.train(work))
    assert not np.array_equal(first[0].vector, second[0].vector)
    assert next(personal({}).train(work)).vector.tobytes() == first[0].vector.tobytes()
    remembering = personal({client: {"head": head} for client, head in heads.items()})
    [alone] = remembering.train(replace(work, shards=work.shards.take([1])))
    assert alone.vector.tobytes() == second[1].vector.tobytes()


def test_a_personal_head_needs_a_memory():
    with pytest.raises(LearnerError, match="memory="):
        personal(None)


def test_bytes_go_there_and_back(mlp):
    model = mlp.initial(3)
    assert mlp.initial(3).tobytes() == model.tobytes() != mlp.initial(4).tobytes()
    assert mlp.from_bytes(mlp.to_bytes(model)).tobytes() == model.tobytes()
    assert mlp.describe()["parameters"] == 6 * 5 + 5 + 5 * 3 + 3


def test_every_builtin_model_learns_its_own_rows():
    for model in (LOGISTIC, MLP, Model("cnn", (8, 8), 3)):
        maker = learner(model)
        training = Training(steps=6, batch_size=12)
        work = work_of(maker, (12,), model.features, training=training, learning_rate=1e-3)
        [update] = maker.train(work)
        before = maker.evaluate(work.model, work.shards.x, work.shards.y)
        after = maker.evaluate(work.model + update.vector, work.shards.x, work.shards.y)
        assert after.loss < before.loss


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda w: replace(w, shards=replace(w.shards, y=w.shards.y + 1)), "label 3 occurs.*0 to 2"),
        (lambda w: replace(w, shards=replace(w.shards, y=w.shards.y - 1)), "label -1 occurs"),
        (lambda w: replace(w, shards=replace(w.shards, y=w.shards.y * 1.0)), 'float64.*loss="squared"'),
        (
            lambda w: replace(w, shards=replace(w.shards, x=w.shards.x[:, :5])),
            r"rows of shape \(5,\).*\(6,\)",
        ),
        (lambda w: replace(w, shards=replace(w.shards, x=w.shards.x.astype(str))), "Encode text"),
        (lambda w: replace(w, learning_rate=0.0), "learning rate is 0"),
        (lambda w: replace(w, proximal=11.0), "proximal <= 10"),
    ],
)
def test_wrong_use_is_told_with_the_way_out(mlp, spoil, says):
    with pytest.raises(LearnerError, match=says):
        list(mlp.train(spoil(work_of(mlp))))


def test_wrong_models_are_told_with_the_way_out():
    with pytest.raises(LearnerError, match="float16"):
        JaxLearner(lambda key: jnp.zeros(6, jnp.float16), lambda w, x: x @ w)
    with pytest.raises(LearnerError, match="same name"):
        JaxLearner(lambda key: {"a.b": jnp.zeros(1), "a": {"b": jnp.zeros(1)}}, lambda w, x: x)
    with pytest.raises(LearnerError, match="cross_entropy, squared"):
        learner(LOGISTIC, loss="hinge")
    with pytest.raises(LayoutError, match="matches no tensor"):
        learner(LOGISTIC, local=("heed.*",), memory={})
    with pytest.raises(LearnerError, match="logistic, mlp, cnn"):
        Model("perceiver", (4,), 2)
    with pytest.raises(LearnerError, match="multiples of 4"):
        Model("cnn", (7, 7), 2)


def test_answers_that_the_loss_cannot_use_are_told(logistic):
    flat = JaxLearner(lambda key: jnp.zeros(6), lambda w, x: x @ w)
    with pytest.raises(LearnerError, match="one logit per class"):
        next(flat.train(work_of(flat)))
    wide = learner(LOGISTIC, loss="squared")
    with pytest.raises(LearnerError, match="one value per row"):
        wide.evaluate(wide.initial(0), np.zeros((2, 6)), np.zeros(2))
    with pytest.raises(LearnerError, match="no rows"):
        logistic.evaluate(logistic.initial(0), np.zeros((0, 6)), np.zeros(0, int))
    constant = linear_learner()
    with pytest.raises(LearnerError, match="accuracy cannot be measured"):
        next(constant.train(work_of(constant, training=Training(measure=frozenset({"accuracy"})))))


def test_a_missing_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("haina.learners.jax")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(LearnerError, match=r"pip install 'haina\[jax\]'"):
        importlib.import_module("haina.learners.jax")
