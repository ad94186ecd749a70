"""A real coordinator (core, store, spool, authority) behind both doors with real TLS, in a loop of its own; and callers of every kind."""

import asyncio
import base64
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from contextlib import contextmanager

import grpc
import numpy as np
from untouched import remembered

from haina.coordinator.doors.limits import Limits
from haina.coordinator.serve import serving
from haina.coordinator.static import StaticSettings
from haina.node.link.api import Api
from haina.node.link.grpc import GrpcLink
from haina.node.link.http import HttpLink, enrol
from haina.report import Report
from haina.wire import tls
from haina.wire.identity import Credentials, new_key, request, sign
from haina.wire.messages import Ask, Enrolled, Hello, Invite, Manifest, Problem, Role

#: A round that never fills, so that any member may send an update at any time.
FILE = """
name = "{name}"
[model]
learner = "jax"
{model}
[data]
shape = [3]
classes = ["a", "b"]
[train]
rounds = 3
[serve]
nodes = 1
mode = "buffered"
buffer = 100000
deadline = "1h"
codecs = ["float32", "bf16", "int8", "topk"]
"""
#: 8 numbers; and 6 h + 2 of them, 1.2 MB, which travel another way into the HTTP door.
MODELS = {"trial": 'kind = "logistic"', "other": 'kind = "mlp"\nhidden = [50000]'}
NUMBERS = {"trial": 8, "other": 300_002}
WIDE = Limits(calls_per_second=1e6, calls_at_once=10**6, strangers_per_second=1e6, strangers_at_once=10**6)


class Static(StaticSettings):
    """Static settings with limits that a test chooses."""

    chosen: Limits = WIDE

    @property
    def limits(self):
        return self.chosen


