"""`haina demo --simulate`: 30 clients with unlike data learn digits together, five of them attack, and every step is explained."""

from __future__ import annotations

from pathlib import Path

from haina.cli.demo.told import told
from haina.cli.run import follow
from haina.cli.talk import console
from haina.federation import Federation
from haina.simulation.rundir import RunDir

DEMO = """\
name = "demo"
seed = {seed}

[model]
learner = "jax"
kind = "mlp"
hidden = [32]

[data]
source = "sklearn:digits"          # 1,797 handwritten digits that come with scikit-learn
partition = {{dirichlet = 0.3, clients = 30}}   # every client has mostly a few of the ten digits
test = 400
held = 50                          # samples the coordinator may judge updates on

[train]
rounds = {rounds}
steps = 8
batch_size = 16
learning_rate = 0.2

[strategy]
preset = "trusted"

[simulation]
attack = {{sign_flip = {{fraction = 0.1667}}}}   # five clients send the opposite of what they learnt
"""


def demo(out: Path, rounds: int | None, seed: int) -> None:
    """Play the demo and explain it."""
    federation = Federation.of(DEMO.format(seed=seed, rounds=rounds or 60), "demo.toml")
    folder = RunDir(out)
    console.rule("[bold]Haina: 30 clients learn handwritten digits, five of them attack")
    hostile = sorted(federation.simulation().hostile)
    console.print(
        f"Each client holds about {federation.data.clients.sizes.mean():.0f} images, mostly of a few digits. "
        f"{', '.join(hostile)} send the opposite of what they learnt; the coordinator is not told.\n"
    )
    with folder.alone():
        folder.clear()
        follow(federation, folder)
    told(folder, hostile)
    console.print("Next: ./dev haina new my-project, and docs/first-run.md")
