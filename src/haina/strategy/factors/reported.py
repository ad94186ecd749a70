"""What clients reported as arrays, and what stands in for what they did not.

The trap: NaN is silence and counts as the cohort's median; an impossible number is no silence, and counts as 0.
"""

from __future__ import annotations

import math

import numpy as np

from haina.strategy.parts import View
from haina.update import Vector


def reported(view: View, name: str) -> Vector:
    """`[n]` values of a field of the report; NaN where it was left out."""
    values = (getattr(report, name) for report in view.reports)
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def median(values: Vector) -> float:
    """Median of the finite values, negative ones counted as 0; 1 when there are none."""
    ordered = np.sort(np.maximum(values[np.isfinite(values)], 0.0))
    if not len(ordered):
        return 1.0
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return float(low + (high - low) / 2)


def imputed(values: Vector) -> Vector:
    """Values fit for a share: impossible ones (negative, infinite) become 0, and unreported ones (NaN) the `median`."""
    possible = np.where(np.isfinite(values), np.maximum(values, 0.0), 0.0)
    return np.where(np.isnan(values), median(values), possible)
