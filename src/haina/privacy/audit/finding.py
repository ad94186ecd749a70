"""What an audit found: a claim, an estimate that is an alarm, a bound that is a test, and the word for it.

* The bound: guess who was in and count the right guesses; an implementation that keeps its claim is called "violated" with probability 1 -
  confidence at most. For any claim after Steinke, Nasr and Jagielski 2023 (`bounds`), for Gaussian noise without sampling after Mahloujifar, Melis
  and Chaudhuri 2024 (`gaussian`). Either proves far less than there is: a quarter to a half of epsilon.
* The estimate (Andrew et al. 2023): the scores of those in and those out are two bells; how far they lie apart is mu, and the Gaussian mechanism of
  that mu has an epsilon. It is near the truth where many Gaussian draws add up, and proves nothing. It raises the alarm when even its lower end is
  above the claim.

The trap: "holds" says that this attack found nothing. It is no proof of privacy; the proof is the mechanism and its accounting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import PrivacyError
from haina.privacy.audit import bounds, gaussian
from haina.privacy.audit.canary import Canaries

Verdict = Literal["holds", "violated", "not enough canaries to tell", "nothing is promised"]
#: What is claimed: epsilon at one delta, or the curve of a Gaussian mechanism in which everyone takes part.
Claim = Literal["any", "gaussian"]

#: Shares of the canaries that are guessed at, each tried: few that are sure, or many.
SHARES = (0.1, 0.25, 0.5, 0.75)
#: Standard errors from the estimate to its ends; a correct implementation of exactly its claim raises one false alarm in 700 audits.
ERRORS = 3.0


@dataclass(frozen=True)
class Estimate:
    """An epsilon that is likely, with the ends of its uncertainty (`ERRORS` standard errors)."""

    epsilon: float
    low: float
    high: float


@dataclass(frozen=True)
class Finding:
    """The outcome of one audit.

    Args:
        claimed: epsilon that the accounting promises for this run.
        delta: of the claim.
        estimate: what is likely, or None where no shape of the scores is known.
        lower_bound: what is proved, with `confidence`.
        reach: the most that so many canaries could have proved.
        confidence: of the bound.
        canaries: m, in or out.
    """

    claimed: float
    delta: float
    estimate: Estimate | None
    lower_bound: float
    reach: float
    confidence: float
    canaries: int

    @property
    def verdict(self) -> Verdict:
        """Whether the claim is refuted ("violated"); if not, whether any outcome could have refuted it ("holds") or none (the others)."""
        if not isfinite(self.claimed):
            return "nothing is promised"
        if self.lower_bound > self.claimed:
            return "violated"
        return "holds" if self.reach > self.claimed else "not enough canaries to tell"

    @property
    def alarm(self) -> bool:
        """The estimate is above the claim by more than its uncertainty: look for the fault, whatever the verdict."""
        return self.estimate is not None and self.estimate.low > self.claimed

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; a claim that is infinite becomes null."""
        estimate = self.estimate
        return {
            "claimed": self.claimed if isfinite(self.claimed) else None,
            "delta": self.delta,
            "estimate": None if estimate is None else estimate.epsilon,
            "estimate_low": None if estimate is None else estimate.low,
            "estimate_high": None if estimate is None else estimate.high,
            "lower_bound": self.lower_bound,
            "reach": self.reach,
            "confidence": self.confidence,
            "canaries": self.canaries,
            "alarm": self.alarm,
            "verdict": self.verdict,
        }


def audit(
    canaries: Canaries,
    increments: Sequence[Array],
    claimed: float,
    delta: float,
    *,
    claim: Claim = "any",
    confidence: float = 0.95,
    rounds: Sequence[int] | None = None,
    rate: float = 1.0,
    shift: float = 1.0,
) -> Finding:
    """Search what a run has released for its canaries.

    Args:
        canaries: those of the run.
        increments: T vectors `[d]`, one for each round that released a model.
        claimed: epsilon of the accounting for the whole run, > 0; infinite where nothing is promised.
        delta: of the claim, in (0, 1).
        claim: "gaussian" for Gaussian noise and everyone in every round, of which more can be proved.
        confidence: of the bound.
        rounds: the increments' round numbers, if they are not 0 to T - 1.
        rate: see `Canaries.search`, as the next.
        shift: 1 / noise multiplier.

    Raises:
        PrivacyError: a claim that is none, or what `Canaries.search` refuses.
    """
    scores = canaries.search(increments, rounds, rate=rate, shift=shift)
    return judge(scores, canaries.included, claimed, delta, claim, confidence, bells=canaries.norm == 2)