class Fortress:
    """A running coordinator with the federations `trial` and `other`, and its own operator."""

    def __init__(self, folder, limits=WIDE, files=None):
        self.folder, self.tokens, self.people = folder, [], []
        files = files or {name: FILE.format(name=name, model=model) for name, model in MODELS.items()}
        self.federations = set(files)
        for name, words in files.items():
            (folder / f"{name}.toml").write_text(words)
        self.static = Static(state=folder / "state", http="127.0.0.1:0", grpc="127.0.0.1:0", chosen=limits)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._context = serving([folder / f"{name}.toml" for name in files], self.static)
        self._running = self.run(self._context.__aenter__(), 60)
        self.core = self._running.core
        self.ground = self.core.ground
        self.http_port = int(self._running.http.rpartition(":")[2])
        self.grpc_port = int(self._running.grpc.rpartition(":")[2])
        self.operator = Person(self, Credentials.load(folder / "state" / "operator"), b"")

    def run(self, work, timeout=30):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self):
        for person in self.people:
            person.close()
        self.run(self._shut(), 60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    async def _shut(self):
        await self._context.__aexit__(None, None, None)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.loop.shutdown_default_executor()
        # Connections that the last answers closed end in the loop's next turns.
        await asyncio.sleep(0.2)

    def person(self, name, role=Role.NODE, federation="trial"):
        """Somebody new: invited, enrolled through the door."""
        federation = federation if role is Role.NODE else None
        with self.operator.api() as api:
            invitation = api.invite(Invite(name=name, role=role, federation=federation))
        self.tokens.append(invitation.token)
        key = new_key()
        return Person(self, Credentials.enrolled(key, enrol(invitation, request(key, name))), key)

    def node(self, name, federation="trial"):
        """A node that has said hello."""
        node = self.person(name, federation=federation)
        node.federation = federation
        node.link("http").hello(Hello(examples=10, codecs=("float32", "bf16", "int8", "topk")))
        return node

    def forged(self, name, role=Role.NODE, authority=None, now=None, known=True):
        """Credentials that nobody enrolled for; `known` writes them into the coordinator's memory all the same."""
        authority, key = authority or self.ground.authority, new_key()
        certificate = authority.issue(request(key, name), name, role, time.time() if now is None else now)
        credentials = Credentials.enrolled(
            key, Enrolled(name=name, role=role, certificate=certificate, authority=authority.authority_pem)
        )
        if known:
            row = self.ground.store.node("operator-local")
            changed = {"name": name, "role": role, "serial": credentials.serial, "federation": "trial"}
            self.ground.store.put_node(type(row)(**{**vars(row), **changed, "previous": None}))
        return Person(self, credentials, key)

    def remembered(self, *without):
        """All that is kept, once what is under way is written."""
        self.run(self.core.end_news())
        return remembered(self.ground, *without)

    def context(self, credentials=None):
        return tls.client_context(self.ground.authority.authority_pem, credentials)

    def alive(self):
        """The coordinator answers others, at both doors."""
        with self.operator.api() as api:
            assert {federation.name for federation in api.federations()} == self.federations
        status, _, body = self.speak(
            b"GET /v1/readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert (status, json.loads(body)) == (200, {"ready": True})

    def speak(self, data, who=None, timeout=10):
        """Raw bytes to the HTTP door, and its one answer: (status, headers, body); None where the connection just ended."""
        with self.wire(who, timeout) as wire:
            try:
                wire.sendall(data)
            except (ssl.SSLError, ConnectionError):
                return None
            return answer_of(wire)

    @contextmanager
    def wire(self, who=None, timeout=10):
        with socket.create_connection(("127.0.0.1", self.http_port), timeout=timeout) as plain:
            context = self.context(None if who is None else who.credentials)
            with context.wrap_socket(plain, server_hostname="localhost") as wire:
                yield wire


class Person:
    """A holder of a certificate, and its ways in."""

    def __init__(self, fortress, credentials, key):
        self.fortress, self.credentials, self.key = fortress, credentials, key or credentials.key
        self.name, self.federation = credentials.name, "trial"
        self._links = {}
        fortress.people.append(self)

    def link(self, door, timeout=10):
        if door not in self._links:
            if door == "http":
                context = tls.client_context(self.fortress.ground.authority.authority_pem, self.credentials)
                self._links[door] = HttpLink(
                    f"https://localhost:{self.fortress.http_port}", context, timeout=timeout
                )
            else:
                self._links[door] = GrpcLink(
                    f"localhost:{self.fortress.grpc_port}", self.channel_credentials(), timeout=timeout
                )
        return self._links[door]

    def channel_credentials(self):
        pem = self.fortress.ground.authority.authority_pem.encode()
        return grpc.ssl_channel_credentials(pem, self.credentials.key, self.credentials.certificate)

    @contextmanager
    def channel(self, options=()):
        address = f"localhost:{self.fortress.grpc_port}"
        with grpc.secure_channel(address, self.channel_credentials(), options) as channel:
            yield channel

    @contextmanager
    def api(self):
        api = Api(f"https://localhost:{self.fortress.http_port}", self.fortress.context(self.credentials))
        try:
            yield api
        finally:
            api.close()

    def parcel(self, vector=None, body=None, signed=True, **changes):
        """A signed manifest of an update of round 1, and its bytes."""
        vector = (
            np.arange(NUMBERS[self.federation], dtype="<f4") if vector is None else np.asarray(vector, "<f4")
        )
        body = vector.tobytes() if body is None else body
        fields = {
            "node": self.name,
            "federation": self.federation,
            "round": 1,
            "version": 0,
            "sha256": hashlib.sha256(body).hexdigest(),
            "bytes": len(body),
            "length": len(vector),
            "report": Report(examples=10).to_json(),
        }
        manifest = Manifest(**{**fields, **changes})
        return (sign(self.key, manifest) if signed else manifest), body

    def task(self):
        """Wait for the round to be open; settings, which may come first and without it, are taken note of."""
        version = 0
        for _ in range(5):
            event = self.link("http").ask(Ask(federation=self.federation, wait=5, settings_version=version))
            if event.task is not None or event.finished:
                break
            version = version if event.settings is None else event.settings.version
        return event.task

    def close(self):
        for link in self._links.values():
            link.close()
        self._links.clear()


def answer_of(wire):
    """One HTTP answer of a socket: (status, headers, body); None where it ended without one."""
    data = b""
    try:
        while b"\r\n\r\n" not in data:
            part = wire.recv(65536)
            if not part:
                return None
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            part = wire.recv(65536)
            if not part:
                return None
            body += part
    except (ssl.SSLError, ConnectionError):
        return None
    return int(first.split()[1]), headers, body


def problem_of(answer):
    """The problem that an answer is: its code, after a look for what it must not say."""
    assert answer is not None
    status, headers, body = answer
    assert status >= 400, answer
    assert headers["content-type"].startswith("application/problem+json"), answer
    silent(body.decode())
    return Problem.model_validate_json(body).code


def code_of(call):
    """The code of a gRPC call that was refused."""
    try:
        call()
    except grpc.RpcError as error:
        return code_in(error)
    raise AssertionError("it was granted")


def code_in(error):
    """The code in an error of gRPC, after a look for what it must not say; the status's name where the transport itself refused."""
    silent(f"{error.details()} {error.trailing_metadata()}")
    for key, value in error.trailing_metadata() or ():
        if key == "haina-problem-bin":
            silent(value.decode())
            return Problem.model_validate_json(value).code
    return error.code().name


_INSIDE = re.compile(
    r"Traceback|File \"|\.py\b|/tmp/|sqlite|sqlalchemy|SELECT |-----BEGIN|0x[0-9a-f]{6,}", re.IGNORECASE
)


def silent(text, *secrets):
    """Nothing of the inside is told."""
    found = _INSIDE.search(text)
    assert found is None, (found, text)
    for secret in secrets:
        assert secret not in text, text


def http(method, path, body=b"", *headers, version="1.1"):
    """The bytes of a request."""
    kind = ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    lines = [f"{method} {path} HTTP/{version}", "Host: localhost", *kind, *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def head(manifest, length=None, *more, offset=0):
    """The head of an upload."""
    text = base64.urlsafe_b64encode(manifest.model_dump_json().encode()).decode()
    length = manifest.bytes if length is None else length
    path = f"/v1/federations/{manifest.federation}/rounds/{manifest.round}/update"
    return http(
        "PUT",
        path,
        b"",
        f"Haina-Manifest: {text}",
        f"Haina-Offset: {offset}",
        f"Content-Length: {length}",
        *more,
    )
