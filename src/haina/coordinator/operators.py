"""Operators: the calls of operators and viewers, each written into the audit log.

A viewer may look; an operator may also act. A node may do neither.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from haina import __version__
from haina.coordinator.authority import new_token
from haina.coordinator.contract import Caller
from haina.coordinator.ground import Ground
from haina.coordinator.station import Bell, Station
from haina.coordinator.store import AuditRow, FederationRow, InvitationRow, ModelRow, NodeRow, RoundRow
from haina.privacy.ledger import Account, Charge
from haina.wire.messages import (
    AuditEntry,
    BudgetInfo,
    ChargeInfo,
    FederationInfo,
    Invitation,
    Invite,
    ModelInfo,
    NodeInfo,
    Role,
    RoundInfo,
    SettingsChange,
    SettingsEntry,
)
from haina.wire.refusal import Refusal

log = logging.getLogger("haina.operators")

#: Lines of the audit log in one transaction.
_LINES = 100
#: What an operator may tell a federation, and the state it then has.
_COMMANDS = {"start": "running", "pause": "paused", "stop": "stopped"}


class Operators:
    """Calls of operators and viewers.

    Args:
        ground: what a coordinator stands on.
    """

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        #: The federations, by name.
        self.stations: dict[str, Station] = {}
        #: Rings when there is a new line in the audit log.
        self.news = Bell()
        self._pending: list[tuple[str, str, str, dict[str, Any]]] = []
        self._writing: asyncio.Task[None] | None = None

    def require(self, caller: Caller, *roles: Role) -> None:
        """Refuse callers of other roles."""
        if caller.role not in roles:
            raise Refusal(
                "forbidden",
                f"{caller.name} is a {caller.role.value}",
                allowed=" or ".join(role.value for role in roles),
            )

    # ------------------------------------------------------------------------------------------ audit

    def happened(self, action: str, subject: str, detail: dict[str, Any], who: str = "coordinator") -> None:
        """Note an event for the audit log; written soon, in order."""
        log.info("%s %s %s", action, subject, detail)
        self._pending.append((who, action, subject, detail))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_audit())

    async def _write_audit(self) -> None:
        while self._pending:
            try:
                await self.ground.run(self._add_audits, self._pending[:_LINES])
            except Exception as error:
                log.warning("the audit log could not be written: %s", error)
                await asyncio.sleep(1.0)
                continue
            del self._pending[:_LINES]
            self.news.ring()

    def _add_audits(self, lines: list[tuple[str, str, str, dict[str, Any]]]) -> None:
        self.ground.store.add_audits(lines)

    async def _act(self, caller: Caller, action: str, subject: str, detail: dict[str, Any]) -> None:
        """An operator's action is in the audit log before it is done."""
        self.require(caller, Role.OPERATOR)
        await self.ground.run(self._add_audits, [(caller.name, action, subject, detail)])
        self.news.ring()

    async def end_news(self) -> None:
        """Write what is pending."""
        if self._writing is not None:
            await asyncio.wait({self._writing}, timeout=5.0)
        self.news.ring()

    async def audit(self, caller: Caller, last: int) -> Sequence[AuditEntry]:
        """See `contract.Core.audit`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        rows = await self.ground.run(self.ground.store.audit, 0, min(last, 10_000))
        return [_audit(row) for row in rows]

    async def budgets(self, caller: Caller) -> Sequence[BudgetInfo]:
        """See `contract.Core.budgets`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        return [_budget(account) for account in await self.ground.run(self.ground.store.budgets)]

    async def charges(self, caller: Caller, owner: str | None, last: int) -> Sequence[ChargeInfo]:
        """See `contract.Core.charges`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        charges = partial(self.ground.store.charges, owner=owner, last=min(last, 10_000))
        return [_charge(charge) for charge in await self.ground.run(charges)]

    async def follow(self, caller: Caller, federation: str | None) -> AsyncIterator[AuditEntry]:
        """See `contract.Core.follow`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        rows = await self.ground.run(self.ground.store.audit, 0, 1)
        seen = rows[-1].id if rows else 0
        while True:
            for row in await self.ground.run(self.ground.store.audit, seen, 1000):
                seen = row.id
                if federation is None or federation in (row.subject, row.detail.get("federation")):
                    yield _audit(row)
            await self.news.wait(5.0)
            await self.admit_again(caller)

    async def admit_again(self, caller: Caller) -> None:
        """A long call ends when its caller is revoked."""
        row = await self.ground.run(self.ground.store.node, caller.name)
        if row is None or row.state != "active":
            raise revoked(caller.name)

    # ------------------------------------------------------------------------------------------ nodes

    async def invite(self, caller: Caller, request: Invite) -> Invitation:
        """See `contract.Core.invite`."""
        # Before anything is looked up: what a refusal says would tell a node of others.
        self.require(caller, Role.OPERATOR)
        federation = request.federation
        if request.role is Role.NODE:
            if federation is None and len(self.stations) == 1:
                federation = next(iter(self.stations))
            if federation not in self.stations:
                raise Refusal(
                    "not_found",
                    f"there is no federation {federation!r}" if federation else "no federation is named",
                    allowed=", ".join(self.stations),
                    remedy="Name one: haina invite NAME --federation F",
                )
        row = await self.ground.run(self.ground.store.node, request.name)
        if row is not None and row.role != request.role:
            raise Refusal("conflict", f"{request.name} is a {row.role} already", remedy="Choose another name")
        if row is not None and row.state == "active" and not request.replace:
            raise Refusal(
                "conflict",
                f"{request.name} takes part already, and whoever uses a new invitation would put it out",
                remedy="If that is what you want: haina invite NAME --replace",
            )
        await self._act(caller, "invite", request.name, {"role": request.role, "federation": federation})
        return await self.ground.run(
            make_invitation, self.ground, request.model_copy(update={"federation": federation})
        )

    async def revoke(self, caller: Caller, name: str, why: str) -> NodeInfo:
        """See `contract.Core.revoke`."""
        self.require(caller, Role.OPERATOR)
        if name == caller.name:
            raise Refusal(
                "conflict",
                f"{name} is you, and nobody would be left to let you in again",
                remedy="Let another operator do it",
            )
        await self._act(caller, "revoke", name, {"why": why})
        row = await self.ground.run(self.ground.store.revoke, name)
        if row is None:
            raise Refusal("not_found", f"there is no node {name}")
        self.forget_callers()
        # Whoever waits is looked at again, and this one sent away.
        self.ring()
        return _node(row)

    def forget_callers(self) -> None:
        """Rows of nodes changed (overridden where callers are remembered)."""

    async def nodes(self, caller: Caller) -> Sequence[NodeInfo]:
        """See `contract.Core.nodes`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        return [_node(row) for row in await self.ground.run(self.ground.store.nodes)]

    # ------------------------------------------------------------------------------------------ federations

    async def federations(self, caller: Caller) -> Sequence[FederationInfo]:
        """See `contract.Core.federations`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        return [await self.ground.run(self._federation, name) for name in self.stations]

    def _federation(self, name: str) -> FederationInfo:
        store = self.ground.store
        row = store.federation(name)
        assert row is not None
        model = store.model(name, None)
        current = store.current_round(name)
        policy = self.stations[name].hosted.policy
        return FederationInfo(
            name=name,
            state=row.state,
            reason=row.reason or self._waits(row, store.nodes()),
            rounds=self.stations[name].hosted.rounds,
            closed=row.closed,
            version=row.version,
            model=None if model is None else model.sha256,
            metrics={} if model is None else dict(model.metrics),
            round=None if current is None else self._round(current),
            result=row.result or "",
            promises=() if policy is None else policy.promises,
            nodes=sum(node.federation == name and node.role == Role.NODE for node in store.nodes()),
        )

    def _waits(self, row: FederationRow, nodes: Sequence[NodeRow]) -> str:
        """What a running federation waits for, in words."""
        rounds = self.stations[row.name].rounds
        pace = rounds.pace()
        there = len(rounds.present(nodes, self.ground.clock(), pace))
        if row.state != "running" or there >= pace.nodes:
            return ""
        return f"waits for nodes: {there} of {pace.nodes} are there"

    async def command(self, caller: Caller, federation: str, command: str, why: str) -> FederationInfo:
        """See `contract.Core.command`."""
        self.require(caller, Role.OPERATOR)
        station = self._known(federation)
        state = _COMMANDS.get(command)
        if state is None:
            raise Refusal("invalid", f"the command is {command!r}", allowed=", ".join(_COMMANDS))
        await self._act(caller, f"federation.{command}", federation, {"why": why})
        row = await self.ground.run(self.ground.store.federation, federation)
        assert row is not None
        if row.state == "finished" and state != "stopped":
            raise Refusal(
                "conflict",
                f"federation {federation} has finished its {row.closed} rounds",
                remedy="Raise train.rounds in its file and start the coordinator again",
            )
        await self.ground.run(self.ground.store.set_state, federation, state, why)
        await station.look()
        station.poke()
        return await self.ground.run(self._federation, federation)

    async def rounds(self, caller: Caller, federation: str, last: int) -> Sequence[RoundInfo]:
        """See `contract.Core.rounds`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        self._known(federation)
        rows = await self.ground.run(self.ground.store.rounds, federation, min(last, 1000))
        return [await self.ground.run(self._round, _without_clients(row)) for row in rows]

    async def round(self, caller: Caller, federation: str, number: int) -> RoundInfo:
        """See `contract.Core.round`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        self._known(federation)
        row = await self.ground.run(self.ground.store.round, federation, number)
        if row is None:
            raise Refusal("not_found", f"federation {federation} has no round {number}")
        info = await self.ground.run(self._round, row)
        heard = await self.ground.run(self.ground.store.contributions, federation, number)
        failures = {row.node: row.where for row in heard if row.status == "failed"}
        return info.model_copy(update={"failures": failures})

    def _round(self, row: RoundRow) -> RoundInfo:
        tally = self.ground.store.tally(row.federation, row.number)
        return RoundInfo(
            federation=row.federation,
            number=row.number,
            state=row.state,
            version=row.version,
            opened=row.opened,
            deadline=row.deadline,
            closed=row.closed,
            invited=len(row.roster) or row.target,
            arrived=tally.get("accepted", 0),
            failed=tally.get("failed", 0),
            quorum=row.quorum,
            reason=row.reason,
            record=row.record,
            stage=(row.stage or {}).get("name", "") if row.state == "open" else "",
        )

    # ------------------------------------------------------------------------------------------ models

    async def models(self, caller: Caller, federation: str) -> Sequence[ModelInfo]:
        """See `contract.Core.models`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        self._known(federation)
        return [_model(row) for row in await self.ground.run(self.ground.store.models, federation)]

    async def rollback(self, caller: Caller, federation: str, version: int, why: str) -> ModelInfo:
        """See `contract.Core.rollback`."""
        self.require(caller, Role.OPERATOR)
        station = self._known(federation)
        row = await self.ground.run(self.ground.store.model, federation, version)
        if row is None or not row.kept:
            raise Refusal(
                "not_found",
                f"federation {federation} keeps no version {version}",
                remedy="See what is kept: haina models " + federation,
            )
        if station.hosted.strategy.spacing is not None:
            raise Refusal(
                "invalid",
                f"the noise of {federation} hangs together over its rounds, each of which is counted on once",
                allowed="roll-backs of federations without [privacy] correlated",
                remedy="Begin a new federation from the model that you want back",
            )
        await self._act(caller, "models.rollback", federation, {"version": version, "why": why})
        note = f"roll-back to version {version} by {caller.name}" + (f": {why}" if why else "")
        under_way = await self.ground.run(self.ground.store.current_round, federation)
        new = await self.ground.run(
            self.ground.store.rollback, federation, version, note, self.ground.clock()
        )
        if under_way is not None:
            # The round under way began from what is taken back, and ended with it.
            await self.ground.run(self._drop, under_way)
        station.poke()
        return _model(new)

    def _drop(self, row: RoundRow) -> None:
        heard = self.ground.store.contributions(row.federation, row.number)
        self.ground.vault.drop(row.federation, row.number, heard)

    # ------------------------------------------------------------------------------------------ settings

    async def settings(self, caller: Caller, scope: str) -> dict[str, Any]:
        """See `contract.Core.settings`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        return await self.ground.run(self.ground.settings.shown, scope)

    async def configure(self, caller: Caller, change: SettingsChange) -> SettingsEntry:
        """See `contract.Core.configure`."""
        self.require(caller, Role.OPERATOR)
        if change.dry_run:
            return await self.ground.run(self.ground.settings.change, change, caller.name)
        kind, _, name = change.scope.partition(":")
        if kind == "node" and await self.ground.run(self.ground.store.node, name) is None:
            raise Refusal("not_found", f"there is no node {name}", remedy="See who is there: haina nodes")
        await self._act(caller, "settings.change", change.scope, {"values": change.values, "why": change.why})
        entry = await self.ground.run(self.ground.settings.change, change, caller.name)
        self.settings_changed()
        return entry

    async def settings_log(self, caller: Caller, last: int) -> Sequence[SettingsEntry]:
        """See `contract.Core.settings_log`."""
        self.require(caller, Role.OPERATOR, Role.VIEWER)
        return await self.ground.run(self.ground.settings.log, last)

    async def settings_rollback(self, caller: Caller, version: int, why: str) -> SettingsEntry:
        """See `contract.Core.settings_rollback`."""
        await self._act(caller, "settings.rollback", str(version), {"why": why})
        entry = await self.ground.run(self.ground.settings.rollback, version, caller.name, why)
        self.settings_changed()
        return entry

    def settings_changed(self) -> None:
        """Push: everybody who waits looks again, and so do rounds."""
        self.ring()
        for station in self.stations.values():
            station.poke()

    def ring(self) -> None:
        """Everybody who waits looks again."""
        self.news.ring()
        for station in self.stations.values():
            station.bell.ring()

    # ------------------------------------------------------------------------------------------ anyone

    async def health(self) -> dict[str, Any]:
        """See `contract.Core.health`."""
        try:
            await self.ground.run(self.ground.store.ping)
        except Refusal:
            return {"live": True, "ready": False, "version": __version__}
        return {"live": True, "ready": True, "version": __version__}

    def _known(self, federation: str) -> Station:
        station = self.stations.get(federation)
        if station is None:
            raise Refusal(
                "not_found", f"there is no federation {federation}", allowed=", ".join(self.stations)
            )
        return station


