import os
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from haina.artifact import dump
from haina.errors import HainaError
from haina.federation import Federation
from haina.federation.answers import error_bytes, where
from haina.federation.bench import Bench, BenchError
from haina.federation.child import Child
from haina.federation.envelope import Envelope
from haina.learners.judge import HeldSamples
from haina.update import Failure
from haina.wire.messages import Failed

IRIS = """\
seed = 5
[model]
learner = "{learner}"
{model}
[data]
source = "sklearn:iris"
partition = {{iid = 2}}
test = 30
held = 20
[train]
rounds = 3
epochs = 2
learning_rate = 0.1
[strategy]
{strategy}
"""
NAME = "Zhang Wei"


def of(learner="torch", model='kind = "logistic"', strategy="", folder="."):
    return Federation.of(IRIS.format(learner=learner, model=model, strategy=strategy), folder=folder)


FOREST = of("forest", "trees = 2")
GLM = """\
[model]
learner = "glm"
family = "poisson"
[data]
target = "n"
features = ["age"]
task = "regression"
"""


def instructed(simulation, federation, run, control=None):
    """The task of the next round, as a coordinator makes it."""
    instructions = federation.strategy.instructions(run.state)
    data = simulation.learner.to_bytes(run.model)
    envelope = Envelope.of(data)
    return instructions, federation.task(
        instructions,
        version=run.round,
        model=envelope.sha256(run.model),
        bytes=len(data),
        control=None if instructions.control is None else "0" * 64,
    )


VARIANTS = {
    "SCAFFOLD": of(strategy='preset = "scaffold"'),
    "FedDyn": of(strategy="preset = {feddyn = {alpha = 0.05}}"),
    "FedProx": of("jax", strategy='preset = "fedprox"\nweigh = ["samples", "accuracy"]'),
    "a head of one's own": of(model='kind = "mlp"\nhidden = [5]\nlocal = ["output.*"]'),
}


