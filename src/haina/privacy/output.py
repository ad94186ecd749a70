"""Output perturbation: the coefficients of a regularised linear model, released with noise that fits how much one row can change them.

Chaudhuri, Monteleoni & Sarwate 2011, "Differentially Private Empirical Risk Minimization". With

    F(w) = 1/n * sum of loss(w . x_i, y_i) + l2 / 2 * |w|^2,

F is l2-strongly convex, so the minimiser moves by at most the gradient of the change divided by l2. One row replaced by another changes the gradient
by at most 2 L / n, where L bounds the gradient of one row's loss:

    |w - w'|_2 <= 2 L / (n l2).

The same holds with a row more or less and F a mean again, n being the larger number.

The traps: *every* coefficient must be in |w|^2, the intercept too (give the rows a column of ones, and count it in their length); without that there
is no bound at all. And the solver must have arrived: where it stops at a gradient of length g, the answer is up to g / l2 away from the minimiser.

The same number in other words: C = 1 / (n l2) in scikit-learn, lambda = l2 with alpha = 0 in R's glmnet, on rows that are not standardised.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from haina.errors import PrivacyError
from haina.privacy.mechanisms import Mechanism, release
from haina.privacy.stream import Stream


def sensitivity_logistic(n: int, l2: float, *, row: float = 1.0, gradient: float = 0.0) -> float:
    """How far one row can move the coefficients of a logistic regression, in L2.

    The loss log(1 + exp(-y w . x)) has a gradient no longer than |x|, so L is `row`.

    Args:
        n: rows, >= 1.
        l2: of the objective above, > 0.
        row: largest L2 norm of a row, > 0. Rows must be clipped to it (`clip_l2`).
        gradient: at which the solver stops at the latest, as an L2 norm of the gradient of F.

    Raises:
        PrivacyError: an argument is impossible; without `l2` one row may move the coefficients as far as it likes.
    """
    return _moved(n, l2, row, gradient, row=row)


def sensitivity_ridge(
    n: int, l2: float, *, row: float = 1.0, target: float = 1.0, gradient: float = 0.0
) -> float:
    """How far one row can move the coefficients of a ridge regression, in L2.

    The loss (w . x - y)^2 / 2 has no bounded gradient, but at a minimiser |w| <= target * max of s / (s^2 + l2) over the singular values s <= row of
    X / sqrt(n), so there L = row * (target + row * |w|).

    Args:
        n: rows, >= 1.
        l2: of the objective above, > 0.
        row: largest L2 norm of a row, > 0.
        target: largest size of a target, > 0.
        gradient: at which the solver stops at the latest.

    Raises:
        PrivacyError: an argument is impossible.
    """
    if not (0 < l2 < inf and 0 < row < inf and 0 < target < inf):
        return _moved(n, l2, 0.0, gradient, row=row, target=target)
    singular = min(row, sqrt(l2))
    longest = target * singular / (singular**2 + l2)
    return _moved(n, l2, row * (target + row * longest), gradient, row=row, target=target)


def perturbed(
    coefficients: Sequence[float] | NDArray[np.float64],
    sensitivity: float,
    mechanism: Mechanism,
    stream: Stream,
) -> NDArray[np.float64]:
    """Coefficients with the noise of one release, `[d]`.

    Args:
        coefficients: `[d]`, of the whole model.
        sensitivity: how far one row moves them, in L2. Laplace noise is measured against the L1 norm, which is up to sqrt(d) times that: from a few
            coefficients on, Gaussian noise is much less.
        mechanism: covers them.
        stream: random bits, never used before.

    Raises:
        PrivacyError: a number is not usable.
    """
    d = len(coefficients)
    return release(coefficients, sensitivity * (sqrt(d) if mechanism.norm == 1 else 1.0), mechanism, stream)


def _moved(n: int, l2: float, steepest: float, gradient: float, **sizes: float) -> float:
    if n < 1:
        raise PrivacyError(f"a model was fitted to {n} rows", allowed="1 or more")
    if not 0 < l2 < inf:
        raise PrivacyError(
            f"l2 is {l2}",
            allowed="a finite number > 0",
            remedy="Without it one row may move the coefficients without limit: regularise, or add noise while training",
        )
    if not 0 <= gradient < inf:
        raise PrivacyError(f"the solver stops at a gradient of {gradient}", allowed="a finite number >= 0")
    for name, size in sizes.items():
        if not 0 < size < inf:
            raise PrivacyError(f"{name} is {size}", allowed="a finite number > 0")
    return 2 * steepest / (n * l2) + 2 * gradient / l2
