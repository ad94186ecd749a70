"""The HTTP door: JSON for what is said, raw bytes for models, one table of calls (`haina.wire.calls`).

For R, browsers, curl and nodes alike. Who calls is the certificate of the connection (`ssl_object` of the transport), which a newcomer and a health
check may do without. Without TLS nobody is known: that is for loopback, and for benchmarks and tests that say themselves who calls.

The trap: an answer given before a body was read does not reach a client that is still sending, so what is left of a body is read and dropped for a
while. A client that asks first (`Expect: 100-continue`) is told to send only when the Core wants the bytes.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any, TypeVar, cast

from aiohttp import web
from pydantic_core import from_json, to_json

from haina import __version__
from haina.coordinator.contract import Caller
from haina.coordinator.doors.body import LARGE, Body
from haina.coordinator.doors.connection import Connection, Server, problem_response
from haina.coordinator.doors.desk import ANYONE, Desk, problem_of
from haina.coordinator.doors.limits import Pace
from haina.coordinator.doors.openapi import document
from haina.coordinator.doors.routes import Routes
from haina.coordinator.doors.transfer import begun, manifest_of, offset_of, piece_of, send
from haina.wire.calls import INDEX, MAX_JSON, OPENAPI, SERVICE, Call
from haina.wire.messages import PROTOCOLS
from haina.wire.refusal import STATUS, Refusal, checked

T = TypeVar("T")

#: Seconds between empty lines of a stream at rest.
_HEARTBEAT = 15.0


class HttpDoor:
    """An HTTP/1.1 server in front of a desk; one may be open at several addresses.

    Args:
        desk: answers.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._routes = Routes()
        #: Made when first asked for: a schema of everything is large.
        self._documents: dict[str, Callable[[], bytes]] = {INDEX.name: _index, OPENAPI.name: cache(document)}
        self._web: Server | None = None
        self._listeners: list[asyncio.Server] = []

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None) -> int:
        """Listen.

        Args:
            host: address to bind.
            port: 0 for one that is free.
            tls: of `haina.wire.tls.server_context`; None for plain text.

        Returns:
            The port.
        """
        loop = asyncio.get_running_loop()
        if self._web is None:
            self._web = Server(self._serve, self._desk.limits)
        handshake = self._desk.limits.header_seconds if tls else None
        listener = await loop.create_server(
            self._web, host, port, ssl=tls, backlog=1024, ssl_handshake_timeout=handshake
        )
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def close(self, grace: float = 5.0) -> None:
        """Stop listening, and give calls that are being answered `grace` seconds."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        if self._web is not None:
            self._web.pre_shutdown()
            await self._web.shutdown(grace)
            self._web = None

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = cast(Connection, request.protocol)
        connection.begin()
        try:
            return await self._answer(request)
        except Exception as error:
            return _refusal(error)
        finally:
            connection.end()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        call, fields, query = self._routes.find(request.method, request.raw_path)
        if call.method != "GET" and query:
            raise Refusal("malformed", "this call takes no query", allowed="a JSON body")
        caller = await self._caller(call, request)
        if call.method == "POST":
            query = _merged(fields, await self._json(request))
        message = checked(call.request, {**query, **fields})
        if call.kind == "json":
            if call.name in self._documents:
                return _json_response(self._documents[call.name]())
            answer = await self._desk.answer(call, caller, message)
            return _json_response(call.answer.dump_json(answer))
        assert isinstance(caller, Caller)
        if call.kind == "download":
            blob = await self._desk.core.blob(caller, message.federation, message.sha256)
            return await send(request, blob, self._desk.limits)
        if call.kind == "upload":
            return await self._receive(call, request, caller, message)
        return await self._follow(call, request, caller, message.federation)

    async def _caller(self, call: Call[Any, Any], request: web.BaseRequest) -> Caller | str:
        """Who calls; the address where anyone may."""
        assert request.transport is not None
        if call.name in ANYONE or call.name in self._documents:
            peer = str(request.remote)
            self._desk.stranger(peer)
            return peer
        connection = request.transport.get_extra_info("ssl_object")
        return await self._desk.caller(None if connection is None else connection.getpeercert(True))

    async def _json(self, request: web.BaseRequest) -> dict[str, Any]:
        """The body of a POST. Its media type is demanded: a page of another site can make a browser post any other with an operator's rights."""
        if request.content_type != "application/json":
            raise Refusal(
                "malformed",
                f"a body of type {request.content_type[:100]}",
                allowed="Content-Type: application/json",
            )
        if request.headers.get("Expect"):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts, size = [], 0
        async for piece in Pace(self._desk.limits).read(lambda: piece_of(request)):
            parts.append(piece)
            size += len(piece)
            if size > MAX_JSON:
                raise Refusal(
                    "too_large", f"a JSON body of more than {size} bytes", allowed=f"{MAX_JSON} bytes"
                )
        try:
            body = from_json(b"".join(parts), allow_inf_nan=False)
        except ValueError as error:
            raise Refusal("malformed", f"the body is not JSON: {str(error)[:200]}") from None
        if not isinstance(body, dict):
            raise Refusal("malformed", "the body is not a JSON object", allowed='{"field": value}')
        return body

    async def _receive(
        self, call: Call[Any, Any], request: web.BaseRequest, caller: Caller, slot: Any
    ) -> web.StreamResponse:
        """An update: its manifest and offset in headers, its bytes as the body."""
        manifest = manifest_of(request)
        if (manifest.federation, manifest.round) != (slot.federation, slot.round):
            raise Refusal("invalid", "the manifest is of another federation or round than the address")
        offset = offset_of(request)
        length = request.content_length
        if length is None:
            raise Refusal(
                "malformed", "an upload of unknown length", allowed="Content-Length, and no chunked body"
            )

        async def ready(missing: int) -> None:
            if length != missing:
                code = "too_large" if length > missing else "invalid"
                raise Refusal(
                    code,
                    f"a body of {length} bytes where {missing} are missing",
                    allowed=f"the {manifest.bytes} bytes of the manifest from the offset that has arrived",
                )
            if request.headers.get("Expect"):
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")

        if length < LARGE:
            ack = await self._desk.upload(caller, manifest, offset, lambda: piece_of(request), ready)
            return _json_response(call.answer.dump_json(ack))
        body = Body(request)
        try:
            ack = await self._desk.upload(caller, manifest, offset, body.piece, ready)
            response = _json_response(call.answer.dump_json(ack))
        except Exception as error:
            response = _refusal(error)
        finally:
            body.leave()
        # Refused or not: the parser would take the next request for the rest of this body.
        response.force_close()
        return response

    async def _follow(
        self, call: Call[Any, Any], request: web.BaseRequest, caller: Caller, federation: str | None
    ) -> web.StreamResponse:
        """Lines of JSON as things happen, and empty ones between."""
        entries = self._desk.core.follow(caller, federation)
        response = web.StreamResponse(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        response.content_type = "application/x-ndjson"
        upcoming = _next(entries)
        try:
            # A refusal comes with the first entry, so it is looked for before the answer begins.
            await asyncio.wait([upcoming], timeout=0.05)
            if upcoming.done():
                upcoming.result()
            await response.prepare(request)
            with begun(request):
                await response.write(b"\n")
                while True:
                    done, _ = await asyncio.wait([upcoming], timeout=_HEARTBEAT)
                    if not done:
                        await response.write(b"\n")
                        continue
                    entry = upcoming.result()
                    if entry is None:
                        break
                    await response.write(call.answer.dump_json(entry) + b"\n")
                    upcoming = _next(entries)
                await response.write_eof()
        finally:
            upcoming.cancel()
        return response


def _next(entries: AsyncIterator[T]) -> asyncio.Future[T | None]:
    return asyncio.ensure_future(cast(Awaitable[T | None], anext(entries, None)))


def _merged(fields: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    for name, value in fields.items():
        if name in body and body[name] != value:
            raise Refusal("invalid", f"{name} in the body is not the one in the address")
    return body


def _refusal(error: Exception) -> web.Response:
    problem = problem_of(error)
    allow = problem.allowed if problem.code == "method" else ""
    return problem_response(problem, STATUS[problem.code][0], allow)


def _json_response(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _index() -> bytes:
    return to_json(
        {
            "name": "haina",
            "version": __version__,
            "protocols": PROTOCOLS,
            "documents": {"openapi": OPENAPI.path, "protobuf": SERVICE},
        }
    )
