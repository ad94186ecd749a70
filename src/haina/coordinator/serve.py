"""Serving: everything that a coordinator is, put together; started, and ended in order.

STATE/
    coordinator.sqlite       what is remembered (unless a database is named)
    authority/               the certificate authority's key and certificate, and the server's own
    operator/                credentials for the operator on this machine
    blobs/ spool/            bytes of models, and of updates under way
    coordinator.json         the addresses of the doors, for the command line on this machine
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import hashlib
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from haina.coordinator.authority import Authority
from haina.coordinator.blobs import Blobs, FolderBlobs, TableBlobs
from haina.coordinator.core import CoordinatorCore
from haina.coordinator.doors.desk import Desk
from haina.coordinator.doors.grpc import GrpcDoor
from haina.coordinator.doors.http import HttpDoor
from haina.coordinator.ground import Ground
from haina.coordinator.host import host
from haina.coordinator.hosted import Hosted
from haina.coordinator.pace import Pace, paced
from haina.coordinator.rounds import Rounds
from haina.coordinator.settings import SettingsService
from haina.coordinator.spool import Spool
from haina.coordinator.static import Address, StaticSettings
from haina.coordinator.station import Station
from haina.coordinator.store import NodeRow, Store
from haina.coordinator.vault import SharedVault, SpoolVault, Vault
from haina.errors import ConfigError
from haina.wire.identity import Credentials, new_key, request
from haina.wire.messages import Enrolled, Role
from haina.wire.tls import grpc_server_credentials, server_context

log = logging.getLogger("haina.serve")

#: The certificate of the operator on this machine is renewed at each start.
_LOCAL = "operator-local"


@dataclass(frozen=True)
class Running:
    """A coordinator that serves.

    Args:
        core: the core behind its doors.
        http: the address of the HTTP door as it is called, `https://HOST:PORT`.
        grpc: the address of the gRPC door, `HOST:PORT`.
    """

    core: CoordinatorCore
    http: str
    grpc: str


@asynccontextmanager
async def serving(
    files: Sequence[Path], static: StaticSettings, clock: Callable[[], float] = time.time
) -> AsyncIterator[Running]:
    """A coordinator with its doors open, for as long as the block lasts.

    Args:
        files: federation files.
        static: addresses, folders and limits.
        clock: seconds since 1970.

    Raises:
        HainaError: a file, the database, the authority or an address cannot be used.
    """
    async with AsyncExitStack() as stack:
        ground = await asyncio.to_thread(_ground, static, clock)
        stack.callback(ground.close)
        core = CoordinatorCore(ground, {})
        for file in files:
            hosted = await asyncio.to_thread(host, file, ground.store, ground.blobs, clock)
            core.add(_station(hosted, ground, core))
        loop = asyncio.get_running_loop()
        stack.callback(ground.store.changes.listen(lambda topic: _tell(loop, core, topic)))
        desk = Desk(core, static.limits)
        http = HttpDoor(desk)
        grpc = GrpcDoor(desk)
        last = _last_address(static.state)
        with _listening("http", static.http):
            at = _again(static.http, last.get("http_port"))
            http_port = await http.open(*at, server_context(ground.authority.server))
        with _listening("grpc", static.grpc):
            at = _again(static.grpc, last.get("grpc_port"))
            grpc_port = await grpc.open(*at, grpc_server_credentials(ground.authority.server))
        core.ground = ground = replace(
            ground,
            http="https://" + (static.public_http or f"{static.public_name}:{http_port}"),
            grpc=static.public_grpc or f"{static.public_name}:{grpc_port}",
        )
        await asyncio.to_thread(_local_operator, ground, static.state)
        _write_address(static, ground, http_port, grpc_port)
        core.start()
        _give_back_memory()
        try:
            yield Running(core, ground.http, ground.grpc)
        finally:
            # Doors first: what is under way is answered, and nothing new begins.
            await http.close()
            await grpc.close()
            await core.close()


@contextmanager
def _listening(door: str, address: Address) -> Iterator[None]:
    """An address that is taken is said in words; gRPC has no error of its own for it."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            f"{address.host}:{address.port} cannot be listened at",
            remedy=f"Something may be there already: ss -ltn, or name another: --{door} HOST:PORT",
        ) from error


