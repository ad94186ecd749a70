"""What privacy costs in accuracy: digits, 300 clients of about five rows each, 40 rounds, epsilon 8 at delta 1e-3 for each client.

    ./dev bench privacy

The same federation without privacy, with secure aggregation alone, and with noise in each place; also at epsilon 2. Limit, rate and rounds were
chosen on seeds 500 and 501, for distributed noise at epsilon 8. The bars: secure aggregation alone costs nothing, noise in parts costs no more
than three points, and every run keeps its budget.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from concurrent.futures import ProcessPoolExecutor

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np

from haina.federation import Federation

BASE = """
seed = {seed}
[model]
learner = "jax"
kind = "logistic"
[data]
source = "sklearn:digits"
partition = {{iid = {{clients = 300}}}}
[train]
rounds = 40
epochs = 5
batch_size = 16
learning_rate = 0.3
evaluate_every = 40
[strategy]
weigh = ["uniform"]
"""
CASES = {
    "no privacy": "",
    "secure aggregation": "secure_aggregation = true",
    "central": 'noise = "central"\nclip = 0.5\nbudget = {{epsilon = {epsilon}, delta = 1e-3}}',
    "central, adaptive clip": 'noise = "central"\nclip = {{adaptive = {{start = 0.5}}}}\nbudget = {{epsilon = {epsilon}, delta = 1e-3}}',
    "distributed, in a secure sum": 'noise = "distributed"\nclip = 0.5\nsecure_aggregation = true\n'
    "budget = {{epsilon = {epsilon}, delta = 1e-3}}",
    "the same, in groups of 30": 'noise = "distributed"\nclip = 0.5\nsecure_aggregation = {{group = 30}}\n'
    "budget = {{epsilon = {epsilon}, delta = 1e-3}}",
    "local": 'noise = "local"\nclip = 0.5\nbudget = {{epsilon = {epsilon}, delta = 1e-3}}',
}
EPSILONS = (8.0, 2.0)


def play(job: tuple[str, float, int]) -> tuple[float, float]:
    case, epsilon, seed = job
    words = CASES[case]
    text = BASE.format(seed=seed) + (f"[privacy]\n{words.format(epsilon=epsilon)}" if words else "")
    simulation = Federation.of(text).simulation()
    run, spent = simulation.start(), 0.0
    while run.round < simulation.rounds and not run.finished:
        run, record = simulation.advance(run)
        spent = float(record.notes.get("epsilon", 0.0))
    return float(record.metrics["accuracy"]), spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(510, 518)))
    seeds = parser.parse_args().seeds
    jobs = [(case, epsilon, seed) for case in CASES for epsilon in EPSILONS for seed in seeds]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = np.array(list(pool.map(play, jobs, chunksize=2)))
    table = results.reshape(len(CASES), len(EPSILONS), len(seeds), 2)
    accuracy, spent = table[..., 0], table[..., 1]
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, seeds {seeds[0]} to {seeds[-1]}"
    )
    print("".ljust(32) + "".join(f"epsilon {epsilon:g}".rjust(24) for epsilon in EPSILONS))
    for case, row in zip(CASES, accuracy, strict=True):
        cells = (f"{one.mean():.3f} ({one.min():.3f} to {one.max():.3f})" for one in row)
        print(case.ljust(32) + "".join(cell.rjust(24) for cell in cells))
    mean = {case: row.mean(axis=1).round(4).tolist() for case, row in zip(CASES, accuracy, strict=True)}
    kept = bool((spent <= np.array(EPSILONS)[None, :, None] + 1e-9).all())
    same = abs(mean["secure aggregation"][0] - mean["no privacy"][0]) < 0.002
    close = mean["no privacy"][0] - mean["distributed, in a secure sum"][0] < 0.03
    holds = kept and same and close
    print(json.dumps({"holds": holds, "budgets_kept": kept, **mean}))
    raise SystemExit(0 if holds else 1)


if __name__ == "__main__":
    main()
