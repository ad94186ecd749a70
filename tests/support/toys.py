"""A learner of no library and a small population, so that a simulation of many rounds takes milliseconds."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haina.data.federated import Federated
from haina.layout import Layout
from haina.learners.learner import Metrics, Training, client_rng
from haina.report import Report
from haina.shards import Shards
from haina.simulation.simulation import Simulation
from haina.strategy.parts import Payload
from haina.update import Failure, Update

D = 6


@dataclass(frozen=True)
class Centre:
    """Learns the mean of the rows by stochastic gradient descent: F_k(y) = mean ||x - y||^2 / 2. A row is right when the centre is nearer than 1.5.

    A target of 1 mirrors the row, so that falsified labels pull elsewhere.
    """

    payload: ClassVar = Payload.AVERAGE
    update_size: ClassVar = None
    personal: ClassVar = None
    dimension: int = D

    @property
    def layout(self):
        return Layout.vector(self.dimension)

    def initial(self, seed):
        return np.random.default_rng(seed).normal(size=self.dimension).astype(np.float32)

    def train(self, work):
        for k, client in enumerate(work.shards.clients):
            x, y = work.shards.of(k)
            if not len(y):
                yield Failure(client, "it has no examples")
                continue
            x = np.where(y[:, None] == 1, -x, x)
            rng = client_rng(work.seed, work.round, client)
            local, steps = work.model.copy(), work.training.steps_of(len(y))
            offset = 0.0 if work.offsets is None else work.offsets[k]
            for _ in range(steps):
                batch = x[rng.integers(len(y), size=work.training.batch_size)].mean(axis=0)
                gradient = local - batch + work.proximal * (local - work.model) + offset
                local = (local - work.learning_rate * gradient).astype(np.float32)
            before, after = self.evaluate(work.model, x, y), self.evaluate(local, x, y)
            measured = {"loss_before": before.loss, "loss_after": after.loss, "accuracy": after.accuracy}
            measured["label_counts"] = tuple(int(c) for c in np.bincount(y, minlength=2))
            yield Update(
                client,
                local - work.model,
                Report(
                    examples=len(y),
                    steps=steps,
                    learning_rate=work.learning_rate,
                    **{name: measured[name] for name in work.training.measure},
                ),
            )

    def evaluate(self, model, x, y):
        squares = ((x - model) ** 2).sum(axis=1)
        return Metrics(len(y), float(squares.mean()) / 2, float((squares < 1.5**2).mean()))

    def predict(self, model, x):
        return np.zeros((len(x), 2))

    def to_bytes(self, model):
        return self.layout.to_bytes(model)

    def from_bytes(self, data):
        return self.layout.from_bytes(data)

    def describe(self):
        return {"kind": "centre"}


def population(clients=8, rows=12, *, held=0, empty=()):
    """Clients whose rows lie around points of their own; `empty` numbers those without rows."""
    rng = np.random.default_rng(clients)
    sizes = np.array([0 if k in empty else rows + k % 5 for k in range(clients)])
    ends = held + 40 + np.cumsum(sizes)
    centres = np.repeat(rng.normal(size=(clients, D)) / 3, sizes, axis=0)
    x = np.concatenate([np.zeros((held + 40, D)), centres]) + rng.normal(size=(ends[-1], D)) / 3
    x, y = x.astype(np.float32), np.zeros(ends[-1], np.int64)
    names = tuple(f"client-{k:03d}" for k in range(clients))
    shards = Shards(names, x, y, np.column_stack([ends - sizes, ends]))
    return Federated(
        shards, (x[:40], y[:40]), (x[40 : 40 + held], y[40 : 40 + held]), classes=("here", "there")
    )


def simulation(strategy, *, clients=8, held=0, empty=(), training=None, **settings):
    """A federation of `Centre` learners."""
    return Simulation(
        strategy=strategy,
        learner=Centre(),
        data=population(clients, held=held, empty=empty),
        training=training or Training(epochs=2, batch_size=4),
        **settings,
    )


def follow(sim, run=None, rounds=None):
    """Advance to the end (or by some rounds): the last run and the records."""
    run, records = run or sim.start(), []
    while run.round < sim.rounds and not run.finished and (rounds is None or len(records) < rounds):
        run, record = sim.advance(run)
        records.append(record)
    return run, records
