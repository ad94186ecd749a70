"""Veil: what becomes of simulated updates before they leave their clients, as `[privacy]` says; the same lines that a node goes through.

Random bits follow from the federation's seed, so that a run can be repeated; on a node they come from the operating system. Masks are left out: they
cancel in the sum to the last bit (`tests/privacy/secagg`), so that a secure sum without them is the same integers.

The trap: a simulation's attackers keep to the limit, as their updates are bounded like everybody's. Real ones need not, where nobody sees a single
update.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from haina.errors import PrivacyError
from haina.privacy.groups import divide
from haina.privacy.policy import Correlating, Covering, Policy
from haina.privacy.stream import Stream
from haina.simulation.turn import Turn
from haina.strategy.members import Members
from haina.strategy.partial import Partial
from haina.strategy.parts import Trust
from haina.strategy.record import RoundRecord
from haina.strategy.round import UNCLIPPED
from haina.strategy.spacing import Spacing
from haina.strategy.strategy import SPENT
from haina.update import Failure, Pool, Result, Update


@dataclass(frozen=True)
class Veil:
    """A policy at work in a simulation.

    Args:
        policy: what is promised.
        seed: the federation's seed.
    """

    policy: Policy
    seed: int

    def sent(self, turn: Turn, result: Result) -> Result:
        """A client's result as it is sent in the clear: bounded, covered by its own noise where that is local, with no number that tells more."""
        if not isinstance(result, Update):
            return result
        limit, report = turn.instructions.limit, result.report
        if limit is None or self.policy.mechanism is None:
            return result
        stream = self._stream(turn, result.client)
        bare = report.bare
        if self.policy.adaptive:
            _, within = self.policy.bound(result.vector, limit)
            bare = replace(bare, extra={UNCLIPPED: float(within)})
        return Update(result.client, self.policy.privatise(result.vector, limit, stream), bare)

    def pooled(
        self, turn: Turn, heard: Iterable[Result | Partial | Pool], trust: Trust | None
    ) -> Iterator[Failure | Pool]:
        """The sums of groups of clients; of those who could not train, why."""
        hidden, limit = self.policy.hidden, turn.instructions.limit
        assert hidden is not None
        present = turn.names(turn.present)
        shut = set[str]()
        if trust is not None:
            members = turn.state.members
            shut = {c for c, q in zip(present, members.get("quarantined", present), strict=True) if q > 0}
        dimension = len(turn.model)
        groups = divide(present, hidden.group, 3, self._key(turn, "groups"), shut)
        group = {client: g for g, clients in enumerate(groups) for client in clients}
        totals: list[np.ndarray | None] = [None] * len(groups)
        summed: list[list[str]] = [[] for _ in groups]
        for result in heard:
            assert not isinstance(result, Partial | Pool)
            if isinstance(result, Failure):
                yield result
            elif result.client not in group:
                yield Failure(result.client, "too few clients for a sum that would hide its update")
            elif not np.isfinite(result.vector).all():
                yield Failure(result.client, "its update is not finite, and was not sent")
            else:
                g = group[result.client]
                dimension = len(result.vector)
                stream = self._stream(turn, result.client)
                words = self.policy.seal(result.vector, result.report.examples, limit, len(groups[g]), stream)
                totals[g] = words if totals[g] is None else totals[g] + words
                summed[g].append(result.client)
        for g, (total, clients) in enumerate(zip(totals, summed, strict=True)):
            if total is None:
                continue
            stream = self._stream(turn, f"sum of group {g}")
            try:
                yield self.policy.unseal(total, dimension, clients, limit, len(groups[g]), stream)
            except PrivacyError as error:
                yield from (
                    Failure(client, f"its group's sum cannot be opened: {error}") for client in clients
                )

    def release(self, turn: Turn, expected: float) -> Covering | Correlating:
        """The noise of a round whose updates the server sees; `expected` clients are to take part in each."""
        assert turn.instructions.limit is not None
        if self.policy.correlated is not None:
            secret = turn.state.parts["release"]["secret"].tobytes()
            return Correlating(self.policy, turn.instructions.limit, expected, turn.number, secret)
        return Covering(self.policy, turn.instructions.limit, self._stream(turn, "aggregate"))

    @property
    def secret(self) -> bytes:
        """What correlated noise is drawn from."""
        return hashlib.sha256(f"haina simulation {self.seed} secret".encode()).digest()

    def barred(self, members: Members, number: int, spacing: Spacing | None) -> frozenset[str]:
        """Clients that rest, or cannot pay for another round."""
        resting = frozenset[str]() if spacing is None else spacing.resting(members, members.ids, number)
        return resting | self._spent(members, number)

    def _spent(self, members: Members, number: int) -> frozenset[str]:
        most = self.policy.affordable
        if most is None or number <= most or self.policy.mechanism is None:
            return frozenset()
        spent = members.columns[SPENT] >= most
        return frozenset(name for name, gone in zip(members.ids, spent, strict=True) if gone)

    def told(self, record: RoundRecord, members: Members, clients: int) -> tuple[RoundRecord, bool]:
        """The record with what has been spent, and whether nobody can pay for another round."""
        if self.policy.mechanism is None or self.policy.allowance is None:
            return replace(record, decisions={**record.decisions, "privacy": self.policy.words}), False
        released = members.columns[SPENT]
        most = int(released.max(initial=0.0))
        notes = {**record.notes, "epsilon": self.policy.spent(most)}
        record = replace(record, notes=notes, decisions={**record.decisions, "privacy": self.policy.words})
        affordable = self.policy.affordable
        gone = affordable is not None and int((released >= affordable).sum()) >= clients
        if gone:
            decisions = {**record.decisions, "budget": "spent: no client can take part in another round"}
            record = replace(record, decisions=decisions)
        return record, gone

    def _stream(self, turn: Turn, purpose: str) -> Stream:
        return Stream.derived(self._key(turn, "noise"), purpose)

    def _key(self, turn: Turn, purpose: str) -> bytes:
        return hashlib.sha256(f"haina simulation {self.seed} {turn.number} {purpose}".encode()).digest()
