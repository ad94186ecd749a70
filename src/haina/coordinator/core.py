"""The core: what a node may ask, behind both doors (`haina.coordinator.contract.Core`); what an operator may ask is in `operators`.

Nothing here blocks the loop: the store and the disk are called in threads. Who may do what is decided here, in one place for each call.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from functools import partial

from haina import __version__
from haina.coordinator.authority import requested_key, token_hash
from haina.coordinator.contract import Blob, Caller, Landing
from haina.coordinator.ground import Ground
from haina.coordinator.landing import Arrival
from haina.coordinator.operators import Operators, revoked
from haina.coordinator.sealing import STAGES
from haina.coordinator.station import Station
from haina.coordinator.store import ContributionRow, InvitationRow, NodeRow, Outcome, Seen
from haina.coordinator.uploads import Commits, check_manifest, place
from haina.wire.identity import caller_of, load_certificate
from haina.wire.messages import (
    PROTOCOLS,
    Ack,
    Ask,
    Enrol,
    Enrolled,
    Event,
    Failed,
    Fate,
    Hello,
    Manifest,
    Received,
    Renew,
    Role,
    Sealed,
    Settings,
    Task,
    Welcome,
)
from haina.wire.refusal import Refusal

log = logging.getLogger("haina.core")

#: Seconds for which a node's row is believed, among replicas, without asking the store again: how long a revocation by another may go unnoticed.
_BELIEVED = 1.0
#: Seconds between writings of signs of life.
_SEEN = 2.0
#: Seconds after which a node that waits for an answer is seen again.
_ALIVE = 10.0


class CoordinatorCore(Operators):
    """The one core behind both doors.

    Args:
        ground: what a coordinator stands on (store, blobs, spool, authority, settings).
        stations: the federations.
    """

    def __init__(self, ground: Ground, stations: Iterable[Station] = ()) -> None:
        super().__init__(ground)
        self._callers: dict[int, tuple[float, Caller, NodeRow]] = {}
        self._seen: dict[str, Seen] = {}
        self._late: dict[str, int] = {}
        self._commits: dict[str, Commits] = {}
        self._tasks: list[asyncio.Task[None]] = []
        for station in stations:
            self.add(station)

    def add(self, station: Station) -> None:
        """Host one more federation; before `start`."""
        self.stations[station.name] = station
        self._commits[station.name] = Commits(station.rounds.record, self.ground.run)

    def heard(self, topic: str) -> None:
        """Something changed in the store, by this process or by another replica."""
        kind, _, name = topic.partition(":")
        if kind == "nodes":
            self.forget_callers()
        elif kind == "settings":
            self.ground.settings.forget()
            self._background(self._read_settings())
        elif kind == "audit":
            self.news.ring()
        elif kind == "round" and self.ground.shared and name in self.stations:
            self.stations[name].poke()

    def start(self) -> None:
        """Begin to run rounds, and to write signs of life."""
        for station in self.stations.values():
            station.start()
        self._tasks.append(asyncio.create_task(self._keep_time(), name="haina-time"))

    async def close(self) -> None:
        """Stop; rounds that are closing are finished first."""
        for task in list(self._tasks):
            task.cancel()
        for station in self.stations.values():
            await station.close()
        with suppress(Refusal):
            await self._flush_seen()
        await self.end_news()

    # ------------------------------------------------------------------------------------------ who calls

    async def admit(self, certificate: bytes | None) -> Caller:
        """See `contract.Core.admit`."""
        if certificate is None:
            raise Refusal(
                "unauthenticated",
                "the connection carries no certificate",
                remedy="Enrol with an invitation first: haina join FILE.invite",
            )
        holder = caller_of(certificate)
        believed = self._callers.get(holder.serial)
        if (
            believed is not None
            and believed[0] > self.ground.clock()
            and believed[1].certificate == certificate
        ):
            return believed[1]
        row = await self.ground.run(self.ground.store.node, holder.name)
        if row is None or holder.serial not in (row.serial, row.previous) or row.role != holder.role:
            raise Refusal(
                "unauthenticated",
                f"the certificate of {holder.name} is not known here",
                remedy="Ask the operator for a new invitation",
            )
        if row.state != "active":
            raise revoked(holder.name)
        # TLS looks at the dates when a connection begins, and one may stay open for longer than a certificate is good.
        if expiry(certificate) <= self.ground.clock():
            raise Refusal(
                "unauthenticated",
                f"the certificate of {holder.name} has expired",
                remedy="Ask the operator for a new invitation",
            )
        caller = Caller(holder.name, Role(holder.role), holder.serial, certificate)
        if len(self._callers) > 100_000:
            self._callers.clear()
        # One process alone makes every change itself, and forgets the rows then.
        until = self.ground.clock() + _BELIEVED if self.ground.shared else expiry(certificate)
        self._callers[holder.serial] = (until, caller, row)
        return caller

    def forget_callers(self) -> None:
        """Rows of nodes changed: ask the store again."""
        self._callers.clear()

    async def _row(self, caller: Caller) -> NodeRow:
        """What is known of a caller now; refuses one who was shut out since its call began."""
        believed = self._callers.get(caller.serial)
        if believed is not None:
            return believed[2]
        row: NodeRow | None = await self.ground.run(self.ground.store.node, caller.name)
        if row is None or row.state != "active":
            raise revoked(caller.name)
        return row

    # ------------------------------------------------------------------------------------------ first contact

    async def enrol(self, request: Enrol, peer: str) -> Enrolled:
        """See `contract.Core.enrol`. The key of the request is certified under the invitation's name and role, whatever the request says."""
        ground, now = self.ground, self.ground.clock()
        key = requested_key(request.csr)
        issued: list[Enrolled] = []

        def make(invitation: InvitationRow) -> NodeRow:
            role = Role(invitation.role)
            certificate = ground.authority.issue(request.csr, invitation.name, role, now)
            holder = caller_of(certificate)
            issued.append(
                Enrolled(
                    name=invitation.name,
                    role=role,
                    certificate=certificate,
                    authority=ground.authority.authority_pem,
                )
            )
            return NodeRow(
                name=invitation.name,
                role=role,
                group=invitation.group,
                federation=invitation.federation,
                serial=holder.serial,
                certificate_expires=expiry(certificate),
                joined=now,
            )

        answer = await ground.run(ground.store.enrol, token_hash(request.token), now, key, make)
        if isinstance(answer, str):
            raise Refusal(
                "forbidden",
                f"the invitation cannot be used: {answer}",
                allowed="an invitation that is not used and not expired",
                remedy="Ask the operator for a new one: haina invite NAME",
            )
        self.forget_callers()
        return issued[-1]

    async def renew(self, caller: Caller, request: Renew) -> Enrolled:
        """See `contract.Core.renew`."""
        ground, now = self.ground, self.ground.clock()
        certificate = ground.authority.issue(request.csr, caller.name, caller.role, now)
        serial, expires = caller_of(certificate).serial, expiry(certificate)
        row = await ground.run(ground.store.certify, caller.name, serial, caller.serial, expires)
        if row is None:
            raise revoked(caller.name)
        self.forget_callers()
        self.happened("certificate.renewed", caller.name, {}, who=caller.name)
        return Enrolled(
            name=caller.name,
            role=caller.role,
            certificate=certificate,
            authority=ground.authority.authority_pem,
        )

    # ------------------------------------------------------------------------------------------ a node's life

    async def hello(self, caller: Caller, hello: Hello) -> Welcome:
        """See `contract.Core.hello`."""
        self.require(caller, Role.NODE)
        common = set(PROTOCOLS) & set(hello.protocols)
        if not common:
            raise Refusal(
                "version",
                f"the node speaks versions {', '.join(map(str, hello.protocols)) or 'none'} of the protocol",
                allowed=", ".join(map(str, PROTOCOLS)),
                remedy="Install the version of haina that the coordinator runs: " + __version__,
            )
        row = await self._row(caller)
        station = self._station_of(row.federation or hello.federation)
        codec = self._codec(station, row, hello.codecs)
        announced = await self.ground.run(
            partial(
                self.ground.store.announce,
                caller.name,
                # A node that has just started says hello before it has read its rows.
                examples=hello.examples or row.examples,
                software=hello.software,
                codec=codec,
                mode=hello.mode,
                federation=station.name,
                now=self.ground.clock(),
                identity=hello.identity,
                # As with the rows: one that has just started does not know yet.
                dataset=hello.dataset or row.dataset,
            )
        )
        if announced is None:
            raise revoked(caller.name)
        if hello.identity not in (None, announced.identity):
            raise Refusal(
                "conflict",
                f"{caller.name} signs its part in secure sums with another key than before",
                allowed=f"the key {announced.identity}, which the other sites know",
                remedy="Use the folder that this site had before, or ask the operator for a new invitation: haina invite NAME --replace",
            )
        row = announced
        self.forget_callers()
        if hello.examples:
            station.poke()
            self.happened("node.ready", caller.name, {"examples": hello.examples}, who=caller.name)
        return Welcome(
            protocol=max(common),
            software=__version__,
            name=caller.name,
            federation=station.name,
            text=station.view.federation.text,
            columns=station.view.federation.columns,
            settings=self._settings(row),
            brief=station.hosted.brief,
        )

    async def ask(self, caller: Caller, ask: Ask) -> Event:
        """See `contract.Core.ask`."""
        self.require(caller, Role.NODE)
        row = await self._row(caller)
        station = self._member(row, ask.federation)
        self._saw(row, ask, ask.doing or "waiting")
        loop = asyncio.get_running_loop()
        until = loop.time() + ask.wait
        while True:
            event = self._event(station, row, ask)
            left = until - loop.time()
            if event is not None:
                step = event.task or event.sealed
                if step is not None:
                    self._saw(row, ask, f"round {step.round}")
                return event
            if left <= 0:
                return Event(retry=0.0 if ask.wait else float(self._settings(row).values["ask_interval"]))
            await station.bell.wait(min(left, _ALIVE))
            self._saw(row, ask, ask.doing or "waiting")
            row = await self._row(caller)

    def _saw(self, row: NodeRow, ask: Ask, doing: str) -> None:
        self._seen[row.name] = Seen(row.name, self.ground.clock(), doing, ask.settings_version)

    def _event(self, station: Station, row: NodeRow, ask: Ask) -> Event | None:
        settings: Settings | None = self._settings(row)
        if settings is not None and settings.version == ask.settings_version:
            settings = None
        state = station.view.federation.state
        if state in ("finished", "stopped"):
            return Event(
                settings=settings, finished=True, reason=(station.view.federation.reason or state)[:200]
            )
        if not ask.idle:
            return None if settings is None else Event(settings=settings)
        task = None
        sealed = station.view.step_of(row.name, self.ground.clock())
        # A federation that is paused opens no round; the one under way ends.
        if not self._settings(row).values.get("paused"):
            task = self._task(station, row)
        if task is None and settings is None and sealed is None:
            return None
        return Event(settings=settings, task=task, paused=state == "paused", sealed=sealed)

    def _task(self, station: Station, row: NodeRow) -> Task | None:
        task, open_row = station.view.task_of(row.name), station.view.row
        if task is None or open_row is None:
            return None
        now = self.ground.clock()
        station.given.setdefault((task.round, row.name), now)
        codec = row.codec if task.codec != "raw" else "raw"
        return task.model_copy(update={"codec": codec, "seconds": max(0.0, open_row.deadline - now)})

    async def blob(self, caller: Caller, federation: str, sha256: str) -> Blob:
        """See `contract.Core.blob`. Members, viewers and operators get the open round's control vector, and any version of the model that is kept."""
        station = self._member(await self._row(caller), federation, caller)
        task = station.view.task
        wanted = {task.model, task.control} if task is not None else set()
        if sha256 not in wanted and not await self.ground.run(self._is_model, federation, sha256):
            raise Refusal("not_found", f"federation {federation} gives out no bytes of this SHA-256")
        path = await self.ground.run(self.ground.blobs.path, sha256)
        return Blob(sha256, path.stat().st_size, path)

    def _is_model(self, federation: str, sha256: str) -> bool:
        return any(row.kept and row.sha256 == sha256 for row in self.ground.store.models(federation))

    async def received(self, caller: Caller, federation: str, round: int) -> Received:
        """See `contract.Core.received`."""
        self.require(caller, Role.NODE)
        self._member(await self._row(caller), federation)
        row = await self.ground.run(self.ground.store.contribution, federation, round, caller.name)
        if row is not None and row.status == "accepted":
            return Received(bytes=row.bytes, done=True, sha256=row.sha256)
        return await self.ground.run(self.ground.spool.received, federation, round, caller.name)

    async def begin(self, caller: Caller, manifest: Manifest, offset: int) -> Landing | Ack:
        """See `contract.Core.begin`."""
        self.require(caller, Role.NODE)
        station = self._member(await self._row(caller), manifest.federation)
        check_manifest(station.hosted, caller, manifest, self.ground.largest_upload)
        settings_version = self._settings(await self._row(caller)).version
        if station.view.heard(manifest.round, caller.name):
            again = await self.again(manifest, settings_version)
            if again is not None:
                return again
        where = self.place_now(station, manifest)
        if isinstance(where, str):
            # Another replica may have counted it already, and closed the round for that.
            again = await self.again(manifest, settings_version)
            if again is not None:
                return again
            # Once in a round: who sends it again and again fills no log.
            closed = station.view.federation.closed
            if self._late.get(caller.name) != closed:
                self._late[caller.name] = closed
                self.happened("update.late", caller.name, {"round": manifest.round, "reason": where})
            return Ack(fate=Fate.REFUSED, reason=where, settings_version=settings_version)
        incoming = await self.ground.run_bulk(
            self.ground.spool.open,
            manifest.federation,
            manifest.round,
            caller.name,
            manifest.sha256,
            manifest.bytes,
            offset,
        )
        return Arrival(self, station, caller, manifest, incoming, settings_version)

    def place_now(self, station: Station, manifest: Manifest) -> int | str:
        """Where an update counts, as things stand (`uploads.place`)."""
        view, staleness = station.view, station.rounds.pace().max_staleness
        sums = None if view.steps is None else view.steps.sums
        return place(station.hosted, manifest, view.row, view.federation, staleness, sums)

    async def again(self, manifest: Manifest, settings_version: int) -> Ack | None:
        """The answer to a second delivery; None where the store, and so any replica, knows of no first one."""
        there = await self.ground.run(
            self.ground.store.contribution, manifest.federation, manifest.round, manifest.node
        )
        return None if there is None else _again(there, manifest, settings_version)

    def may_be_late(self, station: Station) -> bool:
        """True where an update that misses its round may count in the next."""
        federation = station.view.federation
        return station.rounds.pace().max_staleness > 0 and federation.state not in ("stopped", "finished")

    def outcome_ack(self, outcome: Outcome, manifest: Manifest, settings_version: int) -> Ack:
        """The answer for a contribution that was not new."""
        if outcome == "closed":
            reason = f"round {manifest.round} closed before the update was complete"
            return Ack(fate=Fate.REFUSED, reason=reason, settings_version=settings_version)
        if outcome == "taken":
            reason = f"another update of {manifest.node} counts in the open round"
            return Ack(fate=Fate.REFUSED, reason=reason, settings_version=settings_version)
        assert not isinstance(outcome, str)
        return _again(outcome, manifest, settings_version)

    async def count(self, station: Station, caller: Caller, row: ContributionRow) -> Outcome:
        """Commit one contribution of somebody who has not been shut out meanwhile, and look whether the round is complete."""
        await self._row(caller)
        outcome = await self._commits[station.name].put(row)
        view = station.view
        if outcome == "new" and view.row is not None and view.row.number == row.counted_in:
            view.answered.add(row.node)
            if view.complete:
                station.poke()
        elif outcome == "closed":
            station.poke()
        return outcome

    async def fail(self, caller: Caller, failed: Failed) -> Ack:
        """See `contract.Core.fail`."""
        self.require(caller, Role.NODE)
        station = self._member(await self._row(caller), failed.federation)
        row = station.view.row
        invited = station.view.invited
        if row is None or row.number != failed.round or (invited is not None and caller.name not in invited):
            return Ack(fate=Fate.REFUSED, reason=f"round {failed.round} is not open for {caller.name}")
        outcome = await self.count(
            station,
            caller,
            ContributionRow(
                federation=failed.federation,
                round=failed.round,
                node=caller.name,
                counted_in=failed.round,
                version=row.version,
                status="failed",
                received=self.ground.clock(),
                epoch=self.ground.epoch,
                reason=failed.reason,
                where=failed.where,
            ),
        )
        if outcome == "new":
            self._gone(station, failed.round, caller.name)
            self.happened("node.failed", caller.name, {"round": failed.round, "reason": failed.reason})
        fate = (
            Fate.ACCEPTED
            if outcome == "new"
            else Fate.REFUSED
            if isinstance(outcome, str)
            else Fate.DUPLICATE
        )
        return Ack(fate=fate, settings_version=self._settings(await self._row(caller)).version)

    async def seal(self, caller: Caller, sealed: Sealed) -> Ack:
        """See `contract.Core.seal`."""
        self.require(caller, Role.NODE)
        row = await self._row(caller)
        station = self._member(row, sealed.federation)
        settings_version, steps = self._settings(row).version, station.view.steps
        late = self._untimely(station, sealed)
        if late is not None:
            return Ack(fate=Fate.REFUSED, reason=late, settings_version=settings_version)
        assert steps is not None
        reason, over = steps.sums.refusal(caller.name, sealed.stage), steps.sums.stage.past(sealed.stage)
        if reason is not None and not over:
            return Ack(fate=Fate.REFUSED, reason=reason[:1000], settings_version=settings_version)
        data = b"" if sealed.reason else _bytes(sealed)
        if not (sealed.reason or over):
            await self.ground.run(steps.check, caller.name, row.identity, sealed.stage, data)
        # Of a stage that is over only the store knows whether this was taken in time.
        about = sealed.federation, sealed.round, sealed.stage, caller.name
        taken = await self.ground.run(self.ground.store.put_sealed, *about, data, self.ground.clock())
        if taken == "new":
            self._took(station, caller.name, sealed, steps.key)
            return Ack(fate=Fate.ACCEPTED, settings_version=settings_version)
        if taken == "same":
            return Ack(fate=Fate.DUPLICATE, settings_version=settings_version)
        station.poke()
        if taken == "other":
            reason = f"another {sealed.stage} of {caller.name} is here already"
        reason = reason or f"round {sealed.round} goes on without it: {sealed.stage} is over"
        return Ack(fate=Fate.REFUSED, reason=reason[:1000], settings_version=settings_version)

    def _untimely(self, station: Station, sealed: Sealed) -> str | None:
        """Why a message of a secure sum is too late for good; None where its round is under way, and at its stage or beyond.

        Raises:
            Refusal: unavailable: another replica may be ahead of this one.
        """
        if not station.rounds.hidden:
            return f"federation {station.name} takes updates as they are"
        view = station.view
        number = view.federation.closed + 1 if view.row is None else view.row.number
        if number > sealed.round:
            return f"round {sealed.round} is over"
        steps = view.steps if number == sealed.round else None
        if steps is None or STAGES.index(steps.sums.stage.name) < STAGES.index(sealed.stage):
            raise Refusal(
                "unavailable",
                f"round {sealed.round} is not at {sealed.stage}, as far as is known here",
                remedy="Send it again in a moment",
                retry=0.2,
            )
        return None

    def _took(self, station: Station, node: str, sealed: Sealed, stage: tuple[int, str]) -> None:
        """A message of a secure sum is in the store: look whether the stage has all it waits for."""
        if sealed.reason:
            what = {"round": sealed.round, "stage": sealed.stage, "reason": sealed.reason}
            self.happened("node.declined", node, what)
            self._gone(station, sealed.round, node)
        elif station.view.stage == stage:
            station.view.sent.add(node)
            if station.view.complete:
                station.poke()

    def _gone(self, station: Station, round: int, node: str) -> None:
        """A node goes no further in a round: it is not waited for."""
        view = station.view
        if view.row is not None and view.row.number == round:
            view.left.add(node)
            if view.complete:
                station.poke()

    # ------------------------------------------------------------------------------------------ small things

    def _settings(self, row: NodeRow) -> Settings:
        return self.ground.settings.effective(row.name, row.group)

    def _codec(self, station: Station, row: NodeRow, spoken: tuple[str, ...]) -> str:
        """The codec of a node's updates: what settings say, if the federation allows it and the node speaks it; else the first that both do."""
        wanted = str(self._settings(row).values.get("codec", ""))
        allowed = station.hosted.codecs
        common = [codec for codec in (wanted, *allowed) if codec in allowed and codec in spoken]
        if not common:
            raise Refusal(
                "invalid",
                f"the node writes updates as {', '.join(spoken)}",
                allowed=", ".join(allowed),
                remedy="Allow one of them in the federation file: [serve] codecs",
            )
        return common[0]

    def _station_of(self, name: str | None) -> Station:
        if name is None and len(self.stations) == 1:
            return next(iter(self.stations.values()))
        station = self.stations.get(name or "")
        if station is None:
            raise Refusal(
                "not_found",
                f"there is no federation {name!r}" if name else "the invitation names no federation",
                remedy="Ask the operator which federation you belong to",
            )
        return station

    def _member(self, row: NodeRow, federation: str, caller: Caller | None = None) -> Station:
        if row.role == Role.NODE and row.federation != federation:
            raise Refusal("forbidden", f"{row.name} is not a member of that federation")
        return self._station_of(federation)

    async def _read_settings(self) -> None:
        """Read the log of settings in a thread, then push."""
        await self.ground.run(self.ground.settings.effective)
        self.settings_changed()

    def _background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _keep_time(self) -> None:
        """Write signs of life, and let overrides of settings end."""
        while True:
            await asyncio.sleep(_SEEN)
            try:
                await self._flush_seen()
                ended = await self.ground.run(self.ground.settings.expire)
            except Exception as error:
                # Whatever the database said: without signs of life no round would ever open again.
                log.warning("signs of life or settings could not be kept: %s", error)
                continue
            if ended is not None:
                self.settings_changed()

    async def _flush_seen(self) -> None:
        seen, self._seen = self._seen, {}
        if seen:
            await self.ground.run(self.ground.store.see_nodes, list(seen.values()))


def expiry(certificate: bytes | str) -> float:
    """When a certificate ends, seconds since 1970."""
    return load_certificate(certificate).not_valid_after_utc.timestamp()


def _bytes(sealed: Sealed) -> bytes:
    try:
        return base64.b64decode(sealed.data, validate=True)
    except ValueError:
        raise Refusal("invalid", "the data of the message are not base64") from None


def _again(there: ContributionRow, manifest: Manifest, settings_version: int) -> Ack:
    """The answer to a second delivery."""
    if there.status == "accepted" and there.sha256 == manifest.sha256:
        return Ack(fate=Fate.DUPLICATE, settings_version=settings_version)
    if there.status == "accepted":
        reason = f"another update of {there.node} counts in round {there.counted_in}"
    else:
        reason = there.reason or f"the update was {there.status}"
    return Ack(fate=Fate.REFUSED, reason=reason[:1000], settings_version=settings_version)
