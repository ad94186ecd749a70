"""Landing: one upload from its first byte to its row (`haina.coordinator.contract.Landing`)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from haina.coordinator.contract import Caller, Refusal
from haina.coordinator.spool import Incoming
from haina.coordinator.station import Station
from haina.coordinator.store import ContributionRow
from haina.wire.messages import Ack, Fate, Manifest

if TYPE_CHECKING:
    from haina.coordinator.core import CoordinatorCore


class Arrival:
    """One upload under way.

    Args:
        core: commits the row.
        station: the federation.
        caller: who sends it.
        manifest: what is coming, checked.
        incoming: where it is spooled.
        settings_version: told in the acknowledgement.
    """

    def __init__(
        self,
        core: CoordinatorCore,
        station: Station,
        caller: Caller,
        manifest: Manifest,
        incoming: Incoming,
        settings_version: int,
    ) -> None:
        self._core, self._station, self._caller, self._manifest = core, station, caller, manifest
        self._incoming, self._settings_version = incoming, settings_version
        self._finished = False

    @property
    def missing(self) -> int:
        """See `contract.Landing.missing`."""
        return self._incoming.missing

    async def write(self, chunk: bytes | memoryview) -> None:
        """See `contract.Landing.write`."""
        if len(chunk) < _INLINE:
            # Cheaper than a hop to a thread and back.
            self._incoming.write(chunk)
        else:
            await self._core.ground.run_bulk(self._incoming.write, chunk)

    async def commit(self) -> Ack:
        """See `contract.Landing.commit`."""
        core, manifest, ground = self._core, self._manifest, self._core.ground
        verified = await ground.run_bulk(self._incoming.finish, manifest.codec, manifest.length)
        self._finished = True
        now = ground.clock()
        counted_in = core.place_now(self._station, manifest)
        if isinstance(counted_in, str):
            again = await core.again(manifest, self._settings_version)
            self._incoming.discard()
            return again or Ack(fate=Fate.REFUSED, reason=counted_in, settings_version=self._settings_version)
        given = self._station.given.get((manifest.round, manifest.node))
        row = ContributionRow(
            federation=manifest.federation,
            round=manifest.round,
            node=manifest.node,
            counted_in=counted_in,
            version=manifest.version,
            status="accepted" if verified.reason is None else "refused",
            received=now,
            epoch=ground.epoch,
            sha256=manifest.sha256,
            bytes=manifest.bytes,
            codec=manifest.codec,
            length=manifest.length,
            report=dict(manifest.report),
            signature=manifest.signature,
            square=verified.square,
            reason=verified.reason or "",
            staleness=counted_in - manifest.round,
            seconds=0.0 if given is None else max(0.0, now - given),
            kept=verified.reason is None and not self._station.rounds.folds,
        )
        if row.kept and ground.shared:
            # One process alone has them where they were spooled.
            await ground.run_bulk(ground.vault.keep, row)
        try:
            outcome = await core.count(self._station, self._caller, row)
        except Refusal as error:
            if error.code == "forbidden":
                self._incoming.discard()
            raise
        if outcome == "new" and ground.shared:
            # Folded, or where every replica can read it.
            spool = partial(ground.spool.drop, manifest.federation, manifest.round, manifest.node)
            await ground.run_bulk(spool)
        if outcome == "new":
            if verified.reason is None:
                return Ack(fate=Fate.ACCEPTED, settings_version=self._settings_version)
            self._incoming.discard()
            core.happened(
                "update.refused", manifest.node, {"round": manifest.round, "reason": verified.reason}
            )
            return Ack(fate=Fate.REFUSED, reason=verified.reason, settings_version=self._settings_version)
        if outcome == "closed" and core.may_be_late(self._station):
            # It may count in the next round; its bytes stay here.
            raise Refusal("unavailable", f"round {counted_in} has just closed", retry=0.5)
        if not isinstance(outcome, ContributionRow):
            self._incoming.discard()
        return core.outcome_ack(outcome, manifest, self._settings_version)

    async def close(self) -> None:
        """See `contract.Landing.close`."""
        if not self._finished:
            await self._core.ground.run_bulk(self._incoming.close)


#: Chunks shorter than this are written in the loop: a hash and a copy of so few bytes take less than a thread's wake-up.
_INLINE = 1 << 17
