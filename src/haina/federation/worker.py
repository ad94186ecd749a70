"""A training process. It serves a node, a coordinator and the workers of a simulation alike; neither node nor coordinator imports a framework itself.

It is told a federation once, then asked: to train, to evaluate, to judge, for the first model. As a process of its own its main module is
this one; messages come and go by standard input and output, and whatever a learner prints goes to standard error.

It never outlives the process that asked: the kernel kills it (Linux), and everywhere the closed pipe ends it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import IO

import numpy as np

from haina.artifact import Array, Pieces, load, pieces, sha256
from haina.data.schema import Schema
from haina.errors import DataError, LearnerError
from haina.federation.answers import error_bytes, result_bytes, results_arrays
from haina.federation.envelope import Envelope
from haina.federation.federation import Federation
from haina.federation.frames import read_frame, write_frame
from haina.federation.meter import Usage
from haina.federation.task import recalled, remembered, work_of
from haina.learners.judge import HeldSamples
from haina.shards import Shards
from haina.simulation.simulation import Run, Simulation
from haina.simulation.turn import Turn
from haina.update import Update
from haina.wire.messages import Task

Arrays = Mapping[str, Array]
Words = Mapping[str, str]

_PR_SET_PDEATHSIG = 1


class Worker:
    """What a training process can do: each public method is a call, from arrays and words to one answer or several.

    Args:
        hello: see `haina.federation.bench.hello`; what there is none of is empty.
    """

    def __init__(self, hello: Words) -> None:
        self._hello = hello
        self._judge: tuple[str, Array, HeldSamples] | None = None

    @cached_property
    def federation(self) -> Federation:
        """Made when first asked for, so that what is wrong with it is an answer."""
        hello = self._hello
        schema = Schema.from_json(hello["schema"]) if hello["schema"] else None
        federation = Federation.of(hello["text"], hello["file"], hello["folder"], schema)
        return federation.on(hello["executor"]) if hello["executor"] else federation

    def ready(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """Import the framework, make the learner, and read the own rows if there are any."""
        assert self.federation.learner is not None
        if self._hello["site"]:
            self._rows("site")
        yield pieces({})

    def schema(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """What rows look like; rows are read if the file does not say."""
        yield pieces({}, {"schema": self.federation.schema.to_json()})

    def examples(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """How many `rows` there are."""
        yield pieces({"examples": np.array(len(self._rows(words["rows"])[1]))})

    def initial(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """The bytes of the model before the first round."""
        learner = self.federation.learner
        model = learner.initial(int(words["seed"]))
        data = learner.to_bytes(model)
        envelope = Envelope.of(data)
        vector = envelope.vector(data)
        if (
            vector.dtype != model.dtype
            or not np.array_equal(vector, model)
            or _joined(envelope, vector) != data
        ):
            raise LearnerError(
                "the model's bytes cannot be made from its vector alone, as a coordinator must",
                allowed="shared tensors of float32, or all of float64",
                remedy="Cast the shared tensors to float32",
            )
        yield pieces({"model": np.frombuffer(data, np.uint8)})

    def train(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """Train the one `client` whose rows are here, with its own memory."""
        task, client = Task.model_validate_json(words["task"]), words["client"]
        local, learner, model = (
            self.federation.strategy.local,
            self.federation.learner,
            self._model(arrays, words),
        )
        memory = {name.removeprefix("memory/"): a for name, a in arrays.items() if name.startswith("memory/")}
        control = arrays.get("control")
        x, y = self._rows("site")
        offsets = recalled(local, learner, client, model, control, memory)
        shards = Shards((client,), x, y, np.array([[0, len(y)]]))
        for result in learner.train(work_of(task, model, shards, offsets, os.urandom(32))):
            after = memory
            if isinstance(result, Update):
                after = remembered(local, learner, result, model, control, memory)
            yield [result_bytes(result, after)]

    def share(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """Train some clients of a simulation's turn: their sums where the round folds, else their rows; and what that took."""
        began = perf_counter()
        simulation = self._simulation
        turn, positions = Turn.from_arrays(arrays, words, simulation.strategy)
        partial = simulation.partial(turn, positions) if simulation.folds(turn) else None
        results = [] if partial is not None else list(simulation.train(turn, positions))
        usage = Usage.here(perf_counter() - began)
        yield pieces(*(partial.to_arrays() if partial is not None else results_arrays(results)))
        yield pieces({}, {"usage": json.dumps(usage.to_json())})

    def evaluate(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """Loss, accuracy and the like on `rows`; nothing without rows, or where each client has a model of its own."""
        learner, (x, y) = self.federation.learner, self._rows(words["rows"])
        if not len(y) or learner.personal is not None:
            yield pieces({})
            return
        metrics = learner.evaluate(self._model(arrays, words), x, y)
        if metrics is None:
            yield pieces({})
            return
        numbers = {"examples": metrics.examples, "loss": metrics.loss, "accuracy": metrics.accuracy}
        yield pieces({}, {"metrics": json.dumps({**numbers, "extra": dict(metrics.extra)})})

    def judge(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """One question to the judge of a round: `losses` or `accuracies` of increments, `direction` or `witnesses`."""
        judge, question = self._judge_of(self._model(arrays, words), words["round"]), words["question"]
        if question in ("losses", "accuracies"):
            yield pieces({"answer": getattr(judge, question)(arrays["increments"])})
        else:
            yield pieces({"answer": {"direction": judge.direction, "witnesses": judge.witnesses}[question]()})

    def tell(self, arrays: Arrays, words: Words) -> Iterator[Pieces]:
        """What an exact learner says of a finished run."""
        tell = self.federation.tell
        state = {name.removeprefix("state/"): a for name, a in arrays.items() if name.startswith("state/")}
        model = self._model(arrays, words)
        identity = sha256(self.federation.learner.to_bytes(model))
        run = Run(model, identity, self.federation.strategy.restore(state), finished=words["finished"] == "1")
        yield pieces({}, {} if tell is None else {"told": tell(run)})

    @cached_property
    def _simulation(self) -> Simulation:
        simulation = self.federation.simulation()
        if self._hello["data"] not in ("", simulation.data.digest()):
            raise DataError(
                f"a worker on {os.uname().nodename} found other rows than those that the run was started on",
                remedy=f"Put the same files under {self._hello['folder']}, on every machine, and leave them alone while it goes on",
            )
        return simulation

    @cached_property
    def _read(self) -> dict[str, tuple[Array, Array]]:
        return {}

    def _rows(self, name: str) -> tuple[Array, Array]:
        if name not in self._read:
            if name == "site":
                self._read[name] = self.federation.site(self._hello["site"])
            else:
                assert name in ("test", "held")
                self._read[name] = self.federation.origin.aside("test" if name == "test" else "held")
        return self._read[name]

    def _model(self, arrays: Arrays, words: Words) -> Array:
        if "path" in words:
            return self.federation.learner.from_bytes(Path(words["path"]).read_bytes())
        return arrays["model"]

    def _judge_of(self, model: Array, words: str) -> HeldSamples:
        """The judge of a round, kept for its next question: what it has trained on its samples is asked for more than once."""
        if self._judge is None or self._judge[0] != words or not np.array_equal(self._judge[1], model):
            x, y = self._rows("held")
            asked = json.loads(words)
            training, seed = self.federation.training, self.federation.seed
            judge = HeldSamples(
                self.federation.learner, model, x, y, training, asked["round"], asked["learning_rate"], seed
            )
            self._judge = words, model, judge
        return self._judge[2]


def _joined(envelope: Envelope, vector: Array) -> bytes:
    return b"".join(envelope.pieces(vector))


#: Calls by name.
CALLS = ("ready", "schema", "examples", "initial", "train", "share", "evaluate", "judge", "tell")


def serve(stdin: IO[bytes], stdout: IO[bytes]) -> None:
    """A training process's life: a federation first, then calls until the pipe closes."""
    try:
        worker = Worker(json.loads(read_frame(stdin)))
        while True:
            for answer in answers(worker, read_frame(stdin)):
                write_frame(stdout, *answer)
    except EOFError:
        return


def answers(worker: Worker, request: bytes) -> Iterator[Pieces]:
    """What a worker answers to a frame; an error is the last answer."""
    try:
        arrays, words = load(request)
        assert words["call"] in CALLS
        yield from getattr(worker, words["call"])(arrays, words)
    except Exception as error:
        yield [error_bytes(error)]


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before the kernel was asked.
    if os.getppid() != parent:
        raise SystemExit


if __name__ == "__main__":
    _die_with(int(sys.argv[1]))
    os.nice(int(sys.argv[2]))
    # Whatever a learner prints must not get between the messages, and what it reads, or a program that it starts, must not be messages.
    requests, channel = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(requests, channel)
