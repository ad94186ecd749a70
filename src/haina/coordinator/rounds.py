"""Rounds: open -> closing -> closed | failed, for one federation, through any crash.

What a round is lies in the store: the row of the round, one row for each (round, node), and the bytes of the updates. Closing reads them and calls
the same `Strategy` as a simulation; it changes nothing until `publish`, one transaction that only the holder of the newest fence can make. So a
coordinator killed in the middle closes again from the start with the same result, and of several replicas one publishes.

Everything here blocks; the core calls it in the federation's own thread.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from threading import Event, Thread
from time import perf_counter
from typing import cast

import numpy as np

from haina.artifact import Array
from haina.coordinator.blobs import Blobs
from haina.coordinator.hosted import Hosted, Standing
from haina.coordinator.pace import Pace
from haina.coordinator.store import ContributionRow, ModelRow, NodeRow, RoundRow, Store
from haina.coordinator.store import Outcome as Recorded
from haina.coordinator.vault import Vault
from haina.errors import HainaError
from haina.federation.bench import BenchError
from haina.report import Report
from haina.strategy.partial import Partial
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict
from haina.strategy.round import Closed, Round
from haina.strategy.select import Roster
from haina.update import Failure, Update
from haina.wire.refusal import Refusal

log = logging.getLogger("haina.rounds")

#: The stream of random numbers that draws a round's clients; the same as in simulation.
_SELECTION = 201
#: Seconds that a closing replica may be silent before another takes over.
LEASE = 10.0
#: Longest vector that replicas fold into partial sums: beyond it a sum of 8 bytes a number is dearer to write at every
#: commit than the updates are.
_PARTIAL = 1 << 20
#: Most seconds of rest after failed rounds.
_LONGEST_PAUSE = 60
#: Rounds whose durations an adaptive deadline looks at.
_MEMORY = 5


@dataclass
class Rounds:
    """The rounds of one federation.

    Args:
        hosted: the federation.
        store: what is remembered.
        blobs: bytes of models and states.
        vault: bytes of updates.
        scratch: a folder for what is being made.
        holder: the name of this coordinator process.
        clock: seconds since 1970.
        pace: how rounds run, with the settings as they stand now.
        keep_models: versions whose bytes are kept.
        epoch: the incarnation of this process: whose partial sums are whose.
        claimed: told the number of a round when it begins to close here.
        shared: True where other replicas close rounds too, so that what is folded here must lie in the store.
    """

    hosted: Hosted
    store: Store
    blobs: Blobs
    vault: Vault
    scratch: Path
    holder: str
    clock: Callable[[], float]
    pace: Callable[[], Pace]
    keep_models: Callable[[], int]
    epoch: str
    shared: bool = False
    claimed: Callable[[int], None] = lambda number: None
    _standing: Standing | None = None
    _folded: tuple[int, Partial] | None = None
    _folding: tuple[int, Partial] | None = None

    def advance(self) -> bool:
        """Open or close a round if that is due. Returns True when something changed."""
        row = self.store.current_round(self.hosted.name)
        if row is None:
            return self._open()
        if row.state == "closing" or self._due(row):
            return self._close(row)
        return False

    # ------------------------------------------------------------------------------------------ opening

    def _open(self) -> bool:
        now, pace, name = self.clock(), self.pace(), self.hosted.name
        federation = self.store.federation(name)
        if federation is None:
            return False
        if federation.state == "finished" and federation.result is None:
            # Not in the transaction that closed the last round: it takes a child process, and what follows from the model can be had again.
            try:
                told = self.hosted.tell(self.standing(federation.closed + 1))
            except BenchError as error:
                told = f"The result could not be told: {error}"
            self.store.set_result(name, told)
            return True
        if federation.state != "running":
            return False
        if federation.closed >= self.hosted.federation.settings.train.rounds:
            self.store.set_state(name, "finished", "all rounds are closed")
            return True
        last = next(iter(self.store.rounds(name, 1)), None)
        opened, closed = (last.opened, last.closed or now) if last else (0.0, 0.0)
        if not pace.due(opened=opened, closed=closed, now=now, first=last is None):
            return False
        if last is not None and last.state == "failed" and now < closed + self._pause():
            return False
        present = self.present(self.store.nodes(), now, pace)
        if len(present) < pace.nodes:
            return False
        number = federation.closed + 1
        standing = self.standing(number)
        model = self._model(standing.version)
        task, control = self.hosted.task(standing, model.sha256)
        if control is not None:
            self.blobs.put_bytes(control)
        row = RoundRow(
            federation=name,
            number=number,
            version=standing.version,
            state="open",
            roster={} if pace.buffered else self._roster(present, standing, pace, number),
            task=task.model_dump(mode="json"),
            target=pace.wanted(len(present)),
            quorum=pace.enough(pace.wanted(len(present))),
            opened=now,
            deadline=now + pace.seconds(self._durations(number)),
        )
        return self.store.open_round(row)

    def _pause(self) -> float:
        """Seconds of rest after failed rounds: what failed a moment ago would mostly fail again, and every failed round uses up a number."""
        past = self.store.rounds(self.hosted.name, 7)
        failed = len(list(takewhile(lambda row: row.state == "failed", reversed(past))))
        return float(min(_LONGEST_PAUSE, 2**failed))

    def present(self, nodes: Sequence[NodeRow], now: float, pace: Pace) -> list[NodeRow]:
        """Those of all nodes that can be invited, by name."""
        return sorted(
            (
                node
                for node in nodes
                if node.federation == self.hosted.name
                and node.role == "node"
                and node.state == "active"
                and node.examples > 0
                and node.mode != "away"
                and now - (node.last_seen or 0.0) <= pace.away
            ),
            key=lambda node: node.name,
        )

    def _roster(self, present: list[NodeRow], standing: Standing, pace: Pace, number: int) -> dict[str, int]:
        sizes = {node.name: node.examples for node in present}
        names = list(sizes)
        wanted = pace.invited(len(names))
        if wanted < len(names):
            rng = np.random.default_rng([self.hosted.federation.seed, number, _SELECTION])
            population = Roster(names, list(sizes.values()))
            names = self.hosted.strategy.select.choose(population, wanted, standing.state.members, rng)
        return {name: sizes[name] for name in names}

    def _durations(self, number: int) -> list[float]:
        return [
            contribution.seconds
            for past in range(max(1, number - _MEMORY), number)
            for contribution in self.store.contributions(self.hosted.name, past)
            if contribution.status == "accepted" and contribution.seconds is not None
        ]

    # ------------------------------------------------------------------------------------------ what comes in

    @property
    def folds(self) -> bool:
        """True where updates are folded into a partial sum as they come, and their bytes not kept: replicas of a streaming strategy."""
        pace = self.pace()
        # A late update is discounted, so that what was folded before it would have to be weighed anew.
        in_step = not pace.buffered and not pace.max_staleness
        return self.shared and in_step and self.hosted.strategy.streams and self.hosted.dimension <= _PARTIAL

    def record(self, batch: list[ContributionRow]) -> list[Recorded]:
        """Commit contributions that arrived together. Where updates are folded as they come, the new ones are, in the same transaction."""
        self.vault.sync()
        if not self.folds:
            return self.store.record(batch)
        # What was folded for a commit that failed must not come back with one that folds nothing.
        self._folding = None
        try:
            outcomes = self.store.record(batch, self._fold_in)
        except BaseException:
            # The transaction may have gone either way: what is in memory is no longer known to be what is in the store.
            self._folded = None
            raise
        self._folded = self._folding or self._folded
        return outcomes

    def _fold_in(self, new: Sequence[ContributionRow]) -> bytes | None:
        """The partial sum of this process with new contributions in it; None where nothing was folded. What it starts from stays as it was."""
        self._folding = None
        usable = [row for row in new if row.status == "accepted" and not row.kept]
        if not usable:
            return None
        number = usable[0].counted_in
        row = self.store.round(self.hosted.name, number)
        assert row is not None
        open_round = self._start(row, self.standing(number), {})
        folded = self._folded_so_far(number)
        if folded is not None:
            open_round.merge(folded)
        for contribution in usable:
            open_round.add(self._update(contribution), contribution.square)
        self._folding = number, open_round.partial()
        return self._folding[1].to_bytes()

    def _folded_so_far(self, number: int) -> Partial | None:
        if self._folded is not None and self._folded[0] == number:
            return self._folded[1]
        for epoch, data in self.store.partials(self.hosted.name, number):
            if epoch == self.epoch:
                return Partial.from_bytes(data)
        return None

    def _update(self, row: ContributionRow) -> Update:
        vector = self.hosted.vector(row.codec, self.vault.path(row), row.length)
        return Update(row.node, cast(Array, vector), _report(row))

    # ------------------------------------------------------------------------------------------ closing

    def _due(self, row: RoundRow) -> bool:
        tally = self.store.tally(row.federation, row.number)
        everyone = bool(row.roster) and sum(tally.values()) >= len(row.roster)
        if everyone and self.pace().max_staleness:
            # Late updates of others have been counted too.
            heard = {c.node for c in self.store.contributions(row.federation, row.number)}
            everyone = heard >= row.roster.keys()
        return tally.get("accepted", 0) >= row.target or everyone or self.clock() >= row.deadline

    def _close(self, row: RoundRow) -> bool:
        fence = self.store.claim_close(row.federation, row.number, self.holder, self.clock(), self._term)
        if fence is None:
            return False
        self.claimed(row.number)
        with self._lease(row, fence):
            start = perf_counter()
            heard = self.store.contributions(row.federation, row.number)
            accepted = sum(contribution.status == "accepted" for contribution in heard)
            if accepted >= row.quorum:
                done = self._publish(row, fence, heard, start)
            else:
                done = self._fail(row, fence, heard, f"{accepted} of the {row.quorum} updates needed came")
        if done:
            self.vault.drop(row.federation, row.number, heard)
            self._forget(row)
        return done

    def _fail(self, row: RoundRow, fence: int, heard: Sequence[ContributionRow], reason: str) -> bool:
        record = RoundRecord(
            round=row.number,
            outcome=Outcome.KEPT,
            clients=tuple(_unused(name, {c.node: c for c in heard}.get(name)) for name in _names(row, heard)),
            reason=reason,
            model=self._model(row.version).sha256,
            parent=self._model(row.version).sha256,
        )
        return self.store.fail_round(
            row.federation, row.number, fence, reason, record.to_json(), self.clock()
        )

    def _publish(self, row: RoundRow, fence: int, heard: Sequence[ContributionRow], start: float) -> bool:
        standing = self.standing(row.number)
        try:
            closed = self._fold(row, standing, heard)
        except Refusal:
            raise  # The store is away for a moment.
        except HainaError as error:
            # The same updates would give the same error for ever.
            return self._fail(row, fence, heard, f"no model could be made: {error}")
        folded = perf_counter()
        metrics, decisions = self._evaluated(closed)
        header, buffer = self.hosted.envelope.pieces(closed.model)
        identity = self._put((header, buffer))
        state = self.blobs.put_bytes(self.hosted.rest(Standing(row.number, closed.model, closed.state)))
        now = self.clock()
        record = replace(
            closed.record,
            model=identity,
            parent=self._model(row.version).sha256,
            notes={"learning_rate": float(row.task["learning_rate"]), **closed.record.notes},
            metrics=metrics,
            decisions={**closed.record.decisions, **decisions},
            timing={
                "combine": round(folded - start, 6),
                "evaluate": round(perf_counter() - folded, 6),
                "total": round(now - row.opened, 6),
            },
        )
        model = ModelRow(
            federation=row.federation,
            version=row.version + 1,
            sha256=identity,
            bytes=len(header) + memoryview(buffer).nbytes,
            parent=row.version,
            round=row.number,
            state_sha256=state,
            created=now,
            metrics=metrics,
        )
        why = "the fit has converged" if closed.finished else "all rounds are closed"
        finished = closed.finished or row.number >= self.hosted.federation.settings.train.rounds
        done = self.store.publish(
            row.federation, row.number, fence, model, record.to_json(), now, finished, why
        )
        if done:
            vector = self.hosted.envelope.vector(self.blobs.path(identity))
            self._standing = Standing(model.version, vector, closed.state)
        return done

    def _evaluated(self, closed: Closed) -> tuple[dict[str, float], dict[str, str]]:
        """Metrics of the new model; where they cannot be had, why. A model is not lost for want of its accuracy."""
        try:
            return self.hosted.evaluate(closed.model), {}
        except HainaError as error:
            log.warning("%s: the model could not be evaluated: %s", self.hosted.name, error)
            return {}, {"evaluation": f"not possible: {error}"}

    def _fold(self, row: RoundRow, standing: Standing, heard: Sequence[ContributionRow]) -> Closed:
        """The same calls as in a simulation."""
        by_name = {contribution.node: contribution for contribution in heard}
        open_round = self._start(row, standing, by_name)
        for _, data in self.store.partials(row.federation, row.number):
            open_round.merge(Partial.from_bytes(data))
        for name in _names(row, heard):
            contribution = by_name.get(name)
            if contribution is None:
                continue
            if contribution.status == "failed":
                open_round.fail(Failure(name, contribution.reason))
            elif contribution.status == "refused":
                open_round.refuse(name, contribution.reason)
            elif contribution.kept:
                open_round.add(self._update(contribution), contribution.square)
        return open_round.close()

    def _start(self, row: RoundRow, standing: Standing, heard: Mapping[str, ContributionRow]) -> Round:
        strategy, hosted = self.hosted.strategy, self.hosted
        roster: dict[str, Report | None] = {}
        for name in _names(row, list(heard.values())):
            contribution = heard.get(name)
            if self.folds:
                # Folded before it was known who would come: shares are made from what was announced.
                roster[name] = hosted.announced(row.roster.get(name, 0))
            elif contribution is not None and contribution.status == "accepted":
                roster[name] = _report(contribution)
            else:
                roster[name] = None
        return strategy.open(
            standing.state,
            standing.model,
            roster,
            dimension=hosted.dimension or None,
            registered=max(len(roster), sum(n.federation == hosted.name for n in self.store.nodes())),
            judge=hosted.judge(standing, strategy.instructions(standing.state)),
        )

    @property
    def _term(self) -> float:
        """Seconds of a lease. One process alone has nobody to wait for: after a crash it closes again at once."""
        return LEASE if self.shared else 0.0

    @contextmanager
    def _lease(self, row: RoundRow, fence: int) -> Iterator[None]:
        """Keep the lease while a round closes, however long that takes."""
        ended = Event()

        def renew() -> None:
            while not ended.wait(LEASE / 3):
                with suppress(HainaError):
                    self.store.renew_lease(row.federation, row.number, fence, self.clock(), self._term)

        thread = Thread(target=renew, name="haina-lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    # ------------------------------------------------------------------------------------------ models

    def standing(self, number: int) -> Standing:
        """What round `number` starts from; failed rounds count as rounds for schedules."""
        federation = self.store.federation(self.hosted.name)
        assert federation is not None
        # Taken once: the thread that closes and the one that folds both come here.
        standing = self._standing
        if standing is None or standing.version != federation.version:
            row = self._model(federation.version)
            state = None if row.state_sha256 is None else self.blobs.path(row.state_sha256).read_bytes()
            standing = self._standing = self.hosted.standing(row.version, self.blobs.path(row.sha256), state)
        return replace(standing, state=replace(standing.state, round=number - 1))

    def _put(self, pieces: Sequence[bytes | memoryview]) -> str:
        """The bytes of a model, piece by piece, never copied into one."""
        self.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft, digest = self.scratch / f"{self.hosted.name}.model", hashlib.sha256()
        with draft.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        identity = digest.hexdigest()
        self.blobs.put_file(draft, identity)
        return identity

    def _model(self, version: int) -> ModelRow:
        row = self.store.model(self.hosted.name, version)
        assert row is not None, version
        return row

    def _forget(self, row: RoundRow) -> None:
        """Drop the bytes of old versions, whose rows, records and lineage stay, and the control vector of the round before."""
        before = self.store.round(row.federation, row.number - 1)
        control = None if before is None else before.task.get("control")
        if control is not None and control != row.task.get("control"):
            self.blobs.drop(control)
        models = [row.version for row in self.store.models(self.hosted.name) if row.kept]
        keep = max(1, self.keep_models())
        if len(models) > keep:
            for identity in self.store.forget_models(self.hosted.name, set(sorted(models)[-keep:])):
                self.blobs.drop(identity)


def _names(row: RoundRow, heard: Sequence[ContributionRow]) -> list[str]:
    """Everybody of a round: the invited in their order, then others whose late updates landed here, by name."""
    return [*row.roster, *sorted(c.node for c in heard if c.node not in row.roster)]


def _report(contribution: ContributionRow) -> Report:
    report = Report.read(contribution.report)
    # Staleness and seconds are facts of the coordinator's own clock and versions, whatever the client says of itself.
    return replace(report, staleness=contribution.staleness)


def _unused(name: str, contribution: ContributionRow | None) -> ClientRecord:
    if contribution is None:
        return ClientRecord(name, Verdict.ABSENT, 0.0, reason="no update arrived")
    if contribution.status == "accepted":
        return ClientRecord(name, Verdict.PASSED_OVER, 0.0, reason="the round failed, and no update was used")
    verdict = Verdict.FAILED if contribution.status == "failed" else Verdict.REFUSED
    return ClientRecord(name, verdict, 0.0, reason=contribution.reason)
