"""The HTTP end of a link, and of every other caller: the table of calls made into requests, and answers into messages or errors.

The trap: urllib3 would follow redirects and repeat calls by itself; here a call is made once, to the address that was given.
"""

from __future__ import annotations

import base64
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from pydantic import ValidationError

from haina.errors import ConfigError, Unreachable
from haina.node.link import Progress, pieces
from haina.wire.calls import (
    ASK,
    CHUNK,
    DOWNLOAD,
    ENROL,
    FAIL,
    HELLO,
    MANIFEST,
    OFFSET,
    RECEIVED,
    RENEW,
    SEAL,
    UPLOAD,
    Call,
)
from haina.wire.messages import (
    Ack,
    Ask,
    Enrol,
    Enrolled,
    Event,
    Failed,
    Hello,
    Invitation,
    Manifest,
    Message,
    Problem,
    Received,
    Renew,
    Sealed,
    Welcome,
)
from haina.wire.refusal import from_problem
from haina.wire.requests import Slot, Wanted
from haina.wire.tls import client_context

Q = TypeVar("Q", bound=Message)
A = TypeVar("A")

#: An answer of JSON is at most this long; a welcome, the longest, holds at most 1 MB.
_LONGEST = 16 << 20
_CONNECT = 10.0


class Http:
    """Calls of the table over pooled HTTP/1.1 connections. Safe for threads.

    Args:
        address: `https://host:port`, or `http://` where nobody needs to be known.
        tls: whom to trust and who calls (`haina.wire.tls.client_context`).
        timeout: seconds without a byte after which the other end counts as gone; an answer may wait for a disk.
    """

    def __init__(self, address: str, tls: ssl.SSLContext | None, *, timeout: float = 60.0) -> None:
        parts = urlsplit(address)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or (parts.scheme == "https") != (tls is not None)
        ):
            raise ConfigError(f"{address!r} is not the address of a coordinator", allowed="https://host:port")
        port = parts.port or (443 if tls else 80)
        settings: dict[str, Any] = {"maxsize": 8, "retries": False}
        if tls is None:
            self._pool = urllib3.HTTPConnectionPool(parts.hostname, port, **settings)
        else:
            self._pool = urllib3.HTTPSConnectionPool(parts.hostname, port, ssl_context=tls, **settings)
        self._address = address
        self._timeout = timeout

    def call(self, call: Call[Q, A], request: Q, *, patience: float = 0.0) -> A:
        """Make a call of JSON.

        Args:
            call: of `haina.wire.calls`.
            request: what to say.
            patience: seconds that the answer may take beyond the usual.

        Raises:
            Refusal: the coordinator said no.
            Unreachable: no answer of a coordinator came.
        """
        path, rest = _target(call, request)
        body, headers = None, {}
        if call.method == "POST":
            body, headers = request.model_dump_json().encode(), {"Content-Type": "application/json"}
        elif rest:
            path += "?" + urlencode(rest)
        with self._made(call.method, path, body=body, headers=headers, patience=patience) as response:
            return self._read(call, response)

    def lines(self, call: Call[Q, A], request: Q) -> Iterator[A]:
        """The answers of a call that has no end of its own."""
        path, rest = _target(call, request)
        path += "?" + urlencode(rest) if rest else ""
        with self._made(call.method, path) as response:
            rest_of_line = b""
            for part in response.stream(1 << 16):
                *whole, rest_of_line = (rest_of_line + part).split(b"\n")
                for line in whole:
                    if line:
                        yield self._parsed(call, line)

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()

    @contextmanager
    def _made(
        self,
        method: str,
        path: str,
        *,
        body: bytes | Iterator[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = 0.0,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """The response to one request, if it is a good one; its connection goes back to the pool, or is closed if something is left on it."""
        response: urllib3.BaseHTTPResponse | None = None
        try:
            response = self._pool.urlopen(
                method,
                path,
                body=body,
                headers={"User-Agent": "haina", **(headers or {})},
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=_CONNECT, read=self._timeout + patience),
            )
            if response.status not in (200, 206):
                self._refuse(response)
            yield response
            response.drain_conn()
            response.release_conn()
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unreachable(
                f"{self._address} did not answer ({_words(error)})",
                remedy="Try again; is the coordinator running?",
            ) from error
        finally:
            if response is not None:
                response.close()

    def _read(self, call: Call[Q, A], response: urllib3.BaseHTTPResponse) -> A:
        return self._parsed(call, response.read(_LONGEST))

    def _parsed(self, call: Call[Q, A], text: bytes) -> A:
        try:
            return call.answer.validate_json(text)
        except ValidationError as error:
            raise Unreachable(f"{self._address} does not answer like a coordinator ({call.name})") from error

    def _refuse(self, response: urllib3.BaseHTTPResponse) -> None:
        if response.headers.get("Content-Type", "").startswith("application/problem+json"):
            try:
                problem = Problem.model_validate_json(response.read(_LONGEST))
            except ValidationError:
                pass
            else:
                raise from_problem(problem)
        raise Unreachable(
            f"{self._address} does not answer like a coordinator (HTTP status {response.status})",
            remedy="Something between here and there may have answered in its place",
        )


class HttpLink(Http):
    """`haina.node.link.Link` over HTTP."""

    def hello(self, hello: Hello) -> Welcome:
        """See `Link`."""
        return self.call(HELLO, hello)

    def ask(self, ask: Ask) -> Event:
        """See `Link`."""
        return self.call(ASK, ask, patience=ask.wait)

    def download(
        self, federation: str, sha256: str, to: BinaryIO, offset: int = 0, on_progress: Progress | None = None
    ) -> int:
        """See `Link`."""
        path, _ = _target(DOWNLOAD, Wanted(federation=federation, sha256=sha256))
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        with self._made("GET", path, headers=headers) as response:
            if response.status != (206 if offset else 200):
                raise Unreachable(f"{self._address} does not answer like a coordinator (range)")
            to.seek(offset)
            for piece in response.stream(CHUNK):
                to.write(piece)
                offset += len(piece)
                if on_progress is not None:
                    on_progress(offset)
        return offset

    def received(self, federation: str, round: int) -> Received:
        """See `Link`."""
        return self.call(RECEIVED, Slot(federation=federation, round=round))

    def upload(
        self,
        manifest: Manifest,
        source: BinaryIO,
        offset: int = 0,
        on_progress: Progress | None = None,
        rate: float | None = None,
    ) -> Ack:
        """See `Link`."""
        path, _ = _target(UPLOAD, Slot(federation=manifest.federation, round=manifest.round))
        headers = {
            MANIFEST: base64.urlsafe_b64encode(manifest.model_dump_json().encode()).decode().rstrip("="),
            OFFSET: str(offset),
            "Content-Length": str(manifest.bytes - offset),
            "Content-Type": "application/octet-stream",
        }
        body = pieces(source, offset, manifest.bytes, on_progress, rate)
        with self._made("PUT", path, body=body, headers=headers, patience=240.0) as response:
            return self._read(UPLOAD, response)

    def fail(self, failed: Failed) -> Ack:
        """See `Link`."""
        return self.call(FAIL, failed)

    def seal(self, sealed: Sealed) -> Ack:
        """See `Link`."""
        return self.call(SEAL, sealed)

    def renew(self, request: Renew) -> Enrolled:
        """See `Link`."""
        return self.call(RENEW, request)


def enrol(invitation: Invitation, csr: str) -> Enrolled:
    """A newcomer's first call: the invitation's token for a certificate. Trusts the invitation's authority and no other.

    Args:
        invitation: as read from its file, which has checked its fingerprint.
        csr: request for a certificate, PEM (`haina.wire.identity.request`).

    Raises:
        Refusal: the token is used up, expired or unknown.
        Unreachable: no answer came; the same call with the same key may be made again.
    """
    http = Http(invitation.http, client_context(invitation.authority))
    try:
        return http.call(ENROL, Enrol(token=invitation.token, csr=csr))
    finally:
        http.close()


def _target(call: Call[Any, Any], request: Message) -> tuple[str, dict[str, Any]]:
    """The path of a call, and the fields of the request that are not in it (for a query)."""
    path = call.path
    for name in call.parameters:
        path = path.replace(f"{{{name}}}", quote(str(getattr(request, name)), safe=""))
    rest = request.model_dump(mode="json", exclude=set(call.parameters), exclude_none=True)
    return path, rest


def _words(error: BaseException) -> str:
    """The innermost reason: urllib3 wraps it several times, in words that hold the addresses of objects."""
    inner = error.__cause__ or next((part for part in error.args if isinstance(part, BaseException)), None)
    if inner is not None:
        return _words(inner)
    said = getattr(error, "strerror", None)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
