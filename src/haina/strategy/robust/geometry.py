"""Distances read off a Gram matrix.

||x_i - x_j||^2 = G_ii + G_jj - 2 G_ij, and for a centre z = sum_j c_j x_j: ||x_i - z||^2 = G_ii - 2 (G c)_i + c'Gc. Rounding can make either slightly
negative, and what is left of two equal vectors is noise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from haina.update import Vector

#: A squared distance below this part of the squared norms that it is the difference of is rounding.
RESOLUTION = 16 * np.finfo(np.float64).eps


def squared_distances(gram: Vector) -> Vector:
    """`[n, n]` squared distances between rows; 0 where float64 cannot tell them apart."""
    squares = np.diag(gram)
    sums = squares[:, None] + squares[None]
    squared = sums - 2 * gram
    return np.where(squared > RESOLUTION * sums, squared, 0.0)


def distances(gram: Vector, centre: Vector) -> Vector:
    """`[n]` distances of the rows from the combination with coefficients `centre` `[n]`; 0 where float64 cannot tell them apart."""
    products = gram @ centre
    own, square = np.diag(gram), float(centre @ products)
    squared = own - 2 * products + square
    out: Vector = np.sqrt(np.where(squared > RESOLUTION * (own + abs(square)), squared, 0.0))
    return out


def nearest(squared: Vector, count: int) -> NDArray[np.intp]:
    """`[..., count]` row numbers of the smallest entries along the last axis; ties go to the earlier row."""
    return np.argsort(squared, axis=-1, kind="stable")[..., :count]


def indicator(index: NDArray[np.intp], n: int) -> Vector:
    """`[n]` ones at `index`, zeros elsewhere."""
    out = np.zeros(n)
    out[index] = 1.0
    return out
