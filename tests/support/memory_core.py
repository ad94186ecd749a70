"""A coordinator of one process's memory that keeps every promise of the contract but durability: for the doors' own tests and benchmarks."""

import asyncio
import hashlib
import time
from dataclasses import dataclass, field
from pathlib import Path

from haina import __version__
from haina.coordinator.contract import Blob, Caller
from haina.errors import TrustError
from haina.wire.identity import caller_of
from haina.wire.messages import (
    PROTOCOLS,
    Ack,
    AuditEntry,
    BudgetInfo,
    ChargeInfo,
    Enrolled,
    Event,
    Fate,
    FederationInfo,
    Invitation,
    ModelInfo,
    NodeInfo,
    Received,
    Role,
    RoundInfo,
    Settings,
    SettingsEntry,
    Welcome,
)
from haina.wire.refusal import Refusal

FEDERATION = "heart"


class Upload:
    """One update on its way: a spool file per (caller, round)."""

    def __init__(self, core, key, manifest, offset):
        self.core, self.key, self.manifest = core, key, manifest
        self.path = core.folder / f"{key[0]}-{key[1]}.part"
        self.file = self.path.open("r+b" if offset else "wb", buffering=0)
        self.file.seek(offset)
        self.missing = manifest.bytes - offset
        self.busy = False

    async def write(self, chunk):
        assert not self.busy, "a step began before the last one ended"
        assert not self.file.closed
        self.busy = True
        try:
            await asyncio.to_thread(self.file.write, chunk)
            self.missing -= len(chunk)
        finally:
            self.busy = False

    async def commit(self):
        assert not self.busy
        self.busy = True
        try:
            return await asyncio.to_thread(self._commit)
        finally:
            self.busy = False

    def _commit(self):
        self.file.close()
        with self.path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.manifest.sha256:
            self.path.unlink()
            self.core.spooling.pop(self.key, None)
            return Ack(fate=Fate.REFUSED, reason=f"the bytes have the sha256 {found}")
        self.core.updates[self.key] = self.manifest
        return Ack(fate=Fate.ACCEPTED, settings_version=self.core.version)

    async def close(self):
        assert not self.busy, "closed under a step"
        self.core.closed += 1
        self.file.close()


