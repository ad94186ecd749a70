"""The five steps of a round, as contracts.

A round is **validate -> weigh -> trust -> combine -> step** (trust gates the shares that weights propose). Each step is a small frozen dataclass
whose settings are its fields; what it remembers between rounds is arrays that it is handed and hands back. A strategy is a composition of such
parts (`haina.strategy.strategy`).

What a part must see before it can answer decides how much memory a round takes, so each part says it (`Needs`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.report import Report
from haina.strategy.members import Members
from haina.strategy.record import Verdict
from haina.update import Cohort, Vector

State = Mapping[str, Array]


class Needs(IntEnum):
    """What must be known before a vector can be folded into the sum. A strategy needs the most that any of its parts needs."""

    #: Counts known before training (examples, steps, history): each vector is folded as it comes; memory O(model).
    COUNTS = 0
    #: Every report of the cohort: vectors wait in the spool until the last report is in, then are folded one by one.
    REPORTS = 1
    #: Every vector of the cohort (pairwise geometry, coordinate rules).
    VECTORS = 2


class Payload(StrEnum):
    """What becomes of the vectors of a cohort."""

    AVERAGE = "average"
    SUM = "sum"
    COLLECT = "collect"


class Seen(StrEnum):
    """What of an update the server sees. Without secure aggregation it is the vector and the report."""

    UPDATE = "update"
    #: The sum of the whole cohort, and nothing else.
    SUM = "sum"
    #: The sums of random groups of clients.
    GROUPS = "groups"


class Cover(StrEnum):
    """Where noise is added, so that what is released tells little of any one client (differential privacy)."""

    NONE = "none"
    #: By the server, on the aggregate.
    SERVER = "server"
    #: By each client, on what it sends.
    CLIENT = "client"


class Release(Protocol):
    """Noise for what a round releases; drawn by the caller, for a strategy draws no random numbers."""

    @property
    def expected(self) -> float | None:
        """Clients that a sum is divided by, however many came; None: those who came."""

    def cover(self, vector: Array, influence: float) -> Array:
        """`[d]` aggregate with noise, float64.

        Args:
            vector: `[d]` aggregate.
            influence: how much longer the aggregate can be for any one client's update, as a part of the clipping limit.
        """

    def cover_share(self, share: float, count: int) -> float:
        """A share of `count` clients, with noise, in [0, 1]."""


class Judge(Protocol):
    """Samples held by the server, as an outside opinion. Calls cost time: ask once a round."""

    def losses(self, increments: Array) -> Vector:
        """`[m, d]` increments -> `[m]` mean losses of the current model plus each increment."""

    def accuracies(self, increments: Array) -> Vector:
        """`[m, d]` increments -> `[m]` accuracies, in [0, 1]."""

    @property
    def examples(self) -> int:
        """How many samples there are."""

    def direction(self) -> Array:
        """`[d]` increment that local training on the server's own samples gives."""

    def witnesses(self) -> Array:
        """`[c, d]` increments of training on the samples of each class alone; on all samples where there are no classes (c = 1)."""


@dataclass(frozen=True)
class View:
    """What a step may look at in one round.

    Args:
        round: number of the round, from 1.
        clients: names of the n clients whose updates are in.
        reports: their reports.
        members: the coordinator's memory of all clients.
        cohort: the n vectors; None while vectors are folded one by one.
        judge: server-held samples, if there are any.
    """

    round: int
    clients: tuple[str, ...]
    reports: tuple[Report, ...]
    members: Members
    cohort: Cohort | None = None
    judge: Judge | None = None

    def recall(self, column: str) -> NDArray[np.float64]:
        """`[n]` remembered values of a column for this round's clients."""
        return self.members.get(column, self.clients)


class Factor(Protocol):
    """One reason to weigh a client more or less (`haina.strategy.weigh`)."""

    @property
    def needs(self) -> Needs:
        """What must be known before the values are."""

    @property
    def needs_judge(self) -> bool:
        """True when samples held by the server are consulted."""

    @property
    def absolute(self) -> bool:
        """True for an amount that multiplies as it is (samples, staleness); False for a quality, taken relative to the cohort's median."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Fields of the report that the factor reads; clients are asked to fill them."""

    def values(self, view: View) -> Vector:
        """`[n]` values >= 0; NaN where the client did not report what is needed (counted as the median)."""


@dataclass(frozen=True)
class Terms:
    """A mean of vectors as three sums, so that it can be folded one client at a time.

    aggregate = (sum numerator_k * delta_k / sum denominator_k) * (sum boost_k / sum denominator_k)

    Each field is `[n]`; `denominator` None means a plain sum, `boost` None means no second factor.
    """

    numerator: Vector
    denominator: Vector | None = None
    boost: Vector | None = None

    def scale(self) -> float:
        """The factor that turns `sum numerator_k * delta_k` into the aggregate; 0 when the weights sum to nothing."""
        if self.denominator is None:
            return 1.0
        total = float(self.denominator.sum())
        if not total > 0:
            return 0.0
        return (1.0 if self.boost is None else float(self.boost.sum()) / total) / total


