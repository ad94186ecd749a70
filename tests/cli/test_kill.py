import json
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
from command import finished, spawn, written

from haina.federation import Federation
from haina.federation.runner import play
from haina.simulation.rundir import RunDir

DIGITS = """\
name = "digits"
seed = 11
[model]
learner = "jax"
kind = "mlp"
hidden = [12]
[data]
source = "sklearn:digits"
partition = {dirichlet = 0.3, clients = 20}
test = 300
[train]
rounds = 60
clients_per_round = 8
steps = 4
batch_size = 16
learning_rate = 0.1
momentum = 0.5
[strategy]
preset = "scaffold"
[simulation]
attack = {sign_flip = {fraction = 0.1, start = 10}}
dropout = 0.1
"""


def told(records):
    return [replace(record, timing={}, cost={}) for record in records]


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_bytes_of_an_unbroken_one(tmp_path):
    path = written(tmp_path, DIGITS)
    whole = RunDir(tmp_path / "whole")
    expected = told(play(Federation.read(path), whole))
    assert len(expected) == 60

    folder = RunDir(tmp_path / "killed")
    rng = np.random.default_rng(2024)
    # Each time killed a random while after a random number of rounds; the last time with other workers, and not at all.
    for kill in (0, *sorted(rng.integers(2, 50, 2).tolist()), None):
        resume = ["--resume"] if (folder.path / "federation.toml").exists() else []
        workers = [] if kill is not None else ["--workers", "2"]
        process = spawn("run", path, "--out", folder.path, "--json", *resume, *workers)
        if kill is None:
            break
        until = time.monotonic() + 60
        while lines(folder.path / "rounds.jsonl") < kill and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.03 if kill else 0.5)))
        process.send_signal(signal.SIGKILL)
        assert finished(process).code == -signal.SIGKILL
        closed = [record.round for record in folder.records()] if resume or kill else []
        assert closed == list(range(1, len(closed) + 1))
        # What a kill in the middle of a write leaves behind.
        if kill:
            with (folder.path / "rounds.jsonl").open("ab") as file:
                file.write(b'{"round":99,"outc')
            (folder.path / ".state.safetensors.new").write_bytes(b"half a checkpoint")
    said = finished(process)
    assert said.code == 0, said.err
    result = json.loads(said.out.splitlines()[-1])
    assert result["rounds"] == 60
    assert result["model_sha256"] == expected[-1].model
    assert told(folder.records()) == expected
    for name in ("model", "best", "state"):
        here, there = (run.path / f"{name}.safetensors" for run in (folder, whole))
        assert here.read_bytes() == there.read_bytes()
    assert [path.name for path in folder.path.glob(".*")] == [".lock"]
