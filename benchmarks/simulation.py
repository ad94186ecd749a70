"""Simulation: what a round costs, beside Flower, pfl-research, FedJAX and NVFLARE, and beside what the processor could do.

    ./dev bench simulation
    ./dev bench simulation --only w1 w2 --peers flower pfl --rounds 3 --repeats 1
    ./dev bench simulation --python flower=/path/to/an/environment/with/flwr/bin/python
    ./dev bench simulation --write-docs

W1: logistic regression, Synthetic(1, 1), 100 of 1,000 clients, batch 10, 5 epochs. W2: a network of 784-200-200-10, 10 of 100 clients of 600 rows,
batch 20, 5 epochs. W3: a convolutional network of 1.7 million weights, 10 of 100 clients of 300 rows, batch 20, 1 epoch. W0: one step a client, 10 of
up to a million registered clients.

Everybody does the same work: the same rows, first weights, clients and order of batches (`simulation_peers/workload.py`), one thread a process, no
evaluation; after two rounds the weights of all are compared with those of a plain torch loop. Ours is `haina.federation.runner.play`, which is what
`haina run` does, with strategy, metrics, records and checkpoints. Each engine runs in processes of its own; their CPU seconds are read from outside
while they stand still between rounds (`simulation_peers/watch.py`). The first round warms up. Engines take turns repeat by repeat, so that a busy
machine slows all alike; CPU is what to compare on one. Only installing the peers uses the network.

The table goes to stdout, and its last line is one JSON object with every figure, and whether each bar holds. `--write-docs` measures nothing: it
writes the last result into docs/simulation-benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT, PARTS = HERE.parent, HERE / "simulation_peers"
sys.path.insert(0, str(PARTS))

from environments import PEERS, python_of
from prepare import WORKLOADS, sweep
from series import Engine, Series
from tables import GROWTH_ROUNDS, Row, bars, page, table, verdicts
from watch import EngineError
from workload import Workload

LAST, DOCUMENT = ROOT / ".benchmarks" / "simulation.json", ROOT / "docs" / "simulation-benchmarks.md"
#: Registered clients of the sweep, and the most that Flower is asked to hold.
REGISTERED, FLOWER_MOST = (1_000, 10_000, 100_000, 1_000_000), 100_000
#: A round of the sweep is short, so there are more of them.
SWEEP_TIMES = 5

OURS = Engine("haina", "with_haina")
PEER_ENGINES = (
    Engine("flower", "with_flower", "flower", most=FLOWER_MOST),
    Engine("pfl", "with_pfl", "pfl"),
    Engine("fedjax", "with_fedjax", "fedjax", only=tuple(WORKLOADS)),
    Engine("nvflare", "with_nvflare", "nvflare", only=("w2",)),
)
FURTHER = (
    Engine("haina, 2 workers", "with_haina", options=("--workers", "2"), only=tuple(WORKLOADS)),
    Engine("haina, evaluating", "with_haina", options=("--file", "evaluated.toml"), only=tuple(WORKLOADS)),
)
LIMITS = (
    Engine("torch loop", "limits", options=("--limit", "plain"), only=tuple(WORKLOADS)),
    Engine("torch, central", "limits", options=("--limit", "central"), only=tuple(WORKLOADS), compared=False),
    Engine("own products", "limits", options=("--limit", "shapes"), only=("w2",), compared=False),
    Engine("FLOP floor", "limits", options=("--limit", "floor"), only=tuple(WORKLOADS), compared=False),
)


def engines(peers: Sequence[str], data: Path) -> tuple[Engine, ...]:
    """Who takes turns, in this order."""
    asked = tuple(engine for engine in PEER_ENGINES if engine.peer in peers)
    return OURS, *asked, *FURTHER, *LIMITS, *native(data)


def native(data: Path) -> tuple[Engine, ...]:
    """The loop in C, where there is a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        print("There is no C compiler, so there is no native loop", file=sys.stderr)
        return ()
    library = data / "native.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(PARTS / "native.c"), "-o", str(library), "-lm"], check=True)
    return (
        Engine(
            "native C loop", "limits", options=("--limit", "native", "--native", str(library)), only=("w1",)
        ),
    )


def workloads(options: argparse.Namespace) -> dict[str, tuple[Workload, int]]:
    """All that is asked for, with the number of its rounds (the one that warms up included)."""
    found = {name: (WORKLOADS[name], options.rounds + 1) for name in WORKLOADS if name in options.only}
    if "w0" in options.only:
        rounds = SWEEP_TIMES * options.rounds + 1
        found |= {f"w0-{count}": (sweep(count), rounds) for count in options.registered}
    return found


