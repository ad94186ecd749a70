import hashlib
import json
import signal
import time

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from command import finished, spawn
from served import GLM, Served, hospital

from haina.artifact import load

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """From nothing to a finished federation of two hospitals, with the commands of the documentation."""
    folder = tmp_path_factory.mktemp("house")
    begun = time.monotonic()
    house = Served(folder, args=("--log-format", "json"))
    try:
        house.invited("hospital-a", "hospital-b")
        nodes = [
            house.join(f"{name}.invite", "--data", f"{name}.csv", "--door", door)
            for name, door in (("hospital-a", "http"), ("hospital-b", "grpc"))
        ]
        house.said = [finished(node, 60) for node in nodes]
        house.seconds = time.monotonic() - begun
        yield house
    finally:
        house.close()


def pooled(folder, names):
    table = pd.concat([pd.read_csv(folder / f"{name}.csv") for name in names])
    y = (table.readmitted == "yes").to_numpy(float)
    x = sm.add_constant(table[["age", "stay"]].to_numpy())
    return sm.GLM(y, x, sm.families.Binomial()).fit(tol=1e-14, maxiter=100).params


def test_two_hospitals_get_the_fit_of_the_pooled_table(house):
    assert [said.code for said in house.said] == [0, 0], house.said
    assert house.seconds < 60
    for said in house.said:
        assert said.out == ""
        assert "Traceback" not in said.err
        assert "Ended: the fit has converged" in said.err
    made = house.haina("models", "fetch", "--out", "final.safetensors", "--json")
    data = (house.folder / "final.safetensors").read_bytes()
    assert hashlib.sha256(data).hexdigest() == made["sha256"]
    arrays, _ = load(data)
    found = np.concatenate([np.ravel(array) for array in arrays.values()])
    expected = pooled(house.folder, ["hospital-a", "hospital-b"])
    np.testing.assert_allclose(np.sort(found), np.sort(expected), rtol=1e-9)


def test_a_simulation_of_the_same_rows_ends_with_the_same_bytes(house):
    sites = 'sites = {hospital-a = "hospital-a.csv", hospital-b = "hospital-b.csv"}\ntarget'
    text = GLM.format(rounds=25, nodes=2).replace("target", sites, 1)
    (house.folder / "simulated.toml").write_text(text)
    simulated = house.haina("run", "simulated.toml", "--quiet", "--json")
    assert simulated["model_sha256"] == house.haina("models", "--json")[-1]["sha256"]


def test_status_knows_federations_rounds_and_nodes(house):
    (federation,) = house.haina("status", "--json")["federations"]
    assert (federation["name"], federation["state"], federation["rounds"]) == ("readmission", "finished", 25)
    assert federation["closed"] == federation["version"] == federation["last_rounds"][-1]["number"] > 3
    assert federation["round"] is None
    last = federation["last_rounds"][-1]
    assert (last["state"], last["arrived"], last["invited"], last["failed"]) == ("closed", 2, 2, 0)
    nodes = {node["name"]: node for node in house.haina("status", "--json")["nodes"]}
    assert nodes["hospital-a"]["examples"] == nodes["hospital-b"]["examples"] == 150
    assert nodes["operator-local"]["role"] == "operator"
    said = house.haina("status")
    for word in ("readmission", "finished", "hospital-a", "made a model"):
        assert word in said.out
    assert said.err == ""


def test_status_watch_needs_a_terminal_or_json(house):
    assert house.haina("status", "--watch", code=2).out == ""
    process = spawn("status", "--watch", "--json", **house.options)
    try:
        first, second = (json.loads(process.stdout.readline()) for _ in range(2))
    finally:
        process.send_signal(signal.SIGINT)
    said = finished(process)
    assert said.code == 130
    assert "Traceback" not in said.err
    assert first["federations"] == second["federations"]


def test_rounds_are_listed_and_explained(house):
    rounds = house.haina("rounds", "--json")
    assert [info["number"] for info in rounds] == list(range(1, len(rounds) + 1))
    assert house.haina("rounds", "readmission", "--last", "2", "--json") == rounds[-2:]
    last = str(rounds[-1]["number"])
    shown = house.haina("rounds", "show", last, "--json")
    assert {client["client"] for client in shown["record"]["clients"]} == {"hospital-a", "hospital-b"}
    assert shown["failures"] == {}
    said = house.haina("rounds", "show", "readmission", last)
    assert f"Round {last} made a new model" in said.out
    assert "hospital-a counts 50.0%" in said.out
    assert house.haina("rounds", "show", "999", code=1).out == ""
    assert "haina rounds show [FEDERATION] NUMBER" in house.haina("rounds", "show", "last", code=2).err
    assert house.haina("rounds", "elsewhere", code=1).out == ""


