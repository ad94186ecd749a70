"""The way to a coordinator: what a node can say and fetch, over either door.

A `Link` is synchronous and may be used by several threads. Whatever fails is one of two errors, the same on both doors: `haina.wire.refusal.Refusal`
when the coordinator said no, and `haina.errors.Unreachable` when nothing is known, so that the call may be made again. Files of any size pass through
in pieces of at most 1 MB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

from haina.errors import HainaError
from haina.wire.calls import CHUNK
from haina.wire.messages import (
    Ack,
    Ask,
    Enrolled,
    Event,
    Failed,
    Hello,
    Manifest,
    Received,
    Renew,
    Sealed,
    Welcome,
)

#: Told how many bytes of the whole are there, after each piece.
Progress = Callable[[int], None]


class Link(Protocol):
    """A node's way to its coordinator."""

    def hello(self, hello: Hello) -> Welcome:
        """Say what this node is."""

    def ask(self, ask: Ask) -> Event:
        """Ask what to do; returns after at most `ask.wait` seconds and the way there."""

    def download(
        self, federation: str, sha256: str, to: BinaryIO, offset: int = 0, on_progress: Progress | None = None
    ) -> int:
        """Write the bytes of a model from `offset` on into `to`, at its place; how many there are in all then. Whether they are the right ones is the
        caller's to check: a part of them may have come earlier.
        """

    def received(self, federation: str, round: int) -> Received:
        """How much of this node's update for a round has arrived."""

    def upload(
        self,
        manifest: Manifest,
        source: BinaryIO,
        offset: int = 0,
        on_progress: Progress | None = None,
        rate: float | None = None,
    ) -> Ack:
        """Send the update in `source` from `offset` on, at most `rate` bytes a second."""

    def fail(self, failed: Failed) -> Ack:
        """Say that a round cannot be trained."""

    def seal(self, sealed: Sealed) -> Ack:
        """Send a message of a secure sum; sent again, it is a duplicate."""

    def renew(self, request: Renew) -> Enrolled:
        """The next certificate."""

    def close(self) -> None:
        """Let go of the connections."""


def pieces(
    source: BinaryIO,
    offset: int,
    end: int,
    on_progress: Progress | None = None,
    rate: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    most: int = CHUNK,
) -> Iterator[bytes]:
    """A file from `offset` to `end`, in pieces of at most `most` bytes, not faster than `rate` bytes a second.

    Raises:
        HainaError: the file is shorter than that.
    """
    source.seek(offset)
    # At most a second's worth at once, so that a slow rate is a steady one.
    size = most if rate is None else max(1024, min(most, int(rate)))
    begun, first = clock(), offset
    while offset < end:
        piece = source.read(min(size, end - offset))
        if not piece:
            raise HainaError(
                f"the file ends at {offset} of {end} bytes", remedy="It was changed while it was sent"
            )
        yield piece
        offset += len(piece)
        if on_progress is not None:
            on_progress(offset)
        if rate is not None:
            ahead = (offset - first) / rate - (clock() - begun)
            if ahead > 0 and offset < end:
                sleep(ahead)
