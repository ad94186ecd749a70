import hashlib
import json
import os
import pty
import signal
import sys
import time

import pytest
from command import IRIS, finished, haina, spawn, written

from haina.simulation.rundir import RunDir
from haina.strategy.record import Verdict


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *args: haina(capsys, monkeypatch, *args)


def sha_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_run_from_beginning_to_end(cli, tmp_path):
    written(tmp_path)
    said = cli("run")
    assert said.code == 0
    folder = tmp_path / "runs" / "iris"
    records = RunDir(folder).records()
    sha = sha_of(folder / "model.safetensors")
    last = records[-1].metrics
    # Data: one line.
    assert said.out == f"accuracy {last['accuracy']:.4f}  loss {last['loss']:.4f}  model {sha}\n"
    # Talk: a line for each of three rounds, and where to look.
    assert said.err.count("\n") == 4
    assert [" rounds/s" in line for line in said.err.splitlines()] == [False, True, True, False]
    assert [" left" in line for line in said.err.splitlines()] == [False, True, False, False]
    assert "runs/iris" in said.err
    assert (folder / "federation.toml").read_text() == IRIS
    assert json.loads((folder / "summary.json").read_text())["model_sha256"] == sha


def test_json_ends_with_one_line_that_a_programme_can_read(cli, tmp_path):
    said = cli("run", written(tmp_path), "--json", "--out", tmp_path / "elsewhere")
    assert said.code == 0
    assert said.out.count("\n") == 1
    result = json.loads(said.out.splitlines()[-1])
    assert {"rounds", "accuracy", "loss", "model_sha256", "seconds", "peak_memory_mb"} <= set(result)
    assert result["rounds"] == 3
    assert 0 < result["accuracy"] <= 1
    assert result["loss"] > 0
    assert result["model_sha256"] == sha_of(tmp_path / "elsewhere" / "model.safetensors")
    assert 0 < result["seconds"] < 300
    assert 20 < result["peak_memory_mb"] < 10_000
    assert said.err
    assert not (tmp_path / "runs").exists()


def test_quiet_is_quiet(cli, tmp_path):
    said = cli("run", written(tmp_path), "--quiet", "--json")
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["rounds"] == 3


def test_the_same_file_gives_the_same_model(cli, tmp_path):
    path = written(tmp_path)
    one = json.loads(cli("run", path, "--json", "--out", "a").out)
    two = json.loads(cli("run", path, "--json", "--out", "b").out)
    assert one["model_sha256"] == two["model_sha256"]
    written(tmp_path, IRIS.replace("seed = 1", "seed = 2"))
    assert json.loads(cli("run", path, "--json", "--out", "c").out)["model_sha256"] != one["model_sha256"]


def test_a_run_in_the_way_is_a_conflict_with_three_ways_out(cli, tmp_path):
    path = written(tmp_path)
    first = json.loads(cli("run", path, "--json").out)
    said = cli("run", path)
    assert said.code == 4
    assert said.out == ""
    assert said.err.startswith("haina: runs/iris holds a run already")
    for flag in ("--resume", "--overwrite", "--out"):
        assert flag in said.err
    assert "Traceback" not in said.err

    written(tmp_path, IRIS.replace("seed = 1", "seed = 2"))
    resumed = cli("run", path, "--resume", "--json")
    assert resumed.code == 2
    assert "seed: is 2, and the run was started with 1" in resumed.err

    over = cli("run", path, "--overwrite", "--json")
    assert over.code == 0
    assert json.loads(over.out)["model_sha256"] != first["model_sha256"]
    assert [record.round for record in RunDir(tmp_path / "runs" / "iris").records()] == [1, 2, 3]


def test_resume_and_overwrite_exclude_each_other(cli, tmp_path):
    path = written(tmp_path)
    assert cli("run", path, "--quiet").code == 0
    before = sha_of(tmp_path / "runs" / "iris" / "state.safetensors")
    said = cli("run", path, "--resume", "--overwrite")
    assert said.code == 2
    assert "exclude each other" in said.err
    assert sha_of(tmp_path / "runs" / "iris" / "state.safetensors") == before


