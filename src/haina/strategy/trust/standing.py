"""Standing: what a client's agreement over the rounds makes of its trust.

    trust = consistency / (1 + 0.3 * deviation)

(0.92, 0.15) gives 0.88 and (0.31, 1.43) gives 0.22, the two rows of the request's table.

*Consistency* is how strongly a client agrees compared with how strongly trusted clients agree: the slope of x_k on m, the median agreement of the
trusted, over the rounds with forgetting. Rounds in which nobody agrees (late ones, when little is left to learn) weigh nothing by themselves, and
without news consistency drifts back to the prior.

    A <- keep A + (1 - keep) kappa (prior - tolerance) + m x        B <- keep B + (1 - keep) kappa + m^2        c = clip(tolerance + A / B, 0, 1)

*Deviation* is how much longer an update is than the trusted ones, in squared thirds of a robust sigma of its logarithm; 1.0 is the edge of the
honest. It also damps in the same round, so that a sleeper's first blow is not at full weight. Short updates are harmless.

Below `shut` a client counts nothing, above `open` fully, between them smoothly. `patience` rounds below `shut` are quarantine: the client is still
scored, counts nothing, and comes back when its trust is above `release` and enough telling rounds were clean; each new quarantine doubles that
number. What is telling is relative to the run's own agreement. Back, it counts half for `probation` rounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haina.errors import StrategyError
from haina.strategy.members import Members
from haina.strategy.record import Verdict
from haina.update import Vector

#: Penalty of deviation in the trust formula.
ALPHA = 0.3


def score(consistency: Vector, deviation: Vector) -> Vector:
    """Trust in [0, 1] from consistency in [0, 1] and deviation >= 0."""
    return np.asarray(consistency / (1 + ALPHA * deviation))


@dataclass(frozen=True)
class Standing:
    """How trust is gained and lost. Defaults were chosen on seeds that no published table uses.

    Args:
        tolerance: consistency that everyone is granted: nobody agrees perfectly; in [0, 1).
        prior: consistency of a client not yet seen, in (tolerance, 1].
        keep: share of the evidence kept from round to round, in (0, 1).
        kappa: weight of the prior, in units of m^2 (an early round brings 0.1 to 0.25, a late one 0.01), > 0.
        shut: trust below which a client counts nothing, in (0, 1).
        open: trust above which it counts fully, > shut.
        patience: rounds below `shut` until quarantine, >= 1.
        release: trust needed to come back, >= shut.
        clean: net clean telling rounds needed to come back the first time, >= 1.
        probation: rounds at half weight after quarantine, >= 0.
    """

    columns: ClassVar[tuple[str, ...]] = (
        "agreed",
        "asked",
        "consistency",
        "deviation",
        "trust",
        "low",
        "clean",
        "quarantined",
        "strikes",
        "probation",
    )
    tolerance: float = 0.15
    prior: float = 0.5
    keep: float = 0.97
    kappa: float = 0.5
    shut: float = 0.25
    open: float = 0.6
    patience: int = 3
    release: float = 0.45
    clean: int = 5
    probation: int = 10

    def __post_init__(self) -> None:
        allowed = (
            ("tolerance", 0 <= self.tolerance < 1, "a number in [0, 1)"),
            ("prior", self.tolerance < self.prior <= 1, f"a number in ({self.tolerance}, 1]"),
            ("keep", 0 < self.keep < 1, "a number in (0, 1)"),
            ("kappa", 0 < self.kappa < np.inf, "a finite number > 0"),
            ("shut", 0 < self.shut < 1, "a number in (0, 1)"),
            ("open", self.shut < self.open <= 1, f"a number in ({self.shut}, 1]"),
            ("patience", self.patience >= 1, "an integer >= 1"),
            ("release", self.shut <= self.release <= 1, f"a number in [{self.shut}, 1]"),
            ("clean", self.clean >= 1, "an integer >= 1"),
            ("probation", self.probation >= 0, "an integer >= 0"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise StrategyError(f"{name} is {getattr(self, name)}", allowed=words)

    @property
    def newcomer(self) -> Mapping[str, float]:
        """The columns of a client not yet seen."""
        zeros = dict.fromkeys(self.columns, 0.0)
        known = {
            "agreed": self.kappa * (self.prior - self.tolerance),
            "asked": self.kappa,
            "consistency": self.prior,
            "trust": self.prior,
        }
        return {**zeros, **known}

    def gate(self, trust: Vector, quarantined: Vector) -> Vector:
        """`[n]` in [0, 1]: smooth from `shut` to `open`, 0 in quarantine."""
        way = np.clip((trust - self.shut) / (self.open - self.shut), 0, 1)
        return np.where(quarantined > 0, 0.0, way * way * (3 - 2 * way))

    def learn(
        self, members: Members, clients: tuple[str, ...], agreement: Vector, norms: Vector, usual: float
    ) -> tuple[Members, Vector, float]:
        """One scored round.

        Args:
            members: the table before the round.
            clients: n names.
            agreement: x `[n]`.
            norms: `[n]` lengths of the updates, > 0.
            usual: running mean of m over the run; 0 before the first round.

        Returns:
            The table after the round, how far each update's length is acceptable in this round (`[n]` in [0, 1]), and m.
        """
        old = {name: members.get(name, clients) for name in self.columns}
        voice = self.gate(old["trust"], old["quarantined"])
        voice = voice if voice.sum() > 1e-9 else np.ones(len(clients))
        m = max(weighted_median(agreement, voice), 0.0)
        excess = _excess(norms, voice)
        deviation = old["deviation"] + np.where(excess > old["deviation"], 0.5, 0.1) * (
            excess - old["deviation"]
        )
        acceptable = np.clip((1.6 - excess) / 0.8, 0, 1)
        drift = (1 - self.keep) * self.kappa
        agreed = self.keep * old["agreed"] + drift * (self.prior - self.tolerance) + m * agreement
        asked = self.keep * old["asked"] + drift + m * m
        consistency = np.clip(self.tolerance + agreed / asked, 0, 1)
        trust = score(consistency, deviation)
        telling = m > 0 and m >= 0.5 * usual
        inside = old["quarantined"] > 0
        low = np.where(~inside & (trust < self.shut), old["low"] + 1, 0.0)
        entered = ~inside & (low >= self.patience)
        clean = old["clean"] + (np.where(agreement > 0, 1.0, -1.0) if telling else 0.0)
        clean = np.where(inside & (acceptable >= 0.8) & (trust >= self.shut), np.maximum(clean, 0.0), 0.0)
        strikes = old["strikes"] + entered
        released = inside & (trust > self.release) & (clean >= self.clean * 2.0 ** np.maximum(strikes - 1, 0))
        probation = np.where(released, self.probation, np.maximum(old["probation"] - 1, 0))
        table = members.put(
            clients,
            agreed=agreed,
            asked=asked,
            consistency=consistency,
            deviation=deviation,
            trust=trust,
            low=low,
            clean=np.where(released, 0.0, clean),
            quarantined=((inside & ~released) | entered).astype(np.float64),
            strikes=strikes,
            probation=probation,
        )
        return table, acceptable, m

    def verdicts(
        self, members: Members, clients: tuple[str, ...], acceptable: Vector
    ) -> tuple[tuple[Verdict, str], ...]:
        """What becomes of each client, and why, in words; the numbers are in the evidence."""
        out = []
        columns = (members.get(name, clients) for name in ("trust", "quarantined", "probation"))
        for trust, quarantined, probation, fit in zip(*columns, acceptable, strict=True):
            if quarantined:
                out.append((Verdict.QUARANTINED, "its trust was too low for too long"))
            elif fit < 1:
                out.append(
                    (Verdict.DAMPED, f"much longer than trusted updates, so it counts {fit:.0%} this round")
                )
            elif trust < self.open:
                out.append((Verdict.DAMPED, "not trusted in full"))
            elif probation:
                out.append(
                    (Verdict.PROBATION, f"back from quarantine: half weight for {int(probation)} more rounds")
                )
            else:
                out.append((Verdict.ADMITTED, ""))
        return tuple(out)


def weighted_median(values: Vector, weights: Vector) -> float:
    """The value at which half of the weight is reached."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    return float(values[order][min(int(np.searchsorted(reached, 0.5 * reached[-1])), len(values) - 1)])


def _excess(norms: Vector, voice: Vector) -> Vector:
    """`[n]` squared thirds of robust sigmas by which an update is longer than the trusted ones, at most 10.24."""
    length = np.log(norms)
    middle = weighted_median(length, voice)
    sigma = max(1.4826 * weighted_median(np.abs(length - middle), voice), 0.15)
    return np.asarray(np.clip(np.maximum(length - middle, 0) / (3 * sigma), 0, 3.2) ** 2)
