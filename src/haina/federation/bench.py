"""Bench: local training in a process of its own, so that what a framework does to its process it does to nobody else.

A node trains its own rows there, and a coordinator has its models evaluated and judged there. Each method is one call to the process
(`haina.federation.worker`), over `haina.federation.child`. A simulation shares its clients out among several (`haina.federation.workers`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from haina.artifact import Array, pieces
from haina.data.schema import Schema
from haina.federation.answers import result_of
from haina.federation.child import BenchError as BenchError
from haina.federation.child import Child, Message
from haina.federation.federation import Federation
from haina.federation.task import Memory
from haina.learners.learner import Metrics
from haina.update import Failure, Result, Vector
from haina.wire.messages import Task

#: Bytes of increments that are sent to the judge at once.
_PART = 1 << 26

#: A model: its vector, or the file with its bytes.
Model = Array | Path

Rows = Literal["site", "test", "held"]


@dataclass(frozen=True)
class Trained:
    """What became of a client's training.

    Args:
        result: the update, or why there is none; may be sent.
        memory: what the client remembers for its next round; stays with it. Empty after a failure, when the memory before it stands.
        where: for a failure, the places in the code, a line each; may be sent.
        words: for a failure, what it said; for this machine only, as it may tell of rows.
    """

    result: Result
    memory: Memory = field(default_factory=dict)
    where: str = ""
    words: str = ""


class Bench:
    """One training process; use as a context manager, from one thread at a time (`close` from any).

    Args:
        federation: what it trains.
        site: where the own rows are, for a node (`Federation.site`); None for a coordinator, which has test and held rows as the file says.
        niceness: added to the priority of this process, 0 (the same) to 19 (gives way to all others).
        threads: of the numerical libraries; None for what they choose themselves. One thread gives the same sums on every machine.
        limit: seconds that a call may take unless it says otherwise, its process's start included; None for no limit.

    `limit` may be changed, and so may `child.niceness` and `child.threads`, for which the next call starts the process anew.
    """

    def __init__(
        self,
        federation: Federation,
        *,
        site: str | Path | None = None,
        niceness: int = 0,
        threads: int | None = 1,
        limit: float | None = 600.0,
    ) -> None:
        self._federation, self.limit = federation, limit
        self.child = Child(hello(federation, site), niceness, threads)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self, limit: float | None = None) -> None:
        """Start the process, import the framework and read the own rows, so that what is wrong is said now. Not needed: a call starts it as well.

        Raises:
            BenchError: as every call: the process died three times, took too long, or met an error.
        """
        self._ask("ready", limit=limit)

    def close(self) -> None:
        """End the process for good, in the middle of a call if need be; that call then raises."""
        self.child.close()

    def schema(self, limit: float | None = None) -> Schema:
        """What rows look like, found from rows if need be, without reading them in this process."""
        _, words = self._ask("schema", limit=limit)
        return Schema.from_json(words["schema"])

    def examples(self, rows: Rows = "site", limit: float | None = None) -> int:
        """How many rows there are."""
        arrays, _ = self._ask("examples", words={"rows": rows}, limit=limit)
        return int(arrays["examples"])

    def initial(self, seed: int | None = None, limit: float | None = None) -> bytes:
        """The bytes of the model before the first round; of the federation's seed if none is given."""
        words = {"seed": str(self._federation.seed if seed is None else seed)}
        arrays, _ = self._ask("initial", words=words, limit=limit)
        return arrays["model"].tobytes()

    def train(
        self,
        task: Task,
        client: str,
        model: Model,
        *,
        control: Array | None = None,
        memory: Memory | None = None,
        limit: float | None = None,
    ) -> Trained:
        """Train the own rows. The same task, client, model, control and memory give the same update.

        Args:
            task: what to do.
            client: the client's name.
            model: `[d]` vector, or the file with the model's bytes.
            control: `[d]` the task's control vector, or None.
            memory: what the client remembers; from the last `Trained` whose update was sent, None before the first.
            limit: seconds.

        Raises:
            BenchError: the process died three times or took too long. Errors of training are `Trained` failures.
        """
        arrays = {f"memory/{name}": array for name, array in (memory or {}).items()}
        if control is not None:
            arrays["control"] = control
        words = {"task": task.model_dump_json(), "client": client}
        try:
            answer = self._ask("train", model, arrays, words, limit)
        except BenchError as error:
            if error.own:
                raise
            return Trained(Failure(client, error.reason), where=error.where, words=str(error))
        result, kept = result_of(*answer)
        return Trained(result, kept, words=result.reason if isinstance(result, Failure) else "")

    def evaluate(self, model: Model, rows: Rows = "test", limit: float | None = None) -> Metrics | None:
        """Loss, accuracy and the like; None without rows, or where each client has a model of its own."""
        _, words = self._ask("evaluate", model, words={"rows": rows}, limit=limit)
        return Metrics(**json.loads(words["metrics"])) if "metrics" in words else None

    def judge(self, model: Model, round: int, learning_rate: float) -> RemoteJudge:
        """The opinion of the held rows in a round that trains `model` at `learning_rate`."""
        return RemoteJudge(self, model, round, learning_rate)

    def tell(
        self, model: Model, state: Mapping[str, Array], *, finished: bool, limit: float | None = None
    ) -> str | None:
        """What an exact learner says of a run, from its model and `StrategyState.to_arrays`; None for other learners."""
        arrays = {f"state/{name}": array for name, array in state.items()}
        _, words = self._ask("tell", model, arrays, {"finished": str(int(finished))}, limit)
        return words.get("told")

    def _ask(
        self,
        call: str,
        model: Model | None = None,
        arrays: Mapping[str, Array] | None = None,
        words: Mapping[str, str] | None = None,
        limit: float | None = None,
    ) -> Message:
        """One call with one answer."""
        arrays, words = dict(arrays or {}), {**(words or {}), "call": call}
        if isinstance(model, Path):
            words["path"] = str(model.resolve())
        elif model is not None:
            arrays["model"] = model
        return self.child.call(pieces(arrays, words), 1, self.limit if limit is None else limit)[0]


