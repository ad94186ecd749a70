"""Flower's FedAvg over one vector; the beginning of each round goes to a file, so that CPU can be read off at the right moments."""

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    times = Path("times.jsonl")

    def configure_train(self, server_round, *args, **kwargs):
        self.note(server_round)
        return super().configure_train(server_round, *args, **kwargs)

    def note(self, number):
        with self.times.open("a") as file:
            file.write(json.dumps({"round": number, "at": time.time()}) + "\n")


@app.main()
def main(grid, context):
    parameters, nodes, rounds = (int(context.run_config[key]) for key in ("parameters", "nodes", "rounds"))
    first = ArrayRecord([np.random.default_rng(1).standard_normal(parameters, dtype=np.float32)])
    strategy = Timed(
        fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes
    )
    strategy.times = Path(context.run_config["times"])
    strategy.start(grid=grid, initial_arrays=first, num_rounds=rounds, timeout=900)
    strategy.note(rounds + 1)
