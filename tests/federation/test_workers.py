import io
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from haina.artifact import dump, load
from haina.errors import LearnerError, RunError
from haina.federation import Federation
from haina.federation.answers import result_bytes, result_of
from haina.federation.bench import Bench, simulated
from haina.federation.child import Child
from haina.federation.frames import MAX_FRAME, read_frame, write_frame
from haina.federation.worker import serve
from haina.federation.workers import Workers
from haina.learners.learner import Training, Work
from haina.report import Report
from haina.shards import Shards
from haina.strategy.record import Outcome
from haina.update import Failure, Update

DIGITS = """\
seed = 5
[model]
learner = "jax"
kind = "mlp"
hidden = [8]
[data]
source = "sklearn:digits"
partition = {dirichlet = 0.5, clients = 9}
test = 200
[train]
rounds = 3
epochs = 2
batch_size = 32
learning_rate = 0.1
"""
#: No JAX: a worker is there in half the time.
FOREST = DIGITS.replace('"jax"\nkind = "mlp"\nhidden = [8]', '"forest"\ntrees = 5')
VARIANTS = {
    "FedProx with momentum, stragglers and false labels": (
        [2, 3],
        DIGITS.replace("batch_size = 32", "batch_size = 32\nmomentum = 0.5")
        + '[strategy]\npreset = "fedprox"\n'
        + "[simulation]\nstragglers = 0.3\nattack = {label_flip = {fraction = 0.3, start = 2}}\n",
    ),
    "SCAFFOLD with part of the clients and dropouts": (
        [2],
        DIGITS.replace("epochs", 'clients_per_round = 6\nmeasure = ["loss_before"]\nepochs')
        + '[strategy]\npreset = "scaffold"\n[simulation]\ndropout = 0.2\n',
    ),
}


def models(federation, train=None, rounds=3):
    """SHA-256 of the model after each round."""
    simulation = federation.simulation()
    run, hashes = simulation.start(), []
    for _ in range(rounds):
        run, record = simulation.advance(run, train)
        assert record.outcome is Outcome.STEPPED
        hashes.append(record.model)
    return hashes


@pytest.mark.slow
@pytest.mark.parametrize(("counts", "text"), VARIANTS.values(), ids=VARIANTS.keys())
def test_any_number_of_workers_learns_the_same_bytes(counts, text):
    federation = Federation.of(text)
    alone = models(federation)
    assert len(set(alone)) == 3
    for count in counts:
        with Workers(federation, count) as workers:
            assert models(federation, workers.train) == alone


def work_of(federation, number=1):
    simulation = federation.simulation()
    run = simulation.start()
    caught = []

    def catch(work):
        caught.append(work)
        return iter(())

    list(
        simulation.train(
            run, simulation.strategy.instructions(run.state), simulation.data.clients.clients, catch
        )
    )
    return caught[0]


def given_up(workers, work):
    with pytest.raises(RunError):
        list(workers.train(work))


def pids(workers):
    return [bench.child.pid for bench in workers.benches]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nobody_notices():
    federation = Federation.of(FOREST)
    work = work_of(federation)
    expected = {u.client: u.vector.tobytes() for u in federation.learner.train(work)}
    with Workers(federation, 2) as workers:

        def trained():
            found = {u.client: u.vector.tobytes() for u in workers.train(work)}
            assert list(found) == list(expected)
            return found

        assert trained() == expected
        before = pids(workers)
        # Idle: the pipe is found closed when the next share is sent.
        os.kill(before[0], signal.SIGKILL)
        assert trained() == expected
        after = pids(workers)
        assert after[0] != before[0]
        assert after[1] == before[1]
        # At work: the share is stopped before its first answer, then killed.
        os.kill(after[1], signal.SIGSTOP)
        killer = threading.Timer(0.3, os.kill, (after[1], signal.SIGKILL))
        killer.start()
        assert trained() == expected
        killer.join()
        assert pids(workers)[0] == after[0]
        assert pids(workers)[1] != after[1]
        # Left in the middle of a share (Ctrl-C), it ends at once and is not tried again.
        os.kill(after[0], signal.SIGSTOP)
        share = threading.Thread(target=given_up, args=(workers, work))
        share.start()
        time.sleep(0.2)
        living, began = pids(workers), time.monotonic()
    assert time.monotonic() - began < 5
    share.join()
    for pid in living:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