@dataclass(frozen=True)
class Combined:
    """One vector out of many.

    Args:
        vector: `[d]` aggregate.
        coefficients: `[n]` with `vector == coefficients @ rows`; None for rules that work coordinate by coordinate.
        evidence: named `[n]` numbers that say why (Krum scores, distances), for the record.
    """

    vector: Array
    coefficients: Vector | None
    evidence: Mapping[str, Vector] = field(default_factory=dict)


class Combiner(Protocol):
    """Turns a cohort and its shares into one vector (`haina.strategy.combine`, `haina.strategy.robust`)."""

    needs: ClassVar[Needs]
    payload: ClassVar[Payload]

    @property
    def uses_shares(self) -> bool:
        """False for rules that count every client once; shares then only say who takes part (> 0)."""

    @property
    def gives_coefficients(self) -> bool:
        """False for rules that work coordinate by coordinate, where no single number is a client's share."""

    def combine(self, cohort: Cohort, shares: Vector) -> Combined:
        """Combine the scaled rows of `cohort` under `shares` `[n]` (>= 0, not necessarily summing to 1)."""


class LinearCombiner(Combiner, Protocol):
    """A combiner whose coefficients depend on each client alone, so that it can stream."""

    reads: ClassVar[tuple[str, ...]]

    def terms(self, shares: Vector, reports: Sequence[Report], squared_norms: Vector) -> Terms:
        """The three sums; all arguments are `[n]`, and row k of the answer depends on row k of the arguments only."""


@dataclass(frozen=True)
class Aggregate:
    """What the server's step receives.

    Args:
        vector: `[d]` combined increment (or summed statistics).
        round: number of the round, from 1.
        mean_square: share-weighted mean of the squared norms of the increments (FedExP).
        participation: clients that took part / clients in the federation, in (0, 1].
        drift: `[d]` share-weighted mean of delta_k / (tau_k * eta_k), when the step asks for it (SCAFFOLD).
    """

    vector: Array
    round: int
    mean_square: float = 0.0
    participation: float = 1.0
    drift: Array | None = None


@dataclass(frozen=True)
class Stepped:
    """The server's step: a new model, what the step remembers, whether training is over, and numbers worth showing."""

    model: Array
    state: State
    finished: bool = False
    notes: Mapping[str, float] = field(default_factory=dict)


class Server(Protocol):
    """Turns the aggregate into the next model (`haina.strategy.server`)."""

    #: True when the step wants `Aggregate.drift`.
    uses_drift: ClassVar[bool]
    #: What the step knows what to do with.
    accepts: ClassVar[Payload]

    def init(self, model: Array) -> State:
        """What the step remembers before the first round."""

    def control(self, state: State) -> Array | None:
        """`[d]` vector that clients add to each local gradient (SCAFFOLD's c); None for most."""

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """One server step; arguments are never changed in place."""


@dataclass(frozen=True)
class Assessment:
    """What trust makes of a cohort. Arrays `[n]` follow the order of the view's clients.

    Args:
        gate: `[n]` in [0, 1]; multiplies the prior shares.
        members: the table with the trust columns moved on by this round.
        state: what trust remembers beside the table.
        evidence: named `[n]` numbers behind the verdicts (cosine, distance, deviation, ...).
        verdicts: `[n]` pairs of verdict and reason in plain words.
        notes: numbers of the round as a whole (signal-to-noise ratio, ...).
        decisions: choices of the round in words (which candidate the arbiter took).
        clip: `[n]` factors in (0, 1] for the vectors, besides `gate` for their shares.
        combined: the aggregate, where trust chose among candidates itself; None leaves it to the strategy's combiner.
    """

    gate: Vector
    members: Members
    state: State
    evidence: Mapping[str, Vector] = field(default_factory=dict)
    verdicts: tuple[tuple[Verdict, str], ...] = ()
    notes: Mapping[str, float] = field(default_factory=dict)
    decisions: Mapping[str, str] = field(default_factory=dict)
    clip: Vector | None = None
    combined: Combined | None = None


class Trust(Protocol):
    """Scores clients over rounds and gates their shares (`haina.strategy.trust`)."""

    @property
    def columns(self) -> Mapping[str, float]:
        """Columns of the members table that trust keeps, with a newcomer's value."""

    @property
    def needs_judge(self) -> bool:
        """True when samples held by the server are consulted."""

    def init(self) -> State:
        """What trust remembers before the first round, beside the table."""

    def assess(
        self, view: View, prior: Vector, cap: float | None, state: State, combine: Combiner
    ) -> Assessment:
        """Judge a cohort (`view.cohort` is there) whose shares before trust are `prior` `[n]`; no share above cap / n."""

    def assess_groups(
        self, view: View, clients: tuple[str, ...], group: NDArray[np.intp], state: State
    ) -> GroupAssessment:
        """Judge n clients by the m groups that they were in: `view` is of the groups, `group` `[n]` holds numbers from 0 to m - 1."""


@dataclass(frozen=True)
class GroupAssessment:
    """What trust makes of m groups of n clients.

    Args:
        assessment: by client, in the order of the clients.
        gate: `[m]` in [0, 1]; multiplies the groups' shares.
        clip: `[m]` factors in (0, 1] for the groups' means.
        centre: what is left where no group is trusted.
    """

    assessment: Assessment
    gate: Vector
    clip: Vector
    centre: Combined
