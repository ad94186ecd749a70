"""Transport: what a round costs the coordinator, beside Flower's SuperLink and ServerApp.

    ./dev bench transport
    python benchmarks/transport.py --flower-python /path/to/an/environment/with/flwr/bin/python
    python benchmarks/transport.py --only http-plain grpc-tls --rounds 2

Real protocol, real processes, no training: nodes download the model and upload a canned increment. What is compared is the server's CPU (user and
system) of a round, read from outside (`psutil`) at the moments when the first node hears of a new task; so it holds the whole of a round: tasks,
downloads, uploads, spooling, verifying, folding, publishing. The first round warms up. Peak memory is the kernel's high-water mark of resident memory
(VmHWM), which counts mapped pages of files too. The process is `haina.coordinator.serve.serving` with SQLite and real fsyncs; the last model is
checked against the one computed here.

Flower's rounds run between two halves of ours on the same machine. Its CPU is that of the SuperLink and all its child processes (SuperExec,
ServerApp).

The table goes to stdout, and its last line is one JSON object with every figure, and whether each bar holds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil

HERE = Path(__file__).resolve().parent
PROCESSES = HERE / "transport_processes"
sys.path.insert(0, str(PROCESSES))
PEER = ("flwr==1.41.0", "numpy==2.4.6")
#: Set before NumPy is loaded, in the environment of the processes that are measured.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")

MODEL, SMALL = 25_000_000, 25_000
MB = 1 << 20
#: CPU seconds a round of 10 x 100 MB in plain text and over mutual TLS, and of 1,000 x 100 kB.
PLAIN, TLS, CROWD = 2.0, 2.6, 2.0
#: Peak of resident memory: three models and 200 MB.
PEAK = (3 * 4 * MODEL + 200_000_000) / MB
#: Times less CPU than Flower; seconds until half of 1,000 nodes have a setting; MB of an idle coordinator, and of a node.
RATIO, PUSH, IDLE_SERVER, IDLE_NODE = 7.0, 1.0, 120.0, 80.0
PUSHES = 5


class Server:
    """A process that is measured from outside.

    Args:
        process: with its child processes, where those count.
    """

    def __init__(self, process: psutil.Process, *, children: bool = False) -> None:
        self.process, self._children = process, children
        self._gone: dict[int, float] = {}
        self._peaks: dict[int, float] = {}

    def all(self) -> list[psutil.Process]:
        return [self.process, *(self.process.children(recursive=True) if self._children else [])]

    def cpu(self) -> float:
        """User and system seconds so far, those of child processes that have ended included (as they were last seen)."""
        for process in self.all():
            try:
                times = process.cpu_times()
                self._gone[process.pid] = times.user + times.system
                self._peaks[process.pid] = high_water(process.pid)
            except (psutil.Error, OSError):
                continue
        return sum(self._gone.values())

    def peak(self) -> float:
        """MB; of several processes the sum of their peaks."""
        self.cpu()
        return sum(self._peaks.values())


def high_water(pid: int, field: str = "VmHWM") -> float:
    """Peak (or with VmRSS present) resident memory, MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


