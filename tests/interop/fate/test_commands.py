"""`haina fate`, as it is typed."""

import json
from pathlib import Path

import pytest
from command import haina

FIXTURES = Path(__file__).parents[1] / "fixtures"
GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def say(capsys, monkeypatch):
    return lambda *args: haina(capsys, monkeypatch, "fate", *args)


def exported(say, out, *more):
    sites = [FIXTURES / "guest.csv", FIXTURES / "host.csv"]
    settings = ["--id", "id", "--epochs", 60, "--learning-rate", "1.0", "--on-server", "/data"]
    return say("export", *sites, "--out", out, *settings, *more)


def test_one_command_writes_both_jobs_tables_and_the_federation_file(say, tmp_path):
    said = exported(say, tmp_path / "out")
    assert said.code == 0, said.err
    out = tmp_path / "out"
    assert sorted(said.out.split()) == sorted(str(path) for path in out.iterdir())
    for name in ("dag", "dsl", "conf"):
        assert json.loads((out / f"{name}.json").read_text()) == json.loads(
            (GOLDEN / f"{name}.json").read_text()
        )
    # Rows that were numbered x0, x1, ... with 17 digits already come out byte for byte.
    for name in ("guest", "host"):
        assert (out / f"{name}.csv").read_bytes() == (FIXTURES / f"{name}.csv").read_bytes()
    for name in ("upload-1-guest.json", "upload-2-host.json", "federation.toml"):
        assert (out / name).read_text() == (GOLDEN / name).read_text()


def test_the_r_task_is_in_the_job_of_2_and_not_of_1(say, tmp_path):
    url = "http://localhost:8000/run_logistic_regression"
    assert exported(say, tmp_path / "out", "--r-script-url", url).code == 0
    assert (tmp_path / "out" / "dag.json").read_text() == (GOLDEN / "dag-r.json").read_text()
    assert (tmp_path / "out" / "dsl.json").read_text() == (GOLDEN / "dsl.json").read_text()


def test_three_sites_and_numbers_of_one_s_own(say, tmp_path):
    guest = FIXTURES / "guest.csv"
    said = say(
        "export",
        guest,
        guest,
        guest,
        "--out",
        tmp_path,
        "--id",
        "id",
        "--host",
        7,
        "--host",
        8,
        "--arbiter",
        9,
    )
    assert said.code == 0, said.err
    conf = json.loads((tmp_path / "conf.json").read_text())
    assert conf["role"] == {"guest": [9999], "host": [7, 8], "arbiter": [9]}
    assert (tmp_path / "host_2.csv").is_file()
    assert say("export", guest, guest, guest, "--out", tmp_path, "--host", 7).code == 2
    said = say("export", guest, "--out", tmp_path)
    assert said.code == 2
    assert "at least one host" in said.err


def test_each_site_writes_its_own_table_and_the_guest_the_job(say, tmp_path):
    guest, host = FIXTURES / "guest.csv", FIXTURES / "host.csv"
    said = say(
        "export", host, "--out", tmp_path / "there", "--id", "id", "--site", "host", "--on-server", "/data"
    )
    assert said.code == 0, said.err
    there = tmp_path / "there"
    made = {"columns.json", "host.csv", "upload-1-host.json", "upload-2-host.json"}
    assert {path.name for path in there.iterdir()} == made
    assert (there / "upload-2-host.json").read_text() == (GOLDEN / "upload-2-host.json").read_text()
    settings = ["--id", "id", "--host", 9998, "--epochs", 60, "--learning-rate", "1.0"]
    said = say("export", guest, "--out", tmp_path / "here", *settings)
    assert said.code == 2
    assert "--batch-size" in said.err
    assert say("export", guest, "--out", tmp_path / "here", *settings, "--batch-size", 400).code == 0
    assert (tmp_path / "here" / "dag.json").read_text() == (GOLDEN / "dag.json").read_text()
    assert not (tmp_path / "here" / "federation.toml").exists()
    assert say("export", guest, host, "--out", there, "--site", "host").code == 2


def test_a_model_goes_there_and_back(say, tmp_path):
    columns = tmp_path / "columns.json"
    columns.write_text('["age", "bmi", "b", "c", "lab"]')
    model = FIXTURES / "homo_lr_model.json"
    said = say("import-model", model, "--out", tmp_path / "m.safetensors", "--columns", columns, "--json")
    told = json.loads(said.out)
    assert told["intercept"] == -0.2580931484699249
    assert told["coefficients"]["age"] == 1.3075495958328247
    # 1.x and back: bytes equal, names kept.
    for_1 = ["--version", "1", "--columns", columns]
    assert say("export-model", tmp_path / "m.safetensors", "--out", tmp_path / "m.pb", *for_1).code == 0
    said = say("import-model", tmp_path / "m.pb", "--out", tmp_path / "back.safetensors", "--json")
    assert json.loads(said.out)["coefficients"] == told["coefficients"]
    assert (tmp_path / "back.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()
    # 2.x, by way of the network in float32, which FATE's model is in already.
    say("import-model", model, "--out", tmp_path / "net.safetensors", "--to", "logistic")
    assert say("export-model", tmp_path / "net.safetensors", "--out", tmp_path / "m.json").code == 0
    state = json.loads((tmp_path / "m.json").read_text())["output_model"]["param"]["model"]["state_dict"]
    assert state == json.loads(model.read_text())["output_model"]["param"]["model"]["state_dict"]


def test_nothing_is_overwritten_and_errors_are_plain(say, tmp_path):
    model = FIXTURES / "homo_lr_model.json"
    (tmp_path / "there").write_text("mine")
    said = say("import-model", model, "--out", tmp_path / "there")
    assert (said.code, (tmp_path / "there").read_text()) == (4, "mine")
    assert say("import-model", tmp_path / "none", "--out", tmp_path / "x").code == 2
    assert say("submit", FIXTURES / "guest.csv").code == 2
    assert say("submit", model, model, model).code == 2
    said = say("submit", GOLDEN / "dag.json", "--url", "http://127.0.0.1:9")
    assert said.code == 3
    assert "Is it running there" in said.err
    said = say("submit", GOLDEN / "dag.json", "--url", "http://fate.example.org:9380")
    assert said.code == 2
    assert "--insecure" in said.err
