import os
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rounds import EVERY
from toys import Centre, simulation

from haina.artifact import sha256
from haina.errors import ConfigError, RunError
from haina.federation import Federation
from haina.federation.runner import play
from haina.simulation.attacks import SignFlip
from haina.simulation.faults import Dropout
from haina.simulation.rundir import RunDir
from haina.strategy.presets import PRESETS


def federation(strategy="scaffold", workers=1, **settings):
    """What `play` looks at of a federation."""
    chosen = EVERY[strategy] if isinstance(strategy, str) else strategy
    settings = {"clients": 10, "cohort": 9, "rounds": 4, "dropout": Dropout(0.1), **settings}
    made = SimpleNamespace(
        text='name = "test"\n',
        simulation=lambda: simulation(chosen, **settings),
        settings=SimpleNamespace(simulation=SimpleNamespace(workers=workers, engine="local")),
        executor=None,
        tell=None,
    )
    made.settled = lambda: made
    return made


def told(records):
    return [replace(record, timing={}, cost={}) for record in records]


def files(path):
    """Everything that must not depend on where a run was broken."""
    names = [path / f"{name}.safetensors" for name in ("model", "best", "state")]
    return {file.name: file.read_bytes() for file in names if file.exists()}


class Crash(BaseException):
    """The power is gone."""


def crashing(monkeypatch, calls):
    """Everything that reaches the disk counts; at the given call, the machine stops, before or after it took effect."""
    left = calls
    sync, move = os.fsync, Path.replace

    def counted(real):
        def call(*args):
            nonlocal left
            left -= 1
            if left == 0:
                raise Crash
            out = real(*args)
            left -= 1
            if left == 0:
                raise Crash
            return out

        return call

    monkeypatch.setattr(os, "fsync", counted(sync))
    monkeypatch.setattr(Path, "replace", counted(move))


@pytest.mark.parametrize("name", ["scaffold", "all factors"])
def test_stopped_at_any_instant_a_run_ends_as_if_unbroken(name, tmp_path, monkeypatch):
    fed = federation(name, rounds=2)
    whole = RunDir(tmp_path / "whole")
    expected = told(play(fed, whole))
    breaks = 0
    while True:
        folder = RunDir(tmp_path / f"broken at {breaks + 1}")
        with monkeypatch.context() as patch:
            crashing(patch, breaks + 1)
            try:
                list(play(fed, folder))
            except Crash:
                breaks += 1
            else:
                break
        started = (folder.path / "federation.toml").exists()
        list(play(fed, folder, resume=started))
        assert told(folder.records()) == expected
        assert files(folder.path) == files(whole.path)
        assert not list(folder.path.glob(".*"))
    # One round is a line, two or three files and their folder, and each of them was interrupted on either side.
    assert breaks >= 2 * 2 * (1 + 3 * 2)


def test_broken_over_and_over_a_run_still_ends_the_same(tmp_path, monkeypatch):
    fed = federation("fedadam", rounds=6)
    whole, folder = RunDir(tmp_path / "whole"), RunDir(tmp_path / "broken")
    expected = told(play(fed, whole))
    rng, stops = np.random.default_rng(0), 0
    while True:
        with monkeypatch.context() as patch:
            crashing(patch, int(rng.integers(1, 45)))
            try:
                list(play(fed, folder, resume=(folder.path / "federation.toml").exists()))
            except Crash:
                stops += 1
            else:
                break
    assert stops >= 3
    assert told(folder.records()) == expected
    assert files(folder.path) == files(whole.path)


@pytest.mark.parametrize("name", EVERY)
def test_a_caller_may_stop_after_any_round(name, tmp_path):
    fed = federation(name, attack=SignFlip(fraction=0.2, start=2))
    whole = RunDir(tmp_path / "whole")
    expected = told(play(fed, whole))
    folder = RunDir(tmp_path / "stopped")
    for resume in (False, True, True, True):
        rounds = play(fed, folder, resume=resume)
        next(rounds)
        rounds.close()
    assert told(folder.records()) == expected
    assert files(folder.path) == files(whole.path)


def test_a_round_is_on_disk_before_it_is_shown(tmp_path):
    folder = RunDir(tmp_path)
    for number, record in enumerate(play(federation(), folder), 1):
        assert folder.records()[-1] == record
        assert len(folder.records()) == number
        assert sha256(folder.model()) == record.model


