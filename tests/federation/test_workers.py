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
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haina.artifact import dump, load, pieces
from haina.errors import ConfigError, DataError, LearnerError, RunError
from haina.federation import Federation
from haina.federation.answers import result_bytes, result_of, results_arrays, results_of
from haina.federation.bench import hello
from haina.federation.frames import MAX_FRAME, read_frame, write_frame
from haina.federation.meter import Usage
from haina.federation.worker import serve
from haina.federation.workers import Workers, child, gpus
from haina.report import Report
from haina.strategy.partial import Partial
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
PART = "clients_per_round = 6\nepochs"
VARIANTS = {
    "FedProx with momentum, stragglers and false labels: sums, then rows": (
        [2],
        DIGITS.replace("batch_size = 32", "batch_size = 32\nmomentum = 0.5")
        + '[strategy]\npreset = "fedprox"\n'
        + "[simulation]\nstragglers = 0.3\nattack = {label_flip = {fraction = 0.3, start = 2}}\n",
    ),
    "SCAFFOLD with part of the clients and dropouts: rows": (
        [2],
        DIGITS.replace("epochs", 'measure = ["loss_before"]\n' + PART)
        + '[strategy]\npreset = "scaffold"\n[simulation]\ndropout = 0.2\n',
    ),
    "FedAdam, clipped to a length that moves: sums": (
        [2],
        DIGITS.replace("epochs", PART) + '[strategy]\npreset = "fedadam"\nclip = "adaptive"\n',
    ),
    "statistics, summed without loss": (
        [3],
        '[model]\nlearner = "glm"\nfamily = "binomial"\n[data]\nsource = "sklearn:breast_cancer"\n'
        "standardise = true\npartition = {iid = 7}\n[train]\nrounds = 3\n",
    ),
}


def models(federation, crew=None, rounds=3):
    """SHA-256 of the model after each round."""
    simulation = federation.simulation()
    run, hashes = simulation.start(), []
    for _ in range(rounds):
        run, record = simulation.advance(run, crew)
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


def turn_of(federation):
    simulation = federation.simulation()
    return simulation.turn(simulation.start())


def vectors(results):
    return {result.client: result.vector.tobytes() for result in results}


def given_up(workers, turn):
    with pytest.raises(RunError):
        list(workers.train(turn))


def pids(workers):
    return [seat.pid for seat in workers.seats]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_nobody_notices():
    federation = Federation.of(FOREST)
    turn = turn_of(federation)
    expected = vectors(federation.simulation().train(turn))
    with Workers(federation, 2) as workers:

        def trained():
            found = vectors(workers.train(turn))
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
        share = threading.Thread(target=given_up, args=(workers, turn))
        share.start()
        time.sleep(0.2)
        living, began = pids(workers), time.monotonic()
    assert time.monotonic() - began < 5
    share.join()
    for pid in living:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_round_of_sums_changes_nothing():
    federation = Federation.of(DIGITS)
    alone = models(federation)
    simulation = federation.simulation()
    with Workers(federation, 2) as workers:
        run, hashes = simulation.start(), []
        for number in range(3):
            if number:
                # Stopped, it cannot answer before it is killed.
                os.kill(pids(workers)[0], signal.SIGSTOP)
                threading.Timer(0.3, os.kill, (pids(workers)[0], signal.SIGKILL)).start()
            run, record = simulation.advance(run, workers.train)
            hashes.append(record.model)
        # Two processes of each of two deaths, and the one that lived.
        assert len(workers.usage) == 4
    assert hashes == alone


