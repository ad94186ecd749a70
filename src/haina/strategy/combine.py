"""Combiners that need no view of the whole cohort: weighted means, the plain sum, and collection.

A weighted mean is three sums (`Terms`), each with one row a client, so the same `terms` serve a cohort in memory and a stream of uploads that
are folded one by one.

* `Mean`: FedAvg (McMahan et al. 2017, Alg. 1), sum p_k delta_k / sum p_k.
* `Nova`: FedNova (Wang et al. 2020, eq. 6), tau_eff * sum p_k delta_k / ||a_k||_1.
* `QFair`: q-FedAvg (Li et al. 2020, Alg. 2), sum F_k^q L delta_k / sum h_k.
* `Sum`: exact statistics (gradients, Hessians, counts) are added.
* `Collect`: byte strings (trees) are kept side by side.

The trap: a sum is not a mean times n once clients are left out, so `Sum` and `Collect` read a share only as in (> 0) or out.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from haina.artifact import Array
from haina.errors import LayoutError, RoundError, StrategyError
from haina.report import Report
from haina.strategy.parts import Combined, Needs, Payload, Terms
from haina.update import Cohort, Vector

#: q-FedAvg raises losses to powers; a loss below this counts as this (the authors' code adds the same amount).
LEAST_LOSS = 1e-10

#: Bytes of one length in a collection.
_LENGTH = 8


class Linear(ABC):
    """A combiner made of `terms`; the whole cohort goes through the same sums as a stream does."""

    needs: ClassVar[Needs] = Needs.COUNTS
    payload: ClassVar[Payload] = Payload.AVERAGE
    uses_shares: ClassVar[bool] = True
    gives_coefficients: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ()
    #: True when `terms` reads `squared_norms`; they cost a pass over the vectors.
    uses_norms: ClassVar[bool] = False

    @abstractmethod
    def terms(self, shares: Vector, reports: Sequence[Report], squared_norms: Vector) -> Terms:
        """The three sums; all arguments are `[n]`, and row k of the answer depends on row k of the arguments only."""

    def combine(self, cohort: Cohort, shares: Vector) -> Combined:
        """One vector `[d]` and its coefficients `[n]`; a zero vector when the weights sum to nothing."""
        norms = cohort.norms**2 if self.uses_norms else np.zeros(len(cohort))
        terms = self.terms(shares, cohort.reports, norms)
        coefficients = terms.numerator * terms.scale()
        return Combined(cohort.combine(coefficients), coefficients)


@dataclass(frozen=True)
class Mean(Linear):
    """FedAvg: the share-weighted mean (McMahan et al. 2017, Alg. 1). The shares need not sum to 1."""

    def terms(self, shares: Vector, reports: Sequence[Report], squared_norms: Vector) -> Terms:
        """Numerator and denominator are the shares."""
        return Terms(shares, shares)


@dataclass(frozen=True)
class Nova(Linear):
    """FedNova: normalised averaging (Wang et al. 2020, eq. 6).

    aggregate = tau_eff * sum p_k delta_k / ||a_k||_1, with p the normalised shares. Clients that took more steps no longer pull the model
    towards their own optimum. Unbiased as the local learning rate goes to 0; it can diverge with a large one and momentum (measured: 0.1, 0.9).

    Args:
        effective_steps: `"norm"`: tau_eff = sum p_k ||a_k||_1, the paper's; `"steps"`: tau_eff = sum p_k tau_k, which the authors' code uses when
            local training is proximal (mu != 0), where ||a_k||_1 < tau_k.

    Raises:
        StrategyError: another word.
    """

    effective_steps: Literal["norm", "steps"] = "norm"

    reads: ClassVar[tuple[str, ...]] = ("steps", "normalizer")

    def __post_init__(self) -> None:
        if self.effective_steps not in ("norm", "steps"):
            raise StrategyError(f"effective_steps is {self.effective_steps!r}", allowed="'norm' or 'steps'")

    def terms(self, shares: Vector, reports: Sequence[Report], squared_norms: Vector) -> Terms:
        """Numerator p / ||a||, denominator p, boost p ||a|| or p tau."""
        norm = np.array([report.norm_a for report in reports])
        steps = norm if self.effective_steps == "norm" else np.array([float(r.steps) for r in reports])
        return Terms(shares / norm, shares, shares * steps)


@dataclass(frozen=True)
class QFair(Linear):
    """q-FedAvg: a more even accuracy among clients (Li et al. 2020, Alg. 2).

    With L = 1 / learning_rate: aggregate = sum p_k F_k^q L delta_k / sum p_k h_k, where h_k = q F_k^(q-1) ||L delta_k||^2 + L F_k^q and F_k is the
    loss of the received model on the client's own data. q = 0 is the weighted mean. Shares stand for the paper's sampling probabilities.

    A client that reports no usable loss (missing, or below 0) is left out and has share 0 in the record. The trap: F_k is the client's word,
    and a high one buys a say, so this rule and robustness pull in opposite directions.

    Args:
        q: fairness exponent, >= 0; 0.1 to 5 in the paper.
        learning_rate: local learning rate, > 0.

    Raises:
        StrategyError: a setting out of range.
    """

    q: float = 1.0
    learning_rate: float = 0.1

    needs: ClassVar[Needs] = Needs.REPORTS
    reads: ClassVar[tuple[str, ...]] = ("loss_before",)
    uses_norms: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.q < math.inf:
            raise StrategyError(f"q is {self.q}", allowed="a finite number >= 0 (0 is FedAvg)")
        if not 0 < self.learning_rate < math.inf:
            raise StrategyError(f"learning_rate is {self.learning_rate}", allowed="a finite number > 0")

    def terms(self, shares: Vector, reports: Sequence[Report], squared_norms: Vector) -> Terms:
        """Numerator p F^q L, denominator p h."""
        said = np.array([np.nan if r.loss_before is None else r.loss_before for r in reports])
        usable = said >= 0
        loss = np.maximum(np.where(usable, said, 1.0), LEAST_LOSS)
        weight = np.where(usable, shares, 0.0)
        lipschitz = 1.0 / self.learning_rate
        power = loss**self.q
        h = self.q * loss ** (self.q - 1) * lipschitz**2 * squared_norms + lipschitz * power
        return Terms(weight * power * lipschitz, weight * h)


@dataclass(frozen=True)
class Sum(Linear):
    """The plain sum of the vectors of all clients with a positive share, each counted once: for exact statistics."""

    payload: ClassVar[Payload] = Payload.SUM
    uses_shares: ClassVar[bool] = False

    def terms(self, shares: Vector, reports: Sequence[Report], squared_norms: Vector) -> Terms:
        """Numerator 1 where the share is positive; there is no denominator."""
        return Terms((shares > 0).astype(np.float64))


@dataclass(frozen=True)
class Collect:
    """Keep the clients' byte strings side by side, for models that are a set of parts (trees).

    The vector is, for each client with a positive share in the order of the cohort, the length of its bytes (8 bytes, little-endian) and then
    the bytes; `split` is the inverse.
    """

    needs: ClassVar[Needs] = Needs.VECTORS
    payload: ClassVar[Payload] = Payload.COLLECT
    uses_shares: ClassVar[bool] = False
    gives_coefficients: ClassVar[bool] = False

    def combine(self, cohort: Cohort, shares: Vector) -> Combined:
        """uint8 rows of any lengths -> one uint8 vector.

        Raises:
            RoundError: a row is not a vector of uint8.
        """
        pieces: list[Array] = []
        lengths = np.full(len(cohort), np.nan)
        for k in np.flatnonzero(shares > 0):
            row = np.asarray(cohort.rows[int(k)])
            if row.dtype != np.uint8 or row.ndim != 1:
                raise RoundError(
                    f"client {cohort.clients[int(k)]!r} sent {row.dtype} of shape {row.shape} to be collected",
                    allowed="a vector of uint8",
                    remedy="Check that the learner's payload is 'collect'",
                )
            lengths[k] = len(row)
            pieces += [np.frombuffer(len(row).to_bytes(_LENGTH, "little"), np.uint8), row]
        vector = np.concatenate(pieces) if pieces else np.empty(0, np.uint8)
        return Combined(vector, None, {"bytes": lengths})


def split(vector: Array) -> list[Array]:
    """The byte strings that `Collect` put together, in order, as views.

    Raises:
        LayoutError: the lengths do not fit the bytes.
    """
    parts: list[Array] = []
    start = 0
    while start < len(vector):
        length = int.from_bytes(vector[start : start + _LENGTH].tobytes(), "little")
        start += _LENGTH
        if start + length > len(vector):
            raise LayoutError(
                f"a part claims {length} bytes of {max(len(vector) - start, 0)}",
                remedy="The collection was cut short or is damaged",
            )
        parts.append(vector[start : start + length])
        start += length
    return parts
