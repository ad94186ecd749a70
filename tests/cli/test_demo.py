import os
import pty
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import psutil
import pytest
from command import finished, haina, spawn

from haina.artifact import sha256
from haina.cli.demo.files import SITES, written
from haina.cli.demo.live import ATTACKER, VICTIM
from haina.cli.demo.news import news
from haina.cli.demo.view import Scene, line, picture
from haina.cli.talk import console
from haina.federation import Federation
from haina.simulation.rundir import RunDir
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *args: haina(capsys, monkeypatch, *args)


def closed(number, *clients, accuracy=None, **rest):
    metrics = {} if accuracy is None else {"accuracy": accuracy}
    return RoundRecord(
        number, rest.pop("outcome", Outcome.STEPPED), clients, metrics=metrics, timing={"total": 2.0}, **rest
    )


def client(name, verdict, share=0.5):
    return ClientRecord(name, verdict, share, evidence={"trust": 0.5})


ADMITTED, ABSENT, DAMPED, SHUT = Verdict.ADMITTED, Verdict.ABSENT, Verdict.DAMPED, Verdict.QUARANTINED


class TestFiles:
    def test_every_digit_lies_in_one_file(self, tmp_path):
        sites = written(tmp_path, 5, 0)
        assert len(sites) == SITES
        files = {path.stem: np.load(path) for path in tmp_path.glob("*.npz")}
        assert sum(len(arrays["y"]) for arrays in files.values()) == 1797
        rows = np.concatenate([np.column_stack([arrays["x"], arrays["y"]]) for arrays in files.values()])
        assert len(np.unique(rows, axis=0)) == 1797
        assert np.bincount(files["held"]["y"]).tolist() == [5] * 10
        for site in sites:
            labels = files[site.name]["y"]
            assert len(labels) == site.images
            assert np.isin(labels, site.digits).mean() >= 2 / 3

    def test_the_file_is_one_that_can_be_served_and_joined(self, tmp_path):
        written(tmp_path, 5, 3)
        federation = Federation.read(tmp_path / "federation.toml")
        assert federation.settings.train.rounds == 5
        assert federation.has_rows("test")
        assert federation.has_rows("held")
        assert len(federation.site(tmp_path / "site-1.npz")[1]) > 0

    def test_another_seed_is_another_division(self, tmp_path):
        assert written(tmp_path, 5, 0) != written(tmp_path, 5, 1)
        assert written(tmp_path, 5, 0) == written(tmp_path, 5, 0)


class TestNews:
    def test_each_thing_is_told_once(self):
        rounds = [
            closed(1, client("a", ADMITTED), client("b", ADMITTED), accuracy=0.5),
            closed(2, client("a", ADMITTED), client("b", DAMPED, 0.0), accuracy=0.91),
            closed(3, client("a", ABSENT, 0.0), client("b", SHUT, 0.0), accuracy=0.95),
            closed(4, client("a", ABSENT, 0.0), client("b", SHUT, 0.0), accuracy=0.85),
            closed(5, client("a", ADMITTED), client("b", ADMITTED), accuracy=0.95),
        ]
        assert [list(news(rounds[:k], rounds[k])) for k in range(5)] == [
            [],
            ["round 2 gives b no share", "round 2 reaches an accuracy of 91.0%"],
            ["round 3 waited 2.0 s for a and went on without", "round 3 puts b in quarantine"],
            [],
            ["a takes part again in round 5", "round 5 lets b out of quarantine"],
        ]

    def test_one_that_was_not_invited_meanwhile_takes_part_again(self):
        both = closed(1, client("a", ADMITTED), client("b", ADMITTED))
        gone, alone = closed(2, client("a", ADMITTED), client("b", ABSENT)), closed(3, client("a", ADMITTED))
        assert list(news([both, gone], alone)) == []
        assert list(news([both, gone, alone], replace(gone, round=4))) == []
        assert list(news([both, gone, alone], replace(both, round=4))) == ["b takes part again in round 4"]
        assert list(news([], gone)) == ["round 2 waited 2.0 s for b and went on without"]

    def test_a_round_that_made_no_model_says_why(self):
        kept = closed(1, client("a", ADMITTED), outcome=Outcome.KEPT, reason="too few\x1b[2J came")
        (words,) = news([], kept)
        assert words.startswith("round 1 kept the old model: too few")
        assert "\x1b" not in words


