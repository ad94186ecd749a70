"""The coordinator that is measured: `haina serve`'s own `serving`, in a process of its own.

    coordinator.py seed FOLDER --nodes 10 --parameters 25000000 --rounds 4
    coordinator.py serve FOLDER [--plain]

`seed` leaves FOLDER as `haina serve` leaves it after its first start and after every node has enrolled: the federation and its first model in the
store, a certificate for each node (their keys go to `nodes.json`). A federation's first model is made by its learner, which would bring a framework
that transport has no use for.

A caller is known by its certificate, so plain text knows nobody. For measuring it, `--plain` opens for each node a pair of doors that say who calls;
everything behind is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from haina.coordinator.static import StaticSettings, load

NAME = "transport"
#: Rows that a node says it has.
EXAMPLES = 100
_FILE = """
name = "{name}"
[model]
learner = "torch"
build = "net:net"
[data]
shape = [4]
classes = ["no", "yes"]
[train]
rounds = {rounds}
[serve]
nodes = {nodes}
deadline = "30m"
keep_models = 2
"""


def static(folder: Path) -> StaticSettings:
    # All nodes of a crowd may upload at the same moment.
    return load({"state": folder / "state", "http": "127.0.0.1:0", "grpc": "127.0.0.1:0", "uploads": 1024})


def seed(folder: Path, nodes: int, parameters: int, rounds: int) -> None:
    import numpy as np

    from haina.artifact import dump
    from haina.coordinator.authority import Authority
    from haina.coordinator.blobs import FolderBlobs
    from haina.coordinator.store import FederationRow, ModelRow, NodeRow, Store
    from haina.federation.federation import Federation
    from haina.wire.identity import caller_of, load_certificate, new_key, request
    from haina.wire.messages import Role

    file = folder / "federation.toml"
    file.write_text(_FILE.format(name=NAME, rounds=rounds, nodes=nodes), encoding="utf-8")
    federation, state = Federation.read(file), folder / "state"
    store = Store.open(None, state, time.time)
    model = dump({"weights": np.random.default_rng(1).standard_normal(parameters, dtype=np.float32)})
    store.put_federation(
        FederationRow(NAME, federation.text, federation.schema.to_json(), created=time.time()),
        ModelRow(
            NAME, 0, FolderBlobs(state / "blobs").put_bytes(model), len(model), None, 0, None, time.time()
        ),
    )
    authority = Authority.open(state / "authority", time.time, static(folder).names)
    known = []
    for i in range(nodes):
        name, key = f"node-{i:04}", new_key()
        certificate = authority.issue(request(key, name), name, Role.NODE, time.time())
        expires = load_certificate(certificate).not_valid_after_utc.timestamp()
        serial = caller_of(certificate).serial
        store.put_node(
            NodeRow(
                name,
                Role.NODE,
                federation=NAME,
                serial=serial,
                certificate_expires=expires,
                joined=time.time(),
            )
        )
        known.append({"name": name, "key": key.decode(), "certificate": certificate})
    store.close()
    text = json.dumps({"authority": authority.authority_pem, "nodes": known})
    (folder / "nodes.json").write_text(text, encoding="utf-8")


async def serve(folder: Path, plain: bool) -> None:
    from haina.coordinator.serve import serving

    settings = static(folder)
    async with AsyncExitStack() as stack:
        running = await stack.enter_async_context(serving([folder / "federation.toml"], settings))
        addresses: dict[str, object] = {"http": running.http, "grpc": running.grpc}
        if plain:
            addresses["plain"] = await _plain(running.core, settings, folder, stack)
        print(json.dumps(addresses), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def _plain(
    core: object, settings: StaticSettings, folder: Path, stack: AsyncExitStack
) -> list[dict[str, str]]:
    import ssl
    from typing import Any

    from haina.coordinator.doors.desk import Desk
    from haina.coordinator.doors.grpc import GrpcDoor
    from haina.coordinator.doors.http import HttpDoor

    admitting: Any = core
    doors = []
    for node in json.loads((folder / "nodes.json").read_text(encoding="utf-8"))["nodes"]:
        shown = ssl.PEM_cert_to_DER_cert(node["certificate"])

        async def identify(_: bytes | None, shown: bytes = shown) -> Any:
            return await admitting.admit(shown)

        desk = Desk(admitting, settings.limits, identify=identify)
        http, grpc = HttpDoor(desk), GrpcDoor(desk)
        ports = await http.open("127.0.0.1", 0, None), await grpc.open("127.0.0.1", 0, None)
        stack.push_async_callback(http.close)
        stack.push_async_callback(grpc.close)
        doors.append({"http": f"http://127.0.0.1:{ports[0]}", "grpc": f"127.0.0.1:{ports[1]}"})
    return doors


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=("seed", "serve"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nodes", type=int)
    parser.add_argument("--parameters", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    if options.command == "seed":
        seed(options.folder, options.nodes, options.parameters, options.rounds)
    else:
        asyncio.run(serve(options.folder, options.plain))
