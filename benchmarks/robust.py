"""Robust rules: processor time beside ByzFL's, on one cohort and one thread.

    ./dev bench robust
    python benchmarks/robust.py --peer-python /path/to/an/environment/with/byzfl/bin/python

50 clients, 10 assumed hostile, 1,000,000 float32 parameters (NNM: 50,000, for ByzFL's mixing gathers n (n - f) d numbers). Each library
runs in a process of its own on the same seeded cohort; the two take turns rule by rule and repetition by repetition, so that a busy machine
slows both alike. What is compared is CPU seconds (`time.process_time`) of one call, medians of the repetitions, and the results are checked
against each other: they must agree to 1e-5, except CAF, whose filter is exact here and takes one random power step there.

The table goes to stdout, and its last line is one JSON object: every ratio, and whether the bar holds (10 times less processor time for Krum,
multi-Krum, geometric median, median and CAF).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
import venv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

CLIENTS, HOSTILE, SEED = 50, 10, 20
PEER = ("byzfl==0.0.11", "torch==2.13.0", "numpy==2.4.6", "scipy==1.17.1", "matplotlib", "seaborn")
#: Every so many-th coordinate is sent back for comparison.
PROBES = 100
#: Set before NumPy is loaded, in the environment of the processes that are measured.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
TOLERANCE, BAR = 1e-5, 10.0


@dataclass(frozen=True)
class Case:
    """One rule: its length of vectors, how often the peer repeats it, whether it is held to the bar, and whether both sides compute the same."""

    name: str
    dimension: int = 1_000_000
    peer_runs: int = 3
    held: bool = True
    same: bool = True


CASES = (
    Case("krum", peer_runs=2),
    Case("multi-krum", peer_runs=2),
    Case("geometric median", peer_runs=1),
    Case("median"),
    Case("caf", peer_runs=1, same=False),
    Case("centred clipping", held=False, peer_runs=2),
    Case("trimmed mean", held=False),
    Case("nnm + geometric median", dimension=50_000, held=False, peer_runs=2),
)


def cohort(dimension: int) -> Any:
    """`[50, dimension]` float32; the first 10 rows are shifted against the others."""
    rng = np.random.default_rng(SEED)
    rows = rng.standard_normal((CLIENTS, dimension), dtype=np.float32) + np.float32(0.05)
    rows[:HOSTILE] = np.float32(1.2) * rows[:HOSTILE] - np.float32(0.46)
    return rows


def radius(dimension: int) -> float:
    """Radius of centred clipping: about the norm of an honest row."""
    return float(np.sqrt(dimension))


def ours() -> Mapping[str, Callable[[Any], Any]]:
    """Haina's rules, with ByzFL's conventions where the two differ."""
    from haina.report import Report
    from haina.strategy.robust import (
        CAF,
        NNM,
        CentredClipping,
        GeometricMedian,
        Krum,
        Median,
        MultiKrum,
        Rule,
        TrimmedMean,
    )
    from haina.update import Cohort

    names = tuple(f"client-{i}" for i in range(CLIENTS))
    reports, shares = (Report(examples=1.0),) * CLIENTS, np.full(CLIENTS, 1 / CLIENTS)

    def run(rule: Rule) -> Callable[[Any], Any]:
        return lambda rows: rule.combine(Cohort(names, reports, rows), shares).vector

    return {
        "krum": run(Krum(HOSTILE, left_out=1)),
        "multi-krum": run(MultiKrum(HOSTILE, left_out=1)),
        "geometric median": run(GeometricMedian()),
        "median": run(Median()),
        "caf": run(CAF(HOSTILE)),
        "centred clipping": lambda rows: run(CentredClipping(radius(rows.shape[1]), iterations=5))(rows),
        "trimmed mean": run(TrimmedMean(HOSTILE)),
        "nnm + geometric median": run(NNM(HOSTILE, then=GeometricMedian())),
    }


def theirs() -> Mapping[str, Callable[[Any], Any]]:
    """ByzFL's rules on NumPy arrays.

    ByzFL imports torchvision for its own data sets, and torchvision brings gigabytes that no rule needs: an empty stand-in takes its place.
    """
    from unittest.mock import MagicMock

    for name in ("torchvision", "torchvision.datasets", "torchvision.transforms"):
        sys.modules.setdefault(name, MagicMock())
    import byzfl

    return {
        "krum": byzfl.Krum(HOSTILE),
        "multi-krum": byzfl.MultiKrum(HOSTILE),
        "geometric median": byzfl.GeometricMedian(nu=1e-6, T=50),
        "median": byzfl.Median(),
        "caf": byzfl.CAF(HOSTILE),
        "centred clipping": lambda rows: byzfl.CenteredClipping(L=5, tau=radius(rows.shape[1]))(rows),
        "trimmed mean": byzfl.TrMean(HOSTILE),
        "nnm + geometric median": lambda rows: byzfl.GeometricMedian(nu=1e-6, T=50)(byzfl.NNM(HOSTILE)(rows)),
    }


def serve(side: str) -> None:
    """The child: reads `{"rule", "dimension"}` lines, answers with the time of one call and every 100th coordinate."""
    rules = ours() if side == "haina" else theirs()
    rows = cohort(1)
    print(json.dumps({"version": importlib.metadata.version(side), "numpy": np.__version__}), flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        if rows.shape[1] != task["dimension"]:
            rows = cohort(task["dimension"])
        wall, cpu = time.perf_counter(), time.process_time()
        vector = rules[task["rule"]](rows)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        probe = np.asarray(vector, dtype=np.float64)[::PROBES].tolist()
        print(json.dumps({"wall": wall, "cpu": cpu, "probe": probe}), flush=True)


@contextmanager
def child(python: Path, side: str) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """A process that runs one side; the function sends it a task and waits for the answer."""
    command = [str(python), str(Path(__file__).resolve()), "--serve", side]
    environment = {**os.environ, **ONE_THREAD}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(task: Mapping[str, Any]) -> dict[str, Any]:
            assert process.stdin is not None
            assert process.stdout is not None
            if task:
                process.stdin.write(json.dumps(task) + "\n")
                process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{side} stopped; its error stands above")
            answer: dict[str, Any] = json.loads(line)
            return answer

        try:
            yield ask
        finally:
            process.stdin.close()


def measure(
    case: Case, runs: int, haina: Callable[..., dict[str, Any]], peer: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Both sides of one case, taking turns, after a warm-up on short vectors."""
    task = {"rule": case.name, "dimension": case.dimension}
    for side in (haina, peer):
        side({**task, "dimension": 1000})
    here: list[dict[str, Any]] = []
    there: list[dict[str, Any]] = []
    for turn in range(runs):
        here.append(haina(task))
        if turn < case.peer_runs:
            there.append(peer(task))
    mine, other = (np.array(answers[-1]["probe"]) for answers in (here, there))
    cpu = [[answer["cpu"] for answer in answers] for answers in (here, there)]
    return {
        "rule": case.name,
        "dimension": case.dimension,
        "haina_cpu": median(cpu[0]),
        "haina_cpu_range": [min(cpu[0]), max(cpu[0])],
        "haina_wall": median(answer["wall"] for answer in here),
        "peer_cpu": median(cpu[1]),
        "peer_cpu_range": [min(cpu[1]), max(cpu[1])],
        "peer_wall": median(answer["wall"] for answer in there),
        "ratio": median(cpu[1]) / median(cpu[0]),
        "difference": float(np.linalg.norm(mine - other) / np.linalg.norm(other)),
    }


