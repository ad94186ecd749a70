"""The files of the demo: what a coordinator and eight sites would have on their own machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from haina.artifact import Array
from haina.data.bundled import load_bundled
from haina.data.federated import federate
from haina.data.partition import Dirichlet
from haina.simulation.rundir import replace_file

SITES = 8

FEDERATION = """\
name = "demo"
seed = {seed}

[model]
learner = "jax"
kind = "mlp"
hidden = [32]

[data]                       # what rows look like; the rows themselves stay at the sites
shape = [64]
classes = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]

[train]
rounds = {rounds}
steps = 8
batch_size = 16
learning_rate = 0.2

[strategy]
preset = "trusted"

[serve]
nodes = 2                    # how many must be there before the first round
quorum = 0.5                 # at its deadline half of the updates make a round
deadline = "adaptive"        # twice what the slow ones took lately,
deadline_min = "2s"          # and no less than this
deadline_max = "60s"
every = "1s"                 # so that one can watch
test = "test.npz"            # the coordinator's own: 400 samples to evaluate models on,
held = "held.npz"            # and 50 that it may judge updates by
"""


@dataclass(frozen=True)
class Site:
    """One site's rows.

    Args:
        name: `site-1` and so on; its file is NAME.npz.
        images: how many it has.
        digits: which make up most of them.
    """

    name: str
    images: int
    digits: tuple[int, ...]


def written(folder: Path, rounds: int, seed: int) -> list[Site]:
    """Divide scikit-learn's 1,797 handwritten digits among sites, unevenly (Dirichlet 0.3), and write everybody's file.

    Args:
        folder: where to.
        rounds: of the federation.
        seed: of the division, and of the federation.
    """
    digits = load_bundled("digits").in_float32()
    data = federate(digits, Dirichlet(0.3, SITES), np.random.default_rng(seed), test=400, held=50)
    np.savez(folder / "test.npz", x=data.test[0], y=data.test[1])
    np.savez(folder / "held.npz", x=data.held[0], y=data.held[1])
    sites = []
    for k in range(SITES):
        x, y = data.clients.of(k)
        site = Site(f"site-{k + 1}", len(y), _mostly(y))
        np.savez(folder / f"{site.name}.npz", x=x, y=y)
        sites.append(site)
    replace_file(folder / "federation.toml", FEDERATION.format(rounds=rounds, seed=seed).encode())
    return sites


def _mostly(y: Array) -> tuple[int, ...]:
    """The fewest classes that hold two thirds of the rows."""
    counts = np.bincount(y, minlength=10)
    common = np.argsort(-counts, kind="stable")
    enough = int(np.searchsorted(np.cumsum(counts[common]), len(y) * 2 / 3)) + 1
    return tuple(sorted(int(digit) for digit in common[:enough]))
