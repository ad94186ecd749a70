"""Prepare: make a workload's folder. The schedule is haina's own, written down, so that the peers can replay it without haina.

Who is invited comes from the strategy's selector, and what a client's batches come from is `haina.learners.learner.client_rng`. Rows are drawn from a
fixed seed: Synthetic(1, 1) for the logistic model; for the networks and the sweep, rows whose values mean nothing, as time does not depend on them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from workload import Workload

from haina.data.synthetic import Synthetic
from haina.federation import Federation
from haina.learners.learner import client_key

#: Rows of a client of each network and of the sweep.
ROWS = {"mlp": 600, "cnn": 300, "logistic": 10}
#: Rows to evaluate on, where an engine evaluates.
TEST_ROWS = 5000
#: Rows drawn at once.
_BLOCK = 1 << 16

WORKLOADS = {
    "w1": Workload("logistic", (60,), 10, (), clients=1000, cohort=100, batch=10, epochs=5, rate=0.01),
    "w2": Workload("mlp", (784,), 10, (200, 200), clients=100, cohort=10, batch=20, epochs=5, rate=0.05),
    "w3": Workload("cnn", (28, 28), 62, (), clients=100, cohort=10, batch=20, epochs=1, rate=0.05),
}


def sweep(registered: int) -> Workload:
    """Almost no training (one step a client), to show what a registered client costs."""
    return Workload("logistic", (10,), 10, (), clients=registered, cohort=10, batch=10, epochs=1, rate=0.05)


def prepare(workload: Workload, folder: Path, rounds: int, learner: str) -> list[list[str]]:
    """Make the folder; rows that lie there already are kept.

    Args:
        workload: what to make.
        folder: where; see `workload` for what it then holds.
        rounds: of the schedule.
        learner: ours, for `[model] learner`.

    Returns:
        The names of the clients invited in each round.
    """
    if not (folder / "workload.json").exists() or Workload.read(folder) != workload:
        _rows(workload, folder)
    for name, source in (("federation", "clients/"), ("evaluated", "evaluated/")):
        (folder / f"{name}.toml").write_text(federation_file(workload, source, learner))
    names = _schedule(folder, workload, rounds)
    workload.write(folder)
    return names


def federation_file(workload: Workload, source: str, learner: str) -> str:
    """The federation that an engine of ours runs: plain federated averaging by samples, as the peers do it."""
    hidden = f"hidden = {list(workload.hidden)}\n" if workload.kind == "mlp" else ""
    return f"""\
name = "simulation"
seed = {workload.seed}
[model]
learner = "{learner}"
kind = "{workload.kind}"
{hidden}[data]
source = "{source}"
[train]
rounds = 100000
clients_per_round = {workload.cohort}
epochs = {workload.epochs}
batch_size = {workload.batch}
learning_rate = {workload.rate}
[strategy]
preset = "fedavg"
cap = "none"
"""


def _rows(workload: Workload, folder: Path) -> None:
    clients, tested = folder / "clients", folder / "evaluated"
    for each in (clients, tested):
        each.mkdir(parents=True, exist_ok=True)
        for old in each.glob("*.npy"):
            old.unlink()
    rng = np.random.default_rng(0)
    if workload == WORKLOADS["w1"]:
        data = Synthetic(1.0, 1.0, devices=workload.clients).generate(rng)
        assert data.groups is not None
        _, sizes = np.unique(data.groups, return_counts=True)
        np.save(clients / "x.npy", data.x)
        np.save(clients / "y.npy", data.y.astype(np.int64))
    else:
        sizes = np.full(workload.clients, ROWS[workload.kind])
        _drawn(clients, int(sizes.sum()), workload, rng)
    np.save(clients / "offsets.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    for array in clients.iterdir():
        os.link(array, tested / array.name)
    x, y = (np.load(clients / name, mmap_mode="r") for name in ("x.npy", "y.npy"))
    chosen = np.sort(rng.choice(len(y), min(TEST_ROWS, len(y)), replace=False))
    np.save(tested / "test_x.npy", x[chosen])
    np.save(tested / "test_y.npy", y[chosen])


def _drawn(folder: Path, rows: int, workload: Workload, rng: np.random.Generator) -> None:
    """Rows near a pattern of their class, block by block."""
    patterns = rng.random((workload.outputs, *workload.features), np.float32)
    shape = (rows, *workload.features)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, shape)
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.int64, (rows,))
    for start in range(0, rows, _BLOCK):
        stop = min(start + _BLOCK, rows)
        y[start:stop] = rng.integers(workload.outputs, size=stop - start)
        noise = rng.random((stop - start, *workload.features), np.float32)
        x[start:stop] = 0.6 * patterns[y[start:stop]] + 0.4 * noise
    x.flush()
    y.flush()


class _Noted:
    """A population that remembers whose name was asked for, so that a million clients need no list of names."""

    def __init__(self, population: Any) -> None:
        self._population, self.places = population, dict[str, int]()

    def __len__(self) -> int:
        return len(self._population)

    def name(self, index: int) -> str:
        name: str = self._population.name(index)
        self.places[name] = index
        return name

    def examples(self, index: int) -> int:
        return int(self._population.examples(index))

    @property
    def cumulative(self) -> NDArray[np.int64]:
        out: NDArray[np.int64] = self._population.cumulative
        return out


#: Purpose of the random stream of selection (`haina.simulation.simulation`).
_SELECTION = 201


def _schedule(folder: Path, workload: Workload, rounds: int) -> list[list[str]]:
    simulation = Federation.read(folder / "federation.toml").simulation()
    run, population = simulation.start(), _Noted(simulation.data)
    invited = [
        simulation.strategy.select.choose(
            population,
            workload.cohort,
            run.state.members,
            np.random.default_rng([workload.seed, number, _SELECTION]),
        )
        for number in range(1, rounds + 1)
    ]
    np.save(folder / "init.npy", run.model)
    np.save(folder / "cohorts.npy", np.array([[population.places[n] for n in names] for names in invited]))
    np.save(folder / "keys.npy", np.array([[client_key(n) for n in names] for names in invited], np.uint64))
    return invited