def peer_python(given: Path | None) -> Path:
    """The interpreter that has ByzFL: the one named, or an environment made once beside the project's own."""
    if given is not None:
        return given
    home = Path(__file__).resolve().parents[1] / ".venvs" / "byzfl"
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        print(
            f"Making an environment for {', '.join(PEER)} in {home} (once; it brings torch)", file=sys.stderr
        )
        venv.create(home, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *PEER[1:]], check=True)
        subprocess.run([*install, "--no-deps", PEER[0]], check=True)
        (home / ".ready").touch()
    return python


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table and the JSON line; 0 if the bar holds, else 1."""
    parser = argparse.ArgumentParser(description="Robust rules: Haina and ByzFL, CPU seconds on one thread.")
    parser.add_argument(
        "--peer-python",
        type=Path,
        help="an interpreter with byzfl (default: .venvs/byzfl, made when missing)",
    )
    parser.add_argument(
        "--runs", type=int, default=7, help="repetitions of our side (ByzFL's slow rules run 1 to 3 times)"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="multiplies the lengths of the vectors, for a quick look; the bar is for 1",
    )
    parser.add_argument("--serve", choices=("haina", "byzfl"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve)
        return 0
    rows: list[dict[str, Any]] = []
    with (
        child(Path(sys.executable), "haina") as haina,
        child(peer_python(options.peer_python), "byzfl") as peer,
    ):
        versions = {"haina": haina({}), "byzfl": peer({})}
        machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, one thread each"
        print(f"{CLIENTS} clients, {HOSTILE} assumed hostile, float32; {machine}")
        for side, version in versions.items():
            print(f"  {side} {version['version']} on NumPy {version['numpy']}")
        print(
            f"{'rule':24} {'d':>9}  {'haina CPU s (range)':>25}  {'byzfl CPU s (range)':>25}  {'ratio':>7}  {'difference':>10}"
        )
        for case in CASES:
            row = measure(
                Case(**{**vars(case), "dimension": max(1, int(case.dimension * options.scale))}),
                options.runs,
                haina,
                peer,
            )
            row["holds"] = (not case.held or row["ratio"] >= BAR) and (
                not case.same or row["difference"] <= TOLERANCE
            )
            rows.append(row)
            print(
                f"{row['rule']:24} {row['dimension']:9}  {spread(row, 'haina'):>25}  {spread(row, 'peer'):>25}  {row['ratio']:6.1f}x"
                f"  {row['difference']:10.1e}{'' if row['holds'] else '  FAILS'}",
                flush=True,
            )
    holds = all(row["holds"] for row in rows)
    held = [case.name for case in CASES if case.held]
    print(
        f"The bar: {BAR:.0f} times less CPU than ByzFL for {', '.join(held)}; equal to {TOLERANCE:g} but for CAF: {'holds' if holds else 'FAILS'}"
    )
    ratios = {row["rule"]: round(row["ratio"], 1) for row in rows}
    print(
        json.dumps(
            {
                "benchmark": "robust",
                "holds": holds,
                "ratios": ratios,
                "rows": rows,
                "versions": versions,
                "machine": machine,
            }
        )
    )
    return 0 if holds else 1


def spread(row: Mapping[str, Any], side: str) -> str:
    """Median and range as text."""
    low, high = row[f"{side}_cpu_range"]
    return f"{row[f'{side}_cpu']:.3f} ({low:.3f}-{high:.3f})"


if __name__ == "__main__":
    raise SystemExit(main())