@dataclass
class MemoryCore:
    folder: Path
    authority: object = None
    version: int = 1
    blobs: dict = field(default_factory=dict)
    updates: dict = field(default_factory=dict)
    spooling: dict = field(default_factory=dict)
    revoked: set = field(default_factory=set)
    tokens: dict = field(default_factory=dict)
    greeted: dict = field(default_factory=dict)
    failures: list = field(default_factory=list)
    sealed: list = field(default_factory=list)
    step: object = None
    log: list = field(default_factory=list)
    task: object = None
    closed: int = 0
    waiting: int = 0
    ready: bool = True
    change: asyncio.Condition = field(default_factory=asyncio.Condition)

    def put(self, data):
        sha256 = hashlib.sha256(data).hexdigest()
        path = self.folder / sha256
        path.write_bytes(data)
        self.blobs[sha256] = Blob(sha256, len(data), path)
        return sha256

    async def admit(self, certificate):
        if certificate is None:
            raise Refusal("unauthenticated", "no certificate was shown")
        try:
            name, role, serial = caller_of(certificate)
        except TrustError as error:
            raise Refusal("unauthenticated", error.what) from error
        if name in self.revoked:
            raise Refusal("unauthenticated", f"{name} is revoked")
        return Caller(name, role, serial, certificate)

    async def enrol(self, request, peer):
        name = self.tokens.pop(request.token, None)
        if name is None:
            raise Refusal("forbidden", "the token is unknown", remedy="Ask for an invitation")
        return self._enrolled(request.csr, name, Role.NODE)

    async def renew(self, caller, request):
        return self._enrolled(request.csr, caller.name, caller.role)

    def _enrolled(self, csr, name, role):
        certificate = self.authority.issue(csr, name, role, time.time())
        return Enrolled(name=name, role=role, certificate=certificate, authority=self.authority.authority_pem)

    async def hello(self, caller, hello):
        self._node(caller)
        common = set(hello.protocols) & set(PROTOCOLS)
        if not common:
            raise Refusal("version", f"protocols {hello.protocols}", allowed=str(PROTOCOLS))
        self.greeted[caller.name] = hello
        return Welcome(
            protocol=max(common),
            software=__version__,
            name=caller.name,
            federation=hello.federation or FEDERATION,
            text="[federation]\n",
            columns="{}",
            settings=Settings(version=self.version, values={"big": 2**60 + 1, "share": 0.1}),
        )

    async def ask(self, caller, ask):
        self._node(caller)
        self._known(ask.federation)

        def news():
            stale = ask.settings_version < self.version
            settings = Settings(version=self.version, values={"v": self.version}) if stale else None
            task = (
                self.task
                if ask.idle and (caller.name, getattr(self.task, "round", None)) not in self.updates
                else None
            )
            sealed = self.step if ask.idle else None
            return Event(settings=settings, task=task, sealed=sealed) if settings or task or sealed else None

        self.waiting += 1
        try:
            async with asyncio.timeout(ask.wait), self.change:
                await self.change.wait_for(news)
                return news()
        except TimeoutError:
            return Event()
        finally:
            self.waiting -= 1

    async def tell(self, task=None, settings=False):
        async with self.change:
            self.task = task or self.task
            self.version += settings
            self.change.notify_all()

    async def blob(self, caller, federation, sha256):
        self._known(federation)
        if sha256 not in self.blobs:
            raise Refusal("not_found", f"no bytes with the sha256 {sha256}")
        return self.blobs[sha256]

    async def received(self, caller, federation, round):
        self._known(federation)
        key = (caller.name, round)
        if key in self.updates:
            manifest = self.updates[key]
            return Received(bytes=manifest.bytes, done=True, sha256=manifest.sha256)
        if key not in self.spooling:
            return Received()
        landing = self.spooling[key]
        return Received(bytes=landing.manifest.bytes - landing.missing, sha256=landing.manifest.sha256)

    async def begin(self, caller, manifest, offset):
        self._node(caller)
        self._known(manifest.federation)
        if manifest.node != caller.name:
            raise Refusal("forbidden", f"{caller.name} sends for {manifest.node}")
        key = (caller.name, manifest.round)
        kept = self.updates.get(key)
        if kept is not None:
            if kept.sha256 == manifest.sha256:
                return Ack(fate=Fate.DUPLICATE)
            raise Refusal("conflict", "another update is kept for this round")
        here = (await self.received(caller, manifest.federation, manifest.round)).bytes
        if offset > here:
            raise Refusal("conflict", f"offset {offset}, but {here} bytes are here")
        self.spooling[key] = landing = Upload(self, key, manifest, offset)
        return landing

    async def fail(self, caller, failed):
        self._known(failed.federation)
        self.failures.append((caller.name, failed))
        return Ack(fate=Fate.ACCEPTED)

    async def seal(self, caller, sealed):
        self._node(caller)
        self._known(sealed.federation)
        self.sealed.append((caller.name, sealed))
        return Ack(fate=Fate.ACCEPTED)

    async def budgets(self, caller):
        self._operator(caller)
        return [BudgetInfo(owner="alpha", epsilon=8.0, delta=1e-5, composition="zcdp", parts=("wards",))]

    async def charges(self, caller, owner, last):
        self._operator(caller)
        about = {"federation": FEDERATION, "round": 1, "mechanism": "x", "state": "released"}
        return [ChargeInfo(id=str(number), owner=owner or "alpha", **about) for number in range(min(last, 2))]

    async def invite(self, caller, request):
        self._operator(caller)
        token = f"token-of-{request.name}-".ljust(43, "x")
        self.tokens[token] = request.name
        return Invitation(
            name=request.name,
            role=request.role,
            federation=request.federation,
            http="https://localhost:1",
            grpc="localhost:2",
            authority=self.authority.authority_pem,
            fingerprint=self.authority.fingerprint,
            token=token,
            expires="2100-01-01T00:00:00+00:00",
        )

    async def revoke(self, caller, name, why):
        self._operator(caller)
        self.revoked.add(name)
        return NodeInfo(name=name, role=Role.NODE, state="revoked")

    async def nodes(self, caller):
        self._operator(caller)
        return [
            NodeInfo(name=name, role=Role.NODE, state="active", software=hello.software)
            for name, hello in self.greeted.items()
        ]

    async def federations(self, caller):
        self._operator(caller)
        return [self._info("running")]

    async def command(self, caller, federation, command, why):
        self._operator(caller)
        self._known(federation)
        return self._info({"start": "running", "pause": "paused", "stop": "stopped"}[command], why)

    async def rounds(self, caller, federation, last):
        self._operator(caller)
        self._known(federation)
        return [self._round(number) for number in range(min(last, 3))]

    async def round(self, caller, federation, number):
        self._operator(caller)
        self._known(federation)
        return self._round(number)

    async def models(self, caller, federation):
        self._operator(caller)
        self._known(federation)
        return [self._model(version) for version in range(2)]

    async def rollback(self, caller, federation, version, why):
        self._operator(caller)
        self._known(federation)
        return self._model(version, why)

    async def settings(self, caller, scope):
        self._operator(caller)
        return {"version": self.version, "values": {"scope": scope}, "own": {}, "schema": {}}

    async def configure(self, caller, change):
        self._operator(caller)
        if change.expect is not None and change.expect != self.version:
            raise Refusal("version", f"version {change.expect} was seen, it is {self.version}")
        await self.tell(settings=not change.dry_run)
        entry = SettingsEntry(
            version=self.version,
            scope=change.scope,
            values=change.values,
            who=caller.name,
            when=time.time(),
            why=change.why,
        )
        self.log.append(entry)
        async with self.change:
            self.change.notify_all()
        return entry

    async def settings_log(self, caller, last):
        self._operator(caller)
        return self.log[-last:]

    async def settings_rollback(self, caller, version, why):
        self._operator(caller)
        return SettingsEntry(
            version=version, scope="global", values={}, who=caller.name, when=time.time(), why=why
        )

    async def audit(self, caller, last):
        self._operator(caller)
        return [AuditEntry(id=1, when=1.0, who="operator", action="start", detail={"n": 2**60})][:last]

    async def follow(self, caller, federation):
        self._operator(caller)
        told = len(self.log)
        while True:
            async with self.change:
                await self.change.wait_for(lambda: len(self.log) > told)  # noqa: B023
            for number in range(told, len(self.log)):
                yield AuditEntry(id=number, when=1.0, who=self.log[number].who, action="configure")
            told = len(self.log)

    async def health(self):
        return {"live": True, "ready": self.ready, "version": __version__}

    def _node(self, caller):
        if caller.role is not Role.NODE:
            raise Refusal("forbidden", f"{caller.name} is no node")

    def _operator(self, caller):
        if caller.role is not Role.OPERATOR:
            raise Refusal("forbidden", f"{caller.name} is no operator")

    def _known(self, federation):
        if federation == "broken":
            raise RuntimeError("a secret of the inside")
        if federation != FEDERATION:
            raise Refusal("not_found", f"no federation {federation}", allowed=FEDERATION)

    def _info(self, state, why=""):
        return FederationInfo(
            name=FEDERATION, state=state, rounds=3, closed=1, version=1, reason=why, metrics={"loss": 0.5}
        )

    def _round(self, number):
        return RoundInfo(
            federation=FEDERATION,
            number=number,
            state="open",
            version=1,
            opened=1.0,
            deadline=2.0,
            record={"n": 2**60},
        )

    def _model(self, version, note=""):
        return ModelInfo(
            federation=FEDERATION,
            version=version,
            sha256="0" * 64,
            parent=None,
            round=1,
            created=1.0,
            bytes=5,
            note=note,
        )
