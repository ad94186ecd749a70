"""Gather: a round's vectors become one, either as they come or all together.

`Folding` keeps sums only, so a round of any number of clients takes the memory of one model. `Keeping` keeps references to the vectors (arrays, or
memory-mapped spool files) for rules that compare clients. Both answer the same `Gathered`.

Sums run in float64 in the order of `add`: a caller that wants the same bytes adds in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from haina.artifact import Array
from haina.errors import RoundError
from haina.strategy.combine import Linear
from haina.strategy.members import Members
from haina.strategy.parts import Assessment, Combined, Judge, LinearCombiner, Payload, Terms, View
from haina.strategy.record import Verdict
from haina.strategy.weigh import cap_shares
from haina.update import BLOCK, Cohort, Update, Vector

if TYPE_CHECKING:
    from haina.strategy.strategy import Strategy, StrategyState


@dataclass(frozen=True)
class Gathered:
    """One vector out of a round's vectors, and why. Arrays `[n]` follow the order of the clients asked for.

    Args:
        vector: `[d]` aggregate.
        coefficients: `[n]` weight of each vector as it came; None for coordinate-wise rules.
        clip: `[n]` factors in (0, 1] that were applied to the vectors.
        prior: `[n]` shares before trust and the combiner, summing to 1.
        mean_square: prior-weighted mean squared norm of the clipped vectors.
        drift: see `parts.Aggregate`.
        factors: what made the prior.
        evidence: numbers behind the verdicts.
        assessment: what trust made of the round, if there is trust.
    """

    vector: Array
    coefficients: Vector | None
    clip: Vector
    prior: Vector
    mean_square: float
    drift: Array | None = None
    factors: Mapping[str, Vector] = field(default_factory=dict)
    evidence: Mapping[str, Vector] = field(default_factory=dict)
    assessment: Assessment | None = None

    def verdict(self, i: int) -> tuple[Verdict, str]:
        """What trust says of the i-th client, with the reason in words."""
        if self.assessment is None or not self.assessment.verdicts:
            return Verdict.ADMITTED, ""
        return self.assessment.verdicts[i]


class Folding:
    """Streaming: a few running sums (`parts.Terms`). Shares come from the roster's reports, before any vector is seen."""

    def __init__(self, strategy: Strategy, state: StrategyState, view: View, dimension: int) -> None:
        self._combine = cast(LinearCombiner, strategy.combine)
        shares, factors = strategy.weigh.shares(view) if view.clients else (np.empty(0), {})
        self._place = {client: i for i, client in enumerate(view.clients)}
        self._shares, self._factors = shares, factors
        self._reports, self._cap = view.reports, strategy.weigh.cap
        self._rate = strategy.instructions(state).learning_rate
        self._limit = _limit(strategy)
        self._sum = np.zeros(dimension)
        self._drift = np.zeros(dimension) if strategy.server.uses_drift else None
        self._folded: dict[str, tuple[Terms, float]] = {}
        self._dtype: np.dtype[Any] = np.dtype(np.float32)

    def add(self, update: Update, squared_norm: float, clip: float) -> None:
        """Fold one vector, scaled by `clip`.

        Raises:
            RoundError: this update cannot be folded; what was folded before stays as it is.
        """
        if update.client not in self._place:
            raise RoundError(
                f"client {update.client!r} was announced as absent", remedy="Put its report in the roster"
            )
        _measurable(squared_norm, self._limit)
        i = self._place[update.client]
        if update.report.examples != self._reports[i].examples:
            raise RoundError(
                f"{self._reports[i].examples:g} examples were announced and {update.report.examples:g} are reported",
                remedy="Its share was made from what was announced",
            )
        square = squared_norm * clip * clip
        terms = self._combine.terms(self._shares[[i]], [update.report], np.array([square]))
        weight = float(terms.numerator[0]) * clip
        drift = weight / (update.report.steps * self._rate) if self._drift is not None else 0.0
        self._folded[update.client] = terms, square
        self._dtype = np.result_type(self._dtype, update.vector.dtype)
        for start in range(0, len(self._sum), BLOCK):
            columns = slice(start, start + BLOCK)
            block = update.vector[columns].astype(np.float64)
            self._sum[columns] += weight * block
            if self._drift is not None:
                self._drift[columns] += drift * block

    def gather(self, clients: Sequence[str], clip: Vector) -> Gathered:
        """The weighted mean (or sum) of what was folded; `clients` are those that were, in order. `clip` was applied on the way."""
        terms = _joined([self._folded[client][0] for client in clients])
        index = [self._place[client] for client in clients]
        mass = float(self._shares[index].sum())
        scale = terms.scale()
        if not mass > 0 or not scale > 0:
            raise RoundError("the weights of all usable updates are zero")
        prior = self._shares[index] / mass
        # Shares were capped among those announced. What falls to the others when some stay away must not lift anyone above the cap
        # among those who came, and vectors already folded cannot be weighed anew: the whole step is shortened instead.
        limit = (
            1.0 if self._cap is None else min(1.0, max(self._cap / len(prior), 1 / np.count_nonzero(prior)))
        )
        scale *= min(1.0, limit / float(prior.max()))
        return Gathered(
            vector=(self._sum * scale).astype(self._dtype),
            coefficients=terms.numerator * scale * clip,
            clip=clip,
            prior=prior,
            mean_square=float(prior @ np.array([self._folded[client][1] for client in clients])),
            drift=None if self._drift is None else (self._drift * scale).astype(self._dtype),
            factors={name: values[index] for name, values in self._factors.items()},
        )


