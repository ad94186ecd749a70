"""Amounts of data: how much a client's examples are worth (McMahan et al. 2017; effective samples; FedDisco, Ye et al. 2023).

The trap: label histograms reveal what a client holds; the factors that read them say so, and no client is asked for one otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from haina.errors import StrategyError
from haina.strategy.factors.quality import Accuracy
from haina.strategy.factors.reported import imputed, reported
from haina.strategy.parts import Needs, View
from haina.update import Vector

#: FedDisco counts a claim beyond this many times the median size as this many, or one liar would push all others below zero.
MOST_MEDIANS = 10.0


@dataclass(frozen=True)
class Uniform:
    """Every client counts the same."""

    needs: ClassVar[Needs] = Needs.COUNTS
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ()

    def values(self, view: View) -> Vector:
        """`[n]` ones."""
        return np.ones(len(view.clients))


@dataclass(frozen=True)
class Samples:
    """Number of examples n_k (McMahan et al. 2017, Alg. 1).

    Args:
        limit: more examples than this count as this many; None for no limit.
    """

    limit: float | None = None
    needs: ClassVar[Needs] = Needs.COUNTS
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("examples",)

    def __post_init__(self) -> None:
        if self.limit is not None and not 0 < self.limit < math.inf:
            raise StrategyError(f"the limit of samples is {self.limit}", allowed="a number > 0, or none")

    def values(self, view: View) -> Vector:
        """`[n]` examples."""
        return np.minimum(reported(view, "examples"), math.inf if self.limit is None else self.limit)


@dataclass(frozen=True)
class EffectiveSamples:
    """Effective samples: n_k * quality_k * exp(H_k) / C, with H_k the entropy of the client's labels over C classes.

    exp(H) is the number of classes that a client holds evenly, so ten thousand examples of one class count as a tenth of those of ten.
    Clients must report their label histogram to the server.

    Args:
        quality: accuracy, self-reported or checked; where nobody reports it, 1.
    """

    quality: Accuracy = field(default_factory=Accuracy)
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = True

    @property
    def needs(self) -> Needs:
        """What the quality needs."""
        return self.quality.needs

    @property
    def reads(self) -> tuple[str, ...]:
        """Examples, labels and what the quality reads."""
        return ("examples", "label_counts", *self.quality.reads)

    def values(self, view: View) -> Vector:
        """`[n]` effective samples; NaN without a label histogram."""
        labels = _label_shares(view)
        logs = np.log(labels, out=np.zeros_like(labels), where=labels > 0)
        diversity = np.exp(-(labels * logs).sum(axis=1)) / labels.shape[1]
        amounts: Vector = reported(view, "examples") * imputed(self.quality.values(view)) * diversity
        return amounts


@dataclass(frozen=True)
class Disco:
    """FedDisco (Ye et al. 2023): p_k ~ ReLU(n_k - a * d_k + b), with d_k the distance of the client's label shares from even ones.

    Sizes are in units of the cohort's mean, so that `a` and `b` mean the same for any number of clients: ReLU(K n_k / N - a d_k + b).
    Clients must report their label histogram to the server.

    Args:
        a: weight of the discrepancy, >= 0.
        b: credit that every client gets, >= 0.
    """

    a: float = 0.5
    b: float = 0.1
    needs: ClassVar[Needs] = Needs.REPORTS
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("examples", "label_counts")

    def __post_init__(self) -> None:
        if not (0 <= self.a < math.inf and 0 <= self.b < math.inf):
            raise StrategyError(f"FedDisco has a = {self.a} and b = {self.b}", allowed="finite numbers >= 0")

    def values(self, view: View) -> Vector:
        """`[n]` amounts >= 0; NaN without a label histogram."""
        sizes = imputed(reported(view, "examples"))
        sizes = np.minimum(sizes, MOST_MEDIANS * np.median(sizes))
        labels = _label_shares(view)
        discrepancy: Vector = np.linalg.norm(labels - 1 / labels.shape[1], axis=1)
        relative = sizes / max(float(sizes.mean()), 1e-300)
        return np.maximum(relative - self.a * discrepancy + self.b, 0.0)


def _label_shares(view: View) -> NDArray[np.float64]:
    """`[n, C]` label shares, C what most clients say; NaN rows for empty histograms and for those of another length."""
    counts = [report.label_counts or () for report in view.reports]
    lengths = Counter(len(row) for row in counts if row)
    classes = max(lengths, key=lambda length: (lengths[length], -length), default=1)
    table = np.full((len(counts), classes), np.nan)
    for i, row in enumerate(counts):
        total = sum(row)
        if len(row) == classes and min(row) >= 0 and total > 0:
            table[i] = [count / total for count in row]
    return table