def test_logs_say_who_did_what(house):
    entries = house.haina("logs", "--json")
    did = [(entry["who"], entry["action"], entry["subject"]) for entry in entries]
    assert ("operator-local", "invite", "hospital-a") in did
    assert ("hospital-b", "enrol", "hospital-b") in did
    assert ("coordinator", "round.closed", "readmission") in did
    lines = house.haina("logs", "--last", "5", "--federation", "readmission").out.splitlines()
    assert 1 <= len(lines) <= 5
    assert "round.closed" in lines[-1]


def test_logs_go_on_as_things_happen(house):
    process = spawn("logs", "--follow", "--last", "1", "--json", **house.options)
    try:
        assert json.loads(process.stdout.readline())["id"]
        house.haina("invite", "late", "--out", "late-one.invite")
        assert json.loads(process.stdout.readline())["action"] == "invite"
    finally:
        process.send_signal(signal.SIGINT)
    assert finished(process).code == 130


def test_models_can_be_gone_back_to(house):
    versions = house.haina("models", "readmission", "--json")
    assert [model["version"] for model in versions] == list(range(len(versions)))
    new = house.haina("models", "rollback", "3", "--why", "to see", "--json")
    assert new["sha256"] == versions[3]["sha256"]
    assert "to see" in new["note"]
    back = house.haina("models", "rollback", "readmission", str(len(versions) - 1), "--json")
    assert back["sha256"] == versions[-1]["sha256"]
    house.haina("models", "fetch", "readmission", "--version", "0", "--out", "first.safetensors")
    assert (
        hashlib.sha256((house.folder / "first.safetensors").read_bytes()).hexdigest() == versions[0]["sha256"]
    )
    assert (
        "first.safetensors is there"
        in house.haina("models", "fetch", "--out", "first.safetensors", code=4).err
    )
    assert "is not kept" in house.haina("models", "fetch", "--version", "99", "--out", "x", code=2).err
    assert not (house.folder / "x").exists()


def test_settings_are_changed_and_taken_back(house):
    version = house.haina("config", "get", "--json")["version"]
    entry = house.haina(
        "config", "set", "report_interval=30s", "paused=true", "--node", "hospital-a", "--why", "w", "--json"
    )
    assert (entry["version"], entry["scope"], entry["why"]) == (version + 1, "node:hospital-a", "w")
    assert entry["values"] == {"report_interval": 30.0, "paused": True}
    held = house.haina("config", "get", "--scope", "node:hospital-a", "--json")
    assert held["own"] == entry["values"]
    assert held["values"]["report_interval"] == 30.0
    assert house.haina("config", "get", "--json")["values"]["report_interval"] == 5.0
    dry = house.haina("config", "set", "report_interval=9", "--dry-run", "--json")
    assert dry["values"] == {"report_interval": 9.0}
    assert house.haina("config", "get", "--json")["version"] == version + 1
    # A value that is taken away; the version that was expected; and the three ways to be refused.
    house.haina("config", "set", "paused=", "--node", "hospital-a", "--expect", str(version + 1))
    assert house.haina("config", "get", "--scope", "node:hospital-a", "--json")["own"] == {
        "report_interval": 30.0
    }
    assert (
        "in force" in house.haina("config", "set", "report_interval=9", "--expect", str(version), code=4).err
    )
    assert "Did you mean report_interval" in house.haina("config", "set", "report_intervall=9", code=2).err
    assert "sets nothing" in house.haina("config", "set", "report_interval", code=2).err
    assert "exclude" in house.haina("config", "set", "paused=true", "--node", "a", "--group", "b", code=2).err
    assert house.haina("config", "set", "http=0.0.0.0:1", code=4).out == ""
    house.haina("config", "rollback", str(version), "--why", "enough")
    assert house.haina("config", "get", "--scope", "node:hospital-a", "--json")["own"] == {}
    log = house.haina("config", "log", "--json")
    assert [change["version"] for change in log][-3:] == [version + 1, version + 2, version + 3]
    assert "report_interval" in house.haina("config", "schema", "--json")["properties"]


def test_a_finished_federation_cannot_be_started(house):
    assert "has finished" in house.haina("federation", "start", code=4).err
    assert "there is no federation elsewhere" in house.haina("federation", "pause", "elsewhere", code=1).err


