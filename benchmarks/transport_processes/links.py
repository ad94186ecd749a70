"""Nodes of few words: each a thread with the real link, which downloads the model, and uploads a canned increment in place of training.

    links.py FOLDER ADDRESSES.json --door http|grpc [--plain]

Tells by lines of JSON on stdout: `{"task": round}` when the first node has the task of a round, and at the end what was done.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import resource
import ssl
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from coordinator import EXAMPLES, NAME
from haina.node.link import Link
from haina.node.link.grpc import GrpcLink
from haina.node.link.http import HttpLink
from haina.report import Report
from haina.wire.identity import Credentials, sign
from haina.wire.messages import Ask, Fate, Hello, Manifest
from haina.wire.tls import client_context, grpc_channel_credentials

#: Nodes share so many different increments.
KINDS = 4

lock = threading.Lock()
told: set[int] = set()
times: list[tuple[float, float]] = []
failures: list[str] = []


class Sink(io.RawIOBase):
    """Takes a download, and forgets it but for its SHA-256 if that is wanted."""

    def __init__(self, hashed: bool) -> None:
        self.digest = hashlib.sha256() if hashed else None

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def write(self, data: Any) -> int:
        if self.digest is not None:
            self.digest.update(data)
        return len(data)


def increment(kind: int, parameters: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """What nodes of a kind send."""
    return np.random.default_rng([2, kind]).standard_normal(parameters, dtype=np.float32) * np.float32(0.01)


def link_of(door: str, addresses: dict[str, Any], number: int, credentials: Credentials, plain: bool) -> Link:
    if plain:
        own = addresses["plain"][number]
        return HttpLink(own["http"], None) if door == "http" else GrpcLink(own["grpc"], None)
    if door == "http":
        return HttpLink(addresses["http"], client_context(credentials.authority, credentials))
    return GrpcLink(addresses["grpc"], grpc_channel_credentials(credentials))


def node(number: int, link: Link, credentials: Credentials, bodies: list[tuple[Path, str, int]]) -> None:
    body, digest, size = bodies[number % len(bodies)]
    link.hello(Hello(federation=NAME, examples=EXAMPLES, codecs=("float32",)))
    while True:
        event = link.ask(Ask(federation=NAME))
        if event.finished:
            return
        task = event.task
        if task is None:
            continue
        with lock:
            if task.round not in told:
                told.add(task.round)
                print(json.dumps({"task": task.round}), flush=True)
        begun, sink = time.perf_counter(), Sink(hashed=number == 0)
        got = link.download(NAME, task.model, sink)  # type: ignore[arg-type]
        assert got == task.bytes
        assert sink.digest is None or sink.digest.hexdigest() == task.model
        fetched = time.perf_counter()
        manifest = Manifest(
            node=credentials.name,
            federation=NAME,
            round=task.round,
            version=task.version,
            sha256=digest,
            bytes=size,
            length=size // 4,
            report=Report(examples=EXAMPLES).to_json(),
        )
        with body.open("rb", buffering=0) as source:
            ack = link.upload(sign(credentials.key, manifest), source)
        assert ack.fate is Fate.ACCEPTED, ack
        with lock:
            times.append((fetched - begun, time.perf_counter() - fetched))


def guarded(*arguments: Any) -> None:
    try:
        node(*arguments)
    except Exception as error:
        failures.append(f"{type(error).__name__}: {error}")
        raise


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("addresses")
    parser.add_argument("--door", choices=("http", "grpc"), required=True)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    known = json.loads((options.folder / "nodes.json").read_text(encoding="utf-8"))
    bodies = []
    for kind in range(KINDS):
        path = options.folder / f"increment-{kind}"
        data = increment(kind, options.parameters)
        data.tofile(path)
        bodies.append((path, hashlib.sha256(memoryview(data)).hexdigest(), data.nbytes))
    addresses, threads = json.loads(options.addresses), []
    for number, one in enumerate(known["nodes"]):
        credentials = Credentials(
            one["key"].encode(), one["certificate"].encode(), known["authority"].encode()
        )
        link = link_of(options.door, addresses, number, credentials, options.plain)
        threads.append(threading.Thread(target=guarded, args=(number, link, credentials, bodies)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    done = {
        "finished": len(times),
        "failures": failures,
        "download_s": median(t[0] for t in times) if times else None,
        "upload_s": median(t[1] for t in times) if times else None,
        "cpu": usage.ru_utime + usage.ru_stime,
        "tls": ssl.OPENSSL_VERSION,
    }
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    main()
