"""Goodness of fit: do draws have the distribution that they are said to have?"""

import numpy as np
from scipy.stats import chi2


def gaussian_pmf(sigma, reach):
    """Of the discrete Gaussian on -reach ... reach; what lies outside is left out."""
    k = np.arange(-reach, reach + 1)
    weights = np.exp(-(k**2) / (2 * sigma**2))
    return weights / weights.sum()


def laplace_pmf(scale, reach):
    """Of the discrete Laplace distribution."""
    return np.tanh(0.5 / scale) * np.exp(-np.abs(np.arange(-reach, reach + 1)) / scale)


def rounded_laplace_pmf(scale, reach):
    """Of a real Laplace number that is rounded to the nearest integer."""
    k = np.abs(np.arange(-reach, reach + 1))
    out = np.exp(-k / scale) * np.sinh(0.5 / scale)
    out[reach] = -np.expm1(-0.5 / scale)
    return out


def histogram(draw, total, reach, piece=1_000_000):
    """Counts of -reach ... reach, with what lies beyond in the first and the last; sum, and sum of squares. Memory for one piece at a time."""
    counts, first, second = np.zeros(2 * reach + 1, np.int64), 0.0, 0.0
    for _ in range(total // piece):
        draws = draw(piece)
        first += float(draws.sum())
        second += float(np.square(draws.astype(np.float64)).sum())
        counts += np.bincount(np.clip(draws, -reach, reach) + reach, minlength=2 * reach + 1)
    return counts, first, second


def fit(counts, pmf, least=50, most=2000):
    """The chance of a chi-square as large, with integers put together into at most about `most` cells of at least `least` expected draws.

    Many cells see a wrong entry of a table, few a distribution that is a little too wide.
    """
    total = counts.sum()
    cells = np.floor(np.cumsum(pmf) * total / least * 0.999).astype(np.int64)
    cells = cells // max(1, int(cells[-1]) // most)
    observed = np.bincount(cells, counts)
    expected = np.bincount(cells, pmf) * total
    kept = expected > 0
    observed, expected = observed[kept], expected[kept]
    if expected[-1] < least and len(expected) > 1:
        observed[-2] += observed[-1]
        expected[-2] += expected[-1]
        observed, expected = observed[:-1], expected[:-1]
    expected = expected * total / expected.sum()
    return float(chi2.sf(np.sum((observed - expected) ** 2 / expected), len(observed) - 1))
