"""What one caller, or all of them together, may ask of a coordinator before anything is read.

Three kinds: how often (a token bucket for each caller), how much at once (uploads and their bytes), and how slowly (a peer that trickles bytes holds
a connection and a spool file: "slow loris").

The trap: a limit that is passed must be said as one ("too_many", with when to come back), never as a fault of the call.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from haina.wire.refusal import Refusal

T = TypeVar("T")
P = TypeVar("P", bytes, bytes | memoryview)

#: Callers that are remembered at once; beyond, the one not seen for longest starts afresh.
_KEPT = 10_000


@dataclass(frozen=True)
class Limits:
    """The limits of a coordinator's doors.

    Args:
        connections: open at once at one door.
        uploads: on their way at once.
        uploads_each: of one caller at once, so that none can take the room of all; more than one, because a connection that broke is noticed late.
        upload_bytes: that those uploads may still bring, all together.
        calls_per_second: of one caller, in the long run.
        calls_at_once: of one caller that was quiet before.
        strangers_per_second: calls of one address that show no certificate; all newcomers behind one address translation count together.
        strangers_at_once: likewise.
        header_seconds: in which a connection must finish its handshake, and the head of a request be complete.
        idle_seconds: that a connection may rest between requests.
        window_seconds: in which a body must bring, or a download take, `window_bytes`.
        window_bytes: least bytes in each window.
    """

    connections: int = 4096
    uploads: int = 2048
    uploads_each: int = 8
    upload_bytes: int = 64 << 30
    calls_per_second: float = 50.0
    calls_at_once: int = 200
    strangers_per_second: float = 20.0
    strangers_at_once: int = 200
    header_seconds: float = 10.0
    idle_seconds: float = 75.0
    window_seconds: float = 30.0
    window_bytes: int = 30_000


class Rate:
    """Token buckets, one for each caller: a call takes a token, and tokens come back with time.

    Args:
        per_second: tokens that come back each second.
        at_once: tokens of a full bucket.
        clock: seconds, never going back.
    """

    def __init__(self, per_second: float, at_once: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._full = float(at_once)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one call.

        Raises:
            Refusal: "too_many", when the bucket is empty.
        """
        now = self._clock()
        tokens, then = self._buckets.get(caller, (self._full, now))
        tokens = min(self._full, tokens + (now - then) * self._per_second)
        spent = tokens >= 1.0
        self._buckets[caller] = (tokens - spent, now)
        self._buckets.move_to_end(caller)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        if not spent:
            raise Refusal(
                "too_many",
                f"{caller} calls too often",
                allowed=f"{self._per_second:g} calls a second, {self._full:g} at once",
                retry=(1.0 - tokens) / self._per_second,
            )


class Uploads:
    """Room for uploads that are on their way.

    Args:
        most: at once.
        most_bytes: that they may still bring, all together.
        each: of one caller at once.
    """

    def __init__(self, most: int, most_bytes: int, each: int) -> None:
        self._most, self._most_bytes, self._each = most, most_bytes, each
        self._count = self._bytes = 0
        self._of: Counter[str] = Counter()

    @contextmanager
    def room(self, caller: str, size: int) -> Iterator[None]:
        """Room for one upload of `size` more bytes from a caller, for as long as the block lasts.

        Raises:
            Refusal: "too_many", when there is none now; "too_large", when there never will be.
        """
        if size > self._most_bytes:
            raise Refusal(
                "too_large", f"an upload of {size} bytes", allowed=f"at most {self._most_bytes} bytes"
            )
        if self._of[caller] >= self._each:
            raise Refusal(
                "too_many",
                f"{self._each} uploads of {caller} are on their way already",
                allowed=f"{self._each} at once",
                remedy="Try again in a moment",
                retry=2.0,
            )
        if self._count >= self._most or self._bytes + size > self._most_bytes:
            raise Refusal(
                "too_many",
                f"{self._count} uploads with {self._bytes} bytes are on their way already",
                allowed=f"{self._most} uploads, {self._most_bytes} bytes",
                remedy="Try again in a moment",
                retry=2.0,
            )
        self._count += 1
        self._of[caller] += 1
        self._bytes += size
        try:
            yield
        finally:
            self._count -= 1
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]
            self._bytes -= size


class Pace:
    """A peer must move `window_bytes` in every `window_seconds`. Only waiting for the peer counts; our own work between does not.

    Args:
        limits: with the window.
    """

    def __init__(self, limits: Limits) -> None:
        self._window = limits.window_seconds
        self._least = limits.window_bytes
        self._left, self._moved = self._window, 0

    async def read(self, body: Callable[[], Awaitable[P]]) -> AsyncIterator[P]:
        """The pieces of a body; `body` gives the next one, and `b""` at its end.

        Raises:
            Refusal: "too_many", when a window is over and too little came.
        """
        clock = asyncio.get_running_loop().time
        while True:
            begun = clock()
            try:
                async with asyncio.timeout(self._left):
                    piece = await body()
            except TimeoutError:
                raise self._slow() from None
            if not piece:
                return
            self._moved += len(piece)
            if self._moved >= self._least:
                self._left, self._moved = self._window, 0
            else:
                self._left -= clock() - begun
            yield piece

    async def send(self, sending: Awaitable[T], size: int) -> T:
        """Wait until a piece of `size` bytes has left, for as long as a peer may take that is just not too slow.

        Raises:
            Refusal: "too_many", when it takes longer.
        """
        try:
            async with asyncio.timeout(self._window * (1 + size / self._least)):
                return await sending
        except TimeoutError:
            raise self._slow() from None

    def _slow(self) -> Refusal:
        return Refusal(
            "too_many",
            f"the connection moved less than {self._least} bytes in {self._window:g} seconds",
            remedy="Go on from the offset that has arrived",
            retry=1.0,
        )