def test_nothing_to_resume_is_a_conflict(cli, tmp_path):
    said = cli("run", written(tmp_path), "--resume")
    assert said.code == 4
    assert "runs/iris is not the folder of a run" in said.err
    assert not (tmp_path / "runs").exists()


def test_a_damaged_checkpoint_is_a_conflict(cli, tmp_path):
    path = written(tmp_path)
    assert cli("run", path, "--quiet").code == 0
    state = tmp_path / "runs" / "iris" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    said = cli("run", path, "--resume")
    assert said.code == 4
    assert "is damaged" in said.err
    assert "--overwrite" in said.err


def test_a_folder_that_cannot_be_made(cli, tmp_path):
    said = cli("run", written(tmp_path), "--out", tmp_path / "federation.toml")
    assert said.code == 4
    assert "cannot be written to" in said.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rounds", "round"), "federation.toml: train.round: there is no such key"),
        (("rounds = 3", "rounds = 0"), "federation.toml: train.rounds: 0 does not fit"),
        (('"jax"', '"jx"'), "Did you mean 'jax'?"),
        (("sklearn:iris", "nowhere.npz"), "federation.toml: data: "),
        (("[train]", "[train"), "federation.toml is not TOML"),
    ],
)
def test_a_wrong_file_is_2_and_leaves_no_folder(change, words, cli, tmp_path):
    said = cli("run", written(tmp_path, IRIS.replace(*change)))
    assert said.code == 2
    assert said.out == ""
    assert words in said.err
    assert "Traceback" not in said.err
    assert not (tmp_path / "runs").exists()


def test_no_file_is_2(cli):
    said = cli("run", "nowhere.toml")
    assert said.code == 2
    assert "there is no file nowhere.toml" in said.err
    assert "haina new" in said.err


def test_training_that_cannot_be_done_is_1(cli, tmp_path):
    # A proximal weight of 50 at a rate of 0.05 steps beyond the received model.
    said = cli("run", written(tmp_path, IRIS + "proximal = 50\n"))
    assert said.code == 1
    assert "proximal 50" in said.err
    assert "Traceback" not in said.err


def test_what_cannot_be_trained_as_asked_is_one_sentence(cli, tmp_path, monkeypatch):
    path = written(tmp_path)
    forest = written(tmp_path, IRIS.replace('"jax"\nkind = "logistic"', '"forest"'), "forest.toml")
    monkeypatch.setitem(sys.modules, "ray", None)
    for args, code, words in (
        ([path, "--workers", 0], 2, "greater than or equal to 1"),
        (
            [path, "--engine", "ray"],
            2,
            'needs the package ray, which is not installed. Install it: pip install "haina[ray]"',
        ),
        ([path, "--engine", "spark"], 2, "spark"),
        ([path, "--executor", "tf"], 2, "tf"),
        (
            [forest, "--executor", "jax"],
            2,
            "'forest' is trained in one way only. Allowed: auto, jax, torch. Leave --executor out",
        ),
    ):
        said = cli("run", *args)
        assert (said.code, said.out) == (code, "")
        assert words in " ".join(said.err.replace("│", " ").split())
        assert "Traceback" not in said.err
        assert not (tmp_path / "runs" / "iris" / "federation.toml").exists()


def test_a_model_that_cannot_be_compiled_is_said_with_the_place(cli, tmp_path):
    (tmp_path / "task.py").write_text(
        "import jax.numpy as jnp\n"
        "def build_model():\n"
        "    def apply(params, x):\n"
        "        raise NotImplementedError('no such kernel\\nin this house')\n"
        "    return (lambda key: {'w': jnp.zeros((4, 3))}), apply\n"
    )
    said = cli("run", written(tmp_path, IRIS.replace('kind = "logistic"', 'build = "task:build_model"')))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(
        "haina: training stopped with NotImplementedError: no such kernel. It happened"
    )
    assert "task.py:4 build_model.<locals>.apply" in said.err
    assert "Traceback" not in said.err
    assert said.err.count("\n") < 15


