"""Flower's simulation (flwr[simulation], Ray): FedAvg with a message to each invited client, one actor a core up to two.

The client sampled by Flower plays the client that the schedule names. An actor keeps data and module between messages, as a careful user would do.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

os.environ.update(FLWR_TELEMETRY_ENABLED="0", FLWR_DISABLE_UPDATE_CHECK="1", RAY_USAGE_STATS_ENABLED="0")

import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from marks import Marks, arguments
from workload import Replay

ACTORS = min(2, os.cpu_count() or 1)


def client_app(folder: str) -> ClientApp:
    """Made in a function, so that actors get it with what it refers to."""
    kept: dict[str, Any] = {}
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:
        from pathlib import Path

        import torch
        from network import network
        from network import train as local
        from workload import Replay

        if not kept:
            torch.set_num_threads(1)
            replay = Replay(Path(folder))
            tensors = torch.from_numpy(replay.x), torch.from_numpy(replay.y)
            kept.update(replay=replay, tensors=tensors, module=network(replay.workload))
        replay, (x, y), module = kept["replay"], kept["tensors"], kept["module"]
        config = message.content["config"]
        number, place = int(config["server-round"]), int(config["place"])
        client = replay.cohort(number)[place]
        rows = replay.rows(client)
        module.load_state_dict(message.content["arrays"].to_torch_state_dict())
        optimiser = torch.optim.SGD(module.parameters(), lr=replay.workload.rate)
        local(module, optimiser, x[rows], y[rows], replay.batches(number, place))
        answer = {
            "arrays": ArrayRecord(module.state_dict()),
            "metrics": MetricRecord({"num-examples": replay.size(client)}),
        }
        return Message(RecordDict(answer), reply_to=message)

    return app


class Scheduled(FedAvg):
    """FedAvg that tells each sampled node which client of the cohort it plays, and marks the rounds."""

    def __init__(self, marks: Marks, **settings: Any) -> None:
        super().__init__(**settings)
        self._marks = marks

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Any
    ) -> Iterable[Message]:
        if self._marks.round:
            self._marks.end(lambda: flat(arrays))
        self._marks.begin()
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        answered = list(replies)
        failed = [reply.error.reason for reply in answered if reply.has_error()]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(answered)} clients failed: {failed[0]}")
        return super().aggregate_train(server_round, answered)

    def _construct_messages(
        self, record: RecordDict, node_ids: list[int], message_type: str
    ) -> list[Message]:
        config = record["config"]
        return [
            Message(
                content=RecordDict({**record, "config": ConfigRecord({**config, "place": place})}),
                message_type=message_type,
                dst_node_id=node,
            )
            for place, node in enumerate(node_ids)
        ]


def flat(arrays: ArrayRecord) -> Any:
    return torch.cat([value.reshape(-1) for value in arrays.to_torch_state_dict().values()]).numpy()


def main() -> None:
    told = arguments(str(__doc__))
    replay = Replay(told.folder)
    workload = replay.workload
    app = ServerApp()

    @app.main()
    def serve(grid: Any, context: Any) -> None:
        from network import network

        marks = Marks(told.marks, told.weights)
        marks.versions("flwr", "ray", "torch")
        strategy = Scheduled(
            marks,
            fraction_train=workload.cohort / workload.clients,
            fraction_evaluate=0.0,
            min_available_nodes=workload.clients,
            min_train_nodes=workload.cohort,
        )
        first = ArrayRecord(network(workload, replay.initial).state_dict())
        result = strategy.start(grid=grid, initial_arrays=first, num_rounds=told.rounds)
        marks.end(lambda: flat(result.arrays))

    logging.getLogger("flwr").setLevel(logging.WARNING)
    run_simulation(
        server_app=app,
        client_app=client_app(str(told.folder)),
        num_supernodes=workload.clients,
        backend_config={
            "init_args": {"num_cpus": ACTORS, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0},
        },
    )


if __name__ == "__main__":
    main()