def judge(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    claimed: float,
    delta: float,
    claim: Claim = "any",
    confidence: float = 0.95,
    *,
    bells: bool = True,
) -> Finding:
    """The finding from scores `[m]` (larger: more likely in) and the truth `[m]`; without `bells`, scores have no known shape and nothing is
    estimated.

    Raises:
        PrivacyError: a claim that is none, or shapes that differ.
    """
    if not claimed > 0:
        raise PrivacyError(f"the claimed epsilon is {claimed}", allowed="a number above 0")
    return Finding(
        claimed,
        delta,
        estimate(scores, included, delta) if bells else None,
        bound(scores, included, delta, claim, confidence),
        reach(len(scores), delta, claim, confidence),
        confidence,
        len(scores),
    )


def estimate(scores: NDArray[np.float64], included: NDArray[np.bool_], delta: float) -> Estimate:
    """Epsilon of the Gaussian mechanism that would part the scores as they are parted.

    mu = (mean of those in - mean of those out) / pooled standard deviation, with standard error sqrt(1/in + 1/out + mu^2 / 2 (m - 2)).

    Args:
        scores: `[m]`.
        included: `[m]` the coins.
        delta: in (0, 1).

    Raises:
        PrivacyError: fewer than two canaries in or out, scores that are all alike, or shapes that differ.
    """
    _same(scores, included)
    inside, outside = scores[included], scores[~included]
    if min(len(inside), len(outside)) < 2:
        raise PrivacyError(
            f"{len(inside)} canaries are in and {len(outside)} out",
            allowed="two of each at least",
            remedy="Use more canaries; 1000 suffice for claims up to 4",
        )
    spare = len(scores) - 2
    squares = float(np.square(inside - inside.mean()).sum() + np.square(outside - outside.mean()).sum())
    if not squares > 0:
        raise PrivacyError(
            "all canaries score the same", remedy="Look whether the canaries took part in the run"
        )
    mu = float(inside.mean() - outside.mean()) / sqrt(squares / spare)
    error = ERRORS * sqrt(1 / len(inside) + 1 / len(outside) + mu**2 / (2 * spare))
    ends = (gaussian.epsilon_of(max(value, 0.0), delta) for value in (mu, mu - error, mu + error))
    return Estimate(*ends)


def bound(
    scores: NDArray[np.float64],
    included: NDArray[np.bool_],
    delta: float,
    claim: Claim = "any",
    confidence: float = 0.95,
) -> float:
    """The best lower bound of epsilon over all `SHARES`: half of a share is called in, from the top, and half out, from the bottom.

    The confidence of each is such that together they are wrong with probability 1 - `confidence` at most.
    """
    _same(scores, included)
    order = np.argsort(scores, kind="stable")
    best = 0.0
    for half, each in _tries(len(scores), confidence):
        correct = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
        best = max(best, _proved(2 * half, correct, len(scores), delta, claim, each))
    return best


def reach(canaries: int, delta: float, claim: Claim = "any", confidence: float = 0.95) -> float:
    """The bound that is shown when every guess is right: no claim above it can be refuted by so many canaries."""
    tries = _tries(canaries, confidence)
    return max(
        (_proved(2 * half, 2 * half, canaries, delta, claim, each) for half, each in tries), default=0.0
    )


def _proved(guesses: int, correct: int, total: int, delta: float, claim: Claim, confidence: float) -> float:
    if claim == "gaussian":
        return gaussian.epsilon_of(gaussian.lower_bound(guesses, correct, total, confidence), delta)
    return bounds.lower_bound(guesses, correct, total, delta, confidence)


def _tries(canaries: int, confidence: float) -> list[tuple[int, float]]:
    """How many to call in, and as many out; and the confidence of each try."""
    halves = sorted({round(canaries * share / 2) for share in SHARES} - {0})
    return [(half, 1 - (1 - confidence) / len(halves)) for half in halves]


def _same(scores: NDArray[np.float64], included: NDArray[np.bool_]) -> None:
    if scores.shape != included.shape or scores.ndim != 1 or included.dtype != np.bool_:
        raise PrivacyError(
            f"scores of shape {scores.shape}, coins of shape {included.shape} and type {included.dtype}",
            allowed="two arrays of one length, and the coins true or false",
        )
    if not np.isfinite(scores).all():
        raise PrivacyError("a score is not a finite number", allowed="finite scores")
