"""Rounds: open -> closing -> closed | failed, for one federation, through any crash.

What a round is lies in the store: the row of the round, one row for each (round, node), and the bytes of the updates. Closing reads them and calls
the same `Strategy` as a simulation; it changes nothing until `publish`, one transaction that only the holder of the newest fence can make. So a
coordinator killed in the middle closes again from the start with the same result, and of several replicas one publishes.

Everything here blocks; the core calls it in the federation's own thread.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
from haina.coordinator.charges import charges_of, counts, insolvent, open_budgets, settlement
from haina.coordinator.hosted import Hosted, Standing
from haina.coordinator.pace import Pace
from haina.coordinator.sealing import Stage, Sums
from haina.coordinator.store import ContributionRow, ModelRow, NodeRow, RoundRow, Store
from haina.coordinator.store import Outcome as Recorded
from haina.coordinator.unsealing import answered, unsealed
from haina.coordinator.vault import Vault
from haina.errors import HainaError, RoundError
from haina.federation.bench import BenchError
from haina.privacy.secagg import FEWEST
from haina.report import Report
from haina.strategy.partial import Partial
from haina.strategy.parts import Cover, Release, Seen
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict
from haina.strategy.round import Closed, Round
from haina.strategy.select import Poisson, Roster
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
#: Why a round has no clients where each is drawn by itself.
_NOBODY = "nobody was drawn for it"
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
        entropy: random bytes, for noise.
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
    entropy: Callable[[int], bytes] = os.urandom
    _began: float | None = None
    _standing: Standing | None = None
    _folded: tuple[int, Partial] | None = None
    _folding: tuple[int, Partial] | None = None

    def advance(self) -> bool:
        """Open or close a round if that is due. Returns True when something changed."""
        if self._began is None:
            self._began = self.clock()
        row = self.store.current_round(self.hosted.name)
        if row is None:
            return self._open()
        if row.state == "open" and row.stage is not None:
            return self._go_on(row)
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
        number = federation.closed + 1
        nodes = self.store.nodes()
        spent = self._spent(nodes, number)
        present = [node for node in self.present(nodes, now, pace) if node.name not in spent]
        least = max(pace.nodes, FEWEST if self.hidden else 1)
        if len(present) < least:
            registered = [node for node in self._registered(nodes) if node.name not in spent]
            if spent and len(registered) < least:
                self.store.set_state(name, "finished", next(iter(spent.values())))
                return True
            return False
        standing = self.standing(number)
        model = self._model(standing.version)
        task, control = self.hosted.task(standing, model.sha256)
        if control is not None:
            self.blobs.put_bytes(control)
        roster = {} if pace.buffered else self._roster(present, standing, pace, number)
        # Where chance alone says how many there are, it may be fewer than are wanted.
        target = pace.wanted(len(present))
        target = target if pace.buffered else max(1, min(target, len(roster)))
        deadline = now + pace.seconds(self._durations(number))
        row = RoundRow(
            federation=name,
            number=number,
            version=standing.version,
            state="open",
            roster=roster,
            task=task.model_dump(mode="json"),
            target=target,
            quorum=pace.enough(target),
            opened=now,
            deadline=deadline,
            stage=Stage("advertise", deadline).to_json() if self.hidden else None,
        )
        # In a buffered federation nobody is named, so that anybody may be charged.
        invited = [node for node in present if pace.buffered or node.name in roster]
        policy = self.hosted.policy
        open_budgets(policy, self.store, invited)
        return bool(self.store.open_round(row, charges_of(policy, name, number, invited)))

    @property
    def hidden(self) -> bool:
        """True where updates are only ever seen as sums."""
        return self.hosted.strategy.seen is not Seen.UPDATE

    def _registered(self, nodes: Sequence[NodeRow]) -> list[NodeRow]:
        """Those who belong to the federation, there or not."""
        return [
            node
            for node in nodes
            if (node.federation, node.role, node.state) == (self.hosted.name, "node", "active")
        ]

    def _spent(self, nodes: Sequence[NodeRow], number: int) -> dict[str, str]:
        """Those whose data may not be used again, and why."""
        registered = self._registered(nodes)
        gone = insolvent(self.hosted.policy, self.store, self.hosted.name, number, registered)
        return {name: f"the privacy budget is spent: {reason}" for name, reason in gone.items()}

    def _pause(self) -> float:
        """Seconds of rest after failed rounds: what failed a moment ago would mostly fail again, and every failed round uses up a number."""
        past = self.store.rounds(self.hosted.name, 7)
        # That chance drew nobody is no failure.
        past = [row for row in past if row.reason != _NOBODY]
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
        strategy, members = self.hosted.strategy, standing.state.members
        sizes = {node.name: node.examples for node in present}
        if strategy.spacing is not None:
            # Those who have just taken part; where all have, the round is nobody's, and its number goes by.
            for name in strategy.spacing.resting(members, list(sizes), number):
                del sizes[name]
        names = list(sizes)
        wanted = pace.invited(len(names))
        poisson = isinstance(strategy.select, Poisson)
        if (wanted < len(names) or poisson) and names:
            seed: list[int] = [self.hosted.federation.seed, number, _SELECTION]
            if poisson and strategy.cover is not Cover.NONE:
                # What the accountant takes for unknown must not follow from a seed that everybody can read.
                seed = list(self.entropy(32))
            rng = np.random.default_rng(seed)
            names = strategy.select.choose(Roster(names, list(sizes.values())), wanted, members, rng)
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
        in_step = not pace.buffered and not pace.max_staleness and not self.hidden
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

    # ------------------------------------------------------------------------------------------ secure sums

    def sums(self, row: RoundRow, heard: Sequence[ContributionRow]) -> Sums:
        """The secure sums of a round as they stand; `heard` are its contributions, read after the row."""
        policy = self.hosted.policy
        assert policy is not None
        return Sums.read(policy, row, self.hosted.dimension, self.store, heard)

    def _go_on(self, row: RoundRow) -> bool:
        """Move a round with secure sums on to its next stage, or close it, if that is due."""
        now = self.clock()
        sums = self.sums(row, self.store.contributions(row.federation, row.number))
        if not sums.over(now, self._began or now) and not answered(sums, self.store):
            return False
        sums = replace(sums, ended=True)
        adverts = self.store.sealed(row.federation, row.number, "advertise")
        stage = None if sums.hopeless() else sums.next(now, adverts, self._shut(sums.ready, row.number))
        if stage is None:
            return self._close(row)
        return self.store.set_stage(row.federation, row.number, sums.stage.name, stage.to_json())

    def _shut(self, nodes: Collection[str], number: int) -> frozenset[str]:
        """Those whom trust has shut out: they are summed with each other, so that they are still looked at, and hurt nobody else's sum."""
        if self.hosted.strategy.trust is None:
            return frozenset()
        names = sorted(nodes)
        quarantined = self.standing(number).state.members.get("quarantined", names)
        return frozenset(name for name, left in zip(names, quarantined, strict=True) if left > 0)

    # ------------------------------------------------------------------------------------------ closing

    def _due(self, row: RoundRow) -> bool:
        tally = self.store.tally(row.federation, row.number)
        everyone = not self.pace().buffered and sum(tally.values()) >= len(row.roster)
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
        row = replace(row, state="closing")
        with self._lease(row, fence):
            start = perf_counter()
            heard = self.store.contributions(row.federation, row.number)
            why = self._too_few(row, heard)
            done = self._fail(row, fence, heard, why) if why else self._publish(row, fence, heard, start)
        if done:
            self.vault.drop(row.federation, row.number, heard)
            self._forget(row)
        return done

    def _too_few(self, row: RoundRow, heard: Sequence[ContributionRow]) -> str:
        """Why no model can come of a round, from how many were heard; empty where one can."""
        if row.stage is not None:
            return self.sums(row, heard).hopeless()
        accepted = sum(contribution.status == "accepted" for contribution in heard)
        if accepted >= row.quorum:
            return ""
        if not row.roster and not self.pace().buffered:
            return _NOBODY
        return f"{accepted} of the {row.quorum} updates needed came"

    def _fail(self, row: RoundRow, fence: int, heard: Sequence[ContributionRow], reason: str) -> bool:
        by_name = {contribution.node: contribution for contribution in heard}
        fates = dict(self.sums(row, heard).fates()) if row.stage is not None else {}
        record = RoundRecord(
            round=row.number,
            outcome=Outcome.KEPT,
            clients=tuple(
                _unused(name, by_name.get(name), fates.get(name, "")) for name in _names(row, heard)
            ),
            reason=reason,
            model=self._model(row.version).sha256,
            parent=self._model(row.version).sha256,
        )
        settle = settlement(self.hosted.policy, row, _sent(heard), published=False)
        return self.store.fail_round(
            row.federation, row.number, fence, reason, record.to_json(), self.clock(), settle
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
        spent, promised = self._privacy(row)
        record = replace(
            closed.record,
            model=identity,
            parent=self._model(row.version).sha256,
            notes={"learning_rate": float(row.task["learning_rate"]), **closed.record.notes, **spent},
            metrics=metrics,
            decisions={**closed.record.decisions, **decisions, **promised},
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
        settle = settlement(self.hosted.policy, row, _sent(heard), published=True)
        done = self.store.publish(
            row.federation, row.number, fence, model, record.to_json(), now, finished, why, settle
        )
        if done:
            vector = self.hosted.envelope.vector(self.blobs.path(identity))
            self._standing = Standing(model.version, vector, closed.state)
        return done

    def _privacy(self, row: RoundRow) -> tuple[dict[str, float], dict[str, str]]:
        """What a record says of privacy: the most that anybody of the round has spent, and what is promised."""
        policy = self.hosted.policy
        if policy is None:
            return {}, {}
        promised = {"privacy": policy.words}
        if not counts(policy):
            return {}, promised
        spent = [a.spent.epsilon for a in self.store.budgets() if a.budget.owner in row.roster]
        return {"epsilon": max(spent, default=0.0)}, promised

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
        if row.stage is not None:
            return self._fold_sums(row, open_round, by_name)
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

    def _fold_sums(self, row: RoundRow, open_round: Round, heard: Mapping[str, ContributionRow]) -> Closed:
        """The same calls as in a simulation, of a round whose updates are only seen as sums."""
        limit = None if row.task.get("limit") is None else float(row.task["limit"])
        sums = self.sums(row, list(heard.values()))
        pools, lost = unsealed(sums, self.store, self.vault, heard, limit, self.entropy)
        summed = sum(len(pool.clients) for pool in pools)
        if summed < row.quorum:
            reasons = "; ".join(sorted(set(lost.values())))
            raise RoundError(f"{summed} of the {row.quorum} updates needed could be summed ({reasons})")
        for pool in pools:
            open_round.add_pool(pool)
        for name, contribution in heard.items():
            if contribution.status == "failed":
                open_round.fail(Failure(name, contribution.reason))
            elif contribution.status == "refused":
                open_round.refuse(name, contribution.reason)
        for name, reason in lost.items():
            if name not in heard:
                open_round.fail(Failure(name, reason))
            elif heard[name].status == "accepted":
                open_round.refuse(name, reason)
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
            release=self._release(standing),
        )

    def _release(self, standing: Standing) -> Release | None:
        """Noise for the aggregate, where the coordinator adds it to updates that it sees. It is new at every closing, of which one is published."""
        strategy = self.hosted.strategy
        if strategy.cover is not Cover.SERVER or self.hidden:
            return None
        return self.hosted.release(standing, self.entropy)

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
            secret = self.entropy(32) if state is None else bytes(32)
            standing = self.hosted.standing(row.version, self.blobs.path(row.sha256), state, secret)
            self._standing = standing
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


def _sent(heard: Sequence[ContributionRow]) -> set[str]:
    """Whose updates arrived."""
    return {contribution.node for contribution in heard if contribution.status == "accepted"}


def _unused(name: str, contribution: ContributionRow | None, fate: str = "") -> ClientRecord:
    if contribution is None and fate:
        return ClientRecord(name, Verdict.FAILED, 0.0, reason=fate)
    if contribution is None:
        return ClientRecord(name, Verdict.ABSENT, 0.0, reason="no update arrived")
    if contribution.status == "accepted":
        return ClientRecord(name, Verdict.PASSED_OVER, 0.0, reason="the round failed, and no update was used")
    verdict = Verdict.FAILED if contribution.status == "failed" else Verdict.REFUSED
    return ClientRecord(name, verdict, 0.0, reason=contribution.reason)
