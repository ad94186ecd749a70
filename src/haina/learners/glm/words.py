"""Words of tables: stars of significance as R prints them, and numbers for JSON, which has none that are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

LEGEND = "---\nSignif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


def stars(chance: float) -> str:
    """R's marks of a p-value; none for what is no number."""
    for limit, mark in ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, ".")):
        if chance <= limit:
            return mark
    return ""


def by_name(names: Sequence[str], values: Iterable[float]) -> dict[str, float | None]:
    """Coefficient by coefficient, as JSON takes numbers."""
    return {name: json_number(value) for name, value in zip(names, values, strict=True)}


def json_number(value: float) -> float | None:
    """A number as it is; None where JSON has none."""
    return float(value) if math.isfinite(value) else None
