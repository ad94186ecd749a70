"""What counted guesses prove about epsilon.

* Steinke, Nasr and Jagielski 2023, "Privacy Auditing with One (1) Training Run": m canaries, each in or out by a fair coin; an auditor who guesses
  at r of them is right v times. Their theorem says how improbable that is under (epsilon, delta)-DP; `lower_bound` turns it round.
* Clopper and Pearson 1934: exact limits of a proportion.

The trap: choosing after the fact which guesses to count makes chance look like leakage. Who tries k ways of guessing asks each for confidence 1 -
(1 - c) / k (`finding.bound` does).
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, log1p

import numpy as np
from numpy.typing import NDArray

from haina.errors import PrivacyError

#: No count proves a larger epsilon: nobody makes so many guesses.
_MOST = 64.0
#: Halvings of an interval; what is left of it is below 1e-12 of it.
_HALVINGS = 40


def lower_bound(guesses: int, correct: int, total: int, delta: float, confidence: float = 0.95) -> float:
    """The largest epsilon that so many right guesses refute; 0 if they refute none.

    Args:
        guesses: r, how many canaries were called in or out; the auditor abstains from the others.
        correct: v, how many of the guesses were right.
        total: m, how many canaries there were, in or out.
        delta: of the claim, in [0, 1). The theorem pays 2 m delta for it, so that above 1 / m little can be proved, and more canaries do not help.
        confidence: with this probability the bound is below the true epsilon; in (0, 1).

    Raises:
        PrivacyError: impossible counts, delta or confidence.
    """
    check(guesses, correct, total, delta, confidence)
    factorials = _log_factorials(guesses)

    def likely(epsilon: float) -> bool:
        return _p_value(factorials, correct, total, epsilon, delta) > 1 - confidence

    return first(likely, _MOST)


def _p_value(
    factorials: NDArray[np.float64], correct: int, total: int, epsilon: float, delta: float
) -> float:
    """At most the probability of so many right guesses.

    P[B >= v] + 2 m delta max_i P[v > B >= v - i] / i, where B counts the right guesses of r at the answers of randomised response.
    """
    mass = _binomial(factorials, -log1p(exp(-epsilon)), -epsilon - log1p(exp(-epsilon)))
    tail = float(mass[correct:].sum())
    if not correct or not delta:
        return tail
    below = np.cumsum(mass[:correct][::-1]) / np.arange(1, correct + 1)
    return tail + 2 * total * delta * float(below.max())


def proportion(hits: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Exact limits of a probability after `hits` in `trials`, each missed with at most half of what `confidence` leaves.

    Raises:
        PrivacyError: impossible counts or confidence.
    """
    check(trials, hits, trials, 0.0, confidence)
    return _least(hits, trials, confidence), 1.0 - _least(trials - hits, trials, confidence)


def _least(hits: int, trials: int, confidence: float) -> float:
    """The largest p at which `hits` or more are still too many to be chance."""
    factorials, level = _log_factorials(trials), (1 - confidence) / 2
    return first(lambda p: float(_binomial(factorials, log(p), log1p(-p))[hits:].sum()) > level, 1.0)


def rates(hits: int, members: int, alarms: int, others: int, delta: float, confidence: float = 0.95) -> float:
    """Lower bound of epsilon from an attack: DP has P[a member is accused] <= e^epsilon P[another is] + delta, and the same of not being accused.

    Args:
        hits: members accused, of `members` tried.
        alarms: others accused, of `others` tried.
        delta: of the claim.
        confidence: of the bound, where trials are independent and the attack was fixed before.

    Raises:
        PrivacyError: impossible counts, delta or confidence.
    """
    check(others, alarms, others, delta, confidence)
    caught, mistaken = proportion(hits, members, confidence)[0], proportion(alarms, others, confidence)[1]
    ratios = ((caught - delta) / mistaken, (1 - mistaken - delta) / (1 - caught))
    return max(0.0, *(log(max(ratio, 1.0)) for ratio in ratios))


def check(guesses: int, correct: int, total: int, delta: float, confidence: float) -> None:
    """Refuse with a PrivacyError counts that cannot be, delta outside [0, 1) and confidence outside (0, 1)."""
    if not 0 <= correct <= guesses <= total or not total:
        raise PrivacyError(
            f"{correct} of {guesses} guesses are right, about {total}",
            allowed="0 <= right <= guesses <= total, and a total of one at least",
        )
    if not 0 <= delta < 1:
        raise PrivacyError(f"delta is {delta}", allowed="a number in [0, 1), far below 1 / clients")
    if not 0 < confidence < 1:
        raise PrivacyError(f"confidence is {confidence}", allowed="a number between 0 and 1, such as 0.95")


def first(true: Callable[[float], bool], most: float) -> float:
    """Where in [0, most] a statement that goes on holding once it holds becomes true, from below."""
    low, high = 0.0, most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if true(middle) else (middle, high)
    return low


def _log_factorials(n: int) -> NDArray[np.float64]:
    """log 0! to log n!."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])


def _binomial(factorials: NDArray[np.float64], log_p: float, log_q: float) -> NDArray[np.float64]:
    """The probabilities of 0 to n successes, from the logarithms of both probabilities, so that neither is lost beside 1."""
    k = np.arange(len(factorials))
    ways = factorials[-1] - factorials - factorials[::-1]
    return np.asarray(np.exp(ways + k * log_p + k[::-1] * log_q))
