"""The gRPC door: protobuf for what is said, raw bytes for models (`proto/haina/v1/haina.proto` describes both).

Its calls are the methods of the service in the .proto; each is the call of the same name in the table, so a method added there is answered here. gRPC
for Python can demand client certificates or ignore them, but not ask for them: so it demands them, and enrolment, which comes before a certificate,
is on the HTTP door only, as are operators' calls.

The trap: watch streams that clients abandon leak native memory in gRPC, so every one is ended from this side after 10 to 15 minutes.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from typing import Any, TypeVar

import grpc
from pydantic_core import from_json

from haina.coordinator.contract import Caller
from haina.coordinator.doors.desk import Desk, problem_of
from haina.coordinator.doors.limits import Limits, Pace
from haina.wire.calls import CALLS, MANIFEST, MAX_MANIFEST, MESSAGE, OFFSET, PROBLEM, SERVICE, Call
from haina.wire.messages import Ask, Event, Manifest, Message
from haina.wire.refusal import STATUS, Refusal, checked
from haina.wire.requests import Wanted
from haina.wire.v1.convert import decode, encode
from haina.wire.v1.haina_pb2 import DESCRIPTOR

#: Seconds that a watch lasts, uniformly between.
WATCH = (600.0, 900.0)
#: Largest message that is taken; a piece of a model is 1 MB, but a client may choose another size.
_LARGEST = (4 << 20) + 65536
#: Least seconds between two looks for news that a watch has already told.
_PAUSE = 1.0

Context = Any
M = TypeVar("M", bound=Message)


class GrpcDoor:
    """A grpc.aio server in front of a desk.

    Args:
        desk: answers.
        rng: spreads the ends of watches.
    """

    def __init__(self, desk: Desk, rng: random.Random | None = None) -> None:
        self._desk = desk
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._server: Any = None

    async def open(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
        """Listen.

        Args:
            host: address to bind.
            port: 0 for one that is free.
            credentials: of `haina.wire.tls.grpc_server_credentials`; None for plain text.

        Returns:
            The port.
        """
        server = grpc.aio.server(options=_options(self._desk.limits))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, self._handlers()),))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        bound = (
            server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        )
        await server.start()
        self._server = server
        return int(bound)

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, and give calls that are being answered `grace` seconds."""
        if self._server is not None:
            await self._server.stop(grace)
            self._server = None

    def _handlers(self) -> dict[str, Any]:
        calls = {call.name: call for call in CALLS}
        handlers: dict[str, Any] = {
            method.name: grpc.unary_unary_rpc_method_handler(partial(self._unary, calls[method.name.lower()]))
            for method in DESCRIPTOR.services_by_name["Coordinator"].methods
            if not method.server_streaming
        }
        handlers["Watch"] = grpc.unary_stream_rpc_method_handler(self._watch)
        handlers["Download"] = grpc.unary_stream_rpc_method_handler(self._download)
        handlers["Upload"] = grpc.stream_unary_rpc_method_handler(self._upload)
        return handlers

    async def _unary(self, call: Call[Any, Any], data: bytes, context: Context) -> bytes:
        async def answer() -> bytes:
            caller = await self._caller(context)
            return encode(await self._desk.answer(call, caller, decode(call.request, data)))

        return await _told(context, answer())  # type: ignore[no-any-return]

    async def _watch(self, data: bytes, context: Context) -> AsyncIterator[bytes]:
        """News as it happens, until the stream's time is over. A task is told once; from then on the node is taken to be busy with it."""

        ask = await _told(context, _checked(Ask, data))
        clock = asyncio.get_running_loop().time
        end = clock() + self._rng.uniform(*WATCH)
        told: Event | None = None

        async def look(left: float) -> Event:
            # A certificate may have been revoked since the last look.
            caller = await self._caller(context)
            return await self._desk.core.ask(caller, ask.model_copy(update={"wait": min(50.0, left)}))

        while (left := end - clock()) > 0:
            event = await _told(context, look(left))
            if event != told and event != Event():
                yield encode(event)
                told = event
            else:
                await asyncio.sleep(max(event.retry, _PAUSE))
            if event.settings:
                ask = ask.model_copy(update={"settings_version": event.settings.version})
            if event.task:
                ask = ask.model_copy(update={"idle": False})
            if event.finished:
                return

    async def _download(self, data: bytes, context: Context) -> None:
        async def sent() -> None:
            caller = await self._caller(context)
            request = decode(Wanted, data)
            offset = _offset(dict(context.invocation_metadata()))
            blob = await self._desk.core.blob(caller, request.federation, request.sha256)
            if offset > blob.size:
                raise Refusal("range", f"from byte {offset} on", allowed=f"within the {blob.size} bytes")
            with await asyncio.to_thread(blob.path.open, "rb", 0) as file:
                file.seek(offset)
                while piece := await asyncio.to_thread(file.read, MESSAGE):
                    await Pace(self._desk.limits).send(context.write(piece), len(piece))

        await _told(context, sent())

    async def _upload(self, pieces: AsyncIterator[bytes], context: Context) -> bytes:
        async def receive() -> bytes:
            caller = await self._caller(context)
            metadata = dict(context.invocation_metadata())
            manifest, offset = _manifest(metadata), _offset(metadata)
            ack = await self._desk.upload(caller, manifest, offset, partial(_next, pieces), _nothing)
            return encode(ack)

        return await _told(context, receive())  # type: ignore[no-any-return]

    async def _caller(self, context: Context) -> Caller:
        shown = context.auth_context().get("x509_pem_cert")
        certificate = ssl.PEM_cert_to_DER_cert(shown[0].decode()) if shown else None
        return await self._desk.caller(certificate)