class TestView:
    def test_it_fits_a_terminal_of_80_by_24(self, tmp_path):
        sites = written(tmp_path, 24, 0)
        clients = [client(site.name, SHUT, 0.25) for site in sites]
        scene = Scene(24, sites, {site.name: "sends the opposite" for site in sites})
        scene.records = [closed(k + 1, *clients, accuracy=k / 24) for k in range(24)]
        scene.news = ["x" * 200] * 20
        with console.capture() as drawn:
            console.print(picture(scene), width=80)
        shown = drawn.get().splitlines()
        assert len(shown) <= 22
        assert max(map(len, shown)) <= 80
        for word in ("24/24", "95.8%", "quarantined", "site-8", "100%", "█"):
            assert word in drawn.get()

    def test_a_line_of_a_log(self):
        record = closed(3, client("a", ADMITTED), client("b", SHUT, 0.0), accuracy=0.9)
        assert line(record) == "round 3: accuracy 90.0%, 1 of 2 sites count"
        assert "–" in line(replace(record, metrics={}))


def started_in(folder):
    """Everything that runs in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.cwd().startswith(str(folder)):
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    # Its standard input is the only thing that holds it: no signal is sent.
    text = tmp_path / "federation.toml"
    written(tmp_path, 5, 0)
    process = subprocess.Popen(
        [sys.executable, "-m", "haina.cli.demo.process", "serve", text.name, "--http", "127.0.0.1:0",
         "--grpc", "127.0.0.1:0"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline().startswith("https://")
        process.stdin.close()
        assert process.wait(10) == -signal.SIGKILL
        until(lambda: not started_in(tmp_path), 10)
    finally:
        process.kill()
        process.stdout.close()


@pytest.mark.slow
def test_a_federation_of_processes_survives_an_attack_and_a_kill(cli, tmp_path):
    rounds = 12
    said = finished(spawn("demo", "--out", "run", "--rounds", rounds, cwd=tmp_path), 240)
    assert said.code == 0, said.err
    assert "Traceback" not in said.err
    assert not started_in(tmp_path)
    for words in (
        f"{ATTACKER} attacks",
        f"puts {ATTACKER} in quarantine",
        f"{VICTIM} is killed (SIGKILL)",
        f"for {VICTIM} and went on without",
        f"{VICTIM} is started again",
        f"{VICTIM} takes part again",
        f"round {rounds}: accuracy",
        "haina serve federation.toml",
        "haina invite hospital-a",
        "haina join hospital-a.invite --data site-1.npz",
    ):
        assert words in said.err.replace("\n", " "), said.err
    folder = RunDir(tmp_path / "run")
    records = folder.records()
    assert [record.round for record in records] == list(range(1, rounds + 1))
    assert all(record.outcome is Outcome.STEPPED for record in records)
    assert {c.client for c in records[0].clients} == {f"site-{k + 1}" for k in range(SITES)}
    last = {c.client: c for c in records[-1].clients}
    assert (last[ATTACKER].verdict, last[ATTACKER].share) == (SHUT, 0.0)
    assert last[VICTIM].share > 0
    assert records[-1].metrics["accuracy"] > 0.8
    assert sha256(folder.model()) == records[-1].model
    # Data of the command are its pictures, and `report` makes them again.
    assert "run/report/report.html" in said.out.splitlines()
    again = cli("report", "run", "--out", "again")
    assert again.code == 0, again
    assert (tmp_path / "again/report.html").stat().st_size > 10_000
    assert cli("runs", "run", "--json").code == 0


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_nothing_is_left_behind(number, code, tmp_path):
    process = spawn("demo", "--out", "run", cwd=tmp_path)
    # The coordinator, eight sites, and the first processes that train.
    until(lambda: len(started_in(tmp_path)) > SITES + 2)
    process.send_signal(number)
    said = finished(process, 30)
    assert said.code == code, said
    assert "Traceback" not in said.err
    until(lambda: not started_in(tmp_path), 10)
    if number == signal.SIGINT:
        assert "Every process that was started has ended" in said.err


@pytest.mark.slow
def test_a_process_that_ends_too_early_is_told_with_its_last_words(tmp_path):
    process = spawn("demo", "--out", "run", cwd=tmp_path)
    until(lambda: len(started_in(tmp_path)) > 3)
    victim = next(p for p in started_in(tmp_path) if "site-2.invite" in p.cmdline())
    victim.kill()
    said = finished(process, 60)
    assert said.code == 4
    assert "site-2 ended" in said.err
    assert "site-2.log" in said.err
    assert not started_in(tmp_path)


@pytest.mark.slow
def test_on_a_terminal_there_is_a_picture_that_follows(tmp_path):
    leader, follower = pty.openpty()
    env = {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    process = spawn("demo", "--out", "run", "--rounds", 3, cwd=tmp_path, stderr=follower, env=env)
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
    assert finished(process).code == 0
    text = seen.decode()
    for words in ("0/3", "3/3", "site-8", "admitted", "learns", "The same by hand"):
        assert words in text


def test_simulated_it_has_thirty_clients(cli, tmp_path):
    said = cli("demo", "--simulate", "--out", tmp_path / "run", "--rounds", "2")
    assert said.code == 0
    assert len(RunDir(tmp_path / "run").records()[-1].clients) == 30
    assert "send the opposite" in said.err
