"""Fields of a document from anywhere: lists, whole numbers and doubles, each checked before it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.errors import LayoutError
from haina.update import Vector


def entries(entry: dict[str, Any], key: str, limit: int, *, exact: bool = False) -> list[Any]:
    """The list under a key, of at most or exactly so many entries."""
    value = entry.get(key)
    if not isinstance(value, list) or len(value) > limit or (exact and len(value) != limit):
        found = f"{len(value)} entries" if isinstance(value, list) else type(value).__name__
        raise LayoutError(f"{key!r} has {found}", allowed=f"a list of {'' if exact else 'at most '}{limit}")
    return value


def natural(entry: dict[str, Any], key: str, limit: int) -> int:
    """The whole number under a key."""
    value = entry.get(key)
    if type(value) is not int or not 0 <= value <= limit:
        raise LayoutError(f"{key!r} is {str(value)[:80]}", allowed=f"a whole number from 0 to {limit}")
    return value


def whole(values: list[Any], low: int, high: int) -> NDArray[np.int64]:
    """Indices, each in bounds."""
    if not all(type(value) is int and low <= value <= high for value in values):
        wrong = next(value for value in values if type(value) is not int or not low <= value <= high)
        raise LayoutError(f"an index is {str(wrong)[:80]}", allowed=f"a whole number from {low} to {high}")
    return np.array(values, np.int64)


def numbers(values: list[Any]) -> Vector:
    """Finite doubles, from numbers or hexadecimal text."""
    try:
        numbers = np.array([_double(value) for value in values], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise LayoutError(
            "a threshold or vote is not a number", allowed="a number, or hexadecimal text"
        ) from error
    if not np.isfinite(numbers).all():
        raise LayoutError("a threshold or vote is not finite", allowed="finite numbers")
    return numbers


def _double(value: Any) -> float:
    if isinstance(value, str):
        return float.fromhex(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)