def test_a_loss_that_is_not_finite_is_told_client_by_client(cli, tmp_path):
    said = cli(
        "run", written(tmp_path, IRIS.replace("learning_rate = 0.05", "learning_rate = 1e30")), "--quiet"
    )
    assert said.code == 4
    assert "no round of 3 could make a model: no client sent a usable update" in said.err
    assert "haina report" in said.err
    for record in RunDir(tmp_path / "runs" / "iris").records():
        assert {client.verdict for client in record.clients} == {Verdict.REFUSED}
        reasons = {client.reason for client in record.clients}
        assert reasons <= {
            "the update holds numbers that are not finite",
            "the update is too long to measure. Allowed: a squared norm up to 3.40282e+38.",
        }


def test_a_run_tells_what_it_cost(cli, tmp_path):
    said = cli("run", written(tmp_path), "--json", "--profile")
    result = json.loads(said.out)
    records = RunDir(tmp_path / "runs" / "iris").records()
    for record in records:
        assert set(record.timing) == {"select", "train", "combine", "evaluate", "save", "total"}
        phases = sum(seconds for phase, seconds in record.timing.items() if phase != "total")
        assert record.timing["total"] == pytest.approx(phases, abs=1e-4)
        assert set(record.cost) == {"cpu_seconds", "peak_memory_mb"}
        assert record.cost["cpu_seconds"] > 0
    # Saving a round is known after its record is written.
    assert records[0].timing["save"] == 0 < records[1].timing["save"]
    assert result["peak_memory_mb"] == records[-1].cost["peak_memory_mb"]
    assert result["profile"]["rounds"] == 3
    assert set(result["profile"]["laps"]) == {"select", "train", "combine", "evaluate", "save"}
    again = json.loads(cli("runs", "runs/iris", "--profile", "--json").out)
    assert again == {"iris": result["profile"]}
    table = cli("runs", "--profile").out
    assert "iris: 3 rounds" in table
    for row in ("train", "whole round", "processor time", "updates per second"):
        assert row in table


def test_another_executor_is_remembered_by_its_run(cli, tmp_path):
    path = written(tmp_path)
    longer = IRIS.replace("rounds = 3", "rounds = 4")
    plain = json.loads(cli("run", path, "--json", "--out", "plain").out)
    other = json.loads(cli("run", path, "--json", "--out", "other", "--executor", "torch").out)
    assert other["model_sha256"] != plain["model_sha256"]
    written(tmp_path, longer)
    said = cli("run", path, "--resume", "--out", "other", "--executor", "jax")
    assert said.code == 2
    assert "model.learner: is 'jax', and the run was started with 'torch'" in said.err
    resumed = json.loads(cli("run", path, "--json", "--resume", "--out", "other").out)
    # As if it had been said from the beginning, on the command line or in the file.
    unbroken = json.loads(cli("run", path, "--json", "--out", "unbroken", "--executor", "torch").out)
    written(tmp_path, longer.replace('"jax"', '"torch"'))
    in_file = json.loads(cli("run", path, "--json", "--out", "in-file").out)
    assert resumed["model_sha256"] == unbroken["model_sha256"] == in_file["model_sha256"]
    assert cli("run", path, "--out", "other", "--overwrite").code == 0
    assert RunDir(tmp_path / "other").executor() is None


def test_what_auto_took_is_kept_for_who_goes_on(cli, tmp_path):
    path, longer = (
        written(tmp_path, IRIS.replace('"jax"', '"auto"')),
        IRIS.replace("rounds = 3", "rounds = 4"),
    )
    assert cli("run", path, "--quiet", "--out", "auto").code == 0
    kept = RunDir(tmp_path / "auto").executor()
    assert kept == "jax"
    (tmp_path / "auto" / "executor.txt").write_text("torch\n")
    written(tmp_path, longer.replace('"jax"', '"auto"'))
    # Whatever would be taken here and now, and also where auto is asked for again.
    said = cli("run", path, "--json", "--resume", "--out", "auto", "--executor", "auto")
    assert said.code == 0, said.err
    assert RunDir(tmp_path / "auto").executor() == "torch"
    assert cli("run", path, "--resume", "--out", "auto", "--executor", "jax").code == 2


