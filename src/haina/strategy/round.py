"""Round: updates in, the next model and the record of why out.

`add` takes each update as it arrives, `close` ends the round. A round never crashes on what clients send: what cannot be used is refused with the
reason, and a round that cannot make a sound model keeps the old one and says so.

Several processes may each hold the same round open and add some of the clients; whoever closes it merges their `partial`s first. The model and the
record are the same bytes as if one process had added everybody, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from haina.artifact import Array
from haina.errors import RoundError
from haina.report import Report
from haina.strategy.gather import Folding, Gathered, Keeping, Pooling
from haina.strategy.partial import Partial
from haina.strategy.parts import Aggregate, Cover, Judge, Needs, Payload, Release, Seen, Stepped, View
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict
from haina.strategy.select import Poisson
from haina.strategy.strategy import SPENT, StrategyState
from haina.strategy.validate import Bound, refusal, squared_norm
from haina.strategy.weigh import effective_sample_size
from haina.update import BLOCK, Failure, Pool, Update, Vector

if TYPE_CHECKING:
    from haina.strategy.strategy import Strategy

#: The number of a report that says, under adaptive clipping, whether the update was within the limit (1) or had to be shortened (0).
UNCLIPPED = "unclipped"

#: What overflows is found in the result and named in the record, so a warning on standard error would say it twice.
_overflow_is_looked_for = np.errstate(over="ignore", invalid="ignore")


@dataclass(frozen=True)
class Closed:
    """A closed round: the next model and state, why, and whether training is over."""

    model: Array
    state: StrategyState
    record: RoundRecord
    finished: bool = False


class Round:
    """One open round, made by `Strategy.open`."""

    @_overflow_is_looked_for
    def __init__(
        self,
        strategy: Strategy,
        state: StrategyState,
        model: Array,
        roster: Mapping[str, Report | None],
        dimension: int,
        registered: int,
        judge: Judge | None,
        release: Release | None = None,
    ) -> None:
        self._strategy, self._state, self._model, self._release = strategy, state, model, release
        self._roster = dict(roster)
        self._dimension, self._registered = dimension, registered
        self._number = state.round + 1
        invited = list(roster)
        self._members = state.members.put(invited, invited=state.members.get("invited", invited) + 1)
        self._gather: Folding | Keeping | Pooling
        if strategy.seen is not Seen.UPDATE:
            self._gather = Pooling(strategy, state, self._members, judge, dimension)
        elif strategy.needs < Needs.VECTORS:
            usable = {c: r for c, r in roster.items() if r is not None and r.fault() is None}
            view = View(self._number, tuple(usable), tuple(usable.values()), self._members)
            exact = strategy.combine.payload is Payload.SUM
            dtype = np.float64 if exact else np.result_type(model.dtype, np.float32)
            self._gather = Folding(strategy, state, view, dimension, dtype)
        else:
            self._gather = Keeping(strategy, state, self._members, judge, dimension)
        self._heard = self._gather.heard
        self._closed = False

    @_overflow_is_looked_for
    def add(self, update: Update, square: float | None = None) -> str | None:
        """Take one update.

        Args:
            update: whose vector may lie on a disk, where the strategy folds (`haina.exact.Stored`).
            square: squared L2 norm of the vector, from whoever has looked at each of its numbers already (a coordinator, as it came); None to look.

        Returns:
            None if it takes part, else the reason for refusing it (which the record holds too).

        Raises:
            RoundError: the client was not invited, or was heard already, or the round is closed.
        """
        client = update.client
        self._expect(client)
        if isinstance(self._gather, Pooling):
            raise RoundError(
                f"client {client!r} sent its update in the clear, and this round takes sums only",
                remedy="Use `add_pool`",
            )
        if self._heard.heard([client]):
            raise RoundError(f"client {client!r} was heard already in round {self._number}")
        payload = self._strategy.combine.payload
        reason = refusal(update, self._dimension, payload, seen=square is not None)
        if reason is not None:
            self._heard.refused[client] = reason
            return reason
        if square is None:
            square = 0.0 if payload is Payload.COLLECT else squared_norm(update.vector)
        clip = 1.0
        if self._strategy.clips and isinstance(self._gather, Folding):
            assert self._strategy.clip is not None
            clip = float(self._strategy.clip.scales(np.sqrt([square]), self._state.parts["clip"])[0])
        try:
            self._gather.add(update, square, clip)
        except RoundError as error:
            self._heard.refused[client] = str(error)
            return self._heard.refused[client]
        return None

    def add_pool(self, pool: Pool) -> None:
        """Take the sum of a group of clients.

        Raises:
            RoundError: the round takes updates, not sums; a client was not invited, or was heard already; the mean is not a usable vector.
        """
        self._expect(*pool.clients)
        if not isinstance(self._gather, Pooling):
            raise RoundError("the round takes updates one by one", remedy="Use `add`")
        twice = self._heard.heard(pool.clients)
        if twice:
            raise RoundError(f"client {min(twice)!r} was heard already in round {self._number}")
        self._gather.add(pool)

    def fail(self, failure: Failure) -> None:
        """Take note that an invited client could not train."""
        self._expect(failure.client)
        self._heard.failed[failure.client] = failure.reason

    def refuse(self, client: str, reason: str) -> None:
        """Take note that an invited client's update was refused before it came here (by a coordinator, which checks what arrives)."""
        self._expect(client)
        self._heard.refused[client] = reason

    def partial(self) -> Partial:
        """What was heard so far, as a value that other processes can merge.

        Raises:
            RoundError: the strategy compares whole vectors, so there is no sum (`Strategy.needs`); or the round is closed.
        """
        self._expect()
        if not isinstance(self._gather, Folding):
            raise RoundError(
                f"strategy {self._strategy.name!r} compares vectors, so a part of a round cannot be summed up",
                remedy="Add every update in the process that closes the round",
            )
        return self._heard.snapshot()

    def merge(self, partial: Partial) -> None:
        """Take in what another process has heard of the same round, opened with the same state and roster.

        Raises:
            RoundError: it names a client that was heard already or not invited, or is of another round; nothing is changed.
        """
        self._expect(*partial.reports, *partial.refused, *partial.failed)
        self._heard.merge(partial)

    def _expect(self, *clients: str) -> None:
        if self._closed:
            raise RoundError(f"round {self._number} is closed already")
        for client in clients:
            if client not in self._roster:
                raise RoundError(f"client {client!r} was not invited to round {self._number}")

    @_overflow_is_looked_for
    def close(self) -> Closed:
        """End the round: the next model, the next state, and the record.

        Raises:
            RoundError: the round is closed already.
        """
        self._expect()
        self._closed = True
        clients = [client for client in self._roster if client in self._heard.reports]
        norms = np.sqrt([self._heard.squares[client] for client in clients])
        parts = dict(self._state.parts)
        clip = np.ones(len(clients))
        if self._strategy.private and self._strategy.clip is not None:
            parts["clip"] = cast(Bound, self._strategy.clip).follow(self._unclipped(clients), parts["clip"])
        elif self._strategy.clip is not None:
            parts["clip"] = self._strategy.clip.update(norms, parts["clip"])
        if self._strategy.clip is not None and self._strategy.clips:
            clip = self._strategy.clip.scales(norms, self._state.parts["clip"])
        gathered, stepped, reason = self._step(clients, clip)
        members = (
            self._members if gathered is None or gathered.assessment is None else gathered.assessment.members
        )
        if stepped is not None:
            parts["server"] = stepped.state
        if gathered is not None and gathered.assessment is not None:
            parts["trust"] = gathered.assessment.state
        losses = np.array([_loss(self._heard.reports[client]) for client in clients])
        members = members.put(
            clients,
            delivered=members.get("delivered", clients) + 1,
            last_round=self._number,
            last_loss=losses,
        )
        if self._strategy.cover is not Cover.NONE:
            members = members.put(clients, **{SPENT: members.get(SPENT, clients) + 1})
        parts["rate"] = self._strategy.rate.observe(_mean(losses), parts["rate"])
        record = self._record(clients, norms, clip, gathered, stepped, reason)
        state = StrategyState(self._number, members, parts)
        model = self._model if stepped is None else stepped.model
        return Closed(model, state, record, finished=stepped is not None and stepped.finished)

    def _step(self, clients: list[str], clip: Vector) -> tuple[Gathered | None, Stepped | None, str]:
        if not clients:
            return None, None, "no client sent a usable update"
        try:
            gathered = self._gather.gather(clients, clip)
        except RoundError as error:
            return None, None, str(error)
        expected = self._expected(len(clients))
        if expected != 1:
            coefficients = None if gathered.coefficients is None else gathered.coefficients * expected
            gathered = replace(gathered, vector=gathered.vector * expected, coefficients=coefficients)
        if self._release is not None and self._strategy.cover is Cover.SERVER:
            assert gathered.coefficients is not None
            influence = float(np.max(np.abs(gathered.coefficients) / gathered.clip))
            covered = self._release.cover(gathered.vector, influence)
            gathered = replace(gathered, vector=covered.astype(gathered.vector.dtype))
        aggregate = Aggregate(
            vector=gathered.vector,
            round=self._number,
            mean_square=gathered.mean_square,
            participation=min(1.0, len(clients) / self._registered),
            drift=gathered.drift,
        )
        try:
            stepped = self._strategy.server.step(self._model, aggregate, self._state.parts["server"])
        except RoundError as error:
            return gathered, None, str(error)
        if np.issubdtype(stepped.model.dtype, np.floating) and not _finite(stepped.model):
            return gathered, None, "the server's step gave a model that is not finite"
        if self._strategy.combine.payload is Payload.AVERAGE and not all(
            map(_finite, stepped.state.values())
        ):
            return gathered, None, "the server's step would remember numbers that are not finite"
        return gathered, stepped, ""

    def _expected(self, count: int) -> float:
        """Clients that came by those that were to be expected, where noise covers who came: what is divided by must not depend on it."""
        select = self._strategy.select
        if self._release is not None and self._release.expected is not None:
            return count / self._release.expected
        if self._strategy.cover is Cover.NONE or not isinstance(select, Poisson):
            return 1.0
        return count / (select.rate * self._registered)

    def _unclipped(self, clients: list[str]) -> float | None:
        """The share of clients that say their update was within the limit, as far as noise lets it be known."""
        if isinstance(self._gather, Pooling):
            return self._gather.unclipped
        said = [self._heard.reports[client].extra.get(UNCLIPPED) for client in clients]
        known = [value > 0.5 for value in said if value is not None]
        if not known:
            return None
        share = float(np.mean(known))
        return share if self._release is None else self._release.cover_share(share, len(known))

    def _record(
        self,
        clients: list[str],
        norms: Vector,
        clip: Vector,
        gathered: Gathered | None,
        stepped: Stepped | None,
        reason: str,
    ) -> RoundRecord:
        place = {client: i for i, client in enumerate(clients)}
        pooled, covered = isinstance(self._gather, Pooling), self._strategy.cover is Cover.SERVER
        clip = clip if gathered is None else gathered.clip
        shares = _normalised(gathered)
        if self._strategy.combine.payload is Payload.SUM and gathered is not None and not pooled:
            # Each row counts once in a sum, so a client's part of it is its part of the rows.
            rows = np.array([self._heard.reports[client].examples for client in clients])
            shares = rows / rows.sum()
        if covered:
            # Records are shown to more people than may see updates: what noise covers in the model must not stand there bare.
            clip = np.ones(len(clients))
        records = []
        for client in self._roster:
            if client in place:
                i = place[client]
                share = None if shares is None else float(shares[i])
                norm = None if pooled or covered else float(norms[i])
                records.append(self._client(client, i, share, norm, float(clip[i]), gathered))
            elif client in self._heard.refused:
                records.append(ClientRecord(client, Verdict.REFUSED, 0.0, reason=self._heard.refused[client]))
            elif client in self._heard.failed:
                records.append(ClientRecord(client, Verdict.FAILED, 0.0, reason=self._heard.failed[client]))
            else:
                records.append(ClientRecord(client, Verdict.ABSENT, 0.0, reason="no update arrived"))
        notes: dict[str, float] = {}
        decisions: Mapping[str, str] = {}
        if gathered is not None:
            notes["effective_clients"] = effective_sample_size(gathered.prior if shares is None else shares)
            if self._strategy.combine.payload is not Payload.COLLECT:
                notes["update_norm"] = math.sqrt(squared_norm(gathered.vector))
            if gathered.assessment is not None:
                notes |= gathered.assessment.notes
                decisions = gathered.assessment.decisions
        if stepped is not None:
            notes |= stepped.notes
        return RoundRecord(
            round=self._number,
            outcome=Outcome.KEPT if stepped is None else Outcome.STEPPED,
            reason=reason,
            clients=tuple(records),
            notes=notes,
            decisions=decisions,
        )

    def _client(
        self,
        client: str,
        i: int,
        share: float | None,
        norm: float | None,
        clip: float,
        gathered: Gathered | None,
    ) -> ClientRecord:
        report = self._heard.reports[client]
        if self._strategy.cover is Cover.SERVER:
            report = report.bare
        if gathered is None:
            return ClientRecord(client, Verdict.ADMITTED, 0.0, report=_numbers(report), norm=norm, clip=clip)
        verdict, reason = gathered.verdict(i)
        prior = float(gathered.prior[i])
        if verdict is Verdict.ADMITTED and share is not None and share <= 0 < prior:
            verdict, reason = Verdict.PASSED_OVER, "the combining rule chose other updates"
        elif verdict is Verdict.ADMITTED and clip < 1:
            verdict, reason = Verdict.CLIPPED, f"longer than the limit: scaled to {clip:.0%} of its length"
        return ClientRecord(
            client,
            verdict,
            share=share,
            prior=prior,
            factors={name: float(values[i]) for name, values in gathered.factors.items()},
            evidence={name: float(values[i]) for name, values in gathered.evidence.items()},
            report=_numbers(report),
            norm=norm,
            clip=clip,
            reason=reason,
        )


def _normalised(gathered: Gathered | None) -> Vector | None:
    if gathered is None or gathered.coefficients is None:
        return None
    size = np.abs(gathered.coefficients)
    total = float(size.sum())
    return size / total if total > 0 else size


def _finite(array: Array) -> bool:
    flat = array.reshape(-1)
    return all(np.isfinite(flat[start : start + BLOCK]).all() for start in range(0, len(flat), BLOCK))


def _loss(report: Report) -> float:
    for loss in (report.loss_before, report.loss_after):
        if loss is not None:
            return loss
    return float("nan")


def _mean(values: Vector) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _numbers(report: Report) -> dict[str, Any]:
    """The report's numbers for the record; a histogram of labels stays out of it."""
    names = [f.name for f in fields(report) if f.name not in {"label_counts", "extra"}]
    numbers = {name: getattr(report, name) for name in names}
    return {**report.extra, **{k: v for k, v in numbers.items() if v is not None}}
