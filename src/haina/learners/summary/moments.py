"""Moments in two passes: means from plain sums, then sums of deviations from these means, so that nothing cancels.

With m near the mean, S1 = sum (x - m), S2 = sum (x - m)^2:   mean = m + S1 / n,   variance = (S2 - S1^2 / n) / (n - 1)

(Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 1.7, the corrected two-pass algorithm). Sums of squares alone would
lose all digits of a column like a year of birth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haina.update import Vector


@dataclass(frozen=True)
class Moments:
    """Counts and sums of c columns around a centre. Arrays are `[c]`.

    Args:
        count: values that are not missing.
        first: sum of deviations.
        second: sum of their squares.
    """

    count: Vector
    first: Vector
    second: Vector

    @classmethod
    def around(cls, columns: Vector, centre: Vector) -> Moments:
        """Of `[N, c]` values, NaN where one is missing."""
        there = np.isfinite(columns)
        away = np.where(there, columns - centre, 0.0)
        return cls(there.sum(axis=0).astype(np.float64), away.sum(axis=0), (away**2).sum(axis=0))

    @classmethod
    def unpack(cls, vector: Vector) -> Moments:
        """The inverse of `pack`."""
        return cls(*np.split(vector, 3))

    def pack(self) -> Vector:
        """One vector `[3 c]`."""
        return np.concatenate([self.count, self.first, self.second])

    def mean(self, centre: Vector) -> Vector:
        """Means; the centre where there are no values."""
        return centre + self.first / np.maximum(self.count, 1.0)

    @property
    def variance(self) -> Vector:
        """Sample variances (n - 1); 0 for less than two values."""
        n = np.maximum(self.count, 1.0)
        return np.maximum(self.second - self.first**2 / n, 0.0) / np.maximum(self.count - 1.0, 1.0)
