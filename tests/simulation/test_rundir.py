import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rounds import EVERY
from toys import Centre, follow, simulation

from haina.artifact import dump, load, sha256
from haina.errors import RunError
from haina.simulation.faults import Dropout
from haina.simulation.rundir import RunDir, replace_file
from haina.strategy.presets import PRESETS

FILES = {
    "federation.toml",
    "rounds.jsonl",
    "model.safetensors",
    "best.safetensors",
    "state.safetensors",
    "summary.json",
}


def saved(path, sim, rounds):
    """A folder with a run of some rounds, the run, and its records."""
    folder = RunDir(path / "run")
    folder.create('name = "test"\n')
    run, records = sim.start(), []
    for _ in range(rounds):
        run, record = sim.advance(run)
        records.append(record)
        folder.save(run, record, sim.learner, best=len(records) == 1)
    return folder, run, records


def same(one, other):
    assert one.model.tobytes() == other.model.tobytes()
    assert one.finished == other.finished
    here, there = one.state.to_arrays(), other.state.to_arrays()
    assert list(here) == list(there)
    assert all(here[name].tobytes() == there[name].tobytes() for name in here)
    assert {c: m.tobytes() for c, m in one.memories.items()} == {
        c: m.tobytes() for c, m in other.memories.items()
    }


@pytest.mark.parametrize("name", EVERY)
def test_a_run_comes_back_bit_for_bit_and_goes_on_as_if_unbroken(name, tmp_path):
    sim = simulation(EVERY[name], clients=12, cohort=9, rounds=5)
    folder, run, records = saved(tmp_path, sim, 3)
    back = folder.resume(sim.strategy, sim.learner)
    same(back, run)
    _, rest = follow(sim, back)
    _, unbroken = follow(sim)
    assert [record.model for record in records + rest] == [record.model for record in unbroken]


def test_what_is_in_the_folder(tmp_path):
    sim = simulation(PRESETS["fedadam"](), rounds=3)
    folder, run, records = saved(tmp_path, sim, 3)
    folder.summarise({"rounds": 3})
    assert {path.name for path in folder.path.iterdir()} == FILES
    assert folder.federation() == 'name = "test"\n'
    assert sha256(folder.model()) == records[-1].model
    assert sha256(folder.model("best")) == records[0].model
    assert sim.learner.from_bytes(folder.model()).tobytes() == run.model.tobytes()
    assert folder.records() == records
    assert json.loads((folder.path / "summary.json").read_text()) == {"rounds": 3}
    lines = (folder.path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2, 3]


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    folder, _, _ = saved(tmp_path, simulation(PRESETS["fedavg"]()), 1)
    with pytest.raises(RunError, match="holds a run already") as error:
        folder.create("other")
    for flag in ("--resume", "--overwrite", "--out"):
        assert flag in error.value.remedy
    assert folder.federation() == 'name = "test"\n'


def test_clearing_removes_what_a_run_makes_and_nothing_else(tmp_path):
    folder, _, _ = saved(tmp_path, simulation(PRESETS["fedavg"]()), 1)
    (folder.path / "notes.txt").write_text("mine")
    (folder.path / "report").mkdir()
    folder.clear()
    assert {path.name for path in folder.path.iterdir()} == {"notes.txt", "report"}
    folder.clear()
    folder.create("new")
    assert folder.records() == []


def test_killed_while_clearing_an_old_run_is_not_taken_for_the_new_one(tmp_path, monkeypatch):
    sim = simulation(PRESETS["fedavg"](), rounds=3)
    unlink = type(tmp_path).unlink
    for survive in range(6):
        folder, _, _ = saved(tmp_path / str(survive), sim, 2)
        left = survive

        def dying(path, missing_ok=False):
            nonlocal left
            if not left:
                raise KeyboardInterrupt
            left -= 1
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch:
            patch.setattr(type(tmp_path), "unlink", dying)
            with pytest.raises(KeyboardInterrupt):
                folder.clear()
        # Whatever is left, going on or starting over ends with each round once.
        run = folder.resume(sim.strategy, sim.learner)
        run = run or sim.start()
        while run.round < sim.rounds:
            run, record = sim.advance(run)
            folder.save(run, record, sim.learner, best=False)
        assert [record.round for record in folder.records()] == [1, 2, 3]


