"""Validate: what may take part at all, and how long an update may be.

An update that is not a usable vector (shape, dtype, NaN, Inf) or whose report is impossible is refused with the reason; the round goes on
without it. Clipping bounds what one client can do to the mean: an update longer than C is scaled to length C. The scale is one number a
client; the vector itself is never copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from haina.artifact import Array
from haina.errors import StrategyError
from haina.report import Report
from haina.strategy.parts import Needs, Payload, State
from haina.update import BLOCK, Update, Vector


def refusal(update: Update, dimension: int, payload: Payload, *, seen: bool = False) -> str | None:
    """Why an update cannot be used, in words; None for a usable one.

    Args:
        update: as it arrived.
        dimension: required length of the vector; any length is fine for collected payloads.
        payload: collected payloads are bytes (uint8); the others floating-point numbers.
        seen: all numbers are known to be finite.
    """
    report: object = update.report
    vector: Any = update.vector
    if not isinstance(report, Report) or not (seen or isinstance(vector, np.ndarray)):
        return "the update is not a vector with a report"
    fault = report.fault()
    if fault is not None:
        return f"the report is impossible: {fault}"
    if len(vector.shape) != 1 or (payload is not Payload.COLLECT and vector.shape[0] != dimension):
        return f"the update has shape {tuple(vector.shape)} where ({dimension},) is needed"
    if payload is Payload.COLLECT:
        return (
            None if vector.dtype == np.uint8 and vector.shape[0] else "the update is not a document of bytes"
        )
    if not np.issubdtype(vector.dtype, np.floating):
        return f"the update has dtype {vector.dtype} where floating-point numbers are needed"
    for start in range(0, 0 if seen else vector.shape[0], BLOCK):
        finite = np.isfinite(vector[start : start + BLOCK])
        if not finite.all():
            return f"coordinate {start + int(np.argmin(finite))} of the update is not a finite number"
    return None


def squared_norm(vector: Array) -> float:
    """Squared L2 norm of one vector; products and sums in float64, in a fixed order.

    Not by BLAS, whose order depends on the processor and its threads: clipping makes weights of this, and an update must weigh the same on every
    machine.
    """
    total = 0.0
    for start in range(0, vector.shape[0], BLOCK):
        block = vector[start : start + BLOCK].astype(np.float64)
        total += float(np.square(block, out=block).sum())
    return total


class Clip(Protocol):
    """A rule for the longest update."""

    needs: ClassVar[Needs]

    def init(self) -> State:
        """What the rule remembers before the first round."""

    def scales(self, norms: Vector, state: State) -> Vector:
        """`[n]` norms -> `[n]` factors in (0, 1]."""

    def update(self, norms: Vector, state: State) -> State:
        """What the rule remembers after a round with these norms."""


class Bound(Clip, Protocol):
    """A rule whose limit is known before a round, so that clients can keep to it themselves."""

    def limit(self, state: State) -> float:
        """The longest update of the round that begins."""

    def follow(self, unclipped: float | None, state: State) -> State:
        """What the rule remembers after a round in which that share of the updates was no longer than the limit; None: nobody knows."""


def _shorten(norms: Vector, limit: float) -> Vector:
    return limit / np.maximum(norms, limit)


@dataclass(frozen=True)
class FixedClip:
    """Scale updates down to L2 norm `max_norm` (> 0)."""

    needs: ClassVar[Needs] = Needs.COUNTS
    max_norm: float = 1.0

    def __post_init__(self) -> None:
        _positive("max_norm", self.max_norm)

    def init(self) -> State:
        """Nothing is remembered."""
        return {}

    def limit(self, state: State) -> float:
        """`max_norm`."""
        return self.max_norm

    def scales(self, norms: Vector, state: State) -> Vector:
        """Factors min(1, max_norm / norm)."""
        return _shorten(norms, self.max_norm)

    def follow(self, unclipped: float | None, state: State) -> State:
        """Nothing is remembered."""
        return {}

    def update(self, norms: Vector, state: State) -> State:
        """Nothing is remembered."""
        return {}


@dataclass(frozen=True)
class AdaptiveClip:
    """A limit that follows a quantile of the norms (Andrew et al. 2021, "Differentially Private Learning with Adaptive Clipping").

    After each round C <- C * exp(-rate * (b - quantile)), with b the share of updates no longer than C.

    Args:
        quantile: target share of updates left unclipped, in (0, 1).
        start: the first limit, > 0.
        rate: learning rate of the logarithm of the limit, > 0 (0.2 in the paper).
    """

    needs: ClassVar[Needs] = Needs.COUNTS
    quantile: float = 0.5
    start: float = 1.0
    rate: float = 0.2

    def __post_init__(self) -> None:
        _positive("start", self.start)
        _positive("rate", self.rate)
        if not 0 < self.quantile < 1:
            raise StrategyError(f"quantile is {self.quantile}", allowed="a number in (0, 1)")

    def init(self) -> State:
        """The limit, as an array of one number."""
        return {"limit": np.array(self.start, dtype=np.float64)}

    def limit(self, state: State) -> float:
        """C of this round."""
        return float(state["limit"])

    def scales(self, norms: Vector, state: State) -> Vector:
        """Factors min(1, C / norm) with the limit of this round."""
        return _shorten(norms, float(state["limit"]))

    def update(self, norms: Vector, state: State) -> State:
        """The limit of the next round."""
        return self.follow(float(np.mean(norms <= self.limit(state))) if len(norms) else None, state)

    def follow(self, unclipped: float | None, state: State) -> State:
        """The limit of the next round, from b."""
        if unclipped is None:
            return state
        return {"limit": state["limit"] * np.exp(-self.rate * (unclipped - self.quantile))}


@dataclass(frozen=True)
class MedianClip:
    """Scale updates down to `multiple` times the cohort's median norm; needs every norm before the first vector is folded."""

    needs: ClassVar[Needs] = Needs.VECTORS
    multiple: float = 1.5

    def __post_init__(self) -> None:
        _positive("multiple", self.multiple)

    def init(self) -> State:
        """Nothing is remembered."""
        return {}

    def scales(self, norms: Vector, state: State) -> Vector:
        """Factors min(1, multiple * median / norm); ones when the median is zero."""
        median = float(np.median(norms)) if len(norms) else 0.0
        return _shorten(norms, self.multiple * median) if median > 0 else np.ones_like(norms)

    def update(self, norms: Vector, state: State) -> State:
        """Nothing is remembered."""
        return {}


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise StrategyError(f"{name} is {value}", allowed="a finite number > 0")
