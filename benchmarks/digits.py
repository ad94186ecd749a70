"""Accuracy under attack: digits, 30 clients, 80 rounds, every defence on the same seeds.

    ./dev bench digits                     the table that the documents quote (about 10 minutes on two cores)
    ./dev bench digits --seeds 400 401     other seeds

Setting: MLP 64-32-10, 8 local steps of batch 16, learning rate 0.2, Dirichlet label skew, 400 test rows, 50 rows held by the server (5 of
every class), mean of the last ten evaluations. Trust was tuned on seeds 100 to 103 of another simulator; the default seeds here were never tuned on.
A quarantine is false when the client is honest. Rivals: FedAvg, the geometric median after nearest-neighbour mixing (f = 0.4 K), and FLTrust (Cao
et al. 2021) with the same server samples.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np

from haina.federation import Federation
from haina.strategy.parts import Assessment, Combined
from haina.strategy.record import Verdict
from haina.strategy.strategy import Strategy

ATTACKS = {
    "none": "",
    "sign 20%": "sign_flip = {fraction = 0.2}",
    "sign 40%": "sign_flip = {fraction = 0.4}",
    "label 40%": "label_flip = {fraction = 0.4}",
    "ALIE 40%": "alie = {fraction = 0.4}",
    "sleepers 30%": "sleeper = {fraction = 0.3, start = 31}",
}
BARS = {
    ("trusted", 0.3): (0.96, 0.94, 0.90, 0.94, 0.94, 0.94, 0.87),
    ("trusted", 0.1): (0.94, 0.91, 0.91, 0.93, 0.92, 0.92, 0.88),
    ("robust", 0.3): (0.945, 0.93, 0.89, 0.94, 0.94, 0.94, 0.86),
}
RIVALS = ("fedavg", "nnm", "fltrust")


@dataclass(frozen=True)
class FLTrust:
    """FLTrust as a trust part: shares ~ ReLU(cosine to the server's update), every update at the server's length."""

    needs_judge: ClassVar[bool] = True
    columns: ClassVar[dict[str, float]] = {}

    def init(self) -> dict[str, Any]:
        return {}

    def assess(self, view: Any, prior: Any, cap: Any, state: Any, combine: Any) -> Assessment:
        own = view.judge.direction()
        gram = view.cohort.extended([own]).gram
        norms = np.sqrt(np.diag(gram)) + 1e-12
        towards = np.maximum(gram[:-1, -1] / (norms[:-1] * norms[-1]), 0)
        shares = towards / max(towards.sum(), 1e-12) * norms[-1] / norms[:-1]
        combined = Combined(view.cohort.combine(shares), shares)
        return Assessment(towards, view.members, state, combined=combined)


def federation(preset: str, alpha: float, attack: str, seed: int) -> Federation:
    words = f"[simulation]\nattack = {{{attack}}}\n" if attack else ""
    return Federation.of(
        f"""
name = "digits"
seed = {seed}
[model]
learner = "jax"
hidden = [32]
[data]
source = "sklearn:digits"
partition = {{dirichlet = {alpha}, clients = 30}}
test = 400
held = 50
[train]
rounds = 80
steps = 8
batch_size = 16
learning_rate = 0.2
[strategy]
preset = "{"fedavg" if preset == "fltrust" else preset}"
{words}"""
    )


def play(job: tuple[str, float, str, int]) -> dict[str, Any]:
    preset, alpha, attack, seed = job
    from dataclasses import replace

    simulation = federation(preset, alpha, ATTACKS[attack], seed).simulation()
    if preset == "fltrust":
        strategy: Strategy = replace(simulation.strategy, trust=FLTrust())
        simulation = replace(simulation, strategy=strategy)
    run, accuracies, quarantined, honest = simulation.start(), [], 0, 0
    for _ in range(simulation.rounds):
        run, record = simulation.advance(run)
        accuracies.append(record.metrics["accuracy"])
        ours = [client for client in record.clients if client.client not in simulation.hostile]
        quarantined += sum(client.verdict is Verdict.QUARANTINED for client in ours)
        honest += len(ours)
    return {
        "preset": preset,
        "alpha": alpha,
        "attack": attack,
        "seed": seed,
        "accuracy": float(np.mean(accuracies[-10:])),
        "false_quarantine": quarantined / honest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(330, 338)))
    parser.add_argument("--presets", nargs="+", default=["trusted", "robust", *RIVALS])
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.3, 0.1])
    arguments = parser.parse_args()
    jobs = [
        (p, a, k, s)
        for p in arguments.presets
        for a in arguments.alphas
        for k in ATTACKS
        for s in arguments.seeds
    ]
    start = time.perf_counter()
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        results = list(pool.map(play, jobs, chunksize=4))
    print(
        f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {time.perf_counter() - start:.0f} s, seeds {arguments.seeds}"
    )
    summary: dict[str, Any] = {"holds": True, "misses": []}
    for alpha in arguments.alphas:
        print(
            f"\nDirichlet {alpha}".ljust(16)
            + "".join(name.rjust(14) for name in ATTACKS)
            + "worst".rjust(9)
            + "false quarantine".rjust(26)
        )
        for preset in arguments.presets:
            line(preset, alpha, results, summary)
    print(json.dumps(summary))
    raise SystemExit(0 if summary["holds"] else 1)


def line(preset: str, alpha: float, results: list[dict[str, Any]], summary: dict[str, Any]) -> None:
    mine = [r for r in results if (r["preset"], r["alpha"]) == (preset, alpha)]
    cells = [float(np.mean([r["accuracy"] for r in mine if r["attack"] == name])) for name in ATTACKS]
    worst = min(r["accuracy"] for r in mine)
    false = {
        name: float(np.mean([r["false_quarantine"] for r in mine if r["attack"] == name])) for name in ATTACKS
    }
    most = max(value for name, value in false.items() if name != "none")
    print(
        preset.ljust(15)
        + "".join(f"{cell:.3f}".rjust(14) for cell in cells)
        + f"{worst:.3f}".rjust(9)
        + f"none {false['none']:.1%}, most {most:.1%}".rjust(26)
    )
    summary[f"{preset} {alpha}"] = [round(cell, 4) for cell in (*cells, worst)]
    bars = BARS.get((preset, alpha))
    if bars is None:
        return
    checks = dict(zip((*ATTACKS, "worst run"), zip((*cells, worst), bars, strict=True), strict=True))
    misses = [
        f"{preset} {alpha} {name}: {got:.3f} < {bar}" for name, (got, bar) in checks.items() if got < bar
    ]
    misses += [f"{preset} {alpha} false quarantine without attack {false['none']:.3f} > 0.01"] * (
        false["none"] > 0.01
    )
    misses += [f"{preset} {alpha} false quarantine under attack {most:.3f} > 0.05"] * (most > 0.05)
    summary["misses"] += misses
    summary["holds"] = summary["holds"] and not misses


if __name__ == "__main__":
    main()
