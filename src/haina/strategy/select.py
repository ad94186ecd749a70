"""Select: who is invited to a round.

One idea: candidates are drawn from the population one after another and some are turned down. Uniform turns nobody down, BySamples draws in
proportion to examples, BySimilarity turns down at random those who agree little; ByParticipation and PowerOfChoice draw a larger pool and keep its
best. Drawing goes on until enough distinct clients are found, so the cost follows the number invited, not the number registered. Only where that
search would outgrow the population (nearly everybody is wanted, excluded or unlikely) is the population read once.

The trap: every preference is a bias. What the weights of a round do not undo (`haina.strategy.weigh.Participation`) bends the model.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from haina.errors import StrategyError
from haina.strategy.members import Members
from haina.update import Vector

Accept = Callable[[Sequence[str]], Vector]


class Population(Protocol):
    """All registered clients, by number."""

    def __len__(self) -> int:
        """N: how many there are."""

    def name(self, index: int) -> str:
        """Name of a client, 0 <= index < N; distinct."""

    def examples(self, index: int) -> int:
        """Examples that a client holds."""

    @property
    def cumulative(self) -> NDArray[np.int64]:
        """`[N]` running sum of the examples: the table for drawing by examples. Make it once (`functools.cached_property`), not every round."""


@dataclass(frozen=True)
class Roster:
    """A population given as lists.

    Args:
        names: N distinct names.
        sizes: N numbers of examples, >= 0.
    """

    names: Sequence[str]
    sizes: Sequence[int]

    def __len__(self) -> int:
        return len(self.names)

    def name(self, index: int) -> str:
        """Name of a client."""
        return self.names[index]

    def examples(self, index: int) -> int:
        """Examples of a client."""
        return int(self.sizes[index])

    @cached_property
    def cumulative(self) -> NDArray[np.int64]:
        """`[N]` running sum of the examples."""
        return np.cumsum(np.asarray(self.sizes, dtype=np.int64))


class Selector(Protocol):
    """Chooses whom to invite."""

    def choose(
        self,
        population: Population,
        k: int,
        members: Members,
        rng: np.random.Generator,
        exclude: Collection[str] = frozenset(),
    ) -> list[str]:
        """k distinct names, none of them in `exclude`; the same generator state gives the same names.

        Raises:
            StrategyError: k < 1, or fewer than k clients can be invited.
        """


@dataclass(frozen=True)
class Uniform:
    """Every client alike, without replacement (McMahan et al. 2017)."""

    def choose(
        self,
        population: Population,
        k: int,
        members: Members,
        rng: np.random.Generator,
        exclude: Collection[str] = frozenset(),
    ) -> list[str]:
        """See `Selector.choose`."""
        return _draw(population, k, rng, exclude)


@dataclass(frozen=True)
class Poisson:
    """Each client by itself with the same probability, so that their number is a matter of chance too (Abadi et al. 2016, sec. 3.1).

    It is the sampling that accountants of differential privacy know best: who took part in a round is as uncertain as the noise.

    Args:
        rate: that probability, in (0, 1].
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise StrategyError(f"the rate of Poisson sampling is {self.rate}", allowed="a number in (0, 1]")

    def choose(
        self,
        population: Population,
        k: int,
        members: Members,
        rng: np.random.Generator,
        exclude: Collection[str] = frozenset(),
    ) -> list[str]:
        """See `Selector.choose`; `k` is not looked at, and there may be nobody.

        That a client is excluded must not depend on its data, or the accountant's probability is no longer its own.
        """
        count = int(rng.binomial(len(population), self.rate))
        drawn = _draw(population, count, rng, frozenset()) if count else []
        return [name for name in drawn if name not in exclude]


@dataclass(frozen=True)
class BySamples:
    """One after another in proportion to examples among those left (successive sampling, Li et al. 2020, sec. 3, made distinct).

    Beware of weighing by samples on top: large clients then count twice.
    """

    def choose(
        self,
        population: Population,
        k: int,
        members: Members,
        rng: np.random.Generator,
        exclude: Collection[str] = frozenset(),
    ) -> list[str]:
        """See `Selector.choose`; clients without examples are never chosen."""
        return _draw(population, k, rng, exclude, by_examples=True)


@dataclass(frozen=True)
class BySimilarity:
    """Clients of low similarity or low trust are invited less often: a candidate is turned down with probability 1 - value.

    Args:
        column: what is remembered of a client, in [0, 1]; `consistency` and `trust` are kept by trust. A value not measured yet (NaN) counts as 1.
        floor: least probability of being accepted, in (0, 1], so that nobody is starved and a wrong verdict can be put right.
    """

    column: str = "consistency"
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise StrategyError(f"the floor of similarity is {self.floor}", allowed="a number in (0, 1]")

    def choose(
        self,
        population: Population,
        k: int,
        members: Members,
        rng: np.random.Generator,
        exclude: Collection[str] = frozenset(),
    ) -> list[str]:
        """See `Selector.choose`.

        Raises:
            StrategyError: nothing of that name is remembered of clients.
        """
        if self.column not in members.defaults:
            raise StrategyError(
                f"no step remembers {self.column!r} of clients",
                allowed=", ".join(members.defaults) or "nothing so far",
                remedy="Add trust to the strategy, which keeps it, or select in another way",
            )

        def accept(names: Sequence[str]) -> Vector:
            values = members.get(self.column, names)
            return np.clip(np.where(np.isnan(values), 1.0, values), self.floor, 1.0)

        return _draw(population, k, rng, exclude, accept)