def growth(series: Series) -> float:
    """MB that our process grows by over many rounds of w1."""
    seen = series.watched(OURS, "w1", GROWTH_ROUNDS[1])
    if isinstance(seen, EngineError):
        raise SystemExit(f"the rounds that memory is watched over failed: {seen}")
    early, late = (seen.resident[number - 1] for number in GROWTH_ROUNDS)
    return late - early


def machine() -> dict[str, Any]:
    """What everything runs on."""
    described = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in described if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def result_of(
    series: Series, rows: Sequence[Row], found: dict[str, dict[str, Any]], settings: dict[str, Any]
) -> dict[str, Any]:
    """The JSON object of a whole call."""
    own = {"haina": version("haina"), "haina's jax": version("jax"), "haina's torch": version("torch")}
    return {
        "benchmark": "simulation",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": machine(),
        "load": {"min": min(series.loads, default=0.0), "max": max(series.loads, default=0.0)},
        "versions": {**own, **series.versions},
        "settings": settings,
        "holds": all(each["holds"] for each in found.values()) and not any(row.failed for row in rows),
        "bars": found,
        "rows": [row.json() for row in rows],
    }


def write_docs() -> int:
    """Put the last result into the page."""
    if not LAST.exists():
        raise SystemExit("Nothing was measured yet. Run: ./dev bench simulation")
    text = page(DOCUMENT.read_text(encoding="utf-8"), json.loads(LAST.read_text()))
    DOCUMENT.write_text(text, encoding="utf-8")
    print(f"{DOCUMENT.relative_to(ROOT)} has the result of {LAST.relative_to(ROOT)}")
    return 0


def interpreter(text: str) -> tuple[str, Path]:
    """`NAME=/path/to/python` as a pair."""
    name, equals, path = text.partition("=")
    if not equals or name not in PEERS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not NAME=/path/to/python with NAME one of {', '.join(PEERS)}"
        )
    return name, Path(path)


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What a round of simulation costs, beside other simulators.")

    def option(name: str, say: str, **settings: Any) -> None:
        parser.add_argument(f"--{name}", help=say, **settings)

    names, peers = [*WORKLOADS, "w0"], list(PEERS)
    option("only", ", ".join(names), nargs="+", choices=names, default=names, metavar="WORKLOAD")
    option("peers", ", ".join(peers), nargs="*", choices=peers, default=peers, metavar="PEER")
    option("rounds", "measured rounds of a run; one before them warms up", type=int, default=4)
    option("repeats", "how often everything is run", type=int, default=5)
    option("registered", "registered clients of w0", type=int, nargs="+", default=REGISTERED, metavar="N")
    option(
        "python",
        "an interpreter that has a peer (default: .venvs/simulation-NAME, made when missing)",
        type=interpreter,
        nargs="+",
        default=[],
        metavar="NAME=PATH",
    )
    option("learner", "ours, for [model] learner: auto, jax or torch", default="auto")
    option("data", "keep workloads and logs in this folder", type=Path)
    option("timeout", "seconds for one run", type=float, default=900.0)
    option("write-docs", "measure nothing; write the last result into the page", action="store_true")
    options = parser.parse_args(arguments)
    if options.rounds < 1 or options.repeats < 1:
        parser.error("rounds and repeats are 1 or more")
    return options


@contextmanager
def data_folder(given: Path | None) -> Iterator[Path]:
    """The folder given, or one that is gone afterwards."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="haina-simulation-") as folder:
        yield Path(folder)


def show(result: dict[str, Any], rows: Sequence[Row]) -> int:
    """Print the table, the bars and the JSON line; 0 if every bar holds, else 1."""
    print(", ".join(str(value) for value in result["machine"].values()))
    print(table(rows))
    print(verdicts(result["bars"]))
    print(json.dumps(result))
    return 0 if result["holds"] else 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and show; 0 if every bar holds, else 1."""
    options = options_of(arguments)
    if options.write_docs:
        return write_docs()
    if sys.platform != "linux":
        raise SystemExit("this benchmark reads /proc, and runs on Linux only")
    given = dict(options.python)
    pythons = {peer: python_of(peer, ROOT / ".venvs", given) for peer in options.peers}
    with data_folder(options.data) as data:
        series = Series(data, engines(options.peers, data), pythons, options.timeout)
        series.measure(workloads(options), options.repeats, options.learner)
        grown = growth(series) if "w1" in options.only else None
    rows = series.rows()
    settings = {name: getattr(options, name) for name in ("rounds", "repeats", "learner")}
    result = result_of(series, rows, bars(rows, grown), settings)
    LAST.parent.mkdir(exist_ok=True)
    LAST.write_text(json.dumps(result, indent=1))
    return show(result, rows)


if __name__ == "__main__":
    raise SystemExit(main())
