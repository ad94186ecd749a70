"""What the doors call: one core behind gRPC and HTTP, so that neither decides anything.

A door turns bytes into messages, says who called (from the certificate of the connection), and turns what comes back into bytes. Whatever
goes wrong is a `Refusal` (`haina.wire.refusal`); everything else is a bug, which a door answers as "internal" without a word of what was inside.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from haina.wire.messages import (
    Ack,
    Ask,
    AuditEntry,
    BudgetInfo,
    ChargeInfo,
    Enrol,
    Enrolled,
    Event,
    Failed,
    FederationInfo,
    Hello,
    Invitation,
    Invite,
    Manifest,
    ModelInfo,
    NodeInfo,
    Received,
    Renew,
    Role,
    RoundInfo,
    Sealed,
    SettingsChange,
    SettingsEntry,
    Welcome,
)
from haina.wire.refusal import STATUS as STATUS
from haina.wire.refusal import Refusal as Refusal


@dataclass(frozen=True)
class Caller:
    """Who calls: taken from the certificate (DER), never from what the call says."""

    name: str
    role: Role
    serial: int
    certificate: bytes = field(default=b"", repr=False)


@dataclass(frozen=True)
class Blob:
    """Bytes to be sent: their length, and the file that holds them."""

    sha256: str
    size: int
    path: Path


class Landing(Protocol):
    """One upload on its way in. Chunks go to a spool file; nothing counts before `commit`."""

    @property
    def missing(self) -> int:
        """Bytes still to come; a chunk beyond them is refused."""

    async def write(self, chunk: bytes | memoryview) -> None:
        """Take the next chunk; its memory is the caller's again afterwards."""

    async def commit(self) -> Ack:
        """All is here: verify, make durable, count. The answer is true after any crash."""

    async def close(self) -> None:
        """The connection ended, for whatever reason: what came stays for resuming. Always called; harmless after `commit`."""


class Core(Protocol):
    """The coordinator without its doors. Every call checks that `caller` may do it, and that its certificate is not revoked (`admit`)."""

    async def admit(self, certificate: bytes | None) -> Caller:
        """The holder of a certificate (DER) that the TLS layer has verified; refuses revoked, unknown and missing ones."""

    # -- first contact (no caller yet)
    async def enrol(self, request: Enrol, peer: str) -> Enrolled:
        """A certificate for an invitation; `peer` is the address of who asks."""

    async def renew(self, caller: Caller, request: Renew) -> Enrolled:
        """The next certificate of a known caller."""

    # -- nodes
    async def hello(self, caller: Caller, hello: Hello) -> Welcome:
        """A node says what it is, and learns what it takes part in."""

    async def ask(self, caller: Caller, ask: Ask) -> Event:
        """What there is to do; waits for it up to `ask.wait` seconds."""

    async def blob(self, caller: Caller, federation: str, sha256: str) -> Blob:
        """The bytes of a model or a control vector."""

    async def received(self, caller: Caller, federation: str, round: int) -> Received:
        """How much of the caller's update for a round lies here."""

    async def begin(self, caller: Caller, manifest: Manifest, offset: int) -> Landing | Ack:
        """Start or go on with an upload whose first `offset` bytes are here. An `Ack` at once when the body need not be sent."""

    async def fail(self, caller: Caller, failed: Failed) -> Ack:
        """A node could not train."""

    async def seal(self, caller: Caller, sealed: Sealed) -> Ack:
        """A member's message in one stage of a secure sum."""

    # -- operators and viewers
    async def invite(self, caller: Caller, request: Invite) -> Invitation:
        """A new invitation."""

    async def revoke(self, caller: Caller, name: str, why: str) -> NodeInfo:
        """Shut a node, viewer or operator out, from the next call on."""

    async def nodes(self, caller: Caller) -> Sequence[NodeInfo]:
        """Everybody with a certificate."""

    async def federations(self, caller: Caller) -> Sequence[FederationInfo]:
        """All federations, with their open rounds."""

    async def command(self, caller: Caller, federation: str, command: str, why: str) -> FederationInfo:
        """`start`, `pause` or `stop`."""

    async def rounds(self, caller: Caller, federation: str, last: int) -> Sequence[RoundInfo]:
        """The last rounds, oldest first."""

    async def round(self, caller: Caller, federation: str, number: int) -> RoundInfo:
        """One round."""

    async def models(self, caller: Caller, federation: str) -> Sequence[ModelInfo]:
        """Every version, oldest first."""

    async def rollback(self, caller: Caller, federation: str, version: int, why: str) -> ModelInfo:
        """A new version with the bytes and the strategy state of an old one."""

    async def settings(self, caller: Caller, scope: str) -> dict[str, Any]:
        """`{"version": int, "values": effective values, "own": values of this scope, "schema": JSON schema}`."""

    async def configure(self, caller: Caller, change: SettingsChange) -> SettingsEntry:
        """Change settings of one scope."""

    async def settings_log(self, caller: Caller, last: int) -> Sequence[SettingsEntry]:
        """The last changes, oldest first."""

    async def settings_rollback(self, caller: Caller, version: int, why: str) -> SettingsEntry:
        """A new version with the values as they stood at an old one."""

    async def audit(self, caller: Caller, last: int) -> Sequence[AuditEntry]:
        """The last lines of the audit log, oldest first."""

    async def budgets(self, caller: Caller) -> Sequence[BudgetInfo]:
        """Privacy budgets, and what is spent of them."""

    async def charges(self, caller: Caller, owner: str | None, last: int) -> Sequence[ChargeInfo]:
        """The last charges to budgets, of one owner or of all, oldest first."""

    def follow(self, caller: Caller, federation: str | None) -> AsyncIterator[AuditEntry]:
        """What happens from now on, as it happens (`haina logs --follow`)."""

    # -- anyone
    async def health(self) -> dict[str, Any]:
        """`{"live": True, "ready": bool, "version": str, ...}`, without any name of a node."""