DRIVER = """
import sys
from haina.federation import Federation
from haina.federation.workers import Workers
with Workers(Federation.of(sys.argv[1]), 2) as workers:
    print(*[bench.child._start().pid for bench in workers.benches], flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at /proc")
def test_workers_do_not_outlive_a_run_that_is_killed():
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, FOREST],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        workers = [int(pid) for pid in driver.stdout.readline().split()]
        assert len(workers) == 2
    finally:
        driver.kill()
        driver.communicate()

    def alive(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    until = time.monotonic() + 20
    while any(alive(pid) for pid in workers):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def mortal(tmp_path, monkeypatch):
    """In place of Python: a programme that dies at once, and a file with a line for each of its deaths."""
    deaths = tmp_path / "deaths"
    programme = tmp_path / "python"
    programme.write_text(f"#!/bin/sh\necho died >> {deaths}\nexit 1\n")
    programme.chmod(programme.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(programme))
    return deaths


def small_work(sizes=(2, 2, 2)):
    sizes = np.array(sizes, int)
    ends = np.cumsum(sizes)
    rows = int(sizes.sum())
    names = tuple(f"c{k}" for k in range(len(sizes)))
    offsets = np.column_stack([ends - sizes, ends])
    shards = Shards(names, np.zeros((rows, 64), np.float32), np.zeros(rows, int), offsets)
    return Work(np.zeros(3, np.float32), 1, shards, Training(), 0.1)


def test_a_share_that_keeps_killing_its_worker_is_given_up(mortal):
    with (
        Workers(Federation.of(DIGITS), 1) as workers,
        pytest.raises(RunError, match="a worker died 3 times on the same 3 clients") as error,
    ):
        list(workers.train(small_work()))
    assert "--workers 1" in error.value.remedy
    assert mortal.read_text() == "died\n" * 3


def test_workers_without_work_are_not_started(mortal):
    with Workers(Federation.of(DIGITS), 3) as workers:
        assert list(workers.train(small_work(()))) == []
        with pytest.raises(RunError):
            list(workers.train(small_work((4,))))
    assert mortal.read_text() == "died\n" * 3


def request_of(work, positions):
    """What a worker is asked, as bytes."""
    caught = []
    bench = Bench(Federation.of(DIGITS))

    class Caught(Child):
        def call(self, request, answers, limit):
            assert answers == len(positions)
            caught.append(request)
            return []

    bench.child.__class__ = Caught
    bench.share(work, positions, simulated(work))
    return caught[0]


def served(federation, *requests):
    """What a worker answers, without a process."""
    asked, answered = io.BytesIO(), io.BytesIO()
    hello = {"text": federation.text, "file": "f.toml", "folder": ".", "schema": "", "site": ""}
    write_frame(asked, json.dumps(hello).encode())
    for request in requests:
        write_frame(asked, request)
    asked.seek(0)
    serve(asked, answered)
    answered.seek(0)
    frames = []
    while True:
        try:
            frames.append(load(read_frame(answered)))
        except EOFError:
            return frames


def test_a_worker_builds_the_federation_and_trains_its_share():
    federation = Federation.of(DIGITS + '[strategy]\npreset = "scaffold"\n')
    work = work_of(federation)
    share = [6, 1, 4]
    replies = served(federation, request_of(work, share), request_of(work, [0]))
    expected = {update.client: update for update in federation.learner.train(work)}
    names = [work.shards.clients[k] for k in (*share, 0)]
    for reply, name in zip(replies, names, strict=True):
        result, memory = result_of(*reply)
        assert memory == {}
        assert result.client == name
        assert result.vector.tobytes() == expected[name].vector.tobytes()
        assert result.report.examples == expected[name].report.examples


def test_what_a_learner_refuses_is_told_and_not_taken_for_a_death():
    federation = Federation.of(DIGITS.replace("learning_rate = 0.1", "learning_rate = 0.1\nproximal = 50"))
    work = work_of(federation)
    with pytest.raises(LearnerError) as here:
        list(federation.learner.train(work))
    with Workers(federation, 1) as workers:
        with pytest.raises(LearnerError) as there:
            list(workers.train(work))
        assert str(there.value) == str(here.value)
        (pid,) = pids(workers)
        with pytest.raises(LearnerError):
            list(workers.train(work))
        assert pids(workers) == [pid]


def test_what_a_framework_throws_is_told_with_the_place_in_the_code(tmp_path):
    (tmp_path / "task.py").write_text(
        "def build_model():\n"
        "    def apply(params, x):\n"
        "        raise RuntimeError('the secret of x')\n"
        "    return (lambda key: {'w': key * 0.0}), apply\n"
    )
    text = DIGITS.replace('kind = "mlp"\nhidden = [8]', 'build = "task:build_model"')
    federation = Federation.of(text, folder=tmp_path)
    with Workers(federation, 1) as workers, pytest.raises(RunError) as error:
        list(workers.train(small_work()))
    assert "a worker met" in str(error.value)
    assert "--workers 1" in error.value.remedy
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    "result",
    [
        Failure("Zürich\n北京", 'it has no examples, and says "so"'),
        Update("a", np.array([1.5, np.nan, -np.inf, -0.0], np.float32), Report(3)),
        Update("b", np.frombuffer(b"a tree", np.uint8), Report(3.5, extra={"f1": 0.1})),
        Update(
            "c",
            np.array([1 / 3, 1e-300]),
            Report(7, 5, 4.5, 0.1, 1 / 3, 2 / 3, 0.9, (1, 0, 6), 1e-9, 2, {"é": 1.0}),
        ),
    ],
)
def test_results_cross_the_pipe_unchanged(result):
    back, _ = result_of(*load(result_bytes(result)))
    if isinstance(result, Failure):
        assert back == result
    else:
        assert (back.client, back.report) == (result.client, result.report)
        assert back.vector.dtype == result.vector.dtype
        assert back.vector.tobytes() == result.vector.tobytes()


def test_frames_are_whole_or_the_other_side_is_gone():
    pipe = io.BytesIO()
    for data in (b"one", b"", bytes(100_000)):
        write_frame(pipe, data)
    pipe.seek(0)
    assert [len(read_frame(pipe)) for _ in range(3)] == [3, 0, 100_000]
    with pytest.raises(EOFError):
        read_frame(pipe)
    with pytest.raises(EOFError):
        read_frame(io.BytesIO((MAX_FRAME + 1).to_bytes(8, "little")))
    whole = pipe.getvalue()
    for cut in (1, 7, 8, 10, len(whole) - 1):
        cut_short = io.BytesIO(whole[:cut])
        with pytest.raises(EOFError):
            deque((read_frame(cut_short) for _ in range(3)), maxlen=0)


def test_the_heaviest_clients_are_shared_out_first(monkeypatch):
    sizes = (320, 32, 32, 160, 64, 96, 32, 32)
    seen = []

    def caught(bench, work, positions, task):
        seen.append(positions)
        return [Failure(work.shards.clients[k], "never trained") for k in positions]

    monkeypatch.setattr(Bench, "share", caught)
    with Workers(Federation.of(DIGITS), 2) as workers:
        results = list(workers.train(small_work(sizes)))
    assert [result.client for result in results] == [f"c{k}" for k in range(8)]
    loads = [sum(-(-sizes[k] // 32) for k in positions) for positions in seen]
    assert sorted(loads) == [12, 12]
    assert all(positions == sorted(positions) for positions in seen)


def test_a_request_holds_the_model_and_names_and_no_rows():
    work = small_work((500, 500))
    assert len(request_of(work, [0, 1])) < 2000 < work.shards.x.nbytes
    assert len(dump({"model": work.model})) < len(request_of(work, [0]))
