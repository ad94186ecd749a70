"""Policy: what a federation promises about its updates, as every side of it must know.

Client, coordinator and simulation make the same policy from the same federation file, so that they agree on the grid, the noise and the price without
a word over the wire. What a client sends passes one line, whatever is asked for:

    bound -> weigh -> round to a grid -> add noise -> (mask)        sum of integers -> (unmask) -> (noise) -> mean

*Local* noise is a client's own and whole; *distributed* noise is a part of it, so that only the sum is covered, and therefore hidden in a secure sum;
*central* noise is added to the sum. The noise is always an integer on the grid: floating-point noise gives away what it covers (Mironov 2012).

What is promised is about one client's update in one round: it may be there or be zero ("zero-out" neighbours, Kairouz et al. 2021). Who takes part,
and how long it took, is not hidden.

The trap is the weight. One of a client's own making counts up to `most` examples and travels inside the sum, where it is covered too; the sum of the
weights is then as uncertain as the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from haina.errors import PrivacyError
from haina.privacy.accounting import epsilon, epsilon_of
from haina.privacy.budget import Budget, Charge
from haina.privacy.clipping import clip_l1, clip_l2
from haina.privacy.correlated import Banded, CorrelatedNoise
from haina.privacy.grid import Grid
from haina.privacy.ledger import Total, admits, counted
from haina.privacy.mechanisms import Cost, Mechanism
from haina.privacy.secagg.plan import corrupted, plan
from haina.privacy.stream import Stream
from haina.update import Pool, Vector

Where = Literal["none", "local", "distributed", "central"]
Composition = Literal["pure", "zcdp", "pld"]
Words = NDArray[Any]

#: Units of the grid in a sensitivity, where the grid is ours to choose: so many that rounding millions of coordinates costs next to nothing.
_UNITS = 1 << 30
#: How much the weight, and the bit of adaptive clipping, may add to a vector, as a part of the limit: noise then blurs their sums by 4 z / n.
_SLOT = 0.25


@dataclass(frozen=True)
class Hidden:
    """Secure aggregation: of the updates only the sums of groups are seen.

    Args:
        group: clients of a group; None for one sum of all.
        corrupt: share of the clients that may work with the server, and still learn nothing; in [0, 0.5).
        dropout: share of the clients that may vanish in the middle of a round; in [0, 0.5).
        range: largest size of a coordinate, where no limit bounds it, > 0.
        patience: seconds that each stage of the protocol waits.
    """

    group: int | None = None
    corrupt: float = 0.1
    dropout: float = 0.1
    range: float = 4.0
    patience: float = 60.0

    def __post_init__(self) -> None:
        allowed = (
            ("group", self.group is None or self.group >= 3, "3 or more clients, or none"),
            ("corrupt", 0 <= self.corrupt < 0.5, "a share in [0, 0.5)"),
            ("dropout", 0 <= self.dropout < 0.5, "a share in [0, 0.5)"),
            ("range", 0 < self.range < math.inf, "a finite number > 0"),
            ("patience", 0 < self.patience <= 86400, "seconds in (0, 86400]"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise PrivacyError(f"{name} of secure aggregation is {getattr(self, name)}", allowed=words)


#: The least budget, in epsilon.
LEAST = 1e-4


@dataclass(frozen=True)
class Allowance:
    """What every data set may spend on a federation: epsilon at delta, and how rounds add up.

    Args:
        epsilon: 0.0001 or more; noise for less drowns everything, and the tightest accountant gets lost in it.
        delta: in [0, 1); 0 only with "pure".
        composition: "pure" adds epsilons; "zcdp" adds rho (which is advanced composition); "pld" reserves the whole schedule of rounds at once,
            at the price of the tightest accountant.
    """

    epsilon: float
    delta: float = 0.0
    composition: Composition = "zcdp"

    def __post_init__(self) -> None:
        if not LEAST <= self.epsilon < math.inf:
            raise PrivacyError(
                f"the budget is epsilon {self.epsilon:g}", allowed=f"a finite number, {LEAST:g} or more"
            )
        if not 0 <= self.delta < 1:
            raise PrivacyError(f"delta of the budget is {self.delta}", allowed="a number in [0, 1)")
        if self.composition != "pure" and not self.delta > 0:
            raise PrivacyError(
                f"delta is 0, and {self.composition} composition needs one",
                allowed="a number > 0, well below 1 / clients",
                remedy='Write delta = 1e-5, or composition = "pure" with Laplace noise',
            )


@dataclass(frozen=True)
class Rows:
    """Differential privacy for single rows: DP-SGD inside local training (Abadi et al. 2016). What it costs follows from how
    many rows a client has, so each client counts it for itself (`haina.learners.dpsgd.spent`).

    Args:
        clip: the longest gradient of a row, > 0.
        noise: standard deviation of the noise on a step's sum of gradients, in units of `clip`, > 0.
    """

    clip: float
    noise: float


@dataclass(frozen=True)
class Terms:
    """What holds for the sum of one group.

    Args:
        grid: on which its members' vectors are rounded.
        unit: the weight slot's and the bit's value of 1, in units of the grid; 0 where there is no such slot.
        sensitivity: how much longer the sum can be for any one member, in units of the grid and the mechanism's norm.
        parties: members whose noise is counted on.
        least: members without whose updates the sum is not opened.
    """

    grid: Grid
    unit: int
    sensitivity: float
    parties: int
    least: int


@dataclass(frozen=True)
class Policy:
    """What a federation promises.

    Args:
        noise: where noise is added.
        mechanism: which, and how much in one round; None where there is none.
        hidden: secure aggregation, or None.
        allowance: what data sets may spend; None without noise.
        most: examples that a client counts at most for, where clients weigh themselves by examples; None where all count alike.
        adaptive: True where the limit follows a quantile, for which each client adds a bit.
        summed: True for exact statistics, which are added in pairs of 64-bit words and never bounded or averaged.
        rounds: that the federation is to have; a schedule that is accounted for as a whole has so many.
        correlated: how the noise of rounds hangs together; all rounds are then one release. None: each round's is its own.
        rows: how single rows are protected, inside local training; None: whole clients are, or nobody.
    """

    noise: Where = "none"
    mechanism: Mechanism | None = None
    hidden: Hidden | None = None
    allowance: Allowance | None = None
    most: float | None = None
    adaptive: bool = False
    summed: bool = False
    rounds: int = 1
    correlated: Banded | None = None
    rows: Rows | None = None

    def __post_init__(self) -> None:
        if (self.noise == "none") is not (self.mechanism is None):
            raise PrivacyError(
                f'noise is "{self.noise}", and the mechanism {self.mechanism}',
                allowed="both, or neither",
                remedy='Write noise = "central" and mechanism = "gaussian"',
            )
        if self.noise == "distributed" and self.hidden is None:
            raise PrivacyError(
                "distributed noise covers a sum and no single update, and updates are sent in the clear",
                allowed="distributed noise with secure_aggregation",
                remedy='Write secure_aggregation = true, or noise = "local"',
            )
        if self.noise == "distributed" and self.mechanism is not None and self.mechanism.norm == 1:
            raise PrivacyError(
                "Laplace noise cannot be made of the clients' parts",
                allowed="discrete_gaussian",
                remedy='Write mechanism = "discrete_gaussian", or noise = "central"',
            )

    # ------------------------------------------------------------------------------------------------ the client

    def bound(self, vector: Vector, limit: float | None) -> tuple[Vector, bool]:
        """A vector no longer than the limit, in the mechanism's norm, and whether it was so before."""
        if limit is None:
            return np.asarray(vector, np.float64), True
        clip = clip_l1 if self.mechanism is not None and self.mechanism.norm == 1 else clip_l2
        out = clip(np.asarray(vector, np.float64), limit)
        return out, bool(np.array_equal(out, vector))

    def weight(self, examples: float) -> float:
        """The part, in (0, 1], that a client of so many examples counts for."""
        return 1.0 if self.most is None else min(max(examples, 0.0), self.most) / self.most

    def seal(
        self, vector: Vector, examples: float, limit: float | None, clients: int, stream: Stream
    ) -> Words:
        """What a client of a group hands to the secure sum.

        Args:
            vector: `[d]` its update; statistics where they are summed.
            examples: its own.
            limit: of this round, or None.
            clients: members of its group, n.
            stream: random bits for the rounding and the noise, never used before.

        Returns:
            `[size(d)]` words, to be masked: the weight and the bit where they are asked for, then the vector.

        Raises:
            PrivacyError: a number that is not finite, or beyond the range.
        """
        if self.summed:
            return self._digits(np.asarray(vector, np.float64))
        terms = self.terms(len(vector), limit, clients)
        bounded, within = self.bound(vector, limit)
        share = self.weight(examples)
        integers = terms.grid.quantise(bounded * share if self.most is not None else bounded, stream)
        slots = []
        if self.most is not None:
            slots.append(round(share * terms.unit))
        if self.adaptive:
            slots.append(terms.unit // 2 if within else -(terms.unit // 2))
        integers = np.concatenate([np.array(slots, np.int64), integers])
        if self.noise == "distributed" and self.mechanism is not None:
            integers += self.mechanism.noise(len(integers), terms.sensitivity, stream, terms.parties)
        return terms.grid.words(integers)

    def _digits(self, vector: Vector) -> Words:
        """Statistics as two integers each, of 2^-3 and, for what is left, of 2^-43 (`haina.exact`): right to 1e-13, whatever their size."""
        assert self.hidden is not None
        if not float(np.abs(vector).max(initial=0.0)) <= self.hidden.range:
            raise PrivacyError(
                "a statistic is not finite, or too large for a secure sum",
                allowed=f"numbers up to {self.hidden.range:g}",
                remedy="Give columns of such size other units",
            )
        high = np.rint(vector * 8)
        low = np.rint((vector - high / 8) * 2.0**43)
        return np.concatenate([high, low]).astype(np.int64).view(np.uint64)

    def privatise(self, vector: Vector, limit: float, stream: Stream) -> Vector:
        """A client's own update as it may be sent in the clear: bounded, and where noise is local, covered by it; float32."""
        bounded, _ = self.bound(vector, limit)
        if self.noise == "local":
            bounded = self.cover(bounded, limit, stream)
        return bounded.astype(np.float32)

    def cover(self, vector: Vector, sensitivity: float, stream: Stream) -> Vector:
        """A vector with the noise of one release, on a grid of its own: float64.

        Args:
            vector: `[d]`.
            sensitivity: how much longer, in the mechanism's norm, it can be for any one client.
            stream: random bits, never used before.
        """
        assert self.mechanism is not None
        d = len(vector)
        rounding = float(d) if self.mechanism.norm == 1 else math.sqrt(d)
        step = sensitivity / _UNITS
        integers = np.rint(np.asarray(vector, np.float64) / step).astype(np.int64)
        # Two vectors that differ by the sensitivity differ by this much once each is rounded.
        noise = self.mechanism.noise(d, _UNITS + rounding, stream)
        return np.asarray((integers + noise) * step)

    # ------------------------------------------------------------------------------------------------ the sum

    @property
    def slots(self) -> int:
        """Words before the vector."""
        return (self.most is not None) + self.adaptive

    def size(self, dimension: int) -> int:
        """Words that a client hands to the secure sum."""
        return 2 * dimension if self.summed else self.slots + dimension

    @property
    def word(self) -> Literal[32, 64]:
        """Bits of a word."""
        return 64 if self.summed else 32

    def least(self, clients: int) -> int:
        """Members of a group of `clients` without whose updates its sum is not opened.

        Raises:
            PrivacyError: no sum of so few can hide them.
        """
        assert self.hidden is not None
        chosen = plan(clients, corrupt=self.hidden.corrupt, dropout=self.hidden.dropout)
        wanted = math.ceil((1 - self.hidden.dropout) * clients - 1e-9)
        return max(chosen.least, wanted) if self.noise == "distributed" else chosen.least

    def terms(self, dimension: int, limit: float | None, clients: int) -> Terms:
        """What holds for the sum of a group of `clients`; the same for all who ask.

        Raises:
            PrivacyError: so many clients, or so much noise, cannot be added without a wrap.
        """
        assert self.hidden is not None
        bound = self.hidden.range if limit is None else limit
        least = self.least(clients)
        # One of few can always work with the coordinator: each knows its own part of the noise.
        parties = (
            max(1, least - corrupted(clients, self.hidden.corrupt)) if self.noise == "distributed" else 1
        )
        mechanism = self.mechanism if self.noise in ("distributed", "central") else None
        if mechanism is None:
            grid = Grid.for_sum(bound, clients, word=self.word)
            # An exact weight, up to the largest integer that a coordinate may have.
            return Terms(grid, grid.most, 0.0, 1, least)

        def sensitivity(step: float) -> float:
            return self._sensitivity(self.size(dimension), limit or bound, step)

        def tail(step: float) -> int:
            whole = mechanism.tail(sensitivity(step), parties)
            # Central noise is one draw on the sum, for which all clients give room.
            return whole if self.noise == "distributed" else -(-whole // clients)

        grid = Grid.for_sum(bound, clients, word=self.word, tail=tail)
        unit = 2 * max(1, math.floor(_SLOT * bound / grid.step / 2))
        return Terms(grid, unit, sensitivity(grid.step), parties, least)

    def _sensitivity(self, size: int, limit: float, step: float) -> float:
        """Of the sum, in units: the vector's limit, the slots', and what rounding can add."""
        assert self.mechanism is not None
        weighted = _SLOT * (self.most is not None)
        bit = _SLOT / 2 * self.adaptive
        if self.mechanism.norm == 1:
            return limit / step * (1 + weighted + bit) + size
        return limit / step * math.sqrt(1 + weighted**2 + bit**2) + math.sqrt(size)

    def unseal(
        self,
        total: Words,
        dimension: int,
        clients: Sequence[str],
        limit: float | None,
        members: int,
        stream: Stream | None = None,
    ) -> Pool:
        """The mean of a group from the sum of its words, once the masks are off.

        Args:
            total: `[size(d)]`.
            dimension: d.
            clients: whose words are in it.
            limit: of the round, or None.
            members: n of the group, as `seal` was told.
            stream: random bits for central noise; not looked at without.

        Raises:
            PrivacyError: fewer than may be opened.
        """
        terms = self.terms(dimension, limit, members)
        if len(clients) < terms.least:
            raise PrivacyError(
                f"{len(clients)} of a group of {members} are in its sum", allowed=f"{terms.least} or more"
            )
        if self.summed:
            high, low = total.view(np.int64).reshape(2, dimension).astype(np.float64)
            return Pool(tuple(sorted(clients)), high / 8 + low * 2.0**-43, float(len(clients)))
        integers = terms.grid.integers(total)
        if self.noise == "central" and self.mechanism is not None:
            if stream is None:
                raise PrivacyError("the sum is to be covered by noise, and there are no random bits")
            integers = integers + self.mechanism.noise(len(integers), terms.sensitivity, stream)
        n, values = len(clients), terms.grid.values(integers[self.slots :])
        weight, unclipped = float(n), None
        if self.most is not None:
            # Noise may leave next to nothing of it, or less: then a twentieth of what all could weigh.
            weight = max(float(integers[0]) / terms.unit, 0.05 * n if self.noise != "none" else 1e-9)
        if self.adaptive:
            unclipped = min(max(float(integers[self.slots - 1]) / terms.unit / n + 0.5, 0.0), 1.0)
        return Pool(tuple(sorted(clients)), values / weight, weight, self.most is None, unclipped)

    # ------------------------------------------------------------------------------------------------ the price

    @cached_property
    def cost(self) -> Cost | None:
        """What one round costs each client whose update was released; None without noise."""
        return None if self.mechanism is None else self.mechanism.cost()

    def budget(self, owner: str, dataset: str, opened: float = 0.0) -> Budget:
        """The budget of a data set, as this federation's file would open it.

        Raises:
            PrivacyError: the file has none.
        """
        terms = self.allowance
        if terms is None:
            raise PrivacyError(
                "the federation has no budget",
                remedy="Write [privacy] budget = {epsilon = 8.0, delta = 1e-5}",
            )
        # What single rows cost is known for all rounds together, as an epsilon at a delta.
        rho = terms.composition == "zcdp" and self.rows is None
        ways: Literal["pure", "zcdp"] = "zcdp" if rho else "pure"
        return Budget(owner, dataset, terms.epsilon, terms.delta, ways, opened)

    def charge(self, federation: str, round: int, owner: str, dataset: str) -> Charge:
        """What a round is charged to a data set. A schedule that is accounted for as a whole is one charge, the same in each of its rounds."""
        assert self.cost is not None
        assert self.allowance is not None
        name = self.words
        if self.whole:
            price, delta = self._schedule, self.allowance.delta
            rho = self.cost.rho if self.correlated is not None else 0.0
            return Charge(
                f"{federation}/schedule of {self.rounds}/{owner}",
                owner,
                dataset,
                "*",
                federation,
                0,
                name,
                price,
                delta,
                rho,
            )
        cost = self.cost
        key = f"{federation}/{round}/{owner}"
        return Charge(key, owner, dataset, "*", federation, round, name, cost.epsilon, cost.delta, cost.rho)

    @cached_property
    def affordable(self) -> int | None:
        """Rounds that a data set can take part in with this federation's budget alone; None without one."""
        if self.allowance is None or self.mechanism is None:
            return None
        if self.whole:
            return self.rounds if self._schedule <= self.allowance.epsilon * (1 + 1e-9) else 0
        budget, charge = self.budget("x", "x"), self.charge("x", 1, "x", "x")
        each, low, high = counted(budget, charge), 0, 1

        def fits(count: int) -> bool:
            before = Total(each.epsilon * (count - 1), each.delta * (count - 1), each.rho * (count - 1))
            return admits(budget, {"*": before}, charge) is None

        while fits(high) and high < 1 << 40:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
        return low

    def spent(self, rounds: int) -> float:
        """Epsilon, at the budget's delta, after taking part in so many rounds."""
        assert self.cost is not None
        assert self.allowance is not None
        if not rounds:
            return 0.0
        if self.whole:
            return self._schedule
        if self.allowance.composition == "pure":
            return rounds * (self.cost.epsilon or 0.0)
        return epsilon_of(rounds * self.cost.rho, self.allowance.delta)

    def claim(self, rounds: int, delta: float) -> float:
        """Epsilon at a delta after so many rounds, by the tightest accountant: what an audit holds against what it measures."""
        assert self.mechanism is not None
        return epsilon(self.mechanism, 1 if self.correlated else rounds, delta)

    @cached_property
    def _schedule(self) -> float:
        """Epsilon of all rounds together, by the accountant."""
        assert self.mechanism is not None
        assert self.allowance is not None
        if self.correlated is not None and self.allowance.composition == "zcdp":
            return epsilon_of(0.5 / self.mechanism.std(1.0) ** 2, self.allowance.delta)
        return self.claim(self.rounds, self.allowance.delta)

    @property
    def whole(self) -> bool:
        """True where all rounds together are one charge."""
        return self.correlated is not None or (
            self.allowance is not None and self.allowance.composition == "pld"
        )

    @property
    def promises(self) -> tuple[str, ...]:
        """What is promised, in sentences for those who must sign it."""
        said = []
        if self.hidden is not None:
            size = (
                "all clients of a round"
                if self.hidden.group is None
                else f"groups of about {self.hidden.group} clients"
            )
            said.append(
                f"The coordinator sees sums of the updates of {size}, and no single update, "
                f"while no more than one of them, or {self.hidden.corrupt:.0%} where that is more, work with it against the others."
            )
        else:
            said.append("The coordinator sees each update as it is sent.")
        if self.rows is not None:
            said.append(
                f"Each row of a client is protected from whoever sees its updates: gradients of rows are bounded, and Gaussian noise "
                f"of {self.rows.noise:g} times the bound covers each step. What that costs a row depends on how many its client has, so each "
                "client counts it for itself, at its own site; a simulation does not."
            )
            return tuple(said)
        if self.mechanism is None or self.noise == "none":
            said.append("Nothing is promised of what the models themselves tell: no noise is added.")
            return tuple(said)
        whom = {
            "central": "whoever sees the models; the coordinator is trusted to add the noise",
            "local": "everybody, the coordinator included: each client covers its own update",
            "distributed": "whoever sees sums or models, the coordinator included: the clients cover their sum together",
        }[self.noise]
        said.append(f"{_called(self.mechanism)} protects each client's part in a round from {whom}.")
        if self.allowance is not None:
            terms = self.allowance
            said.append(
                f"No client spends more than epsilon {terms.epsilon:g}"
                + (f" at delta {terms.delta:g}" if terms.delta else "")
                + f" here; that is {self.affordable} rounds, and then it takes part in no more."
            )
        counts = "" if self.hidden is not None else ", and how many examples each announces,"
        said.append(f"Who takes part and when{counts} is not hidden.")
        return tuple(said)

    @property
    def words(self) -> str:
        """The noise, in a few words: for ledgers and pages."""
        if self.rows is not None:
            return f"Gaussian noise on gradients of rows (noise multiplier {self.rows.noise:g})"
        return f"{self.noise} {_called(self.mechanism)}" if self.mechanism is not None else "no noise"


def _called(mechanism: Mechanism) -> str:
    """A mechanism in words."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", " ", type(mechanism).__name__)
    ((name, value),) = vars(mechanism).items()
    return f"{kind} noise ({name.replace('_', ' ')} {value:g})"


@dataclass(frozen=True)
class Covering:
    """Noise that the server adds to an aggregate of updates that it sees (`haina.strategy.parts.Release`).

    Args:
        policy: central noise.
        limit: the longest update of this round.
        stream: random bits, never used before.
    """

    policy: Policy
    limit: float
    stream: Stream

    @property
    def expected(self) -> float | None:
        """See `Release.expected`."""
        return None

    def cover(self, vector: Vector, influence: float) -> Vector:
        """See `Release.cover`."""
        return self.policy.cover(vector, influence * self.limit * self._room, self.stream)

    def cover_share(self, share: float, count: int) -> float:
        """See `Release.cover_share`. The share is one more coordinate of what is released, in small units, and `cover` has left room for it."""
        # The bit of one client moves the share by at most 1 / (2 count), and the other half by the vector's own sensitivity.
        scale = _SLOT * self.limit
        covered = self.policy.cover(np.array([share * scale]), self.limit * self._room / count, self.stream)
        return float(min(max(covered[0] / scale, 0.0), 1.0))

    @property
    def _room(self) -> float:
        return math.sqrt(1 + (_SLOT / 2) ** 2) if self.policy.adaptive else 1.0


@dataclass(frozen=True)
class Correlating:
    """Noise that hangs together over rounds, for sums that are divided by a number fixed beforehand (`haina.strategy.parts.Release`).

    Args:
        policy: central noise with `correlated`.
        limit: the longest update, the same in all rounds.
        expected: clients that a sum is divided by.
        round: from 1.
        secret: 32 bytes of this training.
    """

    policy: Policy
    limit: float
    expected: float
    round: int
    secret: bytes = field(repr=False)

    def cover(self, vector: Vector, influence: float) -> Vector:
        """See `Release.cover`; the influence is 1 / expected by construction."""
        matrix, mechanism = self.policy.correlated, self.policy.mechanism
        assert matrix is not None
        assert mechanism is not None
        d, sensitivity = len(vector), self.limit / self.expected
        # Fine enough for millions of coordinates, and coarse enough for the coefficients' sixteen bits.
        units = 1 << 24
        noise = CorrelatedNoise(matrix, mechanism, units + math.sqrt(d), d, self.secret).noise(self.round - 1)
        integers = np.rint(np.asarray(vector, np.float64) / (sensitivity / units)).astype(np.int64)
        return np.asarray((integers + noise) * (sensitivity / units))

    def cover_share(self, share: float, count: int) -> float:
        """See `Release.cover_share`."""
        raise PrivacyError(
            "the limit is adaptive, and correlated noise needs the same in all rounds",
            remedy="Write clip = 1.0",
        )
