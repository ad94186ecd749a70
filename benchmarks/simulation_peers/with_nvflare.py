"""NVFLARE's simulator (FedAvgRecipe in SimEnv), one process a site.

Its recipe invites everybody, so as many sites are registered as a cohort has clients, and site i plays the i-th client of each round. Marks are made
by the first site when the model of a round reaches it; one round more than asked for shows when the last one ended.
"""

from __future__ import annotations

import re
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from marks import Marks, arguments
from numpy.typing import NDArray
from workload import Replay, Workload


def federation(folder: Path, rounds: int, marks: str, weights: Path) -> None:
    """The server's side, which starts this script once a site."""
    from network import OfFolder
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.recipe.sim_env import SimEnv

    cohort = Workload.read(folder).cohort
    recipe = FedAvgRecipe(
        name="simulation",
        model=OfFolder(str(folder)),
        min_clients=cohort,
        num_rounds=rounds + 1,
        train_script=str(Path(__file__).resolve()),
        train_args=f"{folder} --rounds {rounds} --marks {marks} --weights {weights} --site yes",
    )
    with tempfile.TemporaryDirectory() as workspace:
        simulated = SimEnv(
            num_clients=cohort, num_threads=cohort, workspace_root=workspace, log_config="error"
        )
        recipe.execute(simulated)


def site(folder: Path, rounds: int, address: str, weights: Path) -> None:
    """One client."""
    import nvflare.client as flare
    import torch
    from network import network, train

    torch.set_num_threads(1)
    replay = Replay(folder)
    module = network(replay.workload, replay.initial)
    x, y = torch.from_numpy(replay.x), torch.from_numpy(replay.y)
    flare.init()
    place = int(re.findall(r"\d+", flare.get_site_name())[0]) - 1
    marks = Marks(address, weights) if place == 0 else None
    if marks is not None:
        marks.versions("nvflare", "torch")
    number = 0
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        params: dict[str, Any] = received.params
        if marks is not None and number <= rounds:
            if number:
                marks.end(partial(flat, params))
            if number < rounds:
                marks.begin()
        number += 1
        module.load_state_dict({name: torch.as_tensor(np.asarray(value)) for name, value in params.items()})
        if number <= rounds:
            client = replay.cohort(number)[place]
            rows = replay.rows(client)
            optimiser = torch.optim.SGD(module.parameters(), lr=replay.workload.rate)
            train(module, optimiser, x[rows], y[rows], replay.batches(number, place))
            size = replay.size(client)
        # Tensors, not arrays: arrays are left out of the update, with a warning that the log hides.
        trained = {name: value.clone() for name, value in module.state_dict().items()}
        flare.send(flare.FLModel(params=trained, meta={"NUM_STEPS_CURRENT_ROUND": size}))


def flat(params: dict[str, Any]) -> NDArray[Any]:
    return np.concatenate([np.asarray(value).reshape(-1) for value in params.values()])


def main() -> None:
    told = arguments(str(__doc__), site={"default": ""})
    (site if told.site else federation)(told.folder, told.rounds, told.marks, told.weights)


if __name__ == "__main__":
    sys.exit(main())