async def _told(context: Context, work: Awaitable[Any]) -> Any:
    """What some work gives; its failure as a status of gRPC, with the problem beside it."""
    try:
        return await work
    except Exception as error:
        problem = problem_of(error)
        status = grpc.StatusCode[STATUS[problem.code][1]]
        metadata = ((PROBLEM, problem.model_dump_json().encode()),)
        await context.abort(status, problem.what[:200], trailing_metadata=metadata)


async def _checked(kind: type[M], data: bytes) -> M:
    return decode(kind, data)


async def _next(pieces: AsyncIterator[bytes]) -> bytes:
    """The next piece of a stream; empty messages say nothing, and its end is `b""`."""
    async for piece in pieces:
        if piece:
            return piece
    return b""


async def _nothing(missing: int) -> None:
    """gRPC has no way to say how long a stream will be; the pieces are counted instead."""


def _manifest(metadata: dict[str, Any]) -> Manifest:
    key = f"{MANIFEST.lower()}-bin"
    text = metadata.get(key)
    if text is None or len(text) > MAX_MANIFEST:
        raise Refusal(
            "malformed",
            f"no {key} in the metadata",
            allowed=f"JSON of a manifest of at most {MAX_MANIFEST} bytes",
        )
    try:
        return checked(Manifest, from_json(text, allow_inf_nan=False))
    except ValueError:
        raise Refusal("malformed", f"{key} cannot be read", allowed="JSON") from None


def _offset(metadata: dict[str, Any]) -> int:
    text = metadata.get(OFFSET.lower(), "0")
    if not (isinstance(text, str) and text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Refusal(
            "malformed", f"{OFFSET.lower()} is {str(text)[:40]!r}", allowed="a whole number of bytes"
        )
    return int(text)


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", _LARGEST),
        ("grpc.max_metadata_size", MAX_MANIFEST + 4096),
        ("grpc.absolute_max_metadata_size", 2 * MAX_MANIFEST),
        ("grpc.max_concurrent_streams", 64),
        # Windows that grow with the line would take memory for each stream; 1 MB is 10 MB a second at a round trip of 100 ms.
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", 1 << 20),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.server_handshake_timeout_ms", int(limits.header_seconds * 1000)),
        ("grpc.max_connection_idle_ms", 900_000),
        # A dead peer is found within a minute and a half; a live one may ping as often as our own clients do.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.so_reuseport", 0),
    ]