@pytest.mark.slow
@pytest.mark.parametrize("federation", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_node_sends_what_the_simulation_trains_and_remembers_it_itself(federation, tmp_path):
    simulation = federation.simulation()
    clients = simulation.data.clients.clients
    for client in clients:
        x, y = simulation.data.shards([client]).of(0)
        np.savez(tmp_path / f"{client}.npz", x=x, y=y)
    run, path = simulation.start(), tmp_path / "model"
    memories = dict.fromkeys(clients)
    benches = {client: Bench(federation, site=tmp_path / f"{client}.npz") for client in clients}
    try:
        for number in range(3):
            instructions, task = instructed(simulation, federation, run)
            path.write_bytes(simulation.learner.to_bytes(run.model))
            sent = {}
            for client, bench in benches.items():
                model = path if number else run.model
                made = bench.train(task, client, model, control=instructions.control, memory=memories[client])
                # The same again: nothing is kept in the process.
                again = bench.train(
                    task, client, model, control=instructions.control, memory=memories[client]
                )
                assert dump(made.memory) == dump(again.memory)
                assert made.result.vector.tobytes() == again.result.vector.tobytes()
                memories[client], sent[client] = made.memory, made.result
                if number == 1:
                    os.kill(bench.child.pid, signal.SIGKILL)
            trained = []

            def train(turn, trained=trained):
                results = list(simulation.train(turn))
                trained.extend(results)
                return iter(results)

            run, _ = simulation.advance(run, train)
            for update in trained:
                own = sent[update.client]
                assert own.vector.dtype == update.vector.dtype
                assert own.vector.tobytes() == update.vector.tobytes()
                assert replace(own.report, seconds=None) == replace(update.report, seconds=None)
        for client, memory in run.memories.items():
            assert memories[client]["control"].tobytes() == memory.tobytes()
        for client, tensors in (simulation.learner.personal or {}).items():
            assert {name.removeprefix("personal/") for name in memories[client]} == set(tensors)
        assert bool(run.memories or simulation.learner.personal) == bool(memories[clients[0]])
    finally:
        for bench in benches.values():
            bench.close()


def test_a_coordinator_is_told_what_the_learner_would_say():
    federation = of()
    simulation = federation.simulation()
    learner, (x, y), (hx, hy) = simulation.learner, simulation.data.test, simulation.data.held
    rng = np.random.default_rng(1)
    with Bench(federation) as bench:
        assert bench.schema() == federation.schema
        assert bench.initial() == learner.to_bytes(learner.initial(5))
        assert bench.initial(6) == learner.to_bytes(learner.initial(6))
        model = rng.normal(size=learner.layout.size).astype(np.float32)
        assert bench.evaluate(model) == learner.evaluate(model, x, y)
        assert bench.evaluate(model, "held") == learner.evaluate(model, hx, hy)
        assert (bench.examples("test"), bench.examples("held")) == (30, 20)
        rate = 1 / 3
        here = HeldSamples(learner, model, hx, hy, federation.training, 4, rate, federation.seed)
        there = bench.judge(model, 4, rate)
        increments = rng.normal(size=(7, len(model))).astype(np.float32)
        increments[3] = np.inf
        for question in ("losses", "accuracies"):
            ours, theirs = getattr(here, question)(increments), getattr(there, question)(increments)
            assert (theirs.dtype, theirs.tobytes()) == (ours.dtype, ours.tobytes())
            assert len(getattr(there, question)(increments[:0])) == 0
        for question in ("direction", "witnesses"):
            ours, theirs = getattr(here, question)(), getattr(there, question)()
            assert (theirs.dtype, theirs.tobytes()) == (ours.dtype, ours.tobytes())
        assert there.examples == here.examples
        # A process that died between two questions is not noticed.
        os.kill(bench.child.pid, signal.SIGKILL)
        assert there.witnesses().tobytes() == here.witnesses().tobytes()


def test_many_increments_are_judged_in_parts(monkeypatch):
    federation = of()
    learner, (x, y) = federation.learner, federation.data.held
    model = learner.initial(0)
    increments = np.random.default_rng(1).normal(size=(5, len(model))).astype(np.float32)
    here = HeldSamples(learner, model, x, y, federation.training, 1, 0.1, federation.seed)
    monkeypatch.setattr("haina.federation.bench._PART", 2 * increments[0].nbytes)
    with Bench(federation) as bench:
        assert bench.judge(model, 1, 0.1).losses(increments).tobytes() == here.losses(increments).tobytes()


def test_an_exact_learner_tells_from_its_state(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(3):
        age = rng.normal(size=50)
        rows = "\n".join(f"{a},{n}" for a, n in zip(age, rng.poisson(np.exp(0.3 * age)), strict=True))
        (tmp_path / f"{k}.csv").write_text(f"age,n\n{rows}\n")
    sites = "sites = {" + ", ".join(f'h{k} = "{k}.csv"' for k in range(3)) + "}\n"
    federation = Federation.of(GLM + sites + "test = 0\n", folder=tmp_path)
    simulation = federation.simulation()
    run = simulation.start()
    while not run.finished:
        run, _ = simulation.advance(run)
    told = federation.tell(run)
    assert "Estimate" in told
    arrays = run.state.to_arrays()
    # Without the sites: the coordinator of a federation has none.
    with Bench(Federation.of(GLM)) as bench:
        assert bench.tell(run.model, arrays, finished=True) == told
        assert "NOT converged" in bench.tell(run.model, arrays, finished=False)
        assert bench.evaluate(run.model) is None
        # The envelope of the first model fits the last.
        assert (
            Envelope.of(bench.initial()).vector(simulation.learner.to_bytes(run.model)).tolist()
            == run.model.tolist()
        )


def test_a_stopped_process_is_ended_in_time_and_another_takes_its_place():
    with Bench(FOREST, limit=60) as bench:
        bench.start()
        pid = bench.child.pid
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        # Too long for the pipe: it is not even read.
        with pytest.raises(BenchError, match=r"did not answer within 0.5 s and was ended") as error:
            bench.evaluate(np.zeros(1 << 20, np.uint8), limit=0.5)
        assert 0.4 < time.monotonic() - began < 5
        assert (error.value.kind, error.value.own) == ("slow", True)
        assert not Path(f"/proc/{pid}").exists()
        assert bench.examples("test") == 30
        assert bench.child.pid != pid


def test_a_killed_process_is_not_noticed():
    with Bench(FOREST, limit=60) as bench:
        first = bench.initial()
        pids = {bench.child.pid}
        # Idle, and in the middle of a call.
        os.kill(bench.child.pid, signal.SIGKILL)
        assert bench.initial() == first
        pids.add(bench.child.pid)
        os.kill(bench.child.pid, signal.SIGSTOP)
        killer = threading.Timer(0.3, os.kill, (bench.child.pid, signal.SIGKILL))
        killer.start()
        assert bench.initial() == first
        killer.join()
        assert len({*pids, bench.child.pid}) == 3


def test_a_call_that_kills_three_times_is_given_up(tmp_path, monkeypatch):
    programme = tmp_path / "python"
    programme.write_text(f"#!/bin/sh\necho died >> {tmp_path}/deaths\nexit 3\n")
    programme.chmod(programme.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(sys, "executable", str(programme))
    with (
        Bench(FOREST) as bench,
        pytest.raises(BenchError, match=r"died 3 times .* \(exit status 3\)") as error,
    ):
        bench.start()
    assert error.value.kind == "died"
    assert error.value.reason == error.value.what
    assert (tmp_path / "deaths").read_text() == "died\n" * 3


def test_closing_ends_a_call_from_another_thread():
    bench = Bench(FOREST, limit=60)
    bench.start()
    pid = bench.child.pid
    os.kill(pid, signal.SIGSTOP)
    caught = []

    def call():
        with pytest.raises(BenchError) as error:
            bench.initial()
        caught.append(error.value.kind)

    caller = threading.Thread(target=call)
    caller.start()
    time.sleep(0.2)
    bench.close()
    caller.join(5)
    assert caught == ["closed"]
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(BenchError, match="was ended"):
        bench.initial()


def test_a_process_outlives_the_thread_that_called_it_first():
    with Bench(FOREST) as bench:
        caller = threading.Thread(target=bench.start)
        caller.start()
        caller.join()
        pid = bench.child.pid
        time.sleep(0.3)
        assert bench.examples("test") == 30
        assert bench.child.pid == pid


def test_priority_and_threads_may_change():
    with Bench(FOREST, niceness=3) as bench:
        bench.start()
        pid = bench.child.pid
        base = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, pid) == min(19, base + 3)
        assert b"OMP_NUM_THREADS=1\0" in Path(f"/proc/{pid}/environ").read_bytes()
        bench.child.threads = 2
        assert bench.examples("test") == 30
        assert b"OMP_NUM_THREADS=2\0" in Path(f"/proc/{bench.child.pid}/environ").read_bytes()
        assert bench.child.pid != pid


DRIVER = """
import sys
from haina.federation import Federation
from haina.federation.bench import Bench
bench = Bench(Federation.of(sys.argv[1], folder=sys.argv[2]))
bench.examples("test")
print(bench.child.pid, flush=True)
bench.initial()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux is asked")
def test_a_process_at_work_dies_with_the_one_that_asked(tmp_path):
    (tmp_path / "task.py").write_text("import time\ndef build_model():\n    time.sleep(100)\n")
    text = IRIS.format(learner="jax", model='build = "task:build_model"', strategy="")
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, text, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        pid = int(driver.stdout.readline())
        time.sleep(0.5)
        assert Path(f"/proc/{pid}").exists()
    finally:
        driver.kill()
        driver.communicate()
    until = time.monotonic() + 10
    while _alive(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


LIGHT = """
import sys
from haina.data.schema import Schema
from haina.federation import Federation
from haina.federation.bench import Bench
from haina.federation.envelope import Envelope
text = sys.argv[1]
with Bench(Federation.of(text)) as bench:
    schema = bench.schema()
    federation = Federation.of(text, schema=schema)
    first = bench.initial()
    envelope = Envelope.of(first)
    vector = envelope.vector(first)
    strategy = federation.strategy
    state = strategy.init(vector)
    assert federation.update_size(envelope) > 0
    assert federation.serve and federation.training and federation.codecs
    bench.evaluate(vector)
    if bench.evaluate(vector, "held"):
        bench.judge(vector, 1, 0.1).direction()
heavy = sorted({"jax", "torch", "pandas", "sklearn", "scipy", "pyarrow", "matplotlib"} & set(sys.modules))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]
print(heavy, int(peak) // 1024)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="looks at /proc")
@pytest.mark.parametrize("learner", ["torch", "glm"])
def test_a_coordinator_imports_no_framework(learner):
    text = IRIS.format(learner=learner, model="", strategy="")
    if learner == "glm":
        text = text.replace("[strategy]", "").replace("sklearn:iris", "sklearn:diabetes")
    done = subprocess.run([sys.executable, "-c", LIGHT, text], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[] ")
    assert int(done.stdout.split()[-1]) < 80


class TestWhatLeaves:
    """Everything that a node may send of a failure, against a patient's name in its rows."""

    CSV = (
        '[model]\nlearner = "{}"\n{}\n[data]\ntarget = "died"\nfeatures = ["age"]\nclasses = ["no", "yes"]\n'
    )

    def trained(self, federation, site, spied):
        class Spy(Child):
            def call(self, request, answers, limit):
                try:
                    found = super().call(request, answers, limit)
                except BenchError as error:
                    spied.append(repr((str(error), error.reason, error.where)))
                    raise
                spied.append(repr(found))
                return found

        with Bench(federation, site=site) as bench:
            bench.child.__class__ = Spy
            model = np.zeros(4, np.float32)
            task = federation.task(
                federation.strategy.instructions(federation.strategy.init(model)),
                version=0,
                model="0" * 64,
                bytes=0,
            )
            return bench.train(task, "clinic", model)

    @pytest.mark.parametrize(
        "rows",
        [
            f"age,died\n{NAME},no\n40,yes\n",
            f"age,died\n40,{NAME}\n41,no\n",
            f"{NAME},no\n40,yes\n",
            f"age,died\n40,no,{NAME}\n",
            f'age,died\n40,"{NAME}\n',
        ],
    )
    def test_a_name_in_a_table_is_in_no_byte(self, tmp_path, capfd, rows):
        (tmp_path / "own.csv").write_text(rows)
        spied = []
        made = self.trained(Federation.of(self.CSV.format("forest", "")), tmp_path / "own.csv", spied)
        assert made.result == Failure(
            "clinic", "its rows cannot be read as the schema of the federation asks"
        )
        assert made.words
        assert "haina/data/" in made.where
        failed = Failed(federation="f", round=1, reason=made.result.reason, where=made.where)
        everything = failed.model_dump_json() + "".join(spied) + made.words + "".join(capfd.readouterr())
        assert NAME not in everything
        assert "Zhang" not in everything
        assert str(tmp_path) not in failed.model_dump_json()

    def test_what_foreign_code_says_of_rows_is_in_no_byte(self, tmp_path):
        (tmp_path / "own.csv").write_text("age,died\n" + "70421,no\n" * 20)
        (tmp_path / "task.py").write_text(
            "import numpy as np\n"
            "def build_model():\n"
            "    def apply(params, x):\n"
            "        secret = 'Zhang Wei'\n"
            "        raise KeyError(f'{secret} is 70421 years old')\n"
            "    return (lambda key: {'w': np.zeros(4, np.float32)}), apply\n"
        )
        federation = Federation.of(self.CSV.format("jax", 'build = "task:build_model"'), folder=tmp_path)
        spied = []
        made = self.trained(federation, tmp_path / "own.csv", spied)
        assert made.result == Failure("clinic", "its training stopped with KeyError")
        assert "task.py:5 build_model.<locals>.apply" in made.where
        for secret in ("Zhang", "70421", str(tmp_path)):
            assert secret not in "".join(spied) + made.where + made.words

    def test_of_our_own_errors_the_words_stay(self, tmp_path):
        np.savez(tmp_path / "own.npz", x=np.ones((20, 1)), y=np.arange(20) % 2)
        text = self.CSV.format("forest", "") + "[train]\nmeasure = []\n"
        made = self.trained(Federation.of(text), tmp_path / "none.npz", [])
        assert "none.npz is not there" in made.words
        assert "none" not in made.result.reason + made.where

    def test_a_failure_without_an_error_is_told_as_it_is(self, tmp_path):
        (tmp_path / "own.csv").write_text("age,died\n40,no\n41,yes\n")
        made = self.trained(Federation.of(self.CSV.format("forest", "")), tmp_path / "own.csv", [])
        assert made.result.reason.startswith("it has fewer than 10 rows")
        assert made.words == made.result.reason
        assert made.where == ""

    def test_starting_says_what_is_wrong_here(self, tmp_path):
        (tmp_path / "own.csv").write_text(f"age,died\n{NAME},no\n40,yes\n")
        federation = Federation.of(self.CSV.format("forest", ""))
        with Bench(federation, site=tmp_path / "own.csv") as bench:
            with pytest.raises(HainaError, match="column 'age' holds something else in 1 of 2 rows") as error:
                bench.start()
            pid = bench.child.pid
            assert NAME not in str(error.value)
            # An error is an answer, not a death; mended rows are read by the same process.
            (tmp_path / "own.csv").write_text("age,died\n39,no\n40,yes\n")
            assert bench.examples() == 2
            assert bench.child.pid == pid


def test_places_are_told_without_local_paths():
    def thrown(depth):
        if depth:
            thrown(depth - 1)
        raise ValueError(NAME)

    try:
        thrown(100)
    except ValueError as error:
        lines, data = where(error).splitlines(), error_bytes(error)
    assert len(lines) == 30
    assert lines[-1].split()[0].partition(":")[0].endswith("test_bench.py")
    assert lines[-1].endswith("thrown")
    assert not any(line.startswith("/") for line in lines)
    assert NAME.encode() not in data


def test_a_model_that_a_coordinator_could_not_publish_is_refused(tmp_path):
    (tmp_path / "task.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one = torch.nn.Linear(4, 3)\n"
        "        self.register_buffer('only', torch.zeros(3, dtype=torch.float64))\n"
        "    def forward(self, x):\n"
        "        return self.one(x) + self.only\n"
    )
    model = 'build = "task:Net"\nlocal = []\nshared = ["only"]'
    with (
        Bench(of(model=model, folder=tmp_path)) as bench,
        pytest.raises(BenchError, match="from its vector alone"),
    ):
        bench.initial()


def test_the_update_of_a_wrong_model_file_is_refused(tmp_path):
    (tmp_path / "model").write_bytes(b"{}")
    with Bench(of()) as bench, pytest.raises(BenchError) as error:
        bench.evaluate(tmp_path / "model")
    assert error.value.kind == "LayoutError"
    assert isinstance(error.value, HainaError)
