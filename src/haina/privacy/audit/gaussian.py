"""The Gaussian mechanism: its epsilon in closed form, and what counted guesses prove about it.

A mechanism is mu-Gaussian-DP when telling whether a client is in is as hard as telling N(0, 1) from N(mu, 1) (Dong, Roth and Su 2022, "Gaussian
Differential Privacy"). T releases of noise multiplier s in which everyone takes part have mu = sqrt(T) / s, exactly, so that their whole claim is
one number.

* Balle and Wang 2018, "Improving the Gaussian Mechanism for Differential Privacy": delta at any epsilon, in two tails.
* Mahloujifar, Melis and Chaudhuri 2024, "Auditing f-Differential Privacy in One Run": what right guesses refute a curve. A curve says
  more than one of its points: of a true epsilon of 13, 1000 canaries prove 6 so, and 3.6 by `bounds.lower_bound`; and a large delta does no harm.

The trap: a claim is a curve like that only without sampling and with Gaussian noise. Of any other claim, use `bounds`.
"""

from __future__ import annotations

from math import erfc, exp, inf, log, log1p, pi, sqrt
from statistics import NormalDist

from haina.errors import PrivacyError
from haina.privacy.audit.bounds import check, first

_NORMAL = NormalDist()
#: Beyond it the tail of the normal distribution is its asymptotic series; float64 holds it up to 37.
_FAR = 30.0
#: No count proves a larger mu: nobody makes so many guesses.
_MOST = 40.0


def delta_of(mu: float, epsilon: float) -> float:
    """Delta of a mu-Gaussian-DP mechanism at an epsilon >= 0: theorem 8 of Balle and Wang."""
    if mu <= 0:
        return 0.0
    near, far = _log_tail(epsilon / mu - mu / 2), epsilon + _log_tail(epsilon / mu + mu / 2)
    return exp(near) - exp(far)


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest epsilon at `delta` of a mu-Gaussian-DP mechanism.

    Args:
        mu: >= 0; 0 tells nothing.
        delta: in (0, 1).

    Raises:
        PrivacyError: a number outside these ranges.
    """
    if not 0 <= mu < inf or not 0 < delta < 1:
        raise PrivacyError(f"mu is {mu} and delta {delta}", allowed="mu >= 0 and 0 < delta < 1")
    most = 1.0
    while delta_of(mu, most) > delta:
        most *= 2
    return first(lambda epsilon: delta_of(mu, epsilon) <= delta, most)


def lower_bound(guesses: int, correct: int, total: int, confidence: float = 0.95) -> float:
    """The largest mu that so many right guesses about fair coins refute; 0 if they refute none.

    Args:
        guesses: c, how many canaries were called in or out; the auditor abstains from the others.
        correct: how many of the guesses were right.
        total: m, how many canaries there were, in or out.
        confidence: with this probability the bound is below the true mu.

    Raises:
        PrivacyError: impossible counts or confidence.
    """
    check(guesses, correct, total, 0.0, confidence)
    if not correct:
        return 0.0
    return first(lambda mu: not _refuted(mu, guesses, correct, total, 1 - confidence), _MOST)


def _refuted(mu: float, guesses: int, correct: int, total: int, level: float) -> bool:
    """Whether `correct` or more right guesses have a probability below `level` under mu-Gaussian-DP.

    Let p_l be the probability of l right guesses, and look at one canary, any of the m. "It is guessed at rightly, and i or more are right" has
    probability sum_{l >= i} p_l l / m. With that one coin turned over the same guesses read "it is guessed at wrongly, and i - 1 or more are
    right", of probability sum_{l >= i - 1} p_l (c - l) / m, which the trade-off curve lets be no smaller than Phi(Phi^-1(the first) - mu). So a
    tail of `level` at `correct` needs a certain mass just below it, and that needs more below, and so on. If all of it exceeds c / m, no mechanism
    is like that.
    """
    share = guesses / total
    right, wrong = level * correct / total, level * (guesses - correct) / total
    for i in range(correct - 1, -1, -1):
        if right + wrong > share or right >= 1:
            return True
        needed = _NORMAL.cdf(_NORMAL.inv_cdf(right) - mu)
        if needed > wrong:
            right += (needed - wrong) * i / (guesses - i)
            wrong = needed
    return right + wrong > share


def _log_tail(x: float) -> float:
    """log P[N(0, 1) > x]."""
    if x < _FAR:
        return log(erfc(x / sqrt(2)) / 2)
    return -x * x / 2 - log(x * sqrt(2 * pi)) + log1p(-1 / x**2 + 3 / x**4)
