"""A whole federation in one process for tests: the real coordinator with its doors, and real sessions in threads."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

from haina.coordinator.contract import Caller
from haina.coordinator.serve import serving
from haina.coordinator.static import load
from haina.data.schema import Schema
from haina.federation.bench import Bench
from haina.federation.federation import Federation
from haina.node.link.grpc import GrpcLink
from haina.node.link.http import HttpLink, enrol
from haina.node.session import Session
from haina.node.trainer import Trainer
from haina.wire import tls
from haina.wire.codecs import CODECS
from haina.wire.identity import Credentials, new_key, request
from haina.wire.messages import Hello, Invite, Role


def take_part(invitation, data, door, folder, code="."):
    """One node's whole life. Returns why it ended."""
    key = new_key()
    credentials = Credentials.enrolled(key, enrol(invitation, request(key, invitation.name)))

    def connect(old):
        if old is not None:
            return old
        if door == "http":
            return HttpLink(invitation.http, tls.client_context(credentials.authority, credentials))
        return GrpcLink(invitation.grpc, tls.grpc_channel_credentials(credentials))

    def opened(welcome):
        schema = Schema.from_json(welcome.columns)
        federation = Federation.of(welcome.text, "federation.toml", code, schema)
        return Trainer(Bench(federation, site=data), credentials)

    hello = Hello(codecs=tuple(CODECS))
    session = Session(connect, Path(folder) / invitation.name, hello, opened, random.Random(invitation.name))
    return session.run()


def deploy(folder, file, sites, doors=("http", "grpc")):
    """Run a federation from nothing to its end. Returns the SHA-256 of each version, and the records."""
    ended = {}

    async def work():
        static = load({"state": folder / "state", "http": "127.0.0.1:0", "grpc": "127.0.0.1:0"})
        operator = Caller("operator-local", Role.OPERATOR, 0)
        async with serving([file], static) as running:
            threads = []
            for place, (name, data) in enumerate(sites.items()):
                invitation = await running.core.invite(operator, Invite(name=name))
                door = doors[place % len(doors)]

                def life(invitation=invitation, data=data, door=door):
                    ended[invitation.name] = take_part(invitation, data, door, folder / "nodes", file.parent)

                threads.append(threading.Thread(target=life, daemon=True))
                threads[-1].start()
            async with asyncio.timeout(120):
                while any(thread.is_alive() for thread in threads):
                    await asyncio.sleep(0.05)
            (name,) = running.core.stations
            models = await running.core.models(operator, name)
            rounds = await running.core.rounds(operator, name, 1000)
            return [model.sha256 for model in models], [row.record for row in rounds]

    result = asyncio.run(work())
    assert set(ended) == set(sites), ended
    return result
