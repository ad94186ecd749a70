"""A real coordinator in one event loop without its doors: store, spool, authority and rounds are real; the clock and the nodes are the test's."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager

import numpy as np

from haina.artifact import dump
from haina.coordinator.authority import Authority
from haina.coordinator.blobs import FolderBlobs
from haina.coordinator.contract import Caller
from haina.coordinator.core import CoordinatorCore
from haina.coordinator.ground import Ground
from haina.coordinator.host import pace_of
from haina.coordinator.hosted import Hosted
from haina.coordinator.serve import _station
from haina.coordinator.settings import SettingsService
from haina.coordinator.spool import Spool
from haina.coordinator.store import FederationRow, ModelRow, Store
from haina.coordinator.vault import SpoolVault
from haina.federation.bench import Bench
from haina.federation.envelope import Envelope
from haina.federation.federation import Federation
from haina.report import Report
from haina.wire.codecs import CODECS, encode
from haina.wire.identity import caller_of, load_certificate, new_key, request, sign
from haina.wire.messages import Ack, Ask, Enrol, Hello, Invite, Manifest, Role

FILE = """
name = "trial"
seed = 1
[model]
learner = "jax"
[data]
shape = [{d}]
classes = ["a", "b"]
[train]
rounds = {rounds}
{train}
[strategy]
{strategy}
[serve]
{serve}
"""


class Clock:
    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


class Office:
    """The core, and what a test needs around it."""

    def __init__(self, core, clock, store):
        self.core, self.clock, self.store = core, clock, store
        self.operator = Caller("operator", Role.OPERATOR, 0)

    @property
    def station(self):
        return self.core.stations["trial"]

    async def node(self, name, examples=10, **hello):
        invitation = await self.core.invite(self.operator, Invite(name=name))
        key = new_key()
        enrolled = await self.core.enrol(Enrol(token=invitation.token, csr=request(key, name)), "127.0.0.1")
        node = Node(self, name, key, enrolled.certificate)
        await node.hello(examples, **hello)
        return node

    async def nodes(self, *names, examples=10):
        return [await self.node(name, examples) for name in names]

    async def until(self, condition, seconds=5.0):
        """Let the coordinator work until something holds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not condition():
            assert loop.time() < end, "it did not happen"
            self.station.poke()
            await asyncio.sleep(0.005)

    async def open(self, number):
        await self.until(lambda: self.station.view.row is not None and self.station.view.row.number == number)

    async def closed(self, number):
        await self.until(lambda: self.store.federation("trial").closed >= number)
        return self.store.round("trial", number)

    def model(self, version=None):
        row = self.store.model("trial", version)
        return np.array(self.station.hosted.envelope.vector(self.core.ground.blobs.path(row.sha256)))


class Node:
    def __init__(self, office, name, key, certificate):
        self.office, self.name, self.key = office, name, key
        self.der = load_certificate(certificate).public_bytes(
            __import__("cryptography").hazmat.primitives.serialization.Encoding.DER
        )
        self.serial = caller_of(self.der).serial

    async def caller(self):
        return await self.office.core.admit(self.der)

    async def hello(self, examples=10, **more):
        hello = Hello(examples=examples, **{"codecs": tuple(CODECS), **more})
        return await self.office.core.hello(await self.caller(), hello)

    async def ask(self, wait=2.0, **more):
        return await self.office.core.ask(await self.caller(), Ask(federation="trial", wait=wait, **more))

    def parcel(self, task, vector, *, examples=10, codec=None, **changes):
        vector = np.asarray(vector, np.float32)
        body, _ = encode(codec or task.codec, vector)
        body = body.tobytes()
        manifest = Manifest(
            node=self.name,
            federation="trial",
            round=task.round,
            version=task.version,
            sha256=hashlib.sha256(body).hexdigest(),
            bytes=len(body),
            codec=codec or task.codec,
            length=len(vector),
            report=Report(examples=examples).to_json(),
        )
        return sign(self.key, manifest.model_copy(update=changes)), body

    async def send(self, task, vector, **more):
        manifest, body = self.parcel(task, vector, **more)
        return await self.deliver(manifest, body)

    async def deliver(self, manifest, body, offset=0):
        landing = await self.office.core.begin(await self.caller(), manifest, offset)
        if isinstance(landing, Ack):
            return landing
        try:
            await landing.write(body[offset:])
            return await landing.commit()
        finally:
            await landing.close()


@asynccontextmanager
async def office(
    folder,
    *,
    d=3,
    rounds=3,
    train="",
    strategy='preset = "fedavg"',
    serve='nodes = 2\ndeadline = "60s"',
    privacy="",
):
    """A coordinator with one federation of float32 models `[d]` that begin at zero."""
    clock = Clock()
    store = Store.open(None, folder, clock)
    spool, blobs = Spool(folder / "spool", 1 << 30), FolderBlobs(folder / "blobs")
    ground = Ground(
        store=store,
        blobs=blobs,
        vault=SpoolVault(spool),
        spool=spool,
        authority=Authority.open(folder / "authority", clock),
        settings=SettingsService(store, clock),
        clock=clock,
        scratch=folder / "scratch",
        epoch="test",
        http="https://localhost:1",
        grpc="localhost:2",
    )
    text = FILE.format(d=d, rounds=rounds, train=train, strategy=strategy, serve=serve)
    federation = Federation.of(text + privacy)
    first = dump({"w": np.zeros(d, np.float32)})
    if store.federation("trial") is None:
        model = ModelRow("trial", 0, blobs.put_bytes(first), len(first), None, 0, None, clock())
        store.put_federation(FederationRow("trial", federation.text, "", created=clock()), model)
    hosted = Hosted(federation, Envelope.of(first), pace_of(federation.serve, federation), Bench(federation))
    core = CoordinatorCore(ground)
    core.add(_station(hosted, ground, core))
    loop = asyncio.get_running_loop()
    store.changes.listen(lambda topic: loop.call_soon_threadsafe(core.heard, topic))
    core.start()
    try:
        yield Office(core, clock, store)
    finally:
        await core.close()
        ground.close()