def test_the_best_model_is_the_one_of_the_best_round(tmp_path):
    @dataclass(frozen=True)
    class Moody(Centre):
        """Accuracy goes up and down, loss tells equals apart, and now and then there is neither."""

        def evaluate(self, model, x, y):
            metrics = super().evaluate(model, x, y)
            n = int.from_bytes(sha256(model.tobytes())[:2].encode(), "big") % 4
            accuracy = [0.5, 0.5, 0.25, 0.75][n]
            return replace(metrics, accuracy=accuracy, loss=float("nan") if n == 2 else metrics.loss)

    fed = federation("fedavg", rounds=12)
    sim = fed.simulation()
    fed.simulation = lambda: replace(sim, learner=Moody(), evaluate_every=2)
    whole = RunDir(tmp_path / "whole")
    records = list(play(fed, whole))
    scored = [
        (r.metrics["accuracy"], -np.nan_to_num(r.metrics["loss"], nan=np.inf), r.model)
        for r in records
        if r.metrics
    ]
    assert len(scored) == 6
    assert sha256(whole.model("best")) == max(scored, key=lambda score: score[:2])[2]
    folder = RunDir(tmp_path / "stopped")
    for resume in (False, *[True] * 11):
        next(play(fed, folder, resume=resume))
        assert (folder.path / "best.safetensors").exists() == (len(folder.records()) >= 2)
    assert folder.model("best") == whole.model("best")


def test_a_loss_that_is_no_number_is_never_the_best(tmp_path):
    @dataclass(frozen=True)
    class Diverging(Centre):
        rounds: tuple = ()

        def evaluate(self, model, x, y):
            metrics = replace(super().evaluate(model, x, y), accuracy=None)
            self.rounds.append(1)
            return replace(metrics, loss=float("nan")) if len(self.rounds) == 1 else metrics

    fed = federation("fedavg", rounds=3)
    sim = fed.simulation()
    fed.simulation = lambda: replace(sim, learner=Diverging(rounds=[]))
    folder = RunDir(tmp_path)
    records = list(play(fed, folder))
    best = min(records[1:], key=lambda record: record.metrics["loss"])
    assert sha256(folder.model("best")) == best.model


def test_a_run_in_the_folder_is_a_conflict(tmp_path):
    fed, folder = federation(), RunDir(tmp_path)
    next(play(fed, folder))
    with pytest.raises(RunError, match="holds a run already"):
        next(play(fed, folder))
    assert len(folder.records()) == 1


def test_there_must_be_something_to_go_on_with(tmp_path):
    with pytest.raises(RunError, match="is not the folder of a run"):
        next(play(federation(), RunDir(tmp_path), resume=True))
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
    fed, folder = federation(), RunDir(tmp_path)
    records = told(play(fed, folder))
    before = files(tmp_path)
    assert list(play(fed, folder, resume=True)) == []
    assert told(folder.records()) == records
    assert files(tmp_path) == before


@pytest.mark.slow
def test_personal_tensors_are_part_of_the_checkpoint(tmp_path):
    text = """
    [model]
    learner = "jax"
    kind = "logistic"
    local = ["output.bias"]
    [data]
    source = "sklearn:iris"
    partition = {iid = 4}
    [train]
    rounds = 3
    """
    whole, broken = RunDir(tmp_path / "whole"), RunDir(tmp_path / "broken")
    expected = told(play(Federation.of(text), whole))
    rounds = play(Federation.of(text), broken)
    next(rounds)
    rounds.close()
    list(play(Federation.of(text), broken, resume=True))
    assert told(broken.records()) == expected
    assert files(broken.path) == files(whole.path)
    # There is no one model to evaluate, so none is best.
    assert "best.safetensors" not in files(whole.path)
    assert not broken.records()[-1].metrics


def test_personal_tensors_and_several_workers_are_refused_before_anything_is_made(tmp_path):
    class Personal(Centre):
        personal = {}

    fed = federation(PRESETS["fedavg"](), workers=2)
    sim = fed.simulation()
    fed.simulation = lambda: replace(sim, learner=Personal())
    with pytest.raises(ConfigError, match="workers would each keep personal tensors"):
        next(play(fed, RunDir(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
    next(play(fed, RunDir(tmp_path / "run"), workers=1))
