from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
import torch
from sgd_reference import OPTIONS, work_of
from torch import nn

from haina.errors import LearnerError
from haina.learners.learner import Training
from haina.learners.models import Model
from haina.learners.torch import TorchLearner, cohort, learner
from haina.update import Failure

pytestmark = pytest.mark.torch

MLP = Model("mlp", (6,), 3, (5,))
MEASURED = frozenset({"loss_before", "loss_after", "accuracy", "label_counts"})
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
COMPILER = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")


def assert_equal(ours, theirs, work, atol=1e-5):
    for mine, other in zip(ours.train(work), theirs.train(work), strict=True):
        if isinstance(other, Failure):
            assert mine == other
            continue
        np.testing.assert_allclose(mine.vector, other.vector, atol=atol)
        assert np.abs(other.vector).max() > 100 * atol
        for name in ("examples", "steps", "normalizer", "label_counts"):
            assert getattr(mine.report, name) == getattr(other.report, name)
        if other.report.loss_after is not None:
            assert mine.report.loss_before == pytest.approx(other.report.loss_before, rel=1e-4)
            assert mine.report.loss_after == pytest.approx(other.report.loss_after, rel=1e-4)


def said(caplog):
    """Torch writes to the log as well."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("haina")]


def work_for(model, maker, sizes):
    work = work_of(maker, sizes, model.features, training=Training(batch_size=4), learning_rate=0.01)
    if model.vocabulary:
        work = replace(work, shards=replace(work.shards, x=(work.shards.x > 0).astype(np.int64)))
    return replace(work, model=maker.initial(5))


@pytest.mark.parametrize("option", OPTIONS)
def test_side_by_side_equals_one_by_one(option):
    training, settings = OPTIONS[option]
    together, alone = learner(MLP, cohort=True), learner(MLP)
    work = work_of(
        alone, (23, 8, 0, 1, 40, 9), training=Training(batch_size=8, measure=MEASURED, **training), **settings
    )
    assert_equal(together, alone, work)
    # The next round finds its places taken, and other options ask for others.
    assert_equal(together, alone, replace(work, round=4, shards=work.shards.take([4, 0]), offsets=None))
    assert_equal(together, alone, replace(work, training=replace(work.training, momentum=0.7, batch_size=5)))


@pytest.mark.parametrize(
    "model",
    [Model("cnn", (8, 8), 3), Model("transformer", (4,), 3, vocabulary=5, layers=1, width=8)],
    ids=lambda model: model.kind,
)
def test_other_models_side_by_side(model):
    together, alone = learner(model, cohort=True), learner(model)
    assert_equal(together, alone, work_for(model, alone, (9, 16, 3)))


def test_small_groups_change_nothing(monkeypatch):
    together, alone = learner(MLP, cohort=True), learner(MLP)
    monkeypatch.setattr(cohort, "ROOM", 1)
    assert_equal(together, alone, work_of(alone, (23, 8, 40)))
    monkeypatch.setattr(sys.modules["haina.learners.torch.learner"], "ROWS", 500)
    assert_equal(together, alone, work_of(alone, (23, 8, 40, 0, 7)))


def test_personal_heads_and_frozen_layers_side_by_side():
    def build():
        network = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        network[2].requires_grad_(False)
        return network

    memories = {}, {}
    together = TorchLearner(build, local=("4.*",), memory=memories[0], cohort=True)
    alone = TorchLearner(build, local=("4.*",), memory=memories[1])
    work = work_of(alone, (20, 30), proximal=0.5, offset=True, training=Training(weight_decay=0.1, epochs=3))
    for _ in range(2):
        assert_equal(together, alone, work)
    for client, own in memories[1].items():
        for name, tensor in own.items():
            np.testing.assert_allclose(memories[0][client][name], tensor, atol=1e-5)


class Centred(nn.Module):
    """Rows less their mean, so that each depends on the others."""

    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda: nn.BatchNorm1d(5), "buffers"),
        (lambda: nn.Dropout(0.5), "random"),
        (Centred, "depend on each other"),
    ],
)
@pytest.mark.parametrize("way", ["cohort", "compiled"])
def test_modules_that_are_no_functions_are_trained_one_by_one(layer, says, way, caplog):
    def build():
        return nn.Sequential(nn.Linear(6, 5), layer(), nn.ReLU(), nn.Linear(5, 3))

    other, alone = TorchLearner(build, **{way: True}), TorchLearner(build)
    work = work_of(alone, (24, 40))
    for _ in range(2):
        ours, theirs = ([update.vector.tobytes() for update in who.train(work)] for who in (other, alone))
        assert ours == theirs
    [line] = said(caplog)
    assert says in line


def test_data_that_are_not_finite_spoil_their_own_client_only():
    together = learner(MLP, cohort=True)
    work = work_of(together, (9, 17, 30), training=Training(batch_size=4, momentum=0.5, clip_norm=1.0))
    work.shards.x[3] = np.nan
    spoilt, *others = together.train(work)
    assert not np.isfinite(spoilt.vector).all()
    assert all(np.isfinite(other.vector).all() for other in others)


@COMPILER
@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiled_equals_step_by_step(caplog):
    compiled, alone = learner(MLP, compiled=True), learner(MLP)
    training, settings = OPTIONS["all"]
    work = work_of(
        alone, (23, 0, 8, 1), training=Training(batch_size=8, measure=MEASURED, **training), **settings
    )
    assert_equal(compiled, alone, work)
    together = [update.vector.tobytes() for update in compiled.train(work) if not isinstance(update, Failure)]
    part = replace(work, shards=work.shards.take([3, 0]), offsets=work.offsets[[3, 0]])
    assert [update.vector.tobytes() for update in compiled.train(part)] == [together[2], together[0]]
    assert_equal(compiled, alone, work_of(alone, (23, 8), training=Training(batch_size=8, epochs=3)))
    assert not said(caplog)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_without_a_compiler_training_is_refused_in_one_sentence(monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("no compiler was found\nwith a long story")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", refuse)
    compiled = learner(Model("mlp", (7,), 3, (6,)), compiled=True)
    with pytest.raises(
        LearnerError, match=r"cannot be compiled here: .*Leave compiled out, or install a C\+\+ compiler"
    ):
        list(compiled.train(work_of(compiled, (20, 9), (7,))))


class Moody(torch.nn.Module):
    """Another function while it trains."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(6, 3)

    def forward(self, x):
        y = self.inner(x)
        return y * 0.2 if self.training else y


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("way", [{}, {"cohort": True}, {"compiled": True}])
def test_a_module_trains_in_its_training_mode_whatever_was_asked_of_it_before(way):
    def moody():
        return TorchLearner(Moody, **way)

    fresh, asked = moody(), moody()
    work = work_of(fresh, (20, 9))
    asked.evaluate(work.model, *work.shards.of(0))
    first = [update.vector.tobytes() for update in fresh.train(work)]
    assert [update.vector.tobytes() for update in asked.train(work)] == first
    fresh.evaluate(work.model, *work.shards.of(0))
    assert [update.vector.tobytes() for update in fresh.train(work)] == first


