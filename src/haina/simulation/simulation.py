"""Simulation: rounds of one federation whose clients are simulated, in this process or by workers anywhere.

The same `Strategy` as in a deployment, fed by simulated clients. One `Simulation` is settings and data; one `Run` is where it stands. `advance` takes
a run one round on, purely: the same run gives the same next run, so a run restored from a checkpoint goes on bit for bit.

What happens in a round: the strategy's selector invites clients; dropouts and stragglers are drawn; the learner trains the rest; attackers replace
what they send; the strategy closes the round; the new model is evaluated on the test rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from haina.artifact import Array, sha256
from haina.data.federated import Federated
from haina.learners.judge import HeldSamples
from haina.learners.learner import Learner, Training, Work
from haina.report import Report
from haina.shards import Shards
from haina.simulation.attack import Attack
from haina.simulation.faults import Devices, Dropout, Stragglers
from haina.simulation.turn import Turn
from haina.strategy.partial import Partial
from haina.strategy.parts import Cover, Needs, Seen
from haina.strategy.record import RoundRecord
from haina.strategy.round import Round
from haina.strategy.select import Poisson
from haina.strategy.strategy import Strategy, StrategyState
from haina.update import Failure, Pool, Result, Update

if TYPE_CHECKING:
    from haina.simulation.veil import Veil

#: Purposes of random streams: a draw more in one place changes nothing elsewhere.
_SELECTION, _ATTACKERS, _ATTACK = 201, 202, 203

#: What a round hears: one client's result, the sums of several that were added up where they were trained, or a sum of which no more was seen.
Heard = Result | Partial | Pool

#: Has everybody trained who answers in a turn: `Simulation.train`, or workers that share the turn out.
Crew = Callable[[Turn], Iterator[Heard]]


@dataclass(frozen=True)
class Run:
    """Where a simulation stands after some rounds.

    Args:
        model: `[d]` current model.
        identity: SHA-256 of the model's canonical bytes.
        state: what the strategy remembers.
        memories: what clients remember between rounds (SCAFFOLD, FedDyn): client -> `[d]`.
        finished: True when the server's step says that training is over.
    """

    model: Array
    identity: str
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
        veil: what becomes of updates before they leave their clients (`[privacy]`), or None.
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
    veil: Veil | None = None

    def start(self) -> Run:
        """The run before its first round."""
        model = self.learner.initial(self.seed)
        state = (
            self.strategy.init(model) if self.veil is None else self.strategy.init(model, self.veil.secret)
        )
        return Run(model, sha256(self.learner.to_bytes(model)), state)

    def advance(self, run: Run, crew: Crew | None = None) -> tuple[Run, RoundRecord]:
        """One round.

        Args:
            run: where the simulation stands.
            crew: has the clients trained; in this process if not given.
        """
        clock = _Clock()
        turn = self.turn(run)
        clock.lap("select")
        memories = dict(run.memories)
        heard = self._remembering(turn, (crew or self.train)(turn), memories)
        if self.attacked(turn.number):
            heard = iter(self._corrupted(heard, turn.number))
        if self.veil is not None and self.strategy.seen is not Seen.UPDATE:
            heard = self.veil.pooled(turn, heard, self.strategy.trust)
        reports: Mapping[str, Report] = {}
        if self.strategy.needs is Needs.COUNTS:
            reports = self._announced(turn)
        elif self.strategy.needs is Needs.REPORTS:
            kept = list(heard)
            reports = {result.client: result.report for result in kept if isinstance(result, Update)}
            heard = iter(kept)
        open_round = self._open(turn, reports)
        _hear(open_round, heard)
        clock.lap("train")
        closed = open_round.close()
        clock.lap("combine")
        due = closed.finished or turn.number % self.evaluate_every == 0 or turn.number >= self.rounds
        metrics = self._evaluate(closed.model) if due else {}
        clock.lap("evaluate")
        kept_model = closed.model is run.model
        identity = run.identity if kept_model else sha256(self.learner.to_bytes(closed.model))
        record = replace(
            closed.record,
            model=identity,
            parent=run.identity,
            notes={"learning_rate": turn.instructions.learning_rate, **closed.record.notes},
            metrics=metrics,
            timing=clock.laps,
        )
        finished = closed.finished
        if self.veil is not None:
            record, spent = self.veil.told(record, closed.state.members, len(self.data))
            finished = finished or spent
        return Run(closed.model, identity, closed.state, memories, finished), record

    def turn(self, run: Run) -> Turn:
        """The next round before anybody trains: who is invited, who answers, how long each trains."""
        instructions = self.strategy.instructions(run.state)
        number = instructions.round
        invited = self._invite(run, number)
        absent = self.dropout.absent(self.seed, number, invited)
        epochs = np.zeros(len(invited), np.int64)
        present = [client for client, away in zip(invited, absent, strict=True) if not away]
        epochs[~absent] = self.stragglers.epochs(self.seed, number, present, self.training.epochs)
        return Turn(run.model, run.state, instructions, tuple(invited), epochs, run.memories)

    def folds(self, turn: Turn) -> bool:
        """True where each client's update can be added up at once, wherever it was trained: no rule, attacker or memory has to see it again."""
        remembers = self.strategy.local.remembers or turn.instructions.control is not None
        return self.strategy.streams and not remembers and not self.attacked(turn.number)

    def train(self, turn: Turn, positions: Sequence[int] | None = None) -> Iterator[Result]:
        """Local training of the clients at `positions` (all who answer if not given): their results in that order, before vectors are falsified."""
        positions = turn.present if positions is None else positions
        results: dict[str, Result] = {}
        for epochs in sorted({int(turn.epochs[i]) for i in positions}, reverse=True):
            group = [i for i in positions if turn.epochs[i] == epochs]
            trained = map(self._timed, self.learner.train(self._work(turn, group, epochs)))
            if self.veil is not None and self.strategy.seen is Seen.UPDATE:
                trained = map(partial(self.veil.sent, turn), trained)
            if len(group) == len(positions):
                yield from trained
                return
            results |= {result.client: result for result in trained}
        yield from (results[client] for client in turn.names(positions))

    def partial(self, turn: Turn, positions: Sequence[int]) -> Partial:
        """What the clients at `positions` add to the round's sums, where the round folds."""
        open_round = self._open(turn, self._announced(turn))
        _hear(open_round, self.train(turn, positions))
        return open_round.partial()

    def steps(self, turn: Turn, positions: Sequence[int]) -> list[int]:
        """Optimiser steps that the clients at `positions` will take."""
        if self.training.steps is not None:
            return [self.training.steps] * len(positions)
        sizes = self.data.shards(turn.names(positions)).sizes
        steps: list[int] = (turn.epochs[list(positions)] * -(-sizes // self.training.batch_size)).tolist()
        return steps

    def attacked(self, number: int) -> bool:
        """True when hostile clients misbehave in round `number`."""
        return self.attack is not None and self.attack.active(number)

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
        members = run.state.members
        spent = (
            frozenset[str]()
            if self.veil is None
            else self.veil.barred(members, number, self.strategy.spacing)
        )
        poisson = isinstance(self.strategy.select, Poisson)
        if not poisson and (self.cohort is None or self.cohort >= len(self.data) - len(spent)):
            return [name for name in map(self.data.name, range(len(self.data))) if name not in spent]
        rng = np.random.default_rng([self.seed, number, _SELECTION])
        return self.strategy.select.choose(self.data, self.cohort or 1, members, rng, exclude=spent)

    def _open(self, turn: Turn, reports: Mapping[str, Report]) -> Round:
        return self.strategy.open(
            turn.state,
            turn.model,
            {client: reports.get(client) for client in turn.clients},
            dimension=self.learner.update_size,
            registered=len(self.data),
            judge=self._judge(turn),
            release=None
            if self.veil is None or self.strategy.cover is not Cover.SERVER
            else self.veil.release(turn, float(self.cohort or len(self.data))),
        )

    def _remembering(self, turn: Turn, heard: Iterator[Heard], memories: dict[str, Array]) -> Iterator[Heard]:
        """What is heard, and what clients will remember of it."""
        local, control = self.strategy.local, turn.instructions.control
        for one in heard:
            if local.remembers and isinstance(one, Update):
                before = turn.memories.get(one.client, np.zeros_like(turn.model))
                memories[one.client] = local.remember(before, control, one.vector, one.report)
            yield one

    def _work(self, turn: Turn, positions: Sequence[int], epochs: int) -> Work:
        clients, offsets = turn.names(positions), None
        if self.strategy.local.remembers and clients:
            memory = np.stack([turn.memories.get(client, np.zeros_like(turn.model)) for client in clients])
            offsets = self.strategy.local.offset(turn.instructions.control, memory)
        return Work(
            model=turn.model,
            round=turn.number,
            shards=self.shards(turn.number, clients),
            training=replace(
                self.training, epochs=epochs, measure=self.training.measure | self.strategy.measure
            ),
            learning_rate=turn.instructions.learning_rate,
            proximal=turn.instructions.proximal,
            offsets=offsets,
            seed=self.seed,
        )

    def _timed(self, result: Result) -> Result:
        """A result with the seconds that its device would have taken."""
        if not isinstance(result, Update):
            return result
        seconds = self.devices.seconds(self.seed, result.client, result.report.steps)
        return Update(result.client, result.vector, replace(result.report, seconds=seconds))

    def _corrupted(self, heard: Iterable[Heard], number: int) -> list[Heard]:
        assert self.attack is not None
        rng = np.random.default_rng([self.seed, number, _ATTACK])
        results = list(heard)
        updates = [result for result in results if isinstance(result, Update)]
        failures = [result for result in results if not isinstance(result, Update)]
        return [*self.attack.corrupt(updates, self.hostile, rng), *failures]

    def _announced(self, turn: Turn) -> dict[str, Report]:
        """The counts that clients announce before training; hostile ones lie already here."""
        clients = turn.names(turn.present)
        sizes = self.data.shards(clients).sizes.tolist()
        reports = {
            client: Report(examples=size, steps=self.training.steps_of(size))
            for client, size in zip(clients, sizes, strict=True)
            if size > 0
        }
        if self.attack is not None and self.attacked(turn.number):
            reports |= {
                client: self.attack.lie(reports[client]) for client in self.hostile.intersection(reports)
            }
        return reports

    def _judge(self, turn: Turn) -> HeldSamples | None:
        x, y = self.data.held
        if not len(y):
            return None
        rate = turn.instructions.learning_rate
        return HeldSamples(self.learner, turn.model, x, y, self.training, turn.number, rate, self.seed)

    def _evaluate(self, model: Array) -> dict[str, float]:
        x, y = self.data.test
        if not len(y) or self.learner.personal is not None:
            # With personal tensors there is no one model: each client has its own, and the shared part alone predicts nothing.
            return {}
        metrics = self.learner.evaluate(model, x, y)
        if metrics is None:
            return {}
        accuracy = {} if metrics.accuracy is None else {"accuracy": metrics.accuracy}
        return {"loss": metrics.loss, **accuracy, **metrics.extra}


def _hear(open_round: Round, heard: Iterable[Heard]) -> None:
    for one in heard:
        if isinstance(one, Update):
            open_round.add(one)
        elif isinstance(one, Failure):
            open_round.fail(one)
        elif isinstance(one, Pool):
            open_round.add_pool(one)
        else:
            open_round.merge(one)


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