@pytest.mark.parametrize(
    "tail", [b'{"round":3,"outc', b'{"round":3}\n', b"\n", b'{"a":1}\n{"b":', b"\x00" * 50]
)
def test_lines_beyond_the_checkpoint_belong_to_a_round_that_did_not_close(tail, tmp_path):
    sim = simulation(PRESETS["fedavg"](), rounds=4)
    folder, run, records = saved(tmp_path, sim, 2)
    with (folder.path / "rounds.jsonl").open("ab") as file:
        file.write(tail)
    back = folder.resume(sim.strategy, sim.learner)
    same(back, run)
    assert folder.records() == records
    back, record = sim.advance(back)
    folder.save(back, record, sim.learner, best=False)
    assert folder.records() == [*records, record]


def test_a_half_written_line_does_not_keep_a_run_from_being_read(tmp_path):
    folder, _, records = saved(tmp_path, simulation(PRESETS["fedavg"]()), 2)
    with (folder.path / "rounds.jsonl").open("ab") as file:
        file.write(b'{"round":3,"outcome":"step')
    assert folder.records() == records


def test_files_that_a_crash_left_half_written_are_not_looked_at(tmp_path):
    sim = simulation(PRESETS["fedavg"](), rounds=4)
    folder, run, _ = saved(tmp_path, sim, 2)
    for name in FILES:
        (folder.path / f".{name}.new").write_bytes(b"half")
    same(folder.resume(sim.strategy, sim.learner), run)
    run, record = sim.advance(run)
    folder.save(run, record, sim.learner, best=True)
    folder.summarise({})
    left = {path.name for path in folder.path.glob(".*")}
    # What is written again uses the same names, so leftovers do not pile up.
    assert left == {".federation.toml.new"}


def test_without_a_checkpoint_a_run_begins_again(tmp_path):
    sim = simulation(PRESETS["fedavg"](), rounds=2)
    folder, _, _ = saved(tmp_path, sim, 1)
    (folder.path / "state.safetensors").unlink()
    assert folder.resume(sim.strategy, sim.learner) is None
    assert folder.records() == []


