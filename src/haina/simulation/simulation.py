"""Simulation: rounds of one federation on one machine.

The same `Strategy` as in a deployment, fed by simulated clients. One `Simulation` is settings and data; one `Run` is where it stands. `advance` takes
a run one round on, purely: the same run gives the same next run, so a run restored from a checkpoint goes on bit for bit.

What happens in a round: the strategy's selector invites clients; dropouts and stragglers are drawn; the learner trains the rest; attackers replace
what they send; the strategy closes the round; the new model is evaluated on the test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from time import perf_counter

import numpy as np

from haina.artifact import Array, sha256
from haina.data.federated import Federated
from haina.learners.judge import HeldSamples
from haina.learners.learner import Learner, Training, Work
from haina.report import Report
from haina.shards import Shards
from haina.simulation.attack import Attack
from haina.simulation.faults import Devices, Dropout, Stragglers
from haina.strategy.parts import Needs
from haina.strategy.record import RoundRecord
from haina.strategy.strategy import Instructions, Strategy, StrategyState
from haina.update import Result, Update

#: Purposes of random streams: a draw more in one place changes nothing elsewhere.
_SELECTION, _ATTACKERS, _ATTACK = 201, 202, 203

#: Trains some clients: `Learner.train`, or worker processes that do the same.
Trainer = Callable[[Work], Iterator[Result]]


@dataclass(frozen=True)
class Run:
    """Where a simulation stands after some rounds.

    Args:
        model: `[d]` current model.
        state: what the strategy remembers.
        memories: what clients remember between rounds (SCAFFOLD, FedDyn): client -> `[d]`.
        finished: True when the server's step says that training is over.
    """

    model: Array
    state: StrategyState
    memories: Mapping[str, Array] = field(default_factory=dict)
    finished: bool = False

    @property
    def round(self) -> int:
        """Rounds closed so far."""
        return self.state.round


@dataclass(frozen=True)
class Simulation:
    """One federation to be simulated.

    Args:
        strategy: what becomes of updates.
        learner: local training and evaluation.
        data: clients' rows, test rows and the server's samples.
        training: how clients train.
        rounds: how many rounds a whole run has.
        cohort: clients invited a round; None for all.
        seed: the one seed; every random draw follows from it.
        attack: what hostile clients do, or None.
        dropout: who does not answer.
        stragglers: who stops early.
        devices: how fast clients are; simulated, so that a rule that looks at seconds is reproduced by the seed.
        evaluate_every: evaluate on the test rows every so many rounds (and after the last).
    """

    strategy: Strategy
    learner: Learner
    data: Federated
    training: Training
    rounds: int = 10
    cohort: int | None = None
    seed: int = 0
    attack: Attack | None = None
    dropout: Dropout = field(default_factory=Dropout)
    stragglers: Stragglers = field(default_factory=Stragglers)
    devices: Devices = field(default_factory=Devices)
    evaluate_every: int = 1

    def start(self) -> Run:
        """The run before its first round."""
        model = self.learner.initial(self.seed)
        return Run(model, self.strategy.init(model))

    def advance(self, run: Run, train: Trainer | None = None) -> tuple[Run, RoundRecord]:
        """One round.

        Args:
            run: where the simulation stands.
            train: trains the clients; the learner in this process if not given.
        """
        clock = _Clock()
        instructions = self.strategy.instructions(run.state)
        number = instructions.round
        invited = self._invite(run, number)
        absent = self.dropout.absent(self.seed, number, invited)
        present = [client for client, away in zip(invited, absent, strict=True) if not away]
        clock.lap("select")
        memories = dict(run.memories)
        results = self._trained(run, instructions, present, train or self.learner.train, memories)
        attacked = self.attack is not None and self.attack.active(number)
        if attacked:
            results = iter(self._corrupted(list(results), number))
        reports: Mapping[str, Report] = {}
        if self.strategy.needs is Needs.COUNTS:
            reports = self._announced(present, attacked=attacked)
        elif self.strategy.needs is Needs.REPORTS:
            kept = list(results)
            reports = {result.client: result.report for result in kept if isinstance(result, Update)}
            results = iter(kept)
        open_round = self.strategy.open(
            run.state,
            run.model,
            {client: reports.get(client) for client in invited},
            dimension=self.learner.update_size,
            registered=len(self.data),
            judge=self._judge(run, instructions),
        )
        for result in results:
            open_round.add(result) if isinstance(result, Update) else open_round.fail(result)
        clock.lap("train")
        closed = open_round.close()
        clock.lap("combine")
        due = closed.finished or number % self.evaluate_every == 0 or number >= self.rounds
        metrics = self._evaluate(closed.model) if due else {}
        clock.lap("evaluate")
        record = replace(
            closed.record,
            model=sha256(self.learner.to_bytes(closed.model)),
            parent=sha256(self.learner.to_bytes(run.model)),
            notes={"learning_rate": instructions.learning_rate, **closed.record.notes},
            metrics=metrics,
            timing=clock.laps,
        )
        return Run(closed.model, closed.state, memories, closed.finished), record

    def train(
        self, run: Run, instructions: Instructions, clients: Sequence[str], train: Trainer
    ) -> Iterator[Result]:
        """Local training of the given clients in one round: their results in their order, before anything is falsified."""
        epochs = self.stragglers.epochs(self.seed, instructions.round, clients, self.training.epochs)
        results: dict[str, Result] = {}
        for count in sorted(set(epochs.tolist()), reverse=True):
            group = [client for client, own in zip(clients, epochs, strict=True) if own == count]
            work = self._work(run, instructions, group, count)
            if len(group) == len(clients):
                yield from train(work)
                return
            results |= {result.client: result for result in train(work)}
        yield from (results[client] for client in clients if client in results)

    def shards(self, number: int, clients: Sequence[str]) -> Shards:
        """The rows that clients train on in round `number`: their own, with labels falsified where the attack says so."""
        shards = self.data.shards(clients)
        if self.attack is None or not self.attack.active(number):
            return shards
        return self.attack.poison(shards, self.hostile, len(self.data.classes or ()))

    @cached_property
    def hostile(self) -> frozenset[str]:
        """The clients that attack: drawn once a run."""
        if self.attack is None:
            return frozenset()
        return self.attack.attackers(
            self.data.clients.clients, np.random.default_rng([self.seed, _ATTACKERS])
        )

    def _invite(self, run: Run, number: int) -> list[str]:
        if self.cohort is None or self.cohort >= len(self.data):
            return [self.data.name(i) for i in range(len(self.data))]
        rng = np.random.default_rng([self.seed, number, _SELECTION])
        return self.strategy.select.choose(self.data, self.cohort, run.state.members, rng)

    def _trained(
        self,
        run: Run,
        instructions: Instructions,
        clients: Sequence[str],
        train: Trainer,
        memories: dict[str, Array],
    ) -> Iterator[Result]:
        local, control = self.strategy.local, instructions.control
        for result in self.train(run, instructions, clients, train):
            if isinstance(result, Update):
                if local.remembers:
                    before = run.memories.get(result.client, np.zeros_like(run.model))
                    memories[result.client] = local.remember(before, control, result.vector, result.report)
                seconds = self.devices.seconds(self.seed, result.client, result.report.steps)
                result = replace(result, report=replace(result.report, seconds=seconds))
            yield result

    def _work(self, run: Run, instructions: Instructions, clients: Sequence[str], epochs: int) -> Work:
        offsets = None
        if self.strategy.local.remembers and clients:
            memory = np.stack([run.memories.get(client, np.zeros_like(run.model)) for client in clients])
            offsets = self.strategy.local.offset(instructions.control, memory)
        measure = self.training.measure | self.strategy.measure
        return Work(
            model=run.model,
            round=instructions.round,
            shards=self.shards(instructions.round, clients),
            training=replace(self.training, epochs=epochs, measure=measure),
            learning_rate=instructions.learning_rate,
            proximal=instructions.proximal,
            offsets=offsets,
            seed=self.seed,
        )

    def _corrupted(self, results: list[Result], number: int) -> list[Result]:
        assert self.attack is not None
        rng = np.random.default_rng([self.seed, number, _ATTACK])
        updates = [result for result in results if isinstance(result, Update)]
        failures = [result for result in results if not isinstance(result, Update)]
        return [*self.attack.corrupt(updates, self.hostile, rng), *failures]

    def _announced(self, clients: Sequence[str], *, attacked: bool) -> dict[str, Report]:
        """The counts that clients announce before training; hostile ones lie already here."""
        sizes = self.data.shards(clients).sizes.tolist()
        reports = {
            client: Report(examples=size, steps=self.training.steps_of(size))
            for client, size in zip(clients, sizes, strict=True)
            if size > 0
        }
        if attacked and self.attack is not None:
            reports |= {client: self.attack.lie(reports[client]) for client in self.hostile & reports.keys()}
        return reports

    def _judge(self, run: Run, instructions: Instructions) -> HeldSamples | None:
        x, y = self.data.held
        if not len(y):
            return None
        number, rate = instructions.round, instructions.learning_rate
        return HeldSamples(self.learner, run.model, x, y, self.training, number, rate, self.seed)

    def _evaluate(self, model: Array) -> dict[str, float]:
        x, y = self.data.test
        if not len(y) or self.learner.personal is not None:
            # With personal tensors there is no one model: each client has its own, and the shared part alone predicts nothing.
            return {}
        metrics = self.learner.evaluate(model, x, y)
        accuracy = {} if metrics.accuracy is None else {"accuracy": metrics.accuracy}
        return {"loss": metrics.loss, **accuracy, **metrics.extra}


class _Clock:
    """Seconds of each phase of a round, and of the whole."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._start = self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps[name] = round(now - self._last, 6)
        self.laps["total"] = round(now - self._start, 6)
        self._last = now
