"""What dynamic weights bring, and what a liar can do with them: digits, 30 clients, Dirichlet 0.3, 40 rounds.

    ./dev bench weights

Three of the thirty clients flip labels and exaggerate the numbers that weights are made of tenfold. Each weight is run honest, with liars, and
with liars under the cap of 2/K. The one bar: no weight beats sample share by more than a point on honest clients (a claim of the documents).
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

WEIGHTS = {
    "uniform": '["uniform"]',
    "samples": '["samples"]',
    "accuracy": '["accuracy"]',
    "accuracy, checked by the server": "[{accuracy = {checked = true}}]",
    "loss drop per second": '["convergence"]',
    "effective samples": '["effective_samples"]',
    "FedDisco": '["disco"]',
}
LIARS = "[simulation]\nattack = {label_flip = {fraction = 0.1, exaggerate = 10.0}}"
CASES = {"honest": ('"none"', ""), "liars": ('"none"', LIARS), "liars, cap 2/K": ("2.0", LIARS)}


def play(job: tuple[str, str, int]) -> float:
    weight, case, seed = job
    cap, words = CASES[case]
    simulation = Federation.of(
        f"""
seed = {seed}
[model]
learner = "jax"
[data]
source = "sklearn:digits"
partition = {{dirichlet = 0.3, clients = 30}}
test = 400
held = 50
[train]
rounds = 40
steps = 8
batch_size = 16
learning_rate = 0.2
[strategy]
weigh = {WEIGHTS[weight]}
cap = {cap}
{words}"""
    ).simulation()
    run, accuracies = simulation.start(), []
    for _ in range(simulation.rounds):
        run, record = simulation.advance(run)
        accuracies.append(record.metrics["accuracy"])
    return float(np.mean(accuracies[-10:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[340, 341, 342, 343])
    seeds = parser.parse_args().seeds
    jobs = [(weight, case, seed) for weight in WEIGHTS for case in CASES for seed in seeds]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = np.array(list(pool.map(play, jobs, chunksize=3))).reshape(
            len(WEIGHTS), len(CASES), len(seeds)
        )
    means = results.mean(axis=2)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, seeds {seeds}")
    print("weight".ljust(34) + "".join(case.rjust(16) for case in CASES))
    for weight, row in zip(WEIGHTS, means, strict=True):
        print(weight.ljust(34) + "".join(f"{value:.3f}".rjust(16) for value in row))
    honest = dict(zip(WEIGHTS, means[:, 0].tolist(), strict=True))
    best = max(honest.values()) - honest["samples"]
    holds = best <= 0.01
    table = {weight: [round(v, 4) for v in row] for weight, row in zip(WEIGHTS, means.tolist(), strict=True)}
    print(json.dumps({"holds": holds, "best_over_samples": round(best, 4), **table}))
    raise SystemExit(0 if holds else 1)


if __name__ == "__main__":
    main()
