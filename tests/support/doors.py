"""Both doors of a MemoryCore on loopback with real certificates, in a loop of their own; and links to them."""

import asyncio
import hashlib
import threading
import time
from contextlib import contextmanager
from functools import cache

from memory_core import FEDERATION, MemoryCore

from haina.coordinator.authority import Authority
from haina.coordinator.doors.desk import Desk
from haina.coordinator.doors.grpc import GrpcDoor
from haina.coordinator.doors.http import HttpDoor
from haina.node.link.api import Api
from haina.node.link.grpc import GrpcLink
from haina.node.link.http import HttpLink
from haina.wire import identity, tls
from haina.wire.messages import Manifest, Role


def credentials(authority, name, role=Role.NODE):
    key = identity.new_key()
    certificate = authority.issue(identity.request(key, name), name, role, time.time())
    return identity.Credentials(key, certificate.encode(), authority.authority_pem.encode())


def manifest_of(data, node="alpha", round=1, **fields):
    fields = {"version": 1, "report": {"examples": 10.0, "big": 2**60 + 1}, "length": 3, **fields}
    sha256 = hashlib.sha256(data).hexdigest()
    return Manifest(
        **{
            "node": node,
            "federation": FEDERATION,
            "round": round,
            "sha256": sha256,
            "bytes": len(data),
            **fields,
        }
    )


class House:
    """A running coordinator with two doors."""

    def __init__(self, folder, limits=None, **options):
        self.authority = Authority.open(folder, time.time)
        self.folder, self.limits, self.options = folder, limits, options
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self._open())

    async def _open(self):
        self.core = MemoryCore(self.folder, self.authority)
        self.desk = Desk(self.core, self.limits, **self.options)
        self.http, self.grpc = HttpDoor(self.desk), GrpcDoor(self.desk)
        self.http_port = await self.http.open("127.0.0.1", 0, tls.server_context(self.authority.server))
        self.plain_port = await self.http.open("127.0.0.1", 0, None)
        self.grpc_port = await self.grpc.open(
            "127.0.0.1", 0, tls.grpc_server_credentials(self.authority.server)
        )

    def run(self, work, timeout=30):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    @cache  # noqa: B019 - a house lives as long as its test
    def context(self, name="alpha", role=Role.NODE):
        who = credentials(self.authority, name, role) if name else None
        return tls.client_context(self.authority.authority_pem, who)

    def link(self, door, name="alpha", role=Role.NODE, **options):
        if door == "http":
            return HttpLink(f"https://localhost:{self.http_port}", self.context(name, role), **options)
        who = tls.grpc_channel_credentials(credentials(self.authority, name, role))
        return GrpcLink(f"localhost:{self.grpc_port}", who, **options)

    def api(self, name="operator", role=Role.OPERATOR):
        return Api(f"https://localhost:{self.http_port}", self.context(name, role))

    def close(self):
        async def shut():
            await self.http.close(0.5)
            await self.grpc.close(0.5)
            left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            await self.loop.shutdown_default_executor()

        self.run(shut())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@contextmanager
def house(folder, limits=None, **options):
    home = House(folder, limits, **options)
    try:
        yield home
    finally:
        home.close()
