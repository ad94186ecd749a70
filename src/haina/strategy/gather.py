"""Gather: a round's vectors become one, either as they come or all together.

`Folding` keeps exact sums only (`haina.exact`), so a round of any number of clients takes the memory of one model, and no order of arrival changes a
bit. `Keeping` keeps references to the vectors (arrays, or memory-mapped spool files) for rules that compare clients. `Pooling` takes
the sums of groups, where single vectors are hidden. All answer the same `Gathered`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import DTypeLike

from haina.artifact import Array, dump, sha256
from haina.errors import RoundError
from haina.exact import MOST, ExactSum
from haina.report import Report
from haina.strategy.combine import Linear
from haina.strategy.members import Members
from haina.strategy.partial import Partial
from haina.strategy.parts import Assessment, Combined, Judge, LinearCombiner, Payload, Terms, View
from haina.strategy.record import Verdict
from haina.strategy.weigh import cap_shares
from haina.update import Cohort, Pool, Update, Vector

if TYPE_CHECKING:
    from haina.strategy.strategy import Strategy, StrategyState

#: What is known of a client whose update was summed with others'.
_HIDDEN = Report(1.0)


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
    """Streaming: exact sums of weighted vectors. Shares come from the roster's reports, before any vector is seen.

    Args:
        strategy: whose combiner is linear.
        state: before the round.
        view: those of the roster that may answer.
        dimension: length of every vector.
        dtype: of the aggregate.

    Raises:
        RoundError: more clients than one sum can hold.
    """

    def __init__(
        self, strategy: Strategy, state: StrategyState, view: View, dimension: int, dtype: DTypeLike
    ) -> None:
        n = len(view.clients)
        if n >= MOST:
            raise RoundError(f"{n} clients are in one round", allowed=f"fewer than {MOST}")
        self._combine = cast(LinearCombiner, strategy.combine)
        self._shares, self._factors = strategy.weigh.shares(view) if n else (np.empty(0), {})
        self._place = {client: i for i, client in enumerate(view.clients)}
        self._announced, self._cap = view.reports, strategy.weigh.cap
        self._rate = strategy.instructions(state).learning_rate
        self._limit, self._dtype = _limit(strategy), dtype
        # In units of the rule's own, weights may be of any size. By this power of two they sum to about one, where sums are finest.
        weights = self._combine.terms(self._shares, view.reports, np.zeros(n)).numerator
        self._unit = 2.0 ** -max(math.frexp(float(weights.sum()))[1], -1000)
        lossless = self._combine.payload is Payload.SUM
        names = ("vector", "drift") if strategy.server.uses_drift else ("vector",)
        words = json.dumps([view.round, view.clients, self._unit, dimension, lossless, names])
        key = sha256(dump({"shares": self._shares}, {"round": words}))
        self.heard = Partial(key, {name: ExactSum(dimension, lossless=lossless) for name in names})

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
        announced = self._announced[self._place[update.client]]
        if update.report.examples != announced.examples:
            raise RoundError(
                f"{announced.examples:g} examples were announced and {update.report.examples:g} are reported",
                remedy="Its share was made from what was announced",
            )
        terms = self._terms(update.client, update.report, squared_norm, clip)
        weight, norm = float(terms.numerator[0]) * clip * self._unit, math.sqrt(squared_norm)
        self.heard.sums["vector"].add(update.vector, weight, norm)
        if "drift" in self.heard.sums:
            self.heard.sums["drift"].add(update.vector, weight / update.report.steps, norm)
        self.heard.reports[update.client], self.heard.squares[update.client] = update.report, squared_norm

    def gather(self, clients: Sequence[str], clip: Vector) -> Gathered:
        """The weighted mean (or sum) of what was folded; `clients` are those that were, in order. `clip` was applied on the way.

        Sums are let go as soon as they are read.
        """
        index = [self._place[client] for client in clients]
        reports = [self.heard.reports[client] for client in clients]
        squares = [self.heard.squares[client] for client in clients]
        terms = _joined(
            [self._terms(*one) for one in zip(clients, reports, squares, clip.tolist(), strict=True)]
        )
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
        sums, unit = self.heard.sums, scale / self._unit
        vector = sums.pop("vector").value(unit, self._dtype)
        return Gathered(
            vector=vector,
            coefficients=terms.numerator * scale * clip,
            clip=clip,
            prior=prior,
            mean_square=float((prior * (np.array(squares) * clip**2)).sum()),
            drift=sums.pop("drift").value(unit / self._rate, self._dtype) if "drift" in sums else None,
            factors={name: values[index] for name, values in self._factors.items()},
        )

    def _terms(self, client: str, report: Report, squared_norm: float, clip: float) -> Terms:
        share = self._shares[[self._place[client]]]
        return self._combine.terms(share, [report], np.array([squared_norm * clip * clip]))


class Keeping:
    """Whole cohort: vectors are kept (by reference) until the round closes, so there are no sums that could be handed over."""

    def __init__(
        self, strategy: Strategy, state: StrategyState, members: Members, judge: Judge | None, dimension: int
    ) -> None:
        self._strategy, self._state, self._members, self._judge = strategy, state, members, judge
        self._limit = _limit(strategy)
        self._kept: dict[str, Update] = {}
        self.heard = Partial("", {})

    def add(self, update: Update, squared_norm: float, clip: float) -> None:
        """Keep one update.

        Raises:
            RoundError: this update cannot be compared with others.
        """
        if self._strategy.combine.payload is not Payload.COLLECT:
            _measurable(squared_norm, min(float(np.finfo(update.vector.dtype).max), self._limit))
        self._kept[update.client] = update
        self.heard.reports[update.client], self.heard.squares[update.client] = update.report, squared_norm

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
        squares = np.array([self.heard.squares[client] for client in clients]) * clip**2
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


class Pooling:
    """Sums of groups: of a client no more is known than which group it was in, and of a group no more than its sum.

    A group stands for its members: rules compare the means of groups, and what trust makes of a group it makes of each of them. One group is the
    plain secure sum; then there is nothing to compare.
    """

    def __init__(
        self, strategy: Strategy, state: StrategyState, members: Members, judge: Judge | None, dimension: int
    ) -> None:
        self._strategy, self._state, self._members, self._judge = strategy, state, members, judge
        self._dimension, self._limit = dimension, _limit(strategy)
        self._pools: list[Pool] = []
        self.heard = Partial("", {})

    def add(self, pool: Pool) -> None:
        """Keep the mean of one group.

        Raises:
            RoundError: it is not a usable vector.
        """
        if pool.vector.shape != (self._dimension,):
            raise RoundError(
                f"the sum of a group has shape {pool.vector.shape}", allowed=f"({self._dimension},)"
            )
        if not (np.isfinite(pool.vector).all() and 0 < pool.weight < math.inf):
            raise RoundError("the sum of a group is not finite, or weighs nothing")
        _measurable(float(np.square(pool.vector).sum()), self._limit)
        self._pools.append(pool)
        for client in pool.clients:
            self.heard.reports[client], self.heard.squares[client] = _HIDDEN, math.nan

    @property
    def unclipped(self) -> float | None:
        """Share of the clients whose update was within the limit, over all groups that say so."""
        said = [(pool.unclipped, len(pool.clients)) for pool in self._pools if pool.unclipped is not None]
        count = sum(size for _, size in said)
        return sum(share * size for share, size in said) / count if count else None

    def gather(self, clients: Sequence[str], clip: Vector) -> Gathered:
        """Weigh, trust and combine the groups' means; arrays of the answer are by client."""
        strategy = self._strategy
        pools = sorted(self._pools, key=lambda pool: pool.clients)
        place = {client: g for g, pool in enumerate(pools) for client in pool.clients}
        group = np.array([place[client] for client in clients])
        sizes = np.array([float(len(pool.clients)) for pool in pools])
        weights = np.array([pool.weight for pool in pools])
        names = tuple(f"group {g + 1}" for g in range(len(pools)))
        # A mean of groups does not need the members' own weights; what is asked of a group is asked with its weight for its examples.
        reports = tuple(Report(weight) for weight in weights.tolist())
        cohort = Cohort(names, reports, [pool.vector for pool in pools])
        prior = shares = cap_shares(weights, strategy.weigh.cap)
        assessment, combined, evidence = None, None, {"group": group + 1.0}
        factors: dict[str, Vector] = {}
        if strategy.trust is not None and len(pools) > 1:
            view = View(self._state.round + 1, names, reports, self._members, cohort, self._judge)
            assessed = strategy.trust.assess_groups(view, tuple(clients), group, self._state.parts["trust"])
            assessment = assessed.assessment
            shares = cap_shares(prior * assessed.gate, strategy.weigh.cap)
            cohort = cohort.scaled(assessed.clip)
            if not float(shares.sum()) > 0:
                combined = assessed.centre
            factors["trust"] = assessment.gate
            evidence |= assessment.evidence
        if combined is None:
            combined = _combine(strategy, cohort, shares)
        coefficients = combined.coefficients
        each = None
        if coefficients is not None and all(pool.equal for pool in pools):
            each = (coefficients / sizes)[group]
        return Gathered(
            vector=combined.vector,
            coefficients=each,
            clip=np.ones(len(clients)),
            prior=(prior / sizes)[group],
            mean_square=float(shares @ cohort.norms**2),
            factors=factors,
            evidence=evidence,
            assessment=assessment,
        )