def test_workers_may_change_in_the_middle_of_a_run(cli, tmp_path):
    path = written(tmp_path)
    cli("run", path, "--json")
    text = IRIS.replace("rounds = 3", "rounds = 4") + "[simulation]\nworkers = 2\n"
    written(tmp_path, text)
    resumed = json.loads(cli("run", path, "--resume", "--json").out)
    alone = json.loads(cli("run", path, "--workers", 1, "--out", "alone", "--json").out)
    assert resumed["model_sha256"] == alone["model_sha256"]
    last = RunDir(tmp_path / "runs" / "iris").records()[-1]
    assert last.cost["workers"] == 2
    assert last.cost["busy_seconds"] > 0


class TestRuns:
    def test_models_are_listed_with_their_sha_256(self, cli, tmp_path):
        written(tmp_path)
        assert cli("run", "--quiet").code == 0
        assert cli("run", "--quiet", "--out", "runs/second").code == 0
        said = cli("runs", "--json")
        assert (said.code, said.err) == (0, "")
        entries = json.loads(said.out)
        assert [(entry["run"], entry["model"]) for entry in entries] == [
            ("iris", "newest"),
            ("iris", "best"),
            ("second", "newest"),
            ("second", "best"),
        ]
        for entry in entries:
            assert entry["sha256"] == sha_of(tmp_path / entry["path"])
            assert 1 <= entry["round"] <= 3
            assert 0 <= entry["accuracy"] <= 1
        assert entries[0]["round"] == 3
        alone = json.loads(cli("runs", "runs/second", "--json").out)
        assert alone == entries[2:]

    def test_data_lines_are_those_of_sha256sum(self, cli, tmp_path):
        written(tmp_path)
        assert cli("run", "--quiet").code == 0
        said = cli("runs")
        for line in said.out.splitlines():
            digest, path = line.split("  ")
            assert digest == sha_of(tmp_path / path)
        assert len(said.out.splitlines()) == 2
        assert "SHA-256" in said.err

    def test_no_runs(self, cli, tmp_path):
        for args in ([], ["nowhere"], [str(tmp_path)]):
            said = cli("runs", *args, "--json")
            assert said.code == 4
            assert said.out == ""
            assert "there are no runs in" in said.err


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_says_how_to_go_on(workers, tmp_path):
    path = written(tmp_path, IRIS.replace("rounds = 3", "rounds = 3000"), "sea.toml")
    process = spawn("run", path, "--out", "out", "--workers", workers, cwd=tmp_path, start_new_session=True)
    lines = tmp_path / "out" / "rounds.jsonl"
    until = time.monotonic() + 60
    while not (lines.exists() and lines.read_bytes().count(b"\n") > 5):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.01)
    # As a terminal does it: everybody in the session hears it.
    os.killpg(process.pid, signal.SIGINT)
    said = finished(process, timeout=30)
    assert said.code == 130
    assert said.out == ""
    assert "Traceback" not in said.err
    hint = said.err[said.err.index("haina run") :].splitlines()[0].split()[1:]
    assert hint == ["run", str(path), "--resume", "--out", "out"]
    assert RunDir(tmp_path / "out").records()


@pytest.mark.slow
def test_on_a_terminal_there_is_a_table_and_data_stay_clean(tmp_path):
    leader, follower = pty.openpty()
    process = spawn(
        "run",
        written(tmp_path),
        "--json",
        cwd=tmp_path,
        stderr=follower,
        env={"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:
            # The other end is gone.
            break
        if not piece:
            break
        seen += piece
    os.close(leader)
    said = finished(process)
    assert said.code == 0
    assert json.loads(said.out)["rounds"] == 3
    assert b"Rounds" in seen
    assert b"3/3" in seen
    assert b" rounds/s" in seen
    assert b"\x1b[" in seen
    assert "\x1b" not in said.out


def test_more_rounds_are_the_one_change_that_a_run_may_go_on_with(cli, tmp_path):
    path = written(tmp_path)
    cli("run", path, "--json")
    written(tmp_path, IRIS.replace("rounds = 3", "rounds = 5"))
    longer = json.loads(cli("run", path, "--resume", "--json").out)
    assert longer["rounds"] == 5
    unbroken = json.loads(cli("run", path, "--out", "runs/other", "--json").out)
    assert longer["model_sha256"] == unbroken["model_sha256"]
