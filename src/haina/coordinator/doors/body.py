"""The body of a large upload, received where the Core reads it.

aiohttp's parser cuts a body into small pieces and copies each of them three times. So once the head of an upload is parsed, the connection's bytes
go straight into one buffer (with TLS they are decrypted there), and the parser never sees them.

The trap: the parser still waits for the rest of the body. Its connection is good for the answer and for nothing else, so it is closed after it.
"""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from haina.wire.refusal import Refusal

#: Shorter bodies are the parser's: a connection that can be used again is worth more.
LARGE = 1 << 20
#: Bytes of the buffer. Each filling costs a change of threads.
_BUFFER = 1 << 19
#: So many are worth handing on; a slow peer's fewer bytes wait at most so many seconds.
_ENOUGH = _BUFFER // 2
_PATIENCE = 1.0


class Body(asyncio.BufferedProtocol):
    """What is left of a request's body. It takes the connection over from aiohttp with the first piece.

    Args:
        request: whose head is parsed.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        assert request.content_length is not None
        assert request.transport is not None
        self._request = request
        self._connection = request.protocol
        self._transport = request.transport
        self._missing = request.content_length
        self._buffer = memoryview(b"")
        self._filled = 0
        self._lost = False
        self._waiter: asyncio.Future[None] | None = None

    async def piece(self) -> bytes | memoryview:
        """The next bytes, good until the next call; none at the end.

        Raises:
            Refusal: "malformed": the connection ended before the body did.
        """
        if not self._buffer:
            first = self._take_over()
            if first:
                return first
        self._filled = 0
        if not self._missing:
            return b""
        self._transport.resume_reading()
        loop = asyncio.get_running_loop()
        while not self._filled and not self._lost:
            self._waiter = loop.create_future()
            patience = loop.call_later(_PATIENCE, self._wake)
            try:
                await self._waiter
            finally:
                patience.cancel()
        if not self._filled:
            raise Refusal("malformed", "the body ended early")
        self._transport.pause_reading()
        return self._buffer[: self._filled]

    def _take_over(self) -> bytes:
        """From here on bytes come to this buffer; those that came with the head are the first piece."""
        try:
            first = self._request.content.read_nowait()
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
            raise Refusal("malformed", "the body ended early") from error
        self._missing -= len(first)
        self._buffer = memoryview(bytearray(_BUFFER))
        if self._missing:
            self._transport.set_protocol(self)
            self._transport.pause_reading()
        else:
            self.leave()
        return first

    def leave(self) -> None:
        """Give the connection back for the answer; what is still to come of the body is aiohttp's to drop."""
        if not self._missing:
            self._request.content.feed_eof()
        if self._transport.get_protocol() is self:
            self._transport.set_protocol(self._connection)
            self._transport.resume_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go; never beyond the body."""
        return self._buffer[self._filled : min(_BUFFER, self._filled + self._missing)]

    def buffer_updated(self, nbytes: int) -> None:
        """Bytes came."""
        self._filled += nbytes
        self._missing -= nbytes
        if self._filled >= _ENOUGH or not self._missing:
            self._transport.pause_reading()
            self._wake()

    def eof_received(self) -> None:
        """The peer sends no more."""
        self._lost = True
        self._wake()
        self._connection.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._lost = True
        self._wake()
        self._connection.connection_lost(error)

    def pause_writing(self) -> None:
        """For the answer."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """For the answer."""
        self._connection.resume_writing()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