@contextmanager
def process(*command: object, python: Path | None = None, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A child with pipes; its standard input is closed to end it."""
    child = subprocess.Popen(
        [str(python or sys.executable), *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ONE_THREAD, **settings.pop("env", {})},
        **settings,
    )
    try:
        yield child
    finally:
        assert child.stdin is not None
        child.stdin.close()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def heard(child: subprocess.Popen[str]) -> dict[str, Any]:
    """The next line of JSON that a child says."""
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(map(str, child.args[1:3]))} stopped; its error stands above")  # type: ignore[index]
    said: dict[str, Any] = json.loads(line)
    return said


@contextmanager
def coordinator(
    folder: Path, nodes: int, parameters: int, rounds: int, *, plain: bool
) -> Iterator[tuple[Server, str]]:
    """A coordinator whose nodes have enrolled; its addresses as JSON."""
    sizes = ("--nodes", nodes, "--parameters", parameters, "--rounds", rounds)
    with process(PROCESSES / "coordinator.py", "seed", folder, *sizes) as child:
        if child.wait():
            raise SystemExit("the coordinator could not be prepared; its error stands above")
    with process(PROCESSES / "coordinator.py", "serve", folder, *(["--plain"] if plain else [])) as child:
        addresses = json.dumps(heard(child))
        server = psutil.Process(child.pid)
        # What starting took is not a round's.
        Path(f"/proc/{child.pid}/clear_refs").write_text("5")
        yield Server(server), addresses


def rounds_of(
    folder: Path, nodes: int, parameters: int, rounds: int, *, door: str, plain: bool
) -> dict[str, Any]:
    """CPU and wall of each round but the first, with one door."""
    with coordinator(folder, nodes, parameters, rounds + 1, plain=plain) as (server, addresses):
        settings = ["--door", door, "--parameters", parameters, *(["--plain"] if plain else [])]
        with process(PROCESSES / "links.py", folder, addresses, *settings) as links:
            marks = []
            while "task" in (said := heard(links)):
                marks.append((server.cpu(), time.perf_counter()))
            marks.append((server.cpu(), time.perf_counter()))
        if said["failures"] or said["finished"] != nodes * (rounds + 1):
            raise SystemExit(
                f"{said['finished']} of {nodes * (rounds + 1)} updates were taken: {said['failures']}"
            )
        row = {
            "cpu": [b[0] - a[0] for a, b in pairwise(marks[1:])],
            "wall": [b[1] - a[1] for a, b in pairwise(marks[1:])],
            "peak_mb": server.peak(),
            "download_s": said["download_s"],
            "upload_s": said["upload_s"],
            "nodes_cpu": said["cpu"] / (rounds + 1),
        }
    check_model(folder, parameters, rounds + 1, nodes)
    return row


def check_model(folder: Path, parameters: int, rounds: int, nodes: int) -> None:
    """The last model is the first one and all rounds' mean increments."""
    import numpy as np
    from links import KINDS, increment

    from haina.artifact import load
    from haina.coordinator.store import Store

    store = Store.open(None, folder / "state", time.time)
    newest = store.model("transport")
    store.close()
    assert newest is not None
    assert newest.version == rounds, f"version {newest.version} of {rounds}"
    model = load((folder / "state" / "blobs" / newest.sha256).read_bytes())[0]["weights"]
    count = min(parameters, 1_000_000)
    expected = (
        np.random.default_rng(1).standard_normal(parameters, dtype=np.float32)[:count].astype(np.float64)
    )
    for i in range(KINDS):
        share = len(range(i, nodes, KINDS)) / nodes
        expected += rounds * share * increment(i, parameters)[:count].astype(np.float64)
    error = float(np.abs(model[:count] - expected).max())
    assert error < 1e-5, f"the model is off by {error}"


def crowd(folder: Path, nodes: int, rounds: int) -> dict[str, Any]:
    """Rounds of very many small nodes over mutual TLS, then settings pushed to all of them."""
    from haina.node.link.api import Api
    from haina.wire.identity import Credentials
    from haina.wire.messages import SettingsChange
    from haina.wire.tls import client_context

    with coordinator(folder, nodes, SMALL, rounds + 100, plain=False) as (server, addresses):
        credentials = Credentials.load(folder / "state" / "operator")
        api = Api(json.loads(addresses)["http"], client_context(credentials.authority, credentials))
        settings = ["--parameters", SMALL, "--rounds", rounds + 1]
        with process(PROCESSES / "crowd.py", folder, addresses, *settings) as many:
            marks, ready = [], server.cpu()
            while "task" in (said := heard(many)):
                marks.append((server.cpu(), time.perf_counter()))
            if len(marks) <= rounds + 1:
                marks.append((server.cpu(), time.perf_counter()))
            peak, arrivals, push_cpu = server.peak(), [], []
            for number in range(PUSHES):
                time.sleep(1.0)
                before, begun = server.cpu(), time.time()
                entry = api.configure(
                    SettingsChange(values={"report_interval": 10.0 + number}, why="benchmark")
                )
                while (said := heard(many)).get("version") != entry.version:
                    pass
                arrivals += [at - begun for at in said["arrivals"]]
                time.sleep(0.5)
                push_cpu.append(server.cpu() - before)
    ordered = sorted(arrivals)
    return {
        "nodes": nodes,
        "cpu": [b[0] - a[0] for a, b in pairwise(marks[1:])],
        "wall": [b[1] - a[1] for a, b in pairwise(marks[1:])],
        "peak_mb": peak,
        "handshakes_and_first_round_cpu": marks[1][0] - ready,
        "push_s": {"median": median(ordered), "p99": ordered[int(0.99 * len(ordered))], "most": ordered[-1]},
        "push_cpu": push_cpu,
    }


def idle(folder: Path) -> dict[str, Any]:
    """Resident memory of `haina serve` and of `haina join` at rest: the medians of a few looks."""
    (folder / "federation.toml").write_text(_SITES)
    for site in ("a", "b"):
        rows = "".join(f"{i % 7},{i % 5},{'yes' if i % 3 else 'no'}\n" for i in range(60))
        (folder / f"{site}.csv").write_text("age,pressure,died\n" + rows)
    command = Path(sys.executable).parent / "haina"
    doors = ["--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json"]
    serve = [command, "serve", folder / "federation.toml", "--state", folder / "state", *doors]
    found: dict[str, Any] = {}
    with process(*serve, stderr=subprocess.DEVNULL) as server:
        heard(server)
        invite = [command, "invite", "a", "--state", folder / "state", "--out", folder / "a.invite"]
        subprocess.run([sys.executable, *map(str, invite)], check=True, capture_output=True)
        join = [command, "join", folder / "a.invite", "--data", folder / "a.csv"]
        with process(*join, stderr=subprocess.DEVNULL, cwd=folder) as node:
            time.sleep(12)
            for name, child in (("serve", server), ("join", node)):
                if child.poll() is not None:
                    raise SystemExit(f"haina {name} ended by itself")
                found[f"{name}_mb"] = high_water(child.pid, "VmRSS")
                helpers = psutil.Process(child.pid).children(recursive=True)
                found[f"{name}_helpers_mb"] = [high_water(each.pid, "VmRSS") for each in helpers]
            node.terminate()
        server.terminate()
    return found


#: Two nodes are needed, and one comes, so that both ends wait.
_SITES = """
name = "idle"
[model]
learner = "glm"
family = "binomial"
[data]
target = "died"
features = ["age", "pressure"]
classes = ["no", "yes"]
[serve]
nodes = 2
"""


# ------------------------------------------------------------------------------------------------ Flower


def flower(folder: Path, python: Path, nodes: int, parameters: int, rounds: int) -> dict[str, Any]:
    """The same work through SuperLink and ServerApp: FedAvg over one vector, nodes with Flower's own client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    home, times, app = folder / "home", folder / "times.jsonl", folder / "app"
    home.mkdir()
    shutil.copytree(PROCESSES / "flower_app", app)
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "local"\n[superlink.local]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    settings = {
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_LOG_LEVEL": "WARNING",
        "PATH": f"{python.parent}:{os.environ['PATH']}",
    }
    address = f"127.0.0.1:{port}"
    link = [
        python.parent / "flower-superlink",
        "--insecure",
        "--disable-runtime-dependency-installation",
        "--port",
        port,
    ]
    with (
        (folder / "flower.log").open("w") as log,
        process(*link, python=python, env=settings, stderr=log) as superlink,
    ):
        assert superlink.stdout is not None
        threading.Thread(target=superlink.stdout.read, daemon=True).start()
        _reached(port)
        server = Server(psutil.Process(superlink.pid), children=True)
        with process(
            PROCESSES / "flower.py", address, "--nodes", nodes, python=python, env=settings
        ) as light:
            time.sleep(3)
            config = f'nodes={nodes} parameters={parameters} rounds={rounds} times="{times}"'
            run = [python.parent / "flwr", "run", app, "local", "--run-config", config]
            subprocess.run(
                [str(python), *map(str, run)],
                check=True,
                env={**os.environ, **settings},
                stdout=log,
                stderr=log,
            )
            marks = _flower_marks(server, times, rounds, light)
        peak = server.peak()
        for each in reversed(server.all()):
            each.terminate()
    return {
        "cpu": [b[1] - a[1] for a, b in pairwise(marks)],
        "wall": [b[0] - a[0] for a, b in pairwise(marks)],
        "peak_mb": peak,
    }


def _reached(port: int) -> None:
    for _ in range(120):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.5)
    raise SystemExit("Flower's SuperLink did not start")


def _flower_marks(
    server: Server, times: Path, rounds: int, nodes: subprocess.Popen[str]
) -> list[tuple[float, float]]:
    """(time, CPU) when each round began, and when the last one was over."""
    samples: list[tuple[float, float]] = []
    end = time.time() + 600
    while time.time() < end and nodes.poll() is None:
        samples.append((time.time(), server.cpu()))
        begun = [json.loads(line)["at"] for line in times.read_text().splitlines()] if times.exists() else []
        if len(begun) > rounds:
            samples.append((time.time(), server.cpu()))
            return [min(samples, key=lambda sample: abs(sample[0] - at)) for at in begun]
        time.sleep(0.05)
    raise SystemExit("Flower's rounds did not end; see its log")


def peer_python(given: Path | None) -> Path:
    """The interpreter that has Flower: the one named, or an environment made once beside the project's own."""
    if given is not None:
        return given
    home = HERE.parent / ".venvs" / "flwr"
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        print(f"Making an environment for {', '.join(PEER)} in {home} (once)", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PEER], check=True)
        (home / ".ready").touch()
    return python