def test_devices():
    with pytest.raises(LearnerError, match="Allowed: cpu, cuda or auto"):
        learner(MLP, device="abacus")
    assert learner(MLP, device="auto").initial(3).tobytes() == learner(MLP).initial(3).tobytes()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_told():
    with pytest.raises(LearnerError, match=r"finds no GPU here.*auto"):
        learner(MLP, device="cuda")


@GPU
@pytest.mark.parametrize("option", OPTIONS)
def test_a_gpu_equals_the_cpu(option):
    training, settings = OPTIONS[option]
    gpu, cpu = learner(MLP, device="cuda"), learner(MLP)
    work = work_of(
        cpu, (230, 80, 0, 1, 400), training=Training(batch_size=8, measure=MEASURED, **training), **settings
    )
    for number in (3, 4):
        assert_equal(gpu, cpu, replace(work, round=number))


@GPU
@pytest.mark.parametrize(
    "model",
    [
        Model("logistic", (6,), 3),
        Model("cnn", (8, 8), 3),
        Model("transformer", (4, 2), 3, layers=1, width=8),
        Model("transformer", (4,), 3, vocabulary=5, layers=1, width=8),
    ],
    ids=["logistic", "cnn", "series", "tokens"],
)
def test_steps_of_built_in_models_are_captured(model, caplog):
    gpu, cpu = learner(model, device="cuda"), learner(model)
    work = work_for(model, cpu, (90, 160, 30))
    for number in (3, 4):
        assert_equal(gpu, cpu, replace(work, round=number), atol=2e-3 if model.kind == "cnn" else 1e-5)
    assert gpu._executor._arena.graphs
    assert not said(caplog)


@GPU
def test_dropout_and_batch_norm_train_on_a_gpu():
    gpu = TorchLearner(
        lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.2), nn.Linear(5, 3)),
        device="cuda",
    )
    before = torch.cuda.get_rng_state()
    assert all(np.isfinite(update.vector).all() for update in gpu.train(work_of(gpu, (24, 40))))
    assert torch.equal(torch.cuda.get_rng_state(), before)