@dataclass(frozen=True)
class RemoteJudge:
    """The held rows' opinion (`haina.strategy.parts.Judge`), asked of a bench; the same numbers as `HeldSamples` gives here.

    Args:
        bench: with the held rows.
        model: current model.
        round: number of the round.
        learning_rate: eta of the round.
    """

    bench: Bench
    model: Model
    round: int
    learning_rate: float

    @property
    def examples(self) -> int:
        """How many samples there are."""
        return self.bench.examples("held")

    def losses(self, increments: Array) -> Vector:
        """`[m, d]` increments -> `[m]` mean losses of the model plus each; inf where it is not finite."""
        return self._each("losses", increments)

    def accuracies(self, increments: Array) -> Vector:
        """`[m, d]` increments -> `[m]` accuracies in [0, 1]."""
        return self._each("accuracies", increments)

    def direction(self) -> Array:
        """`[d]` increment that local training on the samples gives."""
        return self._ask("direction", {})

    def witnesses(self) -> Array:
        """`[c, d]` increments of training on the samples of each class alone; on all samples where there are no classes."""
        return self._ask("witnesses", {})

    def _each(self, question: str, increments: Array) -> Vector:
        step = max(1, _PART // max(1, increments[:1].nbytes))
        parts = [increments[start : start + step] for start in range(0, len(increments), step)]
        answers = [self._ask(question, {"increments": part}) for part in parts]
        return np.concatenate(answers) if answers else np.empty(0)

    def _ask(self, question: str, arrays: Mapping[str, Array]) -> Array:
        words = {"round": self.round, "learning_rate": float(self.learning_rate)}
        asked = {"question": question, "round": json.dumps(words)}
        return self.bench._ask("judge", self.model, arrays, asked)[0]["answer"]


def hello(federation: Federation, site: str | Path | None = None, data: str = "") -> bytes:
    """The first frame of a training process.

    Args:
        federation: what it trains.
        site: where the own rows are, for a node.
        data: SHA-256 of a simulation's rows, where it cannot be taken for granted that the process finds the same ones.
    """
    # A file's whole path, as the process may be started again from another folder.
    own = Path(site).resolve() if site is not None and Path(site).is_file() else site or ""
    words = {
        "text": federation.text,
        "file": federation.file,
        "folder": str(federation.folder.resolve()),
        "executor": federation.executor or "",
        "schema": "" if federation.known is None else federation.known.to_json(),
        "site": str(own),
        "data": data,
    }
    return json.dumps(words).encode()
