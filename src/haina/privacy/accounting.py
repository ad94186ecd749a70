"""Accounting: what a schedule of releases costs, and how much noise a promise needs.

By privacy loss distributions (PLD) of the `dp-accounting` library on a grid of 1e-4, pessimistic: what is printed is an upper bound. Where a PLD is
not known (fixed cohorts drawn without replacement) by Renyi divergences (RDP). The library is slow to import, so it is imported where it is used.

What is compared ("neighbours") is a client's data being there and being zero. Only with fixed cohorts it is one client's data against another's: that
difference is up to twice as long, so noise of z times a client's bound counts as z / 2.

A PLD or RDP is of a schedule that is fixed before it begins. The noise of a later release may not depend on what earlier ones have shown; where it
does, zCDP adds up still (`rho_of`, `epsilon_of`).

Which event stands for which mechanism (the reasons are in `mechanisms`):

    Gaussian            the real Gaussian
    Laplace             the real Laplace mechanism
    DiscreteLaplace     the discrete one for integers that differ by 1, which is randomised response: nothing of the same epsilon is worse
    DiscreteGaussian    the larger of the discrete one for integers that differ by 1 and the real Gaussian: counts are like the first, vectors on a
                        fine grid like the second
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any, Literal

from haina.errors import PrivacyError
from haina.privacy.mechanisms import (
    MECHANISMS,
    DiscreteGaussian,
    DiscreteLaplace,
    Gaussian,
    Laplace,
    Mechanism,
)
from haina.privacy.zcdp import advanced, checked, distributed_rho, epsilon_of, rho_of

__all__ = [
    "EVERYONE",
    "Releases",
    "Sampling",
    "advanced",
    "calibrated",
    "distributed_rho",
    "epsilon",
    "epsilon_of",
    "epsilon_of_schedule",
    "jointly",
    "rho_of",
]

Method = Literal["pld", "rdp"]

#: Width of a PLD's buckets: of what is published, and of a search.
_FINE, _COARSE = 1e-4, 1e-3
#: Relative precision of a search for the smallest noise.
_PRECISE = 2e-4


@dataclass(frozen=True)
class Sampling:
    """Who takes part in a round.

    Args:
        kind: "everyone"; "poisson": each client with probability `rate`, and independently; "fixed": so many of so many, all choices alike.
        rate: of "poisson", in (0, 1].
        population: clients there are; of "fixed", and of "poisson" where the cohort is cut to a size.
        cohort: clients of a round; of "fixed". With "poisson" the size that a cohort which turned out larger is cut to, at random.

    Raises:
        PrivacyError: a setting is missing or impossible.
    """

    kind: Literal["everyone", "poisson", "fixed"] = "everyone"
    rate: float = 1.0
    population: int | None = None
    cohort: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("everyone", "poisson", "fixed"):
            raise PrivacyError(f"sampling is {self.kind!r}", allowed="everyone, poisson or fixed")
        if not 0 < self.rate <= 1:
            raise PrivacyError(f"the rate of sampling is {self.rate}", allowed="a number in (0, 1]")
        both = self.population is not None and self.cohort is not None
        if self.kind == "fixed" and not both:
            raise PrivacyError("a fixed cohort has no size", allowed="population and cohort")
        if both and not 1 <= (self.cohort or 0) <= (self.population or 0):
            raise PrivacyError(
                f"a cohort of {self.cohort} is drawn from {self.population} clients",
                allowed="1 to as many as there are",
            )

    @property
    def cut(self) -> bool:
        """Whether a cohort is cut to a size."""
        return self.kind == "poisson" and self.population is not None and self.cohort is not None


EVERYONE = Sampling()


@dataclass(frozen=True)
class Releases:
    """A part of a schedule: the same mechanism, so many times.

    Args:
        mechanism: of each.
        rounds: how many, >= 0.
        sampling: who takes part in each.
    """

    mechanism: Mechanism
    rounds: int = 1
    sampling: Sampling = EVERYONE


def epsilon(
    mechanism: Mechanism,
    rounds: int,
    delta: float,
    sampling: Sampling = EVERYONE,
    method: Method = "pld",
) -> float:
    """What `rounds` releases cost a client, as epsilon at a delta.

    Args:
        mechanism: of each release.
        rounds: how many, >= 0.
        delta: in (0, 1).
        sampling: who takes part in each.
        method: fixed cohorts are accounted by "rdp" in any case.

    Raises:
        PrivacyError: the accountant does not know this combination.
    """
    return epsilon_of_schedule([Releases(mechanism, rounds, sampling)], delta, method)


def epsilon_of_schedule(schedule: Sequence[Releases], delta: float, method: Method = "pld") -> float:
    """What a schedule of different releases costs a client, as epsilon at a delta. See `epsilon`."""
    return _epsilon(schedule, delta, method, _FINE)


def calibrated(
    kind: str, epsilon: float, delta: float, rounds: int, sampling: Sampling = EVERYONE
) -> Mechanism:
    """The mechanism of a kind that keeps to (epsilon, delta) over all rounds with the least noise.

    Args:
        kind: a name in `haina.privacy.mechanisms.MECHANISMS`.
        epsilon: > 0.
        delta: in (0, 1).
        rounds: >= 1.
        sampling: who takes part in each.

    Returns:
        A mechanism whose cost was computed again, and is at most `epsilon`; its noise is at most 0.1 % more than was needed.

    Raises:
        PrivacyError: an argument is impossible, or the accountant does not know this combination.
    """
    if kind not in MECHANISMS:
        raise PrivacyError(f"the mechanism is {kind!r}", allowed=", ".join(MECHANISMS))
    if not 0 < epsilon < inf:
        raise PrivacyError(f"epsilon is {epsilon}", allowed="a finite number > 0")
    if rounds < 1:
        raise PrivacyError(f"{rounds} rounds are planned", allowed="1 or more")
    pure = kind in ("laplace", "discrete_laplace")

    def mechanism(noise: float) -> Mechanism:
        return MECHANISMS[kind](1 / noise if pure else noise)

    def cost(noise: float, width: float) -> float:
        return _epsilon([Releases(mechanism(noise), rounds, sampling)], delta, "pld", width)

    # Enough noise, even if everyone takes part.
    rho = rho_of(epsilon, delta) / rounds
    high = 1 / max(sqrt(2 * rho), epsilon / rounds) if pure else 1 / sqrt(2 * rho)
    if sampling.kind == "fixed":
        high *= 2
    # Buckets of discrete noise are rounded up, not joined, so that coarse ones add up over many rounds.
    width = _FINE if kind.startswith("discrete") else min(_COARSE, epsilon / 100)
    while cost(high, width) > epsilon:
        high *= 1.1
    low = high / 2
    while cost(low, width) <= epsilon:
        low, high = low / 2, low
    while high > low * (1 + _PRECISE):
        middle = sqrt(low * high)
        low, high = (low, middle) if cost(middle, width) <= epsilon else (middle, high)
    while cost(high, _FINE) > epsilon:
        high *= 1 + _PRECISE
    return mechanism(high)


def jointly(multipliers: Sequence[float]) -> float:
    """The noise multiplier of several Gaussian releases about the same clients, seen as one: (sum of z^-2)^(-1/2).

    Adaptive clipping releases a vector and a bit in each round (Andrew et al. 2021); sampled together, they are one sampled Gaussian.

    Args:
        multipliers: each > 0.
    """
    return 1 / sqrt(sum(1 / z**2 for z in multipliers))


# ------------------------------------------------------------------------------------------------ the library


def _epsilon(schedule: Sequence[Releases], delta: float, method: Method, width: float) -> float:
    checked(delta)
    if any(part.rounds < 0 for part in schedule):
        raise PrivacyError("a schedule has a negative number of rounds", allowed="0 or more")
    parts = [part for part in schedule if part.rounds]
    if not parts:
        return 0.0
    fixed = [part for part in parts if part.sampling.kind == "fixed"]
    if fixed and len(fixed) < len(parts):
        raise PrivacyError(
            "a schedule has rounds with fixed cohorts and rounds without",
            allowed="one kind, as they compare different things",
            remedy="Account for each by itself, and add the two",
        )
    if method == "rdp" or fixed:
        return _by_rdp(parts, delta)
    if method != "pld":
        raise PrivacyError(f"the accountant is {method!r}", allowed="pld or rdp")
    total = _pld(parts[0], width)
    for part in parts[1:]:
        total = total.compose(_pld(part, width))
    smallest = float(total.get_epsilon_for_delta(delta))
    # Discrete noise over vectors on a fine grid is as good as real noise, and on counts as good as it is itself.
    if any(isinstance(part.mechanism, DiscreteGaussian) for part in parts):
        real = [
            Releases(Gaussian(part.mechanism.noise_multiplier), part.rounds, part.sampling)
            if isinstance(part.mechanism, DiscreteGaussian)
            else part
            for part in parts
        ]
        smallest = max(smallest, _epsilon(real, delta, method, width))
    return smallest


def _pld(part: Releases, width: float) -> Any:
    """The privacy loss distribution of a part of a schedule."""
    from dp_accounting.pld import privacy_loss_distribution as pld

    sampling, mechanism, rounds = part.sampling, part.mechanism, part.rounds
    settings = {"value_discretization_interval": width, "sampling_prob": sampling.rate}
    if sampling.kind == "everyone":
        settings["sampling_prob"] = 1.0
    if sampling.cut:
        if not isinstance(mechanism, Gaussian):
            raise _unknown(mechanism, "Poisson sampling with a cohort that is cut to a size")
        return pld.from_truncated_subsampled_gaussian_mechanism(
            sampling.population,
            sampling.rate,
            sampling.cohort,
            mechanism.noise_multiplier,
            value_discretization_interval=width,
        ).self_compose(rounds)
    if isinstance(mechanism, Gaussian):
        z = mechanism.noise_multiplier
        if settings["sampling_prob"] == 1:
            # So many Gaussians are one.
            return pld.from_gaussian_mechanism(z / sqrt(rounds), value_discretization_interval=width)
        return pld.from_gaussian_mechanism(z, **settings).self_compose(rounds)
    if isinstance(mechanism, DiscreteGaussian):
        return pld.from_discrete_gaussian_mechanism(mechanism.noise_multiplier, **settings).self_compose(
            rounds
        )
    if isinstance(mechanism, Laplace):
        return pld.from_laplace_mechanism(1 / mechanism.epsilon, **settings).self_compose(rounds)
    if isinstance(mechanism, DiscreteLaplace):
        return pld.from_discrete_laplace_mechanism(mechanism.epsilon, **settings).self_compose(rounds)
    raise _unknown(mechanism, "PLD")


def _by_rdp(parts: Sequence[Releases], delta: float) -> float:
    import dp_accounting as dp
    from dp_accounting.rdp import RdpAccountant

    fixed = parts[0].sampling.kind == "fixed"
    relation = dp.NeighboringRelation.REPLACE_ONE if fixed else dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    accountant = RdpAccountant(neighboring_relation=relation)
    for part in parts:
        accountant.compose(_event(dp, part), part.rounds)
    return float(accountant.get_epsilon(delta))


def _event(dp: Any, part: Releases) -> Any:
    sampling, mechanism = part.sampling, part.mechanism
    if isinstance(mechanism, Laplace):
        if sampling.kind != "everyone":
            raise _unknown(mechanism, f"RDP with sampling {sampling.kind!r}")
        return dp.LaplaceDpEvent(1 / mechanism.epsilon)
    if not isinstance(mechanism, Gaussian | DiscreteGaussian) or sampling.cut:
        raise _unknown(mechanism, "RDP" + " with a cohort that is cut to a size" * sampling.cut)
    z = mechanism.noise_multiplier
    if sampling.kind == "fixed":
        return dp.SampledWithoutReplacementDpEvent(
            sampling.population, sampling.cohort, dp.GaussianDpEvent(z / 2)
        )
    event = dp.GaussianDpEvent(z)
    return dp.PoissonSampledDpEvent(sampling.rate, event) if sampling.kind == "poisson" else event


def _unknown(mechanism: Mechanism, what: str) -> PrivacyError:
    return PrivacyError(
        f"{what} is not known for {type(mechanism).__name__} noise",
        allowed="Gaussian noise with any sampling; Laplace noise with everyone or Poisson sampling, by PLD",
        remedy='Write mechanism = "gaussian", or take the cost without sampling, which is an upper bound',
    )
