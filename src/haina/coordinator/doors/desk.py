"""The desk behind both doors: who calls, how often, what the Core says, and how a failure is told.

An upload's way is here once for both doors. Its rule: whatever the connection does, a step of the Core that has begun is left to end before the next
one begins, so that no spool file is closed under a write and no commit is torn.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from haina.coordinator.contract import Caller, Core, Landing
from haina.coordinator.doors.limits import Limits, Pace, Rate, Uploads
from haina.errors import HainaError
from haina.wire.calls import Call
from haina.wire.messages import Ack, Manifest, Problem
from haina.wire.refusal import Refusal, to_problem

log = logging.getLogger("haina.coordinator.doors")

T = TypeVar("T")
Q = Any

#: How the Core answers a known caller, by the name of the call.
KNOWN: dict[str, Callable[[Core, Caller, Q], Awaitable[Any]]] = {
    "renew": lambda core, caller, q: core.renew(caller, q),
    "hello": lambda core, caller, q: core.hello(caller, q),
    "ask": lambda core, caller, q: core.ask(caller, q),
    "received": lambda core, caller, q: core.received(caller, q.federation, q.round),
    "fail": lambda core, caller, q: core.fail(caller, q),
    "seal": lambda core, caller, q: core.seal(caller, q),
    "invite": lambda core, caller, q: core.invite(caller, q),
    "revoke": lambda core, caller, q: core.revoke(caller, q.name, q.why),
    "nodes": lambda core, caller, q: core.nodes(caller),
    "federations": lambda core, caller, q: core.federations(caller),
    "command": lambda core, caller, q: core.command(caller, q.federation, q.command, q.why),
    "rounds": lambda core, caller, q: core.rounds(caller, q.federation, q.last),
    "round": lambda core, caller, q: core.round(caller, q.federation, q.round),
    "models": lambda core, caller, q: core.models(caller, q.federation),
    "rollback": lambda core, caller, q: core.rollback(caller, q.federation, q.version, q.why),
    "settings": lambda core, caller, q: core.settings(caller, q.scope),
    "configure": lambda core, caller, q: core.configure(caller, q),
    "settings_log": lambda core, caller, q: core.settings_log(caller, q.last),
    "settings_rollback": lambda core, caller, q: core.settings_rollback(caller, q.version, q.why),
    "audit": lambda core, caller, q: core.audit(caller, q.last),
    "budgets": lambda core, caller, q: core.budgets(caller),
    "charges": lambda core, caller, q: core.charges(caller, q.owner, q.last),
}

#: How the Core answers anyone; the caller's address stands for a name.
ANYONE: dict[str, Callable[[Core, str, Q], Awaitable[Any]]] = {
    "enrol": lambda core, peer, q: core.enrol(q, peer),
    "health": lambda core, peer, q: core.health(),
    "livez": lambda core, peer, q: _alive(),
    "readyz": lambda core, peer, q: _ready(core),
}


class Desk:
    """One Core, and the limits that both doors keep together.

    Args:
        core: decides.
        limits: of all callers.
        clock: seconds, never going back.
        identify: who calls, from the connection's certificate (DER) or its absence; the Core's `admit` unless a benchmark has no certificates.
    """

    def __init__(
        self,
        core: Core,
        limits: Limits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        identify: Callable[[bytes | None], Awaitable[Caller]] | None = None,
    ) -> None:
        self.core = core
        self.limits = limits = limits or Limits()
        self._identify = identify or core.admit
        self._known = Rate(limits.calls_per_second, limits.calls_at_once, clock)
        self._strangers = Rate(limits.strangers_per_second, limits.strangers_at_once, clock)
        self._uploads = Uploads(limits.uploads, limits.upload_bytes, limits.uploads_each)

    async def caller(self, certificate: bytes | None) -> Caller:
        """The holder of a connection's certificate, who has not called too often."""
        caller = await self._identify(certificate)
        self._known.take(caller.name)
        return caller

    def stranger(self, peer: str) -> None:
        """Count a call that shows no certificate."""
        self._strangers.take(peer)

    async def answer(self, call: Call[Q, T], caller: Caller | str, request: Q) -> T:
        """What the Core says to a request.

        Args:
            call: which call it is.
            caller: who calls; the address for a call that anyone may make.
            request: the checked message.
        """
        if isinstance(caller, Caller):
            answer = await KNOWN[call.name](self.core, caller, request)
        else:
            answer = await ANYONE[call.name](self.core, caller, request)
        return answer  # type: ignore[no-any-return]

    async def upload(
        self,
        caller: Caller,
        manifest: Manifest,
        offset: int,
        body: Callable[[], Awaitable[bytes | memoryview]],
        ready: Callable[[int], Awaitable[None]],
    ) -> Ack:
        """Take an upload in.

        Args:
            caller: who sends it.
            manifest: what it is.
            offset: how much of it the sender says is here.
            body: the next piece of the body, `b""` at its end.
            ready: called with the number of bytes that must come, before the first is read.

        Raises:
            Refusal: the Core's, or "malformed" / "too_large" where the body is not as long as was said. What came before stays for going on.
        """
        with self._uploads.room(caller.name, max(0, manifest.bytes - offset)):
            landing = await _undisturbed(self.core.begin(caller, manifest, offset), _leave)
            if isinstance(landing, Ack):
                return landing
            try:
                await ready(landing.missing)
                async for piece in Pace(self.limits).read(body):
                    if len(piece) > landing.missing:
                        raise Refusal(
                            "too_large",
                            f"more than the {manifest.bytes} bytes of the manifest",
                            allowed="exactly as many",
                        )
                    await _undisturbed(landing.write(piece))
                if landing.missing:
                    raise Refusal(
                        "malformed",
                        f"the body ended {landing.missing} bytes early",
                        allowed=f"{manifest.bytes} bytes in all",
                        remedy="Go on from the offset that has arrived",
                    )
                return await _undisturbed(landing.commit())
            finally:
                await _undisturbed(landing.close())


def problem_of(error: Exception) -> Problem:
    """How a failure is told. A bug says no more than the number under which it is in the log."""
    if isinstance(error, HainaError):
        return to_problem(error)
    number = secrets.token_hex(4)
    log.error("internal error %s", number, exc_info=error)
    return Problem(
        code="internal",
        what=f"internal error {number}",
        remedy="Nothing is known of the call's outcome; it is safe to make it again",
    )


async def _undisturbed(step: Awaitable[T], undo: Callable[[T], Awaitable[None]] | None = None) -> T:
    """Let a step end even when the connection has gone meanwhile; only then is it known that it has, and `undo` may give back what the step gave."""
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None and undo is not None:
            await undo(task.result())
        raise


async def _leave(landing: Landing | Ack) -> None:
    if not isinstance(landing, Ack):
        await landing.close()


async def _alive() -> dict[str, Any]:
    return {"live": True}


async def _ready(core: Core) -> dict[str, Any]:
    health = await core.health()
    if not health.get("ready"):
        raise Refusal("unavailable", "the coordinator is not ready", retry=1.0)
    return {"ready": True}
