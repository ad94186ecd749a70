"""One HTTP connection with a clock: the head of a request must be complete in time, and there are only so many connections.

aiohttp parses and answers; it has no limit of its own for a request that never ends its head. The trap: a connection at rest between requests has no
deadline here (aiohttp's own closes it), only one that has begun to speak has.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from haina.coordinator.doors.limits import Limits
from haina.wire.calls import MAX_MANIFEST
from haina.wire.messages import Problem

#: Bytes read ahead of a body. A receive of asyncio brings up to 256 kB; what gathers while the Core writes comes as one piece, and each piece costs a
#: change of threads.
READ_AHEAD = 256 * 1024
_HEADERS = 64


class Connection(web.RequestHandler):
    """aiohttp's protocol of one connection, with a deadline for each request's head."""

    def __init__(self, server: Server, **settings: Any) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **settings)
        self._server = server
        self._busy = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; a connection too many ends at once."""
        super().connection_made(transport)
        if len(self._server.connections) > self._server.limits.connections:
            self._give_up()
        else:
            self._await_head()

    def connection_lost(self, error: BaseException | None) -> None:
        """End."""
        self._head_complete()
        super().connection_lost(error)

    def data_received(self, data: bytes) -> None:
        """Bytes came: of a new head, if no request is being answered."""
        if not self._busy and self._deadline is None:
            self._await_head()
        super().data_received(data)

    def begin(self) -> None:
        """A request is complete up to its body."""
        self._busy = True
        self._head_complete()

    def end(self) -> None:
        """The request has been answered."""
        self._busy = False

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP request, in the same form as every other refusal."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is on its way already")
        return problem_response(Problem(code="malformed", what="this is not an HTTP request"), 400)

    def _await_head(self) -> None:
        seconds = self._server.limits.header_seconds
        self._deadline = asyncio.get_running_loop().call_later(seconds, self._give_up)

    def _head_complete(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.abort()


class Server(web.Server):
    """The connections of one HTTP door.

    Args:
        handler: answers a request.
        limits: of connections and of time.
    """

    def __init__(self, handler: Any, limits: Limits) -> None:
        super().__init__(handler, handler_cancellation=True)
        self.limits = limits
        self._settings = {
            "keepalive_timeout": limits.idle_seconds,
            "lingering_time": limits.header_seconds,
            "access_log": None,
            "max_line_size": 8190,
            # A manifest is the longest header, in base64.
            "max_field_size": MAX_MANIFEST * 4 // 3 + 1024,
            "max_headers": _HEADERS,
            "read_bufsize": READ_AHEAD,
            # A body that unpacks to more than was announced is not taken.
            "auto_decompress": False,
        }

    def __call__(self) -> Connection:
        """A protocol for a new connection."""
        return Connection(self, **self._settings)


def problem_response(problem: Problem, status: int, allow: str = "") -> web.Response:
    """A refusal as an HTTP answer (RFC 9457's media type)."""
    headers = {"Allow": allow} if allow else {}
    if problem.retry:
        headers["Retry-After"] = str(max(1, round(problem.retry)))
    return web.Response(
        status=status,
        body=problem.model_dump_json().encode(),
        content_type="application/problem+json",
        headers=headers,
    )