def _last_address(state: Path) -> dict[str, Any]:
    """What the last coordinator of this folder wrote about itself."""
    try:
        said = json.loads((state / "coordinator.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def _again(wanted: Address, last: object) -> Address:
    """Where the system may choose a port (0), the one it chose before, if that is free: sites were invited to it."""
    if wanted.port or not isinstance(last, int):
        return wanted
    with socket.socket(socket.AF_INET6 if ":" in wanted.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.host, last))
        except OSError:
            log.warning(
                "port %d of the last time is taken: sites that were invited to it will not find this one",
                last,
            )
            return wanted
    return Address(wanted.host, last)


def _tell(loop: asyncio.AbstractEventLoop, core: CoordinatorCore, topic: str) -> None:
    """From whichever thread committed, into the loop."""
    with suppress(RuntimeError):  # The loop has ended.
        loop.call_soon_threadsafe(core.heard, topic)


def _ground(static: StaticSettings, clock: Callable[[], float]) -> Ground:
    state = static.state
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = Store.open(static.database, state, clock)
    try:
        authority = Authority.open(static.authority or state / "authority", clock, static.names)
        spool = Spool(state / "spool", static.spool_bytes)
        blobs: Blobs
        vault: Vault
        if static.database is None:
            blobs, vault = FolderBlobs(state / "blobs"), SpoolVault(spool)
            spool.sweep(_kept(store))
        else:
            blobs = TableBlobs(store, state / "cache", static.cache_bytes)
            vault = SharedVault(store, blobs, spool)
            spool.sweep(())
        return Ground(
            store=store,
            blobs=blobs,
            vault=vault,
            spool=spool,
            authority=authority,
            settings=SettingsService(store, clock),
            clock=clock,
            scratch=state / "scratch",
            epoch=f"{socket.gethostname()[:40]}.{os.getpid()}.{secrets.token_hex(6)}",
            http="",
            grpc="",
            shared=static.database is not None,
            largest_upload=static.upload_bytes,
        )
    except BaseException:
        store.close()
        raise


def _kept(store: Store) -> list[tuple[str, int, str]]:
    """Uploads that rows of open rounds speak of."""
    kept = []
    for federation in store.federations():
        row = store.current_round(federation.name)
        if row is not None:
            kept += [(c.federation, c.round, c.node) for c in store.contributions(row.federation, row.number)]
    return kept


def _station(hosted: Hosted, ground: Ground, core: CoordinatorCore) -> Station:
    def pace() -> Pace:
        return paced(hosted.pace, ground.settings.of_rounds())

    rounds = Rounds(
        hosted=hosted,
        store=ground.store,
        blobs=ground.blobs,
        vault=ground.vault,
        scratch=ground.scratch,
        holder=ground.epoch,
        clock=ground.clock,
        pace=pace,
        keep_models=lambda: int(
            ground.settings.of_rounds().get("keep_models") or hosted.federation.serve.keep_models
        ),
        epoch=ground.epoch,
        shared=ground.shared,
    )
    return Station(hosted, rounds, ground.store, ground.clock, core.happened)


def _local_operator(ground: Ground, state: Path) -> None:
    """Credentials for the operator on this machine: whoever can read the state folder is the operator already."""
    now, key, name = ground.clock(), new_key(), _LOCAL
    if ground.shared:
        # Replicas share the table of nodes, and each machine has an operator of its own.
        place = f"{socket.gethostname()}:{state.resolve()}"
        name = f"{_LOCAL}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
    certificate = ground.authority.issue(request(key, name), name, Role.OPERATOR, now)
    credentials = Credentials.enrolled(
        key,
        Enrolled(
            name=name,
            role=Role.OPERATOR,
            certificate=certificate,
            authority=ground.authority.authority_pem,
        ),
    )
    there = ground.store.node(name)
    ground.store.put_node(
        NodeRow(
            name=name,
            role=Role.OPERATOR,
            serial=credentials.serial,
            previous=None if there is None else there.serial,
            certificate_expires=credentials.expires,
            joined=now,
        )
    )
    credentials.save(state / "operator")


def _write_address(static: StaticSettings, ground: Ground, http_port: int, grpc_port: int) -> None:
    """For the command line on this machine, which need not know the public name."""
    here = static.http.host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::")  # noqa: S104 -- compared, not bound
    said = {
        "http": f"https://localhost:{http_port}" if here else ground.http,
        "grpc": ground.grpc,
        "http_port": http_port,
        "grpc_port": grpc_port,
        "pid": os.getpid(),
    }
    draft = static.state / ".coordinator.json.new"
    draft.write_text(json.dumps(said), encoding="utf-8")
    draft.replace(static.state / "coordinator.json")


def _give_back_memory() -> None:
    """What starting took and nobody needs any more goes back to the system: about a tenth of an idle coordinator."""
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError):  # Only the GNU C library has it.
        ctypes.CDLL(None).malloc_trim(0)
