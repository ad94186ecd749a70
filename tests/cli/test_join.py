import os
import pty
import shutil
import signal
import subprocess
import time

import pytest
from command import finished, spawn
from served import Served, children_of, hospital, resident_mb

from haina.errors import TrustError
from haina.node.enrolment import Address
from haina.node.join import Line
from haina.node.link.http import enrol
from haina.wire import invitation
from haina.wire.identity import Credentials, pending_key, request
from haina.wire.messages import Ask

pytestmark = pytest.mark.slow

DAY = 86_400.0


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    """A coordinator that waits for three nodes, so that a node that joins waits too."""
    house = Served(tmp_path_factory.mktemp("waiting"), nodes=3)
    try:
        yield house
    finally:
        house.close()


def joined(house, name, *args):
    """A node that has joined and waits."""
    house.invited(name)
    node = house.join(f"{name}.invite", "--data", f"{name}.csv", *args)
    house.until(lambda: f"node.ready {name}" in house.log)
    time.sleep(0.3)
    return node


@pytest.mark.parametrize(
    ("number", "code", "door"),
    [(signal.SIGTERM, 0, "http"), (signal.SIGINT, 130, "http"), (signal.SIGTERM, 0, "grpc")],
)
def test_a_node_that_waits_ends_at_once(number, code, door, waiting):
    node = joined(waiting, f"ends-{code}-{door}", "--door", door)
    children = children_of(node.pid)
    begun = time.monotonic()
    node.send_signal(number)
    said = finished(node, 10)
    # It was in a long-poll of 50 seconds.
    assert time.monotonic() - begun < 5
    assert (said.code, said.out) == (code, ""), said
    assert said.err.endswith("Ended: stopped\n")
    assert children
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110


def test_one_process_a_folder(waiting):
    node = joined(waiting, "alone")
    said = finished(waiting.join("alone.invite", "--data", "alone.csv"))
    assert (said.code, said.out) == (4, "")
    assert "another process is running in haina-node-alone" in said.err
    assert "--state" in said.err
    node.send_signal(signal.SIGKILL)
    node.wait(10)
    # A killed process lets go.
    again = waiting.join("alone.invite", "--data", "alone.csv")
    waiting.until(lambda: waiting.log.count("node.ready alone") == 2)
    again.send_signal(signal.SIGTERM)
    assert finished(again).code == 0


def test_a_restart_needs_no_invitation(waiting):
    node = joined(waiting, "restart")
    node.send_signal(signal.SIGTERM)
    assert finished(node).code == 0
    before = (waiting.folder / "haina-node-restart/identity.pem").read_bytes()
    assert (waiting.folder / "haina-node-restart/identity.pem").stat().st_mode & 0o077 == 0
    assert not (waiting.folder / "haina-node-restart/pending-key.pem").exists()
    (waiting.folder / "restart.invite").unlink()
    for where in ("restart.invite", "haina-node-restart"):
        seen = waiting.log.count("node.ready restart")
        node = waiting.join(where, "--data", "restart.csv")
        waiting.until(lambda seen=seen: waiting.log.count("node.ready restart") > seen)
        node.send_signal(signal.SIGTERM)
        assert finished(node).code == 0
    assert (waiting.folder / "haina-node-restart/identity.pem").read_bytes() == before


def test_a_misspelt_file_does_not_use_up_the_invitation(waiting):
    waiting.invited("spelt")
    for args, words in (
        (["--data", "nowhere.csv"], "there is no file nowhere.csv"),
        ([], "--data is missing"),
        (["--data", "spelt.csv", "--once", "--daemon"], "--once"),
    ):
        said = waiting.haina("join", "spelt.invite", *args, code=2)
        assert words in said.err
    assert (
        "there is no file nowhere.invite"
        in waiting.haina("join", "nowhere.invite", "--data", "spelt.csv", code=2).err
    )
    assert not (waiting.folder / "haina-node-nowhere").exists()
    node = waiting.join("spelt.invite", "--data", "spelt.csv")
    waiting.until(lambda: "node.ready spelt" in waiting.log)
    node.send_signal(signal.SIGTERM)
    assert finished(node).code == 0


def test_an_invitation_works_once(waiting):
    node = joined(waiting, "twice")
    node.send_signal(signal.SIGTERM)
    finished(node)
    said = finished(waiting.join("twice.invite", "--data", "twice.csv", "--state", "elsewhere"))
    assert said.code == 1
    assert "cannot be used: used" in said.err
    assert "haina invite" in said.err
    # Another's folder is not taken over.
    waiting.invited("other")
    said = finished(waiting.join("other.invite", "--data", "twice.csv", "--state", "haina-node-twice"))
    assert said.code == 4
    assert "belongs to twice" in said.err


