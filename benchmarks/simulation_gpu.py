"""Simulation on a GPU: the two networks of the simulation benchmark, beside pfl-research on the same GPU.

    ./dev bench simulation_gpu
    ./dev bench simulation_gpu --pfl-python /path/to/an/environment/with/pfl/bin/python

W2 and W3 as in simulation.py, the same work and the same marks (`simulation_peers/`). Here seconds are compared and not CPU seconds: a round ends
when its model is back in memory. pfl's rows lie on the GPU before the first round. The torch loop is there for comparison.

The table goes to stdout, and its last line is one JSON object with every figure, and whether each bar holds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "simulation_peers"))

from environments import python_of
from prepare import WORKLOADS
from series import Engine, Series
from tables import Row, figure, ratio

from simulation import ROOT, data_folder, result_of, show

#: Times less seconds a round than pfl.
FASTER = {"w2": 20.0, "w3": 5.0}
CUDA = ("--device", "cuda")
ENGINES = (
    Engine("haina", "with_haina"),
    Engine("pfl", "with_pfl", "pfl", CUDA),
    Engine("torch loop", "limits", options=("--limit", "plain", *CUDA)),
)


def gpu() -> str:
    """Name of the GPU, asked in a process of its own, so that this one takes none of its memory.

    Raises:
        SystemExit: there is none.
    """
    ask = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    told = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    name = told.stdout.strip()
    if not name:
        raise SystemExit("There is no GPU here that torch can use, so there is nothing to measure.")
    return name


def bars(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Which of the bars hold; one whose figures were not all measured is not there."""
    found = {}
    for workload, times in FASTER.items():
        ours, peer = (figure(rows, workload, engine, "wall") for engine in ("haina", "pfl"))
        value = ratio(peer, ours)
        if value is not None:
            name = f"{workload}: times less seconds than pfl on the same GPU"
            found[name] = {"value": value, "bar": times, "holds": value >= times}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and show; 0 if every bar holds, else 1."""
    parser = argparse.ArgumentParser(description="What a round of simulation costs on a GPU, beside pfl.")
    parser.add_argument("--rounds", type=int, default=10, help="measured rounds; one before them warms up")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--learner", default="auto", help="ours, for [model] learner")
    parser.add_argument("--data", type=Path, help="keep workloads and logs in this folder")
    parser.add_argument("--pfl-python", type=Path, help="an interpreter that has pfl and a torch with CUDA")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one run")
    options = parser.parse_args(arguments)
    device = gpu()
    given = {"pfl": options.pfl_python} if options.pfl_python is not None else {}
    pythons = {"pfl": python_of("pfl", ROOT / ".venvs", given)}
    with data_folder(options.data) as data:
        series = Series(data, ENGINES, pythons, options.timeout)
        asked = {name: (WORKLOADS[name], options.rounds + 1) for name in FASTER}
        series.measure(asked, options.repeats, options.learner)
    rows = series.rows()
    settings = {name: getattr(options, name) for name in ("rounds", "repeats", "learner")}
    result = result_of(series, rows, bars(rows), settings)
    result["benchmark"] = "simulation_gpu"
    result["machine"]["gpu"] = device
    return show(result, rows)


if __name__ == "__main__":
    raise SystemExit(main())