@dataclass(frozen=True)
class ByParticipation:
    """Among uniform candidates, those who have delivered least often (or most often) so far.

    Args:
        prefer: `rare` evens participation out; `frequent` favours reliable clients, and bends the model towards them.
        candidates: size of the pool, >= the number invited; None for four times that.
    """

    prefer: Literal["rare", "frequent"] = "rare"
    candidates: int | None = None

    def __post_init__(self) -> None:
        if self.prefer not in ("rare", "frequent"):
            raise StrategyError(f"participation prefers {self.prefer!r}", allowed="rare, frequent")

    def choose(
        self,
        population: Population,
        k: int,
        members: Members,
        rng: np.random.Generator,
        exclude: Collection[str] = frozenset(),
    ) -> list[str]:
        """See `Selector.choose`; ties fall at random."""
        pool = _draw(population, k, rng, exclude, pool=_pool(self.candidates, k))
        delivered = members.get("delivered", pool)
        return _first(pool, k, delivered if self.prefer == "rare" else -delivered)


@dataclass(frozen=True)
class PowerOfChoice:
    """pow-d with stale losses (Cho, Wang and Joshi 2020, rpow-d): of d candidates drawn by examples, the k with the highest last loss.

    A client that never reported a loss goes first. Beware: whoever reports a high loss is invited again and again; bound it with trust.

    Args:
        candidates: d, >= the number invited; None for four times that. d = k is sampling by examples.
    """

    candidates: int | None = None
    reads: ClassVar[tuple[str, ...]] = ("loss_before",)

    def choose(
        self,
        population: Population,
        k: int,
        members: Members,
        rng: np.random.Generator,
        exclude: Collection[str] = frozenset(),
    ) -> list[str]:
        """See `Selector.choose`."""
        pool = _draw(population, k, rng, exclude, by_examples=True, pool=_pool(self.candidates, k))
        losses = members.get("last_loss", pool)
        return _first(pool, k, -np.where(np.isnan(losses), np.inf, losses))


def _draw(
    population: Population,
    k: int,
    rng: np.random.Generator,
    exclude: Collection[str],
    accept: Accept = lambda names: np.ones(len(names)),
    *,
    by_examples: bool = False,
    pool: int | None = None,
) -> list[str]:
    """k distinct names (with `pool`, up to that many and at least k), in random order.

    Successive sampling: each next name falls on client i, among those left, with probability ~ base_i * accept_i (base 1, or examples). Candidates
    with replacement, turned down when refused or seen, follow exactly that law, in batches that double; once a batch would be as large as the
    population, what is left is ranked by exponential keys E_i / weight_i instead (Efraimidis and Spirakis 2006), which is the same law.
    """
    registered = len(population)
    if not 1 <= k <= registered:
        raise StrategyError(f"{k} clients are to be invited of {registered}", allowed=f"1 to {registered}")
    wanted = k if pool is None else min(pool, registered)
    barred = frozenset(exclude)
    table = population.cumulative if by_examples else None
    total = registered if table is None else int(table[-1])
    chosen: dict[str, None] = {}
    batch = 2 * wanted
    while len(chosen) < wanted and batch < registered and total > 0:
        index = rng.integers(total, size=batch)
        if table is not None:
            index = np.searchsorted(table, index, side="right")
        names = [population.name(int(i)) for i in index]
        for name, kept in zip(names, rng.random(batch) < accept(names), strict=True):
            if kept and name not in barred and len(chosen) < wanted:
                chosen[name] = None
        batch *= 2
    if len(chosen) < wanted:
        left = [
            (i, n) for i in range(registered) if (n := population.name(i)) not in barred and n not in chosen
        ]
        names = [name for _, name in left]
        base = np.ones(registered) if table is None else np.diff(table, prepend=0)
        weights = base[[i for i, _ in left]] * accept(names)
        keys = np.full(len(left), np.inf)
        np.divide(rng.exponential(size=len(left)), weights, out=keys, where=weights > 0)
        order = np.argsort(keys, kind="stable")[: min(wanted - len(chosen), int((weights > 0).sum()))]
        chosen |= dict.fromkeys(names[i] for i in order)
    if len(chosen) < k:
        raise StrategyError(
            f"{k} clients are to be invited, and only {len(chosen)} of {registered} can be",
            allowed=f"1 to {len(chosen)}" if chosen else "",
            remedy="Invite fewer, or wait until excluded clients are back",
        )
    return list(chosen)


def _pool(candidates: int | None, k: int) -> int:
    if candidates is None:
        return 4 * k
    if candidates < k:
        raise StrategyError(
            f"{candidates} candidates are too few to choose {k} clients from", allowed=f"{k} or more"
        )
    return candidates


def _first(pool: list[str], k: int, rank: Vector) -> list[str]:
    """The k lowest of a pool in random order, so that ties fall at random."""
    return [pool[i] for i in np.argsort(rank, kind="stable")[:k]]