def _without_clients(row: RoundRow) -> RoundRow:
    """A round for a list, which must not grow with rounds x clients; one round alone is told whole."""
    if row.record is None:
        return row
    return replace(row, record={name: value for name, value in row.record.items() if name != "clients"})


def revoked(name: str) -> Refusal:
    """Why somebody who was shut out is refused."""
    return Refusal(
        "forbidden",
        f"the certificate of {name} is revoked",
        remedy="Ask the operator for a new invitation",
    )


def make_invitation(ground: Ground, request: Invite) -> Invitation:
    """A fresh invitation; only the hash of its token is kept."""
    token, hashed = new_token()
    expires = ground.clock() + request.hours * 3600
    ground.store.put_invitation(
        InvitationRow(hashed, request.name, request.role, expires, request.federation, request.group)
    )
    return Invitation(
        name=request.name,
        role=request.role,
        federation=request.federation,
        http=ground.http,
        grpc=ground.grpc,
        authority=ground.authority.authority_pem,
        fingerprint=ground.authority.fingerprint,
        token=token,
        expires=datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds"),
    )


def _node(row: NodeRow) -> NodeInfo:
    return NodeInfo.model_validate({name: getattr(row, name) for name in NodeInfo.model_fields})


def _budget(account: Account) -> BudgetInfo:
    spent = account.spent
    said = {
        name: getattr(account.budget, name)
        for name in BudgetInfo.model_fields
        if hasattr(account.budget, name)
    }
    return BudgetInfo(
        **said,
        spent_epsilon=spent.epsilon,
        spent_delta=spent.delta,
        spent_rho=spent.rho,
        fraction=spent.fraction,
    )


def _charge(charge: Charge) -> ChargeInfo:
    return ChargeInfo.model_validate({name: getattr(charge, name) for name in ChargeInfo.model_fields})


def _model(row: ModelRow) -> ModelInfo:
    return ModelInfo.model_validate({name: getattr(row, name) for name in ModelInfo.model_fields})


def _audit(row: AuditRow) -> AuditEntry:
    return AuditEntry.model_validate({name: getattr(row, name) for name in AuditEntry.model_fields})
