"""Models over HTTP: the bytes of one going out, and the headers and pieces of one coming in.

Plain text goes from the file to the socket inside the kernel; TLS needs the bytes here, a megabyte at a time.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic_core import from_json

from haina.coordinator.contract import Blob
from haina.coordinator.doors.limits import Limits, Pace
from haina.errors import HainaError
from haina.wire.calls import CHUNK, MANIFEST, MAX_MANIFEST, OFFSET
from haina.wire.messages import Manifest
from haina.wire.refusal import Refusal, checked

log = logging.getLogger("haina.coordinator.doors")

#: Bytes that are read for TLS at once, to be encrypted in halves: a connection keeps as much memory as it ever encrypted in one go.
_ENCRYPTED = 1 << 19
_RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?", re.ASCII)
_DECIMAL = re.compile(r"\d{1,18}", re.ASCII)


@contextmanager
def begun(request: web.BaseRequest) -> Iterator[None]:
    """Once an answer has begun, a failure can only cut the connection: a second answer would be taken for more of the first."""
    try:
        yield
    except Exception as error:
        expected = isinstance(error, HainaError | OSError)
        log.log(
            logging.INFO if expected else logging.ERROR, "an answer was cut: %s", error, exc_info=not expected
        )
        if request.transport is not None:
            request.transport.abort()


async def send(request: web.BaseRequest, blob: Blob, limits: Limits) -> web.StreamResponse:
    """Answer with a blob, or with the part that a `Range` asks for.

    Raises:
        Refusal: "range" or "malformed", before anything is sent; later failures cut the connection, which is all that a client could still be told.
    """
    start, end = _range(request.headers.get("Range"), blob.size)
    response = web.StreamResponse(status=206 if "Range" in request.headers else 200)
    response.content_type = "application/octet-stream"
    response.content_length = end - start
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["ETag"] = f'"{blob.sha256}"'
    if response.status == 206:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{blob.size}"
    with await asyncio.to_thread(blob.path.open, "rb", 0) as file:
        writer = await response.prepare(request)
        if writer is None or request.method == "HEAD":
            return response
        # The kernel sends a file itself, but only after the head of the answer.
        writer.send_headers()
        file.seek(start)
        with begun(request):
            while start < end:
                start += await _send_piece(request, response, file, start, min(CHUNK, end - start), limits)
            await response.write_eof()
    return response


async def _send_piece(
    request: web.BaseRequest,
    response: web.StreamResponse,
    file: BinaryIO,
    start: int,
    size: int,
    limits: Limits,
) -> int:
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the caller has gone")
    if transport.get_extra_info("ssl_object") is None:
        sending = asyncio.get_running_loop().sendfile(transport, file, start, size)
        sent = await Pace(limits).send(sending, size)
    else:
        piece = memoryview(await asyncio.to_thread(file.read, min(size, _ENCRYPTED)))
        for part in filter(None, (piece[: _ENCRYPTED // 2], piece[_ENCRYPTED // 2 :])):
            await Pace(limits).send(response.write(part), len(part))
        sent = len(piece)
    if not sent:
        raise OSError("the file is shorter than it was")
    return sent


async def piece_of(request: web.BaseRequest) -> bytes:
    """The next bytes of a body, `b""` at its end; whatever ends it early is one refusal."""
    try:
        return await request.content.readany()
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError) as error:
        raise Refusal("malformed", "the body ended early") from error


def manifest_of(request: web.BaseRequest) -> Manifest:
    """What an upload says it is."""
    text = request.headers.get(MANIFEST)
    if text is None or len(text) > MAX_MANIFEST * 4 // 3 + 4:
        raise Refusal(
            "malformed",
            f"no {MANIFEST} header",
            allowed=f"base64url of a manifest of at most {MAX_MANIFEST} bytes",
        )
    try:
        text = text.rstrip("=")
        plain = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        fields = from_json(plain, allow_inf_nan=False)
    except ValueError:
        raise Refusal("malformed", f"{MANIFEST} cannot be read", allowed="base64url of JSON") from None
    return checked(Manifest, fields)


def offset_of(request: web.BaseRequest) -> int:
    """From which byte on an upload goes."""
    text = request.headers.get(OFFSET, "0")
    if not _DECIMAL.fullmatch(text):
        raise Refusal("malformed", f"{OFFSET} is {text[:40]!r}", allowed="a whole number of bytes")
    return int(text)


def _range(header: str | None, size: int) -> tuple[int, int]:
    """First byte, and the one after the last."""
    if header is None:
        return 0, size
    match = _RANGE.fullmatch(header)
    if match is None:
        raise Refusal(
            "malformed", f"Range is {header[:40]!r}", allowed="one range, bytes=FIRST- or bytes=FIRST-LAST"
        )
    first, last = match.groups()
    start, end = int(first), min(size, int(last) + 1) if last else size
    if start >= end:
        raise Refusal("range", f"Range is {header!r}", allowed=f"within the {size} bytes")
    return start, end
