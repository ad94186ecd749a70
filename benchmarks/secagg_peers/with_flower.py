"""Flower's side: its own client mod and its own workflow, in one process, with nothing between them but a hand that passes messages.

The workflow's time less the clients' is the server's. A client that drops out stops answering after it has shared.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

import flwr
import flwr.compat.common.recorddict_compat as compat
import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.client.mod.secure_aggregation.secaggplus_mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.supercore.task_identity import TaskIdentity
from inputs import MOST, RANGE, mean, serve, vector, weight

logging.getLogger("flwr").setLevel(logging.ERROR)
TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
cpu = time.process_time
STAGES = ("setup_stage", "share_keys_stage", "collect_masked_vectors_stage", "unmask_stage")


class Proxy:
    """A client as the workflow knows it."""

    def __init__(self, node: int) -> None:
        self.node_id, self.cid = node, str(node)


class Clients:
    """What the workflow asks of a client manager and of a strategy."""

    def __init__(self, nodes: list[int]) -> None:
        self.nodes = nodes

    def num_available(self) -> int:
        """How many there are."""
        return len(self.nodes)

    def configure_fit(self, number: int, parameters: Any, manager: Any) -> list[Any]:
        """Everyone is asked."""
        return [(Proxy(node), FitIns(parameters, {})) for node in self.nodes]

    def aggregate_fit(self, number: int, results: Any, failures: Any) -> Any:
        """The sum is opened by now."""
        self.out = parameters_to_ndarrays(results[0][1].parameters)[0]
        return results[0][1].parameters, {}


class Hand:
    """Passes each message of the server to its client, and the answer back."""

    def __init__(self, rows: dict[int, Any], gone: set[int]) -> None:
        self.rows, self.gone = rows, gone
        self.contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in rows
        }
        self.times: dict[str, list[float]] = defaultdict(list)
        self.spent, self.upload = 0.0, 0

    def trained(self, message: Message, context: Context) -> Message:
        """What training would have given."""
        node = message.metadata.dst_node_id
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters([self.rows[node]]), weight(node - 1), {})
        return Message(compat.fitres_to_recorddict(result, True), reply_to=message)

    def send_and_receive(self, messages: Any, timeout: float | None = None) -> list[Message]:
        """The clients' answers."""
        out, begin = [], cpu()
        for message in messages:
            settings, node = message.content.config_records[RECORD_KEY_CONFIGS], message.metadata.dst_node_id
            stage = settings[Key.STAGE]
            if node in self.gone and stage in (Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK):
                continue
            content = RecordDict(dict(message.content.items()))
            content.config_records[RECORD_KEY_CONFIGS] = ConfigRecord(dict(settings))
            own = Message(
                content,
                dst_node_id=node,
                message_type=message.metadata.message_type,
                group_id=message.metadata.group_id,
            )
            start = cpu()
            answer = secaggplus_mod(own, self.contexts[node], self.trained)
            self.times[stage].append(cpu() - start)
            if stage == Stage.COLLECT_MASKED_VECTORS:
                sent = answer.content.config_records[RECORD_KEY_CONFIGS].values()
                self.upload = sum(len(part) for value in sent if isinstance(value, list) for part in value)
            out.append(answer)
        self.spent += cpu() - begin
        return out


def play(members: int, dimension: int, degree: int, threshold: int, drop: float = 0.1) -> dict[str, Any]:
    """One round, as ours: the first tenth vanishes after it has shared."""
    rows = {node: vector(node - 1, dimension) for node in range(1, members + 1)}
    gone = set(list(rows)[: round(drop * members)])
    hand, clients = Hand(rows, gone), Clients(list(rows))
    state: Any = LegacyContext(
        Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={}),
        strategy=clients,
        client_manager=clients,
    )
    state.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord({WorkflowKey.CURRENT_ROUND: 1})
    state.state.array_records[MAIN_PARAMS_RECORD] = compat.parameters_to_arrayrecord(
        ndarrays_to_parameters([np.zeros(dimension, np.float32)]), True
    )
    workflow = SecAggPlusWorkflow(
        num_shares=degree + 1,
        reconstruction_threshold=threshold,
        max_weight=float(MOST),
        clipping_range=RANGE,
    )
    stages: dict[str, float] = {}

    def timed(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            spent, start = hand.spent, cpu()
            out = stage(*arguments)
            stages[name] = cpu() - start - (hand.spent - spent)
            return out

        return call

    for name in STAGES:
        setattr(workflow, name, timed(name, getattr(workflow, name)))
    workflow(hand, state)
    left = [node - 1 for node in rows if node not in gone]
    return {
        "client": sum(median(times) for times in hand.times.values()),
        "client_steps": {stage: median(times) for stage, times in hand.times.items()},
        "server": sum(stages.values()),
        "server_steps": stages,
        "upload": hand.upload,
        "error": float(np.abs(clients.out - mean(left, dimension)).max()),
    }


if __name__ == "__main__":
    serve({"play": play}, {"version": flwr.__version__, "numpy": np.__version__})