def test_an_invitation_is_not_written_over(house):
    assert (house.folder / "hospital-a.invite").stat().st_mode & 0o077 == 0
    assert "is there already" in house.haina("invite", "hospital-a", code=4).err
    made = house.haina("invite", "hospital-c", "--hours", "2", "--json")
    assert made["name"] == "hospital-c"
    assert "token" not in made
    assert house.haina("invite", "../x", code=2).out == ""


def test_an_invitation_for_a_viewer_lets_look_and_no_more(house):
    said = house.haina("invite", "auditor", "--role", "viewer")
    assert "--data" not in said.err
    joined = house.haina("join", "auditor.invite")
    assert "haina status --credentials haina-node-auditor" in joined.err
    look = ("--credentials", "haina-node-auditor", "--state", "nowhere")
    assert house.haina("status", *look, "--json")["federations"][0]["name"] == "readmission"
    assert house.haina("nodes", *look, "--server", house.ready["http"], "--json")
    assert "auditor is a viewer" in house.haina("federation", "stop", *look, code=1).err


def test_a_node_that_is_shut_out_is_told_and_can_be_asked_back(house):
    again = ("hospital-b.invite", "--data", "hospital-b.csv")
    assert house.haina("nodes", "revoke", "hospital-b", "--why", "moved", "--json")["state"] == "revoked"
    assert "is revoked" in finished(house.join(*again)).err
    (house.folder / "hospital-b.invite").unlink()
    house.haina("invite", "hospital-b")
    said = finished(house.join(*again))
    assert said.code == 0, said
    assert "hospital-b is known to the coordinator" in said.err
    nodes = {node["name"]: node["state"] for node in house.haina("nodes", "--json")}
    assert nodes["hospital-b"] == "active"


def test_the_log_is_lines_of_json(house):
    entries = [json.loads(line) for line in house.log.splitlines()]
    assert {"time", "level", "logger", "message"} <= set(entries[0])
    told = " ".join(entry["message"] for entry in entries)
    assert house.ready["http"] in told
    assert "fingerprint of the authority" in told
    assert "haina invite" in told
    assert "PRIVATE KEY" not in house.log


def test_a_second_coordinator_in_the_same_folder_is_refused(house):
    said = finished(
        spawn("serve", "federation.toml", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", **house.options)
    )
    assert said.code == 1
    assert "another coordinator" in said.err
    assert said.out == ""


def test_nobody_answers(tmp_path):
    for args in (
        ["status"],
        ["rounds", "--json"],
        ["invite", "a"],
        ["federation", "stop"],
        ["models", "fetch", "--out", "m"],
    ):
        said = finished(spawn(*args, "--state", tmp_path, cwd=tmp_path))
        assert said.code == 3, said
        assert said.out == ""
        assert "haina serve federation.toml" in said.err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_a_coordinator_in_order(number, code, tmp_path):
    house = Served(tmp_path)
    try:
        house.server.send_signal(number)
        assert finished(house.server, 15).code == code
        assert "Traceback" not in house.log
        assert "goes on where it was" in house.log
        assert "did not answer" in house.haina("status", code=3).err
    finally:
        house.close()


def test_a_wrong_file_is_2_and_nothing_is_served(tmp_path):
    (tmp_path / "federation.toml").write_text(GLM.format(rounds=3, nodes=2).replace("glm", "gml"))
    said = finished(spawn("serve", "federation.toml", cwd=tmp_path))
    assert (said.code, said.out) == (2, "")
    assert "Did you mean 'glm'?" in said.err
    said = finished(spawn("serve", "federation.toml", "--http", "everywhere", cwd=tmp_path))
    assert said.code == 2
    assert "HOST:PORT" in said.err


def test_killed_and_restarted_a_coordinator_goes_on(tmp_path):
    house = Served(tmp_path, nodes=3)
    try:
        house.invited("hospital-a", "hospital-b")
        port = house.ready["http"].rpartition(":")[2]
        nodes = [
            house.join(f"{name}.invite", "--data", f"{name}.csv") for name in ("hospital-a", "hospital-b")
        ]
        house.until(lambda: house.log.count("node.ready") == 2)
        house.server.send_signal(signal.SIGKILL)
        house.server.wait(10)
        hospital(tmp_path / "hospital-c.csv", 90, 3)
        house.start(http=f"127.0.0.1:{port}")
        house.haina("invite", "hospital-c")
        nodes.append(house.join("hospital-c.invite", "--data", "hospital-c.csv"))
        for node in nodes:
            said = finished(node, 60)
            assert said.code == 0, said
        assert house.haina("status", "--json")["federations"][0]["state"] == "finished"
    finally:
        house.close()