def test_killed_before_the_answer_was_written_down_a_node_asks_again_with_its_key(waiting):
    waiting.invited("halfway")
    folder = waiting.folder / "haina-node-halfway"
    folder.mkdir(mode=0o700)
    key = pending_key(folder)
    enrol(invitation.read(waiting.folder / "halfway.invite", time.time()), request(key, "halfway"))
    # The coordinator has used the token up for this key, and honours it for this key.
    node = waiting.join("halfway.invite", "--data", "halfway.csv")
    waiting.until(lambda: "node.ready halfway" in waiting.log)
    node.send_signal(signal.SIGTERM)
    assert finished(node).code == 0
    assert Credentials.load(folder).key == key


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_certificate_is_renewed_in_time_with_the_same_key(door, waiting):
    name = f"renews-{door}"
    node = joined(waiting, name)
    node.send_signal(signal.SIGTERM)
    finished(node)
    folder = waiting.folder / f"haina-node-{name}"
    now, before = time.time(), Credentials.load(folder)
    line = Line(folder, before, Address.load(folder), door, clock=lambda: now)
    link = line.connect(None)
    assert line.connect(link) is link
    now += 19 * DAY
    assert line.connect(link) is link
    now += 2 * DAY
    fresh = line.connect(link)
    assert fresh is not link
    after = Credentials.load(folder)
    assert after.serial != before.serial
    assert after.key == before.key
    assert line.credentials == after
    fresh.ask(Ask(federation="readmission", wait=0.0))
    fresh.close()
    # A node that was away for too long cannot renew, and says what can be done.
    now += 40 * DAY
    with pytest.raises(TrustError, match=f"haina invite {name}"):
        line.connect(None)


def test_a_node_is_small(waiting):
    node = joined(waiting, "small")
    assert resident_mb(node.pid) < 80
    node.send_signal(signal.SIGTERM)
    assert finished(node).code == 0


def test_a_unit_says_all_with_absolute_paths(waiting):
    waiting.invited("served")
    odd = waiting.folder / "100% rows"
    odd.mkdir()
    hospital(odd / "rows.csv", 50, 1)
    said = waiting.haina(
        "join", "served.invite", "--data", "100% rows/rows.csv", "--periodic", "--print-unit"
    )
    lines = dict(line.split("=", 1) for line in said.out.splitlines() if "=" in line)
    assert str(waiting.folder / "served.invite") in lines["ExecStart"]
    assert f'"{waiting.folder}/100%% rows/rows.csv"' in lines["ExecStart"]
    assert "--daemon" in lines["ExecStart"]
    assert "--periodic" in lines["ExecStart"]
    assert lines["ReadWritePaths"] == str(waiting.folder / "haina-node-served")
    assert (lines["Type"], lines["Restart"]) == ("exec", "always")
    assert (lines["NoNewPrivileges"], lines["ProtectSystem"]) == ("yes", "strict")
    # Nothing was done but a folder made: the invitation is good still.
    assert list((waiting.folder / "haina-node-served").iterdir()) == []
    if shutil.which("systemd-analyze") is not None:
        unit = waiting.folder / "haina-test.service"
        unit.write_text(said.out)
        told = subprocess.run(
            ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
        )
        assert "haina-test" not in told.stderr, told.stderr


def test_a_unit_repeats_what_the_owner_asks_for(waiting):
    waiting.invited("repeated")
    (waiting.folder / "peers.toml").write_text(f'repeated = "{"0f" * 32}"\n')
    more = ("--budget", "4", "--delta", "1e-5", "--dataset", "ward 3", "--peers", "peers.toml")
    said = waiting.haina("join", "repeated.invite", "--data", "repeated.csv", *more, "--print-unit")
    line = next(line for line in said.out.splitlines() if line.startswith("ExecStart="))
    assert '--budget 4.0 --delta 1e-05 --dataset "ward 3" --peers ' in line
    assert line.endswith(str((waiting.folder / "peers.toml").resolve()))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--budget", "0"), "a budget has epsilon 0"),
        (("--budget", "2", "--delta", "1"), "a budget has delta 1"),
        (("--peers", "nobody.toml"), "nobody.toml cannot be read"),
    ],
)
def test_what_an_owner_cannot_ask_for_is_said_before_the_invitation_is_used(waiting, more, words):
    said = waiting.haina("join", "served.invite", "--data", "served.csv", *more, code=2)
    assert words in said.err


def test_an_owner_with_a_budget_does_not_join_what_promises_nothing(waiting):
    waiting.invited("careful")
    node = waiting.join("careful.invite", "--data", "careful.csv", "--budget", "1.0")
    said = finished(node, 60)
    assert said.code == 2
    assert "federation readmission promises no epsilon" in said.err


def test_once_is_one_update_and_a_daemon_stays(tmp_path):
    house = Served(tmp_path, nodes=2)
    try:
        house.invited("hospital-a", "hospital-b")
        daemon = house.join("hospital-a.invite", "--data", "hospital-a.csv", "--daemon", "--door", "http")
        once = finished(house.join("hospital-b.invite", "--data", "hospital-b.csv", "--once"), 30)
        assert once.code == 0, once
        assert once.err.count("delivered (") == 1
        assert "one update was delivered" in once.err
        rest = finished(house.join("hospital-b.invite", "--data", "hospital-b.csv"), 30)
        assert "Ended: the fit has converged" in rest.err
        time.sleep(1)
        assert daemon.poll() is None
        daemon.send_signal(signal.SIGTERM)
        said = finished(daemon, 10)
        assert said.code == 0
        assert "Waiting for more" in said.err
    finally:
        house.close()


