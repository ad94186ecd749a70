"""Gradient inversion: the picture that an update was computed from, read off its first layer.

The first dense layer computes W x + b. Its gradient for one row x is dW = g x^T and db = g, so each row of dW is the input times a number, and that
number is in db: for every unit i that was not silent, x = dW_i / db_i, to the last digit (Phong, Aono, Hayashi, Wang and Moriai 2018,
"Privacy-Preserving Deep Learning via Additively Homomorphic Encryption"; Geiping, Bauermeister, Dröge and Moeller 2020, "Inverting Gradients", on
networks that begin otherwise). No optimisation, no knowledge of the labels or of the rest of the network. Several steps on one row change nothing:
the sums of g cancel as g does. Of several rows a unit shows their mean, each weighted by its g, so that with ReLU a row stands alone in every unit
that it alone woke.

The trap is to think that a bound or an average hides: clipping scales dW and db alike and changes no quotient, and a sum of few clients still has
units of one row. Noise hides, and `similarity` says how well. Pictures of one kind resemble each other; the mean picture is taken off before they
are compared, or guessing it would look like success.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log10

import numpy as np
from numpy.typing import ArrayLike, NDArray

from haina.errors import PrivacyError


@dataclass(frozen=True)
class Match:
    """The reconstruction that is most like a true row.

    Args:
        row: `[features]`, as read off the update, clipped to the range of the data.
        unit: which unit of the layer gave it.
        similarity: correlation with the true row, beyond what all rows share; 1 is the row itself, and about 0 a guess.
        psnr: peak signal to noise ratio in decibels, with the range of the data as peak; infinite for an exact copy.
    """

    row: NDArray[np.float64]
    unit: int
    similarity: float
    psnr: float


def invert(weight: ArrayLike, bias: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """One candidate for an input row from each unit of a dense layer.

    Args:
        weight: `[units, features]` increment (or gradient) of W in W x + b; turn it for layers that compute x W + b.
        bias: `[units]` increment of b.

    Returns:
        `[n]` the units that were not silent, those of the largest |db| first, and `[n, features]` what each gives.

    Raises:
        PrivacyError: shapes that do not fit.
    """
    numerator, denominator = np.asarray(weight, np.float64), np.asarray(bias, np.float64)
    if numerator.ndim != 2 or denominator.shape != numerator.shape[:1]:
        raise PrivacyError(
            f"a layer with weights of shape {numerator.shape} and biases of shape {denominator.shape}",
            allowed="[units, features] and [units]",
        )
    units = np.argsort(-np.abs(denominator), kind="stable")
    units = units[np.abs(denominator[units]) > np.finfo(np.float64).tiny]
    return units.astype(np.int64), numerator[units] / denominator[units, None]


def similarity(reconstruction: ArrayLike, truth: ArrayLike, mean: ArrayLike = 0.0) -> float:
    """Correlation of two rows `[features]` from which `mean`, what all such rows share, is taken off; in [-1, 1], 0 where one is constant."""
    a, b = (np.asarray(row, np.float64) - np.asarray(mean, np.float64) for row in (reconstruction, truth))
    a, b = a - a.mean(), b - b.mean()
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / norms if norms > 0 else 0.0


def best(
    weight: ArrayLike,
    bias: ArrayLike,
    truth: ArrayLike,
    mean: ArrayLike = 0.0,
    range: tuple[float, float] = (0.0, 1.0),
) -> Match:
    """The candidate that is most like a true row: how much an attacker can have seen of it.

    Whoever looks for the best of many candidates finds some likeness in noise as well, about sqrt(2 log units / features).

    Args:
        weight: as for `invert`, as the next.
        bias: `[units]`.
        truth: `[features]` the row that was trained on.
        mean: `[features]` what all rows share, such as the mean picture.
        range: of the data; candidates are clipped to it.

    Raises:
        PrivacyError: shapes that do not fit, or a layer in which every unit was silent.
    """
    units, rows = invert(weight, bias)
    true = np.asarray(truth, np.float64)
    if true.shape != rows.shape[1:]:
        raise PrivacyError(f"a true row has shape {true.shape}", allowed=f"{rows.shape[1:]}")
    if not len(units):
        raise PrivacyError("every unit of the layer was silent", remedy="Take an update that has trained")
    rows = np.clip(rows, *range)
    scores = [similarity(row, true, mean) for row in rows]
    k = int(np.argmax(scores))
    error = float(np.mean((rows[k] - true) ** 2))
    psnr = 10 * log10((range[1] - range[0]) ** 2 / error) if error > 0 else inf
    return Match(rows[k], int(units[k]), scores[k], psnr)