# ------------------------------------------------------------------------------------------------ the whole


def spread(values: Sequence[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def line(name: str, row: Mapping[str, Any]) -> None:
    print(f"{name:34} {spread(row['cpu']):>22} {spread(row['wall']):>22} {row['peak_mb']:10.0f}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON line; 0 if every bar holds, else 1."""
    parser = argparse.ArgumentParser(description="What a round costs the coordinator, beside Flower.")
    parts = ["http-plain", "grpc-plain", "http-tls", "grpc-tls", "many", "flower", "crowd", "idle"]
    parser.add_argument(
        "--only", nargs="+", choices=parts, default=parts, metavar="PART", help=", ".join(parts)
    )
    parser.add_argument("--rounds", type=int, default=4, help="measured rounds of each part")
    parser.add_argument("--flower-rounds", type=int, default=2)
    parser.add_argument(
        "--flower-python",
        type=Path,
        help="an interpreter with flwr (default: .venvs/flwr, made when missing)",
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="multiplies the large model, for a quick look; the bars are for 1",
    )
    parser.add_argument("--keep", type=Path, help="keep the folders of all parts here")
    options = parser.parse_args(arguments)
    parameters = int(MODEL * options.scale)
    peak = (3 * 4 * parameters + 200_000_000) / MB
    rows: dict[str, Any] = {}
    bars: dict[str, bool] = {}

    def measured(name: str, part: str, work: Callable[[Path], dict[str, Any]]) -> None:
        if part not in options.only:
            return
        with tempfile.TemporaryDirectory(prefix="haina-transport-", dir=options.keep) as folder:
            rows[name] = work(Path(folder))
        if "cpu" in rows[name]:
            line(name, rows[name])

    def ours(door: str, how: str) -> None:
        bar = PLAIN if how == "plain" else TLS
        name = f"10 x {parameters * 4 / 1e6:g} MB {door} {how}"
        plain = how == "plain"
        measured(
            name,
            f"{door}-{how}",
            lambda folder: rounds_of(folder, 10, parameters, options.rounds, door=door, plain=plain),
        )
        if name in rows:
            bars[f"{name}: CPU {bar:g} s"] = median(rows[name]["cpu"]) <= bar
            bars[f"{name}: peak {peak:.0f} MB"] = rows[name]["peak_mb"] <= peak

    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{machine}; load {os.getloadavg()[0]:.1f}")
    print(f"{'a round of':34} {'server CPU s (range)':>22} {'wall s (range)':>22} {'peak MB':>10}")
    ours("http", "plain")
    ours("grpc", "plain")
    measured(
        "flower",
        "flower",
        lambda folder: flower(
            folder, peer_python(options.flower_python), 10, parameters, options.flower_rounds
        ),
    )
    ours("http", "tls")
    ours("grpc", "tls")
    many = f"50 x {parameters * 4 / 1e6:g} MB http tls"
    measured(many, "many", lambda folder: rounds_of(folder, 50, parameters, 1, door="http", plain=False))
    if many in rows:
        bars[f"{many}: peak {peak:.0f} MB"] = rows[many]["peak_mb"] <= peak
    for name in [name for name in rows if name.endswith("plain")] if "flower" in rows else []:
        ratio = median(rows["flower"]["cpu"]) / median(rows[name]["cpu"])
        rows[name]["flower_ratio"] = ratio
        bars[f"{name}: {RATIO:g} times less CPU than Flower"] = ratio >= RATIO
        print(f"{name}: {ratio:.1f} times less CPU than Flower")
    measured("1000 x 100 kB http tls", "crowd", lambda folder: crowd(folder, 1000, options.rounds))
    if "crowd" in options.only:
        row = rows["1000 x 100 kB http tls"]
        bars[f"1000 x 100 kB: CPU {CROWD:g} s"] = median(row["cpu"]) <= CROWD
        bars[f"a setting reaches half of 1000 in {PUSH:g} s"] = row["push_s"]["median"] <= PUSH
        times = row["push_s"]
        print(
            f"a setting at 1,000 nodes: median {times['median']:.3f} s, 99 % {times['p99']:.3f} s, last {times['most']:.3f} s"
        )
    measured("idle", "idle", idle)
    if "idle" in rows:
        bars[f"idle coordinator: {IDLE_SERVER:g} MB"] = rows["idle"]["serve_mb"] <= IDLE_SERVER
        bars[f"idle node: {IDLE_NODE:g} MB"] = rows["idle"]["join_mb"] <= IDLE_NODE
        print(f"idle: coordinator {rows['idle']['serve_mb']:.0f} MB, node {rows['idle']['join_mb']:.0f} MB")
    for name, holds in bars.items():
        print(f"{'holds' if holds else 'FAILS':6} {name}")
    holds = all(bars.values())
    print(
        json.dumps({"benchmark": "transport", "holds": holds, "bars": bars, "rows": rows, "machine": machine})
    )
    return 0 if holds else 1


if __name__ == "__main__":
    raise SystemExit(main())
