"""The partial likelihood of one stratum: its logarithm, gradient and negative Hessian, with Efron's or Breslow's way with ties.

For d events at one time t, with risk set R (everybody whose time is at least t), tied set D, w = exp(x'b) and l = 0 .. d - 1:

    a_l = sum_R w - f_l sum_D w,       f_l = 0 (Breslow 1974), l / d (Efron 1977)
    log L = sum_D x'b - sum_l log a_l

and gradient and Hessian follow by differentiating (Therneau & Grambsch 2000, "Modeling Survival Data", sec. 3.1 and 3.3). Rows are sorted once by
time; all risk sets are then tails of cumulative sums, and the Hessian is two matrix products, so a stratum costs n p^2 however many event times it
has.

The traps: columns far from zero, which are centred here (the partial likelihood does not see a shift); and times that differ by rounding only,
which R's coxph takes as tied (`timefix`) and so does this.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from haina.strategy.sums import Sums
from haina.update import Vector

Ties = Literal["efron", "breslow"]

#: Times closer than this are one time, also relative to their mean (R's `aeqSurv`).
SAME = float(np.sqrt(np.finfo(np.float64).eps))


def partial_likelihood(X: Vector, time: Vector, event: Vector, beta: Vector, ties: Ties = "efron") -> Sums:
    """Sums of one stratum.

    Args:
        X: `[n, p]` design matrix, no column of ones.
        time: `[n]` finite times of event or censoring.
        event: `[n]` 1 for an event, 0 for censoring.
        beta: `[p]` coefficients.
        ties: how events at one time are counted.

    Returns:
        `deviance` is -2 log L, `outcome` the number of events, `examples` n.
    """
    n, p = X.shape
    if not n or not event.any():
        return Sums(np.zeros(p), np.zeros((p, p)), 0.0, float(n), 0.0, 0.0)
    order = np.argsort(-time, kind="stable")
    X, event = X[order] - X.mean(axis=0), event[order]
    rank = _ranks(time[order])
    eta = X @ beta
    top = float(eta.max())
    w = np.exp(eta - top)
    wX = w[:, None] * X
    # Row ends[k] closes the k-th time from the latest: the risk set of that time is all rows up to it.
    ends = np.append(np.flatnonzero(np.diff(rank)), n - 1)
    happened = event > 0
    deaths = np.bincount(rank[happened], minlength=len(ends))
    times = np.flatnonzero(deaths)
    at = np.repeat(times, deaths[times])
    step = np.arange(len(at)) - np.repeat(np.cumsum(deaths[times]) - deaths[times], deaths[times])
    fraction = step / deaths[at] if ties == "efron" else np.zeros(len(at))

    tied0 = np.bincount(rank[happened], w[happened], minlength=len(ends))
    tied1 = np.zeros((len(ends), p))
    np.add.at(tied1, rank[happened], wX[happened])
    a0 = np.cumsum(w)[ends][at] - fraction * tied0[at]
    a1 = np.cumsum(wX, axis=0)[ends][at] - fraction[:, None] * tied1[at]
    mean = a1 / a0[:, None]

    # Each row is in the risk set of every time that is not later than its own: sums over those times, from the earliest up.
    share = np.bincount(at, 1.0 / a0, minlength=len(ends))
    reach = np.cumsum(share[::-1])[::-1][rank]
    reach = reach - np.where(happened, np.bincount(at, fraction / a0, minlength=len(ends))[rank], 0.0)
    hessian = X.T @ (wX * reach[:, None]) - mean.T @ mean
    log_likelihood = float(eta[happened].sum() - (np.log(a0) + top).sum())
    return Sums(
        gradient=X[happened].sum(axis=0) - mean.sum(axis=0),
        hessian=(hessian + hessian.T) / 2,
        deviance=-2.0 * log_likelihood,
        examples=float(n),
        outcome=float(happened.sum()),
        saturated=0.0,
    )


def _ranks(time: Vector) -> NDArray[np.int64]:
    """`[n]` number of each distinct time, for times that do not rise."""
    distinct = np.unique(time)
    gaps = np.diff(distinct)
    size = float(np.abs(distinct).mean())
    same = (gaps <= SAME) | (gaps <= SAME * size)
    first = distinct[np.concatenate([[True], ~same])]
    place = np.searchsorted(first, time, side="right") - 1
    ranks: NDArray[np.int64] = (len(first) - 1 - place).astype(np.int64)
    return ranks
