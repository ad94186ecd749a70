"""An operator's calls, for the command line: each a method that takes words and returns messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from haina.node.link.http import Http
from haina.wire import calls
from haina.wire.messages import (
    AuditEntry,
    BudgetInfo,
    ChargeInfo,
    FederationInfo,
    Invitation,
    Invite,
    ModelInfo,
    NodeInfo,
    RoundInfo,
    SettingsChange,
    SettingsEntry,
)
from haina.wire.requests import (
    Charges,
    Command,
    Follow,
    InScope,
    Latest,
    Nothing,
    OfFederation,
    Restore,
    Revoke,
    Rollback,
    Rounds,
    Slot,
)


class Api(Http):
    """A coordinator as an operator or viewer sees it. Every method raises `Refusal` and `Unreachable` like `Http.call`."""

    def health(self) -> dict[str, Any]:
        """How the coordinator is."""
        return self.call(calls.HEALTH, Nothing())

    def nodes(self) -> list[NodeInfo]:
        """All nodes."""
        return self.call(calls.NODES, Nothing())

    def invite(self, request: Invite) -> Invitation:
        """A new invitation; its token is nowhere else."""
        return self.call(calls.INVITE, request)

    def revoke(self, name: str, why: str = "") -> NodeInfo:
        """Shut a node out for good."""
        return self.call(calls.REVOKE, Revoke(name=name, why=why))

    def federations(self) -> list[FederationInfo]:
        """All federations."""
        return self.call(calls.FEDERATIONS, Nothing())

    def command(
        self, federation: str, command: Literal["start", "pause", "stop"], why: str = ""
    ) -> FederationInfo:
        """Start, pause or stop a federation."""
        return self.call(calls.COMMAND, Command(federation=federation, command=command, why=why))

    def rounds(self, federation: str, last: int = 100) -> list[RoundInfo]:
        """The newest rounds."""
        return self.call(calls.ROUNDS, Rounds(federation=federation, last=last))

    def round(self, federation: str, number: int) -> RoundInfo:
        """One round, with its record."""
        return self.call(calls.ROUND, Slot(federation=federation, round=number))

    def models(self, federation: str) -> list[ModelInfo]:
        """Versions of the model."""
        return self.call(calls.MODELS, OfFederation(federation=federation))

    def rollback(self, federation: str, version: int, why: str = "") -> ModelInfo:
        """Make an earlier version of the model the newest."""
        return self.call(calls.ROLLBACK, Rollback(federation=federation, version=version, why=why))

    def settings(self, scope: str = "global") -> dict[str, Any]:
        """Settings of a scope: `version`, `values`, `own`, `schema`."""
        return self.call(calls.SETTINGS, InScope(scope=scope))

    def configure(self, change: SettingsChange) -> SettingsEntry:
        """Change settings."""
        return self.call(calls.CONFIGURE, change)

    def settings_log(self, last: int = 100) -> list[SettingsEntry]:
        """Who changed which settings."""
        return self.call(calls.SETTINGS_LOG, Latest(last=last))

    def settings_rollback(self, version: int, why: str = "") -> SettingsEntry:
        """Settings as they were at a version."""
        return self.call(calls.SETTINGS_ROLLBACK, Restore(version=version, why=why))

    def audit(self, last: int = 100) -> list[AuditEntry]:
        """Who did what."""
        return self.call(calls.AUDIT, Latest(last=last))

    def budgets(self) -> list[BudgetInfo]:
        """Privacy budgets, and what is spent of them."""
        return self.call(calls.BUDGETS, Nothing())

    def charges(self, owner: str | None = None, last: int = 100) -> list[ChargeInfo]:
        """The newest charges to privacy budgets."""
        return self.call(calls.CHARGES, Charges(owner=owner, last=last))

    def follow(self, federation: str | None = None) -> Iterator[AuditEntry]:
        """What happens from now on; ends with `Unreachable` when the connection does."""
        return self.lines(calls.FOLLOW, Follow(federation=federation))
