"""The same file and the same rows give the same bytes in simulation and over the network."""

import numpy as np
import pytest
from deployment import deploy

from haina.federation.federation import Federation

FILE = """
name = "same"
seed = 3
[model]
{model}
[data]
sites = {{ a = "a.csv", b = "b.csv", c = "c.csv" }}
target = "died"
features = ["age", "pressure"]
classes = ["no", "yes"]
test = 0
[train]
rounds = {rounds}
learning_rate = 0.3
batch_size = 16
{train}
{strategy}
[serve]
nodes = 3
"""


@pytest.fixture
def sites(tmp_path):
    rng = np.random.default_rng(5)
    for name, rows in (("a", 60), ("b", 45), ("c", 90)):
        x = rng.normal(size=(rows, 2))
        died = rng.random(rows) < 1 / (1 + np.exp(-(0.4 + x @ [1.0, -0.6])))
        lines = [f"{u:.5f},{v:.5f},{'yes' if d else 'no'}" for (u, v), d in zip(x, died, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["age,pressure,died", *lines]) + "\n")
    return {name: tmp_path / f"{name}.csv" for name in "abc"}


def simulated(file):
    federation = Federation.read(file)
    simulation = federation.simulation()
    run, shas = simulation.start(), []
    while run.round < simulation.rounds and not run.finished:
        run, record = simulation.advance(run)
        shas.append(record.model)
    return shas


CASES = {
    "glm": {"model": 'learner = "glm"\nfamily = "binomial"', "rounds": 12},
    "fedadam": {
        "model": 'learner = "jax"\nkind = "mlp"\nhidden = [4]',
        "strategy": '[strategy]\npreset = "fedadam"',
    },
    "scaffold": {
        "model": 'learner = "jax"\nkind = "logistic"',
        "strategy": '[strategy]\npreset = "scaffold"',
    },
    "krum": {
        "model": 'learner = "jax"\nkind = "logistic"',
        "strategy": '[strategy]\nweigh = ["uniform"]\ncombine = {krum = {byzantine = 0}}',
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_simulation_and_deployment_give_the_same_bytes(tmp_path, sites, case):
    file = tmp_path / "federation.toml"
    file.write_text(FILE.format(**{"rounds": 3, "train": "", "strategy": "", **CASES[case]}))
    shas, records = deploy(tmp_path, file, sites)
    expected = simulated(file)
    assert [record["model"] for record in records] == expected
    assert shas[1:] == expected