DRIVER = """
import sys
from haina.federation import Federation
from haina.federation.workers import Workers
with Workers(Federation.of(sys.argv[1]), 2) as workers:
    print(*[seat._start().pid for seat in workers.seats], flush=True)
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


def test_a_share_that_keeps_killing_its_worker_is_given_up(mortal):
    federation = Federation.of(FOREST)
    with (
        Workers(federation, 1) as workers,
        pytest.raises(
            RunError, match="a worker died 3 times on the same 9 clients \\(exit status 1\\)"
        ) as error,
    ):
        list(workers.train(turn_of(federation)))
    assert "--workers 1" in error.value.remedy
    assert mortal.read_text() == "died\n" * 3


def test_a_worker_that_the_kernel_kills_may_be_short_of_memory(mortal):
    program = Path(sys.executable)
    program.write_text(program.read_text().replace("exit 1", "kill -9 $$"))
    federation = Federation.of(FOREST)
    with Workers(federation, 1) as workers, pytest.raises(RunError) as error:
        list(workers.train(turn_of(federation)))
    assert "(killed, as the kernel does when memory runs out)" in error.value.what
    assert "fewer --workers" in error.value.remedy


def test_workers_without_work_are_not_started(mortal):
    federation = Federation.of(FOREST)
    turn = turn_of(federation)
    nobody = replace(turn, epochs=np.zeros_like(turn.epochs))
    one = replace(turn, epochs=np.eye(9, dtype=np.int64)[4])
    with Workers(federation, 3) as workers:
        assert list(workers.train(nobody)) == []
        with pytest.raises(RunError, match="same 1 clients"):
            list(workers.train(one))
    assert mortal.read_text() == "died\n" * 3


def request_of(turn, positions):
    """What a worker is asked, as bytes."""
    arrays, words = turn.to_arrays(positions)
    return b"".join(pieces(arrays, {**words, "call": "share"}))


def served(federation, *requests, **words):
    """What a worker answers, without a process."""
    asked, answered = io.BytesIO(), io.BytesIO()
    write_frame(asked, json.dumps({**json.loads(hello(federation)), **words}).encode())
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
    turn = turn_of(federation)
    share = [6, 1, 4]
    rows, usage, again, _ = served(federation, request_of(turn, share), request_of(turn, [0]))
    expected = {update.client: update for update in federation.simulation().train(turn)}
    for answer, positions in ((rows, share), (again, [0])):
        results = results_of(*answer)
        assert [result.client for result in results] == turn.names(positions)
        for result in results:
            assert result.vector.tobytes() == expected[result.client].vector.tobytes()
            assert result.report == expected[result.client].report
    used = Usage.from_json(json.loads(usage[1]["usage"]))
    assert used.busy > 0
    assert used.cpu > 0
    assert 20 < used.peak < 10_000


def test_of_a_round_that_folds_one_sum_comes_back_however_many_clients_there_are():
    federation = Federation.of(DIGITS)
    turn = turn_of(federation)
    answers = served(federation, request_of(turn, [0]), request_of(turn, turn.present))
    one, all_of_them = Partial.from_arrays(*answers[0]), Partial.from_arrays(*answers[2])
    assert len(answers) == 4
    assert sorted(one.reports) == turn.names([0])
    assert sorted(all_of_them.reports) == sorted(turn.names(turn.present))
    assert len(all_of_them.to_bytes()) < len(one.to_bytes()) + 8 * 400


def test_other_rows_than_the_drivers_are_refused():
    federation = Federation.of(FOREST)
    turn = turn_of(federation)
    digest = federation.simulation().data.digest()
    rows, _ = served(federation, request_of(turn, [0]), data=digest)
    assert "error" not in rows[1]
    ((_, words),) = served(federation, request_of(turn, [0]), data="0" * 64)
    assert words["error"] == "DataError"
    assert "found other rows than those that the run was started on" in words["what"]


def test_the_executor_reaches_workers():
    federation = Federation.of(DIGITS).on("torch")
    turn = turn_of(federation)
    answers = served(federation, request_of(turn, [0]))
    there = Partial.from_arrays(*answers[0])
    here = federation.simulation().partial(turn, [0])
    assert there.to_bytes() == here.to_bytes()
    other = Federation.of(DIGITS).simulation().partial(turn, [0])
    assert there.to_bytes() != other.to_bytes()


def test_what_a_learner_refuses_is_told_and_not_taken_for_a_death():
    federation = Federation.of(DIGITS.replace("learning_rate = 0.1", "learning_rate = 0.1\nproximal = 50"))
    turn = turn_of(federation)
    with pytest.raises(LearnerError) as here:
        list(federation.simulation().train(turn))
    with Workers(federation, 1) as workers:
        with pytest.raises(LearnerError) as there:
            list(workers.train(turn))
        assert str(there.value) == str(here.value)
        (pid,) = pids(workers)
        with pytest.raises(LearnerError):
            list(workers.train(turn))
        assert pids(workers) == [pid]


def test_rows_that_are_gone_are_told_as_such(tmp_path):
    x, y = np.zeros((100, 3), np.float32), np.arange(100) % 2
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    text = FOREST.replace("sklearn:digits", "rows.npz").replace("test = 200", "test = 4")
    federation = Federation.of(text, folder=tmp_path)
    turn = turn_of(federation)
    with Workers(federation, 1) as workers:
        (tmp_path / "rows.npz").unlink()
        with pytest.raises((DataError, ConfigError), match=r"rows\.npz is not there"):
            list(workers.train(turn))


def test_what_a_framework_throws_is_told_with_the_place_in_the_code(tmp_path):
    (tmp_path / "task.py").write_text(
        "import jax.numpy as jnp\n"
        "def build_model():\n"
        "    def apply(params, x):\n"
        "        raise RuntimeError('the secret of x')\n"
        "    return (lambda key: {'w': jnp.zeros(3)}), apply\n"
    )
    text = DIGITS.replace('kind = "mlp"\nhidden = [8]', 'build = "task:build_model"')
    federation = Federation.of(text, folder=tmp_path)
    with Workers(federation, 1) as workers, pytest.raises(RunError) as error:
        list(workers.train(turn_of(federation)))
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


def test_many_results_cross_in_one_message():
    results = [
        Update("b", np.array([1.5, np.nan], np.float32), Report(7, 5, 4.5, label_counts=(1, 0, 6))),
        Failure("a", "it has no examples"),
        Update("c", np.frombuffer(b"another length", np.uint8), Report(3, extra={"f1": float("nan")})),
    ]
    back = results_of(*load(b"".join(pieces(*results_arrays(results)))))
    assert [result.client for result in back] == ["b", "a", "c"]
    assert back[1] == results[1]
    assert back[0].report == results[0].report
    for k in (0, 2):
        assert back[k].vector.dtype == results[k].vector.dtype
        assert back[k].vector.tobytes() == results[k].vector.tobytes()


def test_frames_are_whole_or_the_other_side_is_gone():
    pipe = io.BytesIO()
    for parts in ([b"one"], [], [bytes(60_000), b"", memoryview(bytes(40_000))]):
        write_frame(pipe, *parts)
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


def test_the_heaviest_clients_are_shared_out_first(tmp_path):
    sizes = (320, 32, 32, 160, 64, 96, 32, 32)
    groups = np.repeat([f"c{k}" for k in range(8)], sizes)
    np.savez(
        tmp_path / "rows.npz",
        x=np.zeros((len(groups), 3), np.float32),
        y=np.arange(len(groups)) % 2,
        groups=groups,
    )
    text = FOREST.replace("sklearn:digits", "rows.npz").replace("test = 200", "test = 0")
    text = text.replace("partition = {dirichlet = 0.5, clients = 9}\n", "")
    federation = Federation.of(text, folder=tmp_path)
    turn = turn_of(federation)
    first, second = Workers(federation, 2)._shares(turn)
    assert sorted(first + second) == list(range(8))
    assert (first, second) == (sorted(first), sorted(second))
    assert [sum(-(-sizes[k] // 32) for k in share) for share in (first, second)] == [12, 12]


def test_a_request_holds_the_model_and_names_and_no_rows():
    federation = Federation.of(DIGITS)
    turn = turn_of(federation)
    model = len(dump({"model": turn.model}))
    assert model < len(request_of(turn, [0])) < model + 2000
    assert len(request_of(turn, turn.present)) < len(request_of(turn, [0])) + 100


def test_each_local_worker_has_a_gpu_of_its_own_if_there_are_enough(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-77")
    assert gpus() == ["2", "GPU-77"]
    told = [child(b"", k)._environment["CUDA_VISIBLE_DEVICES"] for k in range(3)]
    assert told == ["2", "GPU-77", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert child(b"", 0)._environment == {}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at /proc")
def test_the_memory_of_a_large_parent_is_not_taken_for_ones_own():
    ballast = np.ones(40_000_000)
    code = "from haina.federation.meter import Usage; print(Usage.here().peak)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ballast.nbytes / 1e6 > 300
    assert 10 < float(done.stdout) < 200
