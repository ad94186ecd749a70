"""The gRPC end of a link.

The trap: a channel connects by itself, again and again; a call made while it cannot is answered "unavailable" at once, which is `Unreachable` here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, TypeVar

import grpc
from pydantic import ValidationError

from haina.errors import Unreachable
from haina.node.link import Progress, pieces
from haina.wire.calls import MANIFEST, MESSAGE, OFFSET, PROBLEM, SERVICE
from haina.wire.messages import (
    Ack,
    Ask,
    Enrolled,
    Event,
    Failed,
    Hello,
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
from haina.wire.v1.convert import decode, encode

M = TypeVar("M", bound=Message)

#: Longest that a file may take; a peer that is gone is found by pings long before.
_TRANSFER = 12 * 3600.0

_OPTIONS = [
    ("grpc.max_receive_message_length", (4 << 20) + 65536),
    ("grpc.max_metadata_size", 65536),
    ("grpc.absolute_max_metadata_size", 131072),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # A node that waits its turn must not find a long back-off of the channel beneath its own.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),
]


class GrpcLink:
    """`haina.node.link.Link` over gRPC. Safe for threads.

    Args:
        address: `host:port`.
        credentials: of `haina.wire.tls.grpc_channel_credentials`; None for plain text.
        timeout: seconds that an answer may take.
    """

    def __init__(
        self, address: str, credentials: grpc.ChannelCredentials | None, *, timeout: float = 60.0
    ) -> None:
        self._address = address
        self._timeout = timeout
        if credentials is None:
            self._channel = grpc.insecure_channel(address, _OPTIONS)
        else:
            self._channel = grpc.secure_channel(address, credentials, _OPTIONS)

    def hello(self, hello: Hello) -> Welcome:
        """See `Link`."""
        return self._call("Hello", hello, Welcome)

    def ask(self, ask: Ask) -> Event:
        """See `Link`."""
        return self._call("Ask", ask, Event, patience=ask.wait)

    def watch(self, ask: Ask) -> Iterator[Event]:
        """News as it happens; ends after 10 to 15 minutes, and is to be called again."""
        with self._errors():
            stream: Any = self._channel.unary_stream(_path("Watch"))
            for data in stream(encode(ask), timeout=_TRANSFER):
                yield decode(Event, data)

    def download(
        self, federation: str, sha256: str, to: BinaryIO, offset: int = 0, on_progress: Progress | None = None
    ) -> int:
        """See `Link`."""
        request = encode(Wanted(federation=federation, sha256=sha256))
        metadata = ((OFFSET.lower(), str(offset)),)
        to.seek(offset)
        with self._errors():
            fetch: Any = self._channel.unary_stream(_path("Download"))
            stream = fetch(request, metadata=metadata, timeout=_TRANSFER)
            try:
                for piece in stream:
                    to.write(piece)
                    offset += len(piece)
                    if on_progress is not None:
                        on_progress(offset)
            finally:
                stream.cancel()
        return offset

    def received(self, federation: str, round: int) -> Received:
        """See `Link`."""
        return self._call("Received", Slot(federation=federation, round=round), Received)

    def upload(
        self,
        manifest: Manifest,
        source: BinaryIO,
        offset: int = 0,
        on_progress: Progress | None = None,
        rate: float | None = None,
    ) -> Ack:
        """See `Link`."""
        metadata = (
            (f"{MANIFEST.lower()}-bin", manifest.model_dump_json().encode()),
            (OFFSET.lower(), str(offset)),
        )
        body = pieces(source, offset, manifest.bytes, on_progress, rate, most=MESSAGE)
        with self._errors():
            send: Any = self._channel.stream_unary(_path("Upload"))
            return decode(Ack, send(body, metadata=metadata, timeout=_TRANSFER))

    def fail(self, failed: Failed) -> Ack:
        """See `Link`."""
        return self._call("Fail", failed, Ack)

    def seal(self, sealed: Sealed) -> Ack:
        """See `Link`."""
        return self._call("Seal", sealed, Ack)

    def renew(self, request: Renew) -> Enrolled:
        """See `Link`."""
        return self._call("Renew", request, Enrolled)

    def close(self) -> None:
        """See `Link`."""
        self._channel.close()

    def _call(self, method: str, request: Message, answer: type[M], patience: float = 0.0) -> M:
        with self._errors():
            call: Any = self._channel.unary_unary(_path(method))
            return decode(answer, call(encode(request), timeout=self._timeout + patience))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """An error of gRPC is a refusal when a problem came with it, and otherwise no answer."""
        try:
            yield
        except grpc.RpcError as error:
            call: Any = error
            for key, value in call.trailing_metadata() or ():
                if key == PROBLEM:
                    try:
                        problem = Problem.model_validate_json(value)
                    except ValidationError:
                        break
                    raise from_problem(problem) from None
            raise Unreachable(
                f"{self._address} did not answer ({call.code().name}: {str(call.details())[:200]})",
                remedy="Try again; is the coordinator running?",
            ) from error


def _path(method: str) -> str:
    return f"/{SERVICE}/{method}"