class Keeping:
    """Whole cohort: vectors are kept (by reference) until the round closes."""

    def __init__(
        self, strategy: Strategy, state: StrategyState, members: Members, judge: Judge | None, dimension: int
    ) -> None:
        self._strategy, self._state, self._members, self._judge = strategy, state, members, judge
        self._limit = _limit(strategy)
        self._kept: dict[str, Update] = {}
        self._squares: dict[str, float] = {}

    def add(self, update: Update, squared_norm: float, clip: float) -> None:
        """Keep one update.

        Raises:
            RoundError: this update cannot be compared with others.
        """
        if self._strategy.combine.payload is not Payload.COLLECT:
            _measurable(squared_norm, min(float(np.finfo(update.vector.dtype).max), self._limit))
        self._kept[update.client] = update
        self._squares[update.client] = squared_norm

    def gather(self, clients: Sequence[str], clip: Vector) -> Gathered:
        """Weigh, trust and combine the kept vectors, scaled by `clip` `[n]`."""
        strategy = self._strategy
        updates = [self._kept[client] for client in clients]
        reports = tuple(update.report for update in updates)
        raw = Cohort(tuple(clients), reports, [update.vector for update in updates])
        cohort = raw.scaled(clip)
        view = View(self._state.round + 1, tuple(clients), reports, self._members, cohort, self._judge)
        prior, factors = strategy.weigh.shares(view)
        shares, assessment, combined = prior, None, None
        if strategy.trust is not None:
            trust_state, cap = self._state.parts["trust"], strategy.weigh.cap
            assessment = strategy.trust.assess(view, prior, cap, trust_state, strategy.combine)
            factors = {**factors, "trust": assessment.gate}
            shares = cap_shares(prior * assessment.gate, cap)
            combined = assessment.combined
            clip = clip if assessment.clip is None else assessment.clip
            cohort = raw.scaled(clip)
        if combined is None:
            combined = _combine(strategy, cohort, shares)
            if combined.coefficients is not None:
                combined = replace(combined, coefficients=combined.coefficients * clip)
        drift = None
        if strategy.server.uses_drift and combined.coefficients is not None:
            # The rate is the server's own: a client that named its own could blow the drift up.
            rate = strategy.instructions(self._state).learning_rate
            drift = raw.combine(combined.coefficients / np.array([r.steps * rate for r in reports]))
        squares = np.array([self._squares[client] for client in clients]) * clip**2
        mass = float(shares.sum())
        return Gathered(
            vector=combined.vector,
            coefficients=combined.coefficients,
            clip=clip,
            prior=prior,
            mean_square=float(shares @ squares) / mass if mass > 0 else 0.0,
            drift=drift,
            factors=factors,
            evidence={**(assessment.evidence if assessment else {}), **combined.evidence},
            assessment=assessment,
        )


def _combine(strategy: Strategy, cohort: Cohort, shares: Vector) -> Combined:
    if not float(shares.sum()) > 0:
        raise RoundError("the weights of all usable updates are zero")
    combined = strategy.combine.combine(cohort, shares)
    if isinstance(strategy.combine, Linear) and not np.any(combined.coefficients):
        raise RoundError("the weights of all usable updates are zero")
    return combined


def _limit(strategy: Strategy) -> float:
    """The largest squared norm: increments beyond what float32 can measure belong to no model; statistics are float64."""
    dtype = np.float32 if strategy.combine.payload is Payload.AVERAGE else np.float64
    return float(np.finfo(dtype).max)


def _measurable(squared_norm: float, limit: float) -> None:
    """Refuse a vector whose products overflow: one client must not make the whole cohort unmeasurable."""
    if not squared_norm <= limit:
        raise RoundError("the update is too long to measure", allowed=f"a squared norm up to {limit:g}")


def _joined(terms: Sequence[Terms]) -> Terms:
    def join(parts: Sequence[Vector | None]) -> Vector | None:
        present = [part for part in parts if part is not None]
        return np.concatenate(present) if len(present) == len(parts) else None

    numerator = np.concatenate([term.numerator for term in terms])
    return Terms(numerator, join([t.denominator for t in terms]), join([t.boost for t in terms]))
