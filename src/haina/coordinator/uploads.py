"""Uploads: spool, verify, commit. Nothing of an update counts before its row is committed, and nothing is acknowledged before.

The key of an update is (federation, round of the task, node). A second delivery of the same bytes is answered "duplicate" whatever became of the
round since, so that a node that lost the acknowledgement may simply send again; other bytes under the same key are refused.

Rows of updates that arrive together are committed together: while one commit waits for the disk, the next batch gathers (group commit).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from haina.coordinator.contract import Caller, Refusal
from haina.coordinator.hosted import Hosted
from haina.coordinator.sealing import Sums
from haina.coordinator.store import ContributionRow, FederationRow, Outcome, RoundRow
from haina.errors import HainaError, ReportError
from haina.report import Report
from haina.strategy.parts import Needs, Payload
from haina.wire import identity
from haina.wire.codecs import size
from haina.wire.messages import Manifest

log = logging.getLogger("haina.uploads")

#: Most rows in one commit.
BATCH = 64


@dataclass
class Commits:
    """Group commit: rows put while a commit is under way go into the next one together.

    Args:
        write: commits a batch and answers for each row; runs in a thread.
        run: runs a function in the thread of the store.
    """

    write: Callable[[list[ContributionRow]], list[Outcome]]
    run: Callable[..., Awaitable[Any]]
    _waiting: list[tuple[ContributionRow, asyncio.Future[Outcome]]] = field(default_factory=list)
    _writer: asyncio.Task[None] | None = None

    async def put(self, row: ContributionRow) -> Outcome:
        """Commit one row; the answer is that of `Store.record`."""
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((row, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            try:
                answers = await self.run(self.write, [row for row, _ in batch])
            except Exception as error:
                if not isinstance(error, HainaError):
                    log.exception("%d contributions could not be written", len(batch))
                    if len(batch) > 1:
                        # One of them may be the cause: the others must not suffer for it.
                        for row, future in batch:
                            await self._alone(row, future)
                        continue
                    error = Refusal("unavailable", "the store failed")
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    async def _alone(self, row: ContributionRow, future: asyncio.Future[Outcome]) -> None:
        try:
            (answer,) = await self.run(self.write, [row])
        except Exception as error:
            if not future.done():
                kind = error if isinstance(error, HainaError) else Refusal("unavailable", "the store failed")
                future.set_exception(kind)
        else:
            if not future.done():
                future.set_result(answer)


def check_manifest(hosted: Hosted, caller: Caller, manifest: Manifest, largest: int) -> None:
    """Everything about an upload that can be known before its first byte.

    Args:
        hosted: the federation.
        caller: who sends it.
        manifest: what they say of it.
        largest: bytes that an upload may have at most.

    Raises:
        Refusal: forbidden (another's name, a bad signature), invalid (codec, length, report), too_large.
    """
    if manifest.node != caller.name:
        raise Refusal(
            "forbidden",
            f"{caller.name} cannot upload as {manifest.node}",
            remedy="Use the credentials that were issued for that node",
        )
    if not identity.verify(caller.certificate, manifest):
        raise Refusal(
            "forbidden",
            "the signature of the manifest does not fit what it says",
            remedy="Sign it with the key of the certificate in use",
        )
    if manifest.bytes > largest:
        raise Refusal(
            "too_large", f"the upload has {manifest.bytes} bytes", allowed=f"at most {largest} bytes"
        )
    if manifest.codec not in hosted.codecs:
        raise Refusal("invalid", f"the codec is {manifest.codec}", allowed=", ".join(hosted.codecs))
    if manifest.length != hosted.length:
        raise Refusal(
            "invalid",
            f"the vector has {manifest.length} numbers",
            allowed=f"{hosted.length}, as the model of this federation",
        )
    if hosted.payload is not Payload.COLLECT:
        expected = size(manifest.codec, manifest.length)
        if manifest.bytes != expected:
            raise Refusal(
                "invalid", f"the body has {manifest.bytes} bytes", allowed=f"{expected} as {manifest.codec}"
            )
    try:
        Report.read(manifest.report)
    except ReportError as error:
        raise Refusal("invalid", error.what, allowed=error.allowed, remedy=error.remedy) from error


def place(
    hosted: Hosted,
    manifest: Manifest,
    row: RoundRow | None,
    federation: FederationRow,
    max_staleness: int,
    sums: Sums | None = None,
) -> int | str:
    """Where an update counts: the number of the open round, or the reason why it never will.

    Args:
        hosted: the federation.
        manifest: the update.
        row: the round that is under way, if one is.
        federation: where the federation stands.
        max_staleness: rounds that an update may be behind.
        sums: the round's secure sums, where it has some.

    Raises:
        Refusal: unavailable: no round is open just now, and the update may count in the next; or another replica has opened a round, or has begun to
            take updates, which is not known here yet.
    """
    number = federation.closed + 1 if row is None else row.number
    behind = number - manifest.round
    if behind < 0:
        raise Refusal(
            "unavailable",
            f"round {manifest.round} is not known here yet",
            allowed=f"round {number}",
            remedy="Send it again in a moment",
        )
    if behind > max_staleness or federation.state in ("stopped", "finished"):
        return f"round {manifest.round} is over: round {number} is {'open' if row else 'next'}" + (
            f", and an update may be {max_staleness} rounds behind" if max_staleness else ""
        )
    if row is None or row.state != "open":
        if behind == 0 and row is not None and not max_staleness:
            return f"round {manifest.round} is closing without this update"
        raise Refusal("unavailable", "no round is open at the moment", remedy="Send it again in a moment")
    if behind == 0 and manifest.version != row.version:
        return f"the update began from version {manifest.version}, and round {number} from {row.version}"
    if sums is not None:
        return _masked(manifest, row, sums)
    if behind == 0 and not hosted.pace.buffered:
        announced = row.roster.get(manifest.node)
        if announced is None:
            return f"{manifest.node} was not invited to round {number}"
        reported = Report.read(manifest.report).examples
        if hosted.strategy.needs is Needs.COUNTS and reported != announced:
            return (
                f"{announced} examples were announced and {reported:g} are reported; "
                "shares were made from what was announced"
            )
    return row.number


def _masked(manifest: Manifest, row: RoundRow, sums: Sums) -> int | str:
    """Where the words of a member count, as the stage of its round is known here."""
    if not sums.stage.past("share"):
        raise Refusal(
            "unavailable",
            f"round {row.number} takes no updates yet, as far as is known here",
            remedy="Send it again in a moment",
            retry=0.2,
        )
    return sums.refusal(manifest.node, "upload") or row.number