class TestDamage:
    @pytest.fixture
    def folder(self, tmp_path):
        return saved(tmp_path, self.sim(), 2)[0]

    def sim(self, name="scaffold"):
        return simulation(PRESETS[name](), clients=3, rounds=4)

    def refused(self, folder, sim=None):
        sim = sim or self.sim()
        lines = (folder.path / "rounds.jsonl").read_bytes()
        with pytest.raises(RunError) as error:
            folder.resume(sim.strategy, sim.learner)
        assert "state.safetensors" in str(error.value)
        assert "--overwrite" in str(error.value)
        # The records of a run that cannot go on can still be read.
        assert (folder.path / "rounds.jsonl").read_bytes() == lines
        return str(error.value)

    def test_any_flipped_bit_is_noticed(self, folder):
        path = folder.path / "state.safetensors"
        data = path.read_bytes()
        bits = np.random.default_rng(0).choice(8 * len(data), 400, replace=False)
        for bit in (*bits, data.index(b'"finished":"0"') * 8 + 12 * 8):
            wrong = bytearray(data)
            wrong[bit // 8] ^= 1 << bit % 8
            path.write_bytes(wrong)
            self.refused(folder)
        path.write_bytes(data)
        assert folder.resume(self.sim().strategy, self.sim().learner).round == 2

    @pytest.mark.parametrize("keep", [0, 7, 8, 100, -1])
    def test_a_checkpoint_cut_short_is_noticed(self, folder, keep):
        path = folder.path / "state.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        assert "damaged" in self.refused(folder)

    def test_another_file_is_no_checkpoint(self, folder):
        path = folder.path / "state.safetensors"
        path.write_bytes(folder.model())
        assert "format None" in self.refused(folder)
        arrays, metadata = load(path.read_bytes())
        path.write_bytes(dump(arrays, {**metadata, "format": "2"}))
        assert "has format 2, and this version reads 1" in self.refused(folder)

    def test_a_checkpoint_of_another_federation_is_refused(self, folder):
        assert "another federation" in self.refused(folder, self.sim("fedadam"))
        other = replace(self.sim(), learner=Centre(dimension=7))
        assert "another federation" in self.refused(folder, other)

    def test_a_model_whose_meaning_has_changed_is_refused(self, folder):
        class Renamed(Centre):
            def to_bytes(self, model):
                return dump({"weights": model})

        assert "its code has changed" in self.refused(folder, replace(self.sim(), learner=Renamed()))

    def test_records_that_are_gone_are_missed(self, folder):
        path = folder.path / "rounds.jsonl"
        path.write_bytes(path.read_bytes().split(b"\n")[0] + b"\n")
        assert "is of round 2, and rounds.jsonl holds 1" in self.refused(folder)

    @pytest.mark.parametrize(
        "line", [b"not json", b"[]", b'{"round":1}', b"\xff\xfe", b'{"round":1,"clients":3}']
    )
    def test_a_line_that_is_no_record_is_named(self, folder, line):
        path = folder.path / "rounds.jsonl"
        path.write_bytes(path.read_bytes() + line + b"\n")
        with pytest.raises(RunError, match=r"line 3 of .*rounds.jsonl"):
            folder.records()


@pytest.mark.parametrize("call", ["federation", "records", "model"])
def test_what_is_no_run_is_said(call, tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(RunError):
            getattr(RunDir(path), call)()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deeper"):
        with pytest.raises(RunError, match="cannot be written to") as error:
            RunDir(path).create("text")
        assert "--out" in error.value.remedy


def test_a_file_is_replaced_at_once_and_durably(tmp_path, monkeypatch):
    path, synced = tmp_path / "file", []
    path.write_bytes(b"old")
    sync = os.fsync

    def watched(descriptor):
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.read_bytes()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    replace_file(path, b"new")
    # The new bytes reach the disk before they take the old ones' place, and the folder after that.
    assert synced == [(False, b"old"), (True, b"new")]
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_round_that_keeps_the_model_does_not_write_it_again(tmp_path):
    sim = simulation(PRESETS["fedavg"](), rounds=3)
    folder, run, records = saved(tmp_path, sim, 2)
    path = folder.path / "model.safetensors"
    written = path.stat().st_ino, path.stat().st_mtime_ns
    away = replace(sim, dropout=Dropout(1.0))
    run, record = away.advance(run)
    assert record.model == record.parent == records[-1].model
    folder.save(run, record, sim.learner, best=False)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == written
    assert sha256(folder.model()) == record.model
    same(folder.resume(sim.strategy, sim.learner), run)
    path.unlink()
    folder.save(run, record, sim.learner, best=False)
    assert sha256(folder.model()) == record.model


def test_a_round_takes_its_place_only_when_all_of_it_is_on_the_disk(tmp_path, monkeypatch):
    folder, run, records = saved(tmp_path, simulation(PRESETS["fedavg"](), rounds=3), 2)
    happened = []
    sync, move = os.fsync, Path.replace
    monkeypatch.setattr(
        os, "fsync", lambda file: (happened.append(stat.S_IFMT(os.fstat(file).st_mode)), sync(file))
    )
    monkeypatch.setattr(Path, "replace", lambda path, to: (happened.append(to.name), move(path, to)))
    folder.save(run, records[-1], Centre(), best=True)
    assert happened == [
        *[stat.S_IFREG] * 4,
        "model.safetensors",
        "best.safetensors",
        "state.safetensors",
        stat.S_IFDIR,
    ]


def test_another_executor_is_kept_beside_the_file(tmp_path):
    folder = RunDir(tmp_path / "run")
    assert folder.executor() is None
    folder.create("text", "torch")
    assert (folder.federation(), folder.executor()) == ("text", "torch")
    folder.clear()
    assert folder.executor() is None
