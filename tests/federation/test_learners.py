from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from haina.data.schema import Schema
from haina.errors import ConfigError, LearnerError
from haina.federation import learners
from haina.federation.federation import Federation
from haina.federation.learners import LEARNERS, fastest

SCHEMA = Schema(shape=(8, 8), classes=("a", "b", "c"))


def file_of(model, train=""):
    return Federation.of(
        f'[model]\n{model}\n[data]\nsource = "sklearn:digits"\n[train]\nrounds = 1\n{train}',
        schema=Schema(shape=(64,), classes=tuple("0123456789")),
    )


@pytest.fixture
def without(monkeypatch):
    """Take a framework away."""
    found = importlib.util.find_spec

    def take(*gone):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in gone else found(name))

    return take


@pytest.mark.torch
@pytest.mark.parametrize("kind", ["logistic", "mlp", "cnn", "transformer"])
def test_auto_takes_the_faster_framework_of_those_installed(kind, without):
    pytest.importorskip("torch")
    pytest.importorskip("jax")
    assert fastest(kind, "cpu") == ("torch" if kind == "cnn" else "jax")
    without("torch")
    assert fastest(kind, "cpu") == "jax"
    assert fastest(kind, "auto") == "jax"
    without("jax")
    assert fastest(kind, "cpu") == "torch"
    without("jax", "torch")
    with pytest.raises(LearnerError, match="neither jax nor torch is installed"):
        fastest(kind, "cpu")


@pytest.mark.torch
def test_on_a_gpu_auto_takes_torch(monkeypatch, without):
    pytest.importorskip("torch")
    monkeypatch.setattr(learners, "_has_gpu", lambda device: True)
    assert fastest("mlp", "auto") == "torch"
    assert fastest("mlp", "cpu") == "jax"
    without("torch")
    assert fastest("mlp", "auto") == "jax"
    with pytest.raises(LearnerError, match="needs torch"):
        fastest("mlp", "cuda")


@pytest.mark.torch
def test_auto_makes_the_same_first_model_whichever_it_takes():
    made = {
        name: LEARNERS[name](SCHEMA, Path())(kind="mlp", hidden=(5,)).learner()
        for name in ("auto", "jax", "torch")
    }
    models = {name: learner.to_bytes(learner.initial(4)) for name, learner in made.items()}
    assert models["auto"] == models["jax"] == models["torch"]


def test_asking_what_is_fastest_on_a_cpu_imports_nothing(monkeypatch):
    for name in ("torch", "jax"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    fastest("mlp", "cpu")
    assert not {"torch", "jax"} & set(sys.modules)


def test_auto_refuses_a_model_of_the_users_own():
    with pytest.raises(ConfigError, match=r"build is 'task:build'.*learner = \"jax\""):
        assert file_of('learner = "auto"\nbuild = "task:build"').learner


@pytest.mark.torch
def test_auto_is_settled_on_one_framework_with_its_own_settings_only():
    made = file_of('learner = "auto"\nkind = "mlp"\ndevice = "auto"').settled()
    assert made.executor == made.settings.model.learner == "jax"
    assert made.settled() is made
    assert not made.wants_gpu
    assert file_of('learner = "auto"\nkind = "mlp"').on("torch").wants_gpu
    assert file_of('learner = "jax"').settled().executor is None


@pytest.mark.parametrize(
    ("model", "executor", "says"),
    [
        ('learner = "jax"\nbuild = "task:build"', "torch", r"model\.build: 'task:build' is written for jax"),
        ('learner = "torch"\ndevice = "cuda"', "jax", r"model\.device: is for torch"),
        ('learner = "torch"\ncompiled = true', "jax", r"model\.compiled: is for torch"),
    ],
)
def test_an_executor_that_does_not_fit_the_file_is_refused_in_words(model, executor, says):
    with pytest.raises(ConfigError, match=says):
        file_of(model).on(executor)


@pytest.mark.parametrize("name", ["auto", "jax", "torch"])
def test_a_transformer_by_name(name):
    schema = Schema(shape=(4,), classes=("a", "b"))
    made = LEARNERS[name](schema, Path())(
        kind="transformer", vocabulary=9, width=8, heads=2, layers=1
    ).learner()
    assert made.predict(made.initial(0), np.arange(8).reshape(2, 4)).shape == (2, 2)


@pytest.mark.torch
def test_settings_of_torch():
    pytest.importorskip("torch")
    assert file_of('learner = "torch"\ndevice = "auto"\ncompiled = true').learner
    with pytest.raises(ConfigError, match=r"model.device.*'abacus'.*cuda"):
        assert file_of('learner = "torch"\ndevice = "abacus"').learner
    with pytest.raises(ConfigError, match="no setting 'device'"):
        assert file_of('learner = "jax"\ndevice = "cpu"').learner


def test_what_clips_updates_is_handed_on_and_refused_where_it_would_do_nothing():
    guarded = file_of('learner = "jax"', "clip_update = 0.5\nnoise = 1.5")
    assert (guarded.training.clip_update, guarded.training.noise) == (0.5, 1.5)
    with pytest.raises(ConfigError, match=r"train.clip_update.*exact statistics"):
        assert file_of('learner = "forest"', "clip_update = 0.5").training
    with pytest.raises(LearnerError, match="clip_update is not given"):
        assert file_of('learner = "jax"', "noise = 1.5").training