def test_a_federation_is_paused_started_and_stopped(tmp_path):
    house = Served(tmp_path, nodes=2)
    try:
        house.invited("hospital-a")
        node = house.join("hospital-a.invite", "--data", "hospital-a.csv")
        house.until(lambda: "node.ready hospital-a" in house.log)
        for order, state in (("pause", "paused"), ("start", "running"), ("stop", "stopped")):
            told = house.haina("federation", order, "--why", f"because of {order}", "--json")
            assert (told["name"], told["state"]) == ("readmission", state)
        said = finished(node, 20)
        assert said.code == 0
        assert "Ended: because of stop" in said.err
        did = {entry["action"]: entry["detail"] for entry in house.haina("logs", "--json")}
        assert did["federation.stop"]["why"] == "because of stop"
    finally:
        house.close()


TASK = """\
import jax.numpy as jnp


def net():
    def init(key):
        return {{"w": jnp.zeros((2, 2))}}

    def apply(params, x):
        {trouble}
        return x @ params["w"]

    return init, apply
"""

NET = """\
name = "net"
[model]
learner = "jax"
build = "task:net"
[data]
shape = [2]
classes = ["0", "1"]
[train]
rounds = 2
[serve]
nodes = 1
"""


def test_what_goes_wrong_at_a_site_is_said_there_and_its_place_to_the_operator(tmp_path):
    import numpy as np

    (tmp_path / "task.py").write_text(TASK.format(trouble="pass"))
    house = Served(tmp_path, NET)
    try:
        site = tmp_path / "site"
        site.mkdir()
        (site / "task.py").write_text(TASK.format(trouble="raise ValueError('Jane Doe, 42')"))
        np.savez(site / "rows.npz", x=np.eye(2, dtype=np.float32), y=np.array([0, 1]))
        house.haina("invite", "site-a", "--out", "site/site-a.invite")
        here = {"cwd": site}
        # An extra that is not installed.
        (tmp_path / "without/jax").mkdir(parents=True)
        (tmp_path / "without/jax/__init__.py").write_text("raise ImportError('jax')\n")
        without = {"env": {**house.options["env"], "PYTHONPATH": str(tmp_path / "without")}}
        said = finished(house.join("site-a.invite", "--data", "rows.npz", **here, **without), 60)
        assert said.code == 1
        assert "pip install 'haina[jax]'" in said.err
        # A defect of the site's own code.
        said = finished(house.join("site-a.invite", "--data", "rows.npz", **here), 120)
        assert said.code == 0, said
        assert "Jane Doe" in said.err
        shown = house.haina("rounds", "show", "1")
        assert "site-a: failed" in shown.out
        assert "site-a failed here:" in shown.out
        assert "haina/learners/jax/learner.py:" in shown.out
        assert "Jane Doe" not in shown.out
        assert "Jane Doe" not in house.log
        assert house.haina("status", "--json")["federations"][0]["last_rounds"][-1]["failed"] == 1
    finally:
        house.close()


def test_on_a_terminal_there_is_a_picture_below_the_talk(tmp_path):
    (tmp_path / "federation.toml").write_text(
        NET.replace('learner = "jax"\nbuild = "task:net"', 'learner = "glm"\nfamily = "binomial"')
    )
    leader, follower = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    doors = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
    process = spawn("serve", "federation.toml", *doors, cwd=tmp_path, stderr=follower, env=env)
    try:
        os.close(follower)
        assert process.stdout.readline().startswith("https://localhost:")
        time.sleep(1.5)
        process.send_signal(signal.SIGTERM)
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
        assert finished(process, 20).code == 0
    finally:
        os.close(leader)
        process.kill()
    assert b"haina invite NAME" in seen
    assert b"running: round 0 of 2 closed" in seen


@pytest.mark.slow
def test_periodic_sites_report_at_the_interval_that_is_pushed_to_them(tmp_path):
    house = Served(tmp_path, nodes=2)
    try:
        house.invited("hospital-a", "hospital-b")
        sites = [
            house.join(f"hospital-{site}.invite", "--data", f"hospital-{site}.csv", "--periodic")
            for site in "ab"
        ]
        house.haina("config", "set", "report_interval=1")
        start = time.monotonic()
        for site in sites:
            said = finished(site, 60)
            assert said.code == 0, said
            rounds = said.err.count("delivered (")
            assert "Ended: the fit has converged" in said.err
        # One update an interval, not one as soon as there is a task.
        assert rounds >= 5
        assert time.monotonic() - start > rounds - 2
    finally:
        house.close()
