"""A crowd: very many nodes as tasks of one event loop, each with one HTTP/1.1 connection of its own over mutual TLS, kept open.

    crowd.py FOLDER ADDRESSES.json --parameters 25000 --rounds 5

After the rounds all wait for settings. Lines of JSON on stdout: `{"task": round}` when the first node has the task of a round; `{"served": n}` after
the rounds; then for each push `{"version": v, "arrivals": [seconds since 1970, ...]}` when all have it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import random
import ssl
import sys
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from links import KINDS, increment

from coordinator import EXAMPLES, NAME
from haina.report import Report
from haina.wire.calls import ASK, DOWNLOAD, HELLO, MANIFEST, UPLOAD, Call
from haina.wire.identity import Credentials, sign
from haina.wire.messages import Ack, Ask, Event, Fate, Hello, Manifest, Message, Problem, Task
from haina.wire.tls import client_context


class Connection:
    """One connection, one request at a time."""

    refused = 0

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        head = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
        head += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*head, "", ""]).encode() + body)
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(answer.split("content-length:", 1)[1].split("\r\n", 1)[0])
        data = await self._reader.readexactly(length)
        if " 200 " in answer[:16]:
            return data
        problem = Problem.model_validate_json(data)
        if not problem.retry:
            raise RuntimeError(f"{method} {path}: {problem}")
        # As a node does: what passes by itself is waited for.
        self.refused += 1
        await asyncio.sleep(problem.retry * random.uniform(0.5, 1.0))
        return await self.send(method, path, body, **headers)

    async def call(self, call: Call[Any, Any], request: Message) -> bytes:
        return await self.send(
            call.method, call.path, request.model_dump_json().encode(), Content_Type="application/json"
        )


class Crowd:
    def __init__(self, rounds: int, bodies: list[tuple[bytes, str]]) -> None:
        self._rounds, self._bodies = rounds, bodies
        self._told: set[int] = set()
        self._served = 0
        self._arrivals: dict[int, list[float]] = {}
        self.size = 0

    async def node(self, number: int, connection: Connection, credentials: Credentials) -> None:
        hello = Hello(federation=NAME, examples=EXAMPLES, codecs=("float32",))
        await connection.call(HELLO, hello)
        version = 0
        done = 0
        while done < self._rounds:
            event = Event.model_validate_json(
                await connection.call(ASK, Ask(federation=NAME, settings_version=version))
            )
            version = event.settings.version if event.settings else version
            if event.task is not None:
                await self.train(number, connection, credentials, event.task)
                done += 1
        self._served += 1
        if self._served == self.size:
            print(json.dumps({"served": self.size}), flush=True)
        while True:
            ask = Ask(federation=NAME, settings_version=version, idle=False)
            settings = Event.model_validate_json(await connection.call(ASK, ask)).settings
            if settings is None:
                continue
            version = settings.version
            arrivals = self._arrivals.setdefault(version, [])
            arrivals.append(time.time())
            if len(arrivals) == self.size:
                print(json.dumps({"version": version, "arrivals": arrivals}), flush=True)

    async def train(self, number: int, connection: Connection, credentials: Credentials, task: Task) -> None:
        if task.round not in self._told:
            self._told.add(task.round)
            print(json.dumps({"task": task.round}), flush=True)
        model = await connection.send("GET", DOWNLOAD.path.format(federation=NAME, sha256=task.model))
        assert number or hashlib.sha256(model).hexdigest() == task.model
        body, digest = self._bodies[number % len(self._bodies)]
        manifest = Manifest(
            node=credentials.name,
            federation=NAME,
            round=task.round,
            version=task.version,
            sha256=digest,
            bytes=len(body),
            length=len(body) // 4,
            report=Report(examples=EXAMPLES).to_json(),
        )
        text = base64.urlsafe_b64encode(sign(credentials.key, manifest).model_dump_json().encode()).decode()
        path = UPLOAD.path.format(federation=NAME, round=task.round)
        headers = {MANIFEST.replace("-", "_"): text}
        ack = Ack.model_validate_json(await connection.send("PUT", path, body, **headers))
        assert ack.fate is Fate.ACCEPTED, ack


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("addresses")
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    options = parser.parse_args()
    known = json.loads((options.folder / "nodes.json").read_text(encoding="utf-8"))
    address = urlsplit(json.loads(options.addresses)["http"])
    vectors = [increment(kind, options.parameters).tobytes() for kind in range(KINDS)]
    crowd = Crowd(options.rounds, [(body, hashlib.sha256(body).hexdigest()) for body in vectors])
    crowd.size = len(known["nodes"])
    few = asyncio.Semaphore(32)

    async def one(number: int, said: dict[str, str]) -> None:
        credentials = Credentials(
            said["key"].encode(), said["certificate"].encode(), known["authority"].encode()
        )
        async with few:
            context: ssl.SSLContext = client_context(credentials.authority, credentials)
            streams = await asyncio.open_connection(
                address.hostname, address.port, ssl=context, limit=1 << 18, ssl_handshake_timeout=120
            )
        await crowd.node(number, Connection(*streams), credentials)

    nodes = [asyncio.create_task(one(number, said)) for number, said in enumerate(known["nodes"])]
    until = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait([*nodes, until], return_when=asyncio.FIRST_COMPLETED)
    for task in done - {until}:
        if task.exception() is not None:
            traceback.print_exception(task.exception())
            sys.stdout.flush()
            os._exit(1)
    for task in nodes:
        task.cancel()


if __name__ == "__main__":
    asyncio.run(main())
