"""Membership inference: who of these rows was this model trained on?

* Loss threshold: a row that the model fits well was in its training (Yeom, Giacomelli, Fredrikson and Jha 2018, "Privacy Risk in Machine Learning").
* LiRA: what does the model say of this row, beside what models with it and models without it say (Carlini, Chien, Nasr, Song, Terzis and Tramèr
  2022, "Membership Inference Attacks From First Principles")? Each model of a set trained on random halves of a pool is attacked with the others as
  its shadows, so that K models give K attacks.

Both want confidence as a logit, log p / (1 - p) of the true class, which looks like a bell where p piles up at 1. `confidence` makes it of losses.

The trap: an AUC near 1/2 may hide a few rows that are found for certain. What counts is the share that is found at next to no false alarm, so
`Attack` has it at 1 % and at 0.1 %. Rows of one model are not independent of each other: its epsilon is an indication, and the test is the
canaries' (`finding`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from haina.errors import PrivacyError
from haina.privacy.audit import bounds

#: False alarm rates that are reported.
RATES = (0.01, 0.001)


@dataclass(frozen=True)
class Attack:
    """How well an attack tells members from others.

    Args:
        auc: probability that a member scores above another; 1/2 is chance.
        tpr_at_1: share of members found at 1 % false alarms.
        tpr_at_01: the same at 0.1 %.
        epsilon: lower bound from the counts, as if rows were independent.
        confidence: of `epsilon`.
    """

    auc: float
    tpr_at_1: float
    tpr_at_01: float
    epsilon: float
    confidence: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "auc": self.auc,
            "tpr_at_1_percent": self.tpr_at_1,
            "tpr_at_0.1_percent": self.tpr_at_01,
            "epsilon": self.epsilon,
            "confidence": self.confidence,
        }


def confidence(losses: ArrayLike) -> NDArray[np.float64]:
    """Logits of the true class from cross-entropies (natural logarithm, >= 0), any shape: log(p / (1 - p)) with p = e^-loss, within +-700.

    Raises:
        PrivacyError: a loss that is negative or not a number.
    """
    loss = np.asarray(losses, np.float64)
    if not (loss >= 0).all():
        raise PrivacyError("a loss is negative or not a number", allowed="cross-entropies, 0 or more")
    loss = np.clip(loss, 1e-300, 700.0)
    return np.asarray(-loss - np.log(-np.expm1(-loss)))


def threshold(losses: ArrayLike) -> NDArray[np.float64]:
    """Scores of the loss threshold attack: `[models, rows]` losses -> scores, larger where a row is more likely a member."""
    return -np.asarray(losses, np.float64)


def lira(
    logits: ArrayLike, members: NDArray[np.bool_], variance: Literal["row", "shared"] = "row"
) -> NDArray[np.float64]:
    """Log likelihood ratios of "in" to "out" under bells fitted to the other models (online LiRA).

    Args:
        logits: `[models, rows]` confidence of each model in the true class of each row.
        members: `[models, rows]` whether the row was in the model's training.
        variance: of a bell, from its row's models, or from all rows of a model under attack ("shared", for fewer than about 64 models).

    Returns:
        `[models, rows]` scores, larger where a row is more likely a member.

    Raises:
        PrivacyError: shapes that differ, numbers that are not finite, or a row that is in fewer than three of the models, or out of fewer.
    """
    phi, inside = np.asarray(logits, np.float64), np.asarray(members)
    _tables(phi, inside)
    fewest = int(min(inside.sum(axis=0).min(), (~inside).sum(axis=0).min()))
    if fewest < 3:
        raise PrivacyError(
            f"a row is in or out of only {fewest} of {len(phi)} models",
            allowed="three at least",
            remedy="Train more shadow models, each on a random half of the rows",
        )
    within, without = _bell(phi, inside, variance), _bell(phi, ~inside, variance)
    return np.asarray(_log_density(phi, *within) - _log_density(phi, *without))


def _bell(
    phi: NDArray[np.float64], mask: NDArray[np.bool_], variance: Literal["row", "shared"]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`[models, rows]` mean and variance over the marked models, the model under attack left out.

    Sums of squares are taken about a centre of each row, because large confidences that hardly differ would cancel.
    """
    centre = phi.mean(axis=0)
    own = np.where(mask, phi - centre, 0.0)
    count = mask.sum(axis=0) - mask
    mean = (own.sum(axis=0) - own) / count
    spread = np.maximum((np.square(own).sum(axis=0) - np.square(own)) / count - mean**2, 0.0) + 1e-9
    if variance == "shared":
        spread = np.broadcast_to(spread.mean(axis=1, keepdims=True), spread.shape)
    return mean + centre, spread


def _log_density(
    x: NDArray[np.float64], mean: NDArray[np.float64], variance: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.asarray(-np.square(x - mean) / (2 * variance) - np.log(variance) / 2)


def attack(
    scores: ArrayLike, members: NDArray[np.bool_], delta: float = 0.0, confidence: float = 0.95
) -> Attack:
    """How well scores tell members from others.

    Args:
        scores: `[models, rows]`, larger where a row is more likely a member.
        members: `[models, rows]` the truth.
        delta: at which epsilon is bounded.
        confidence: of the bound.

    Raises:
        PrivacyError: shapes that differ, numbers that are not finite, no member or nobody else.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(members)
    _tables(values, truth)
    inside, outside = values[truth], values[~truth]
    if not len(inside) or not len(outside):
        raise PrivacyError(
            f"{len(inside)} scores are of members and {len(outside)} of others", allowed="some of each"
        )
    cuts = [np.quantile(outside, 1 - rate) for rate in RATES]
    at_1, at_01 = (float((inside > cut).mean()) for cut in cuts)
    return Attack(_auc(inside, outside), at_1, at_01, _epsilon(values, truth, delta, confidence), confidence)


def _epsilon(values: NDArray[np.float64], truth: NDArray[np.bool_], delta: float, confidence: float) -> float:
    """The larger of the bounds at `RATES`: thresholds from one half of the models (or of the rows of one), counts from the other."""
    half = np.arange(values.size).reshape(values.shape) % 2 == 0
    if len(values) > 1:
        half = np.broadcast_to((np.arange(len(values)) % 2 == 0)[:, None], values.shape)
    learn, inside, outside = values[half & ~truth], values[~half & truth], values[~half & ~truth]
    if not len(learn) or not len(inside) or not len(outside):
        return 0.0
    best, each = 0.0, 1 - (1 - confidence) / len(RATES)
    for rate in RATES:
        cut = np.quantile(learn, 1 - rate)
        hits, alarms = int((inside > cut).sum()), int((outside > cut).sum())
        best = max(best, bounds.rates(hits, len(inside), alarms, len(outside), delta, each))
    return best


def _auc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Mann and Whitney's count of pairs in the right order, ties half."""
    order = np.sort(outside)
    wins = np.searchsorted(order, inside, "left") + np.searchsorted(order, inside, "right")
    return float(wins.mean()) / (2 * len(outside))


def _tables(values: NDArray[np.float64], members: NDArray[np.bool_]) -> None:
    if values.ndim != 2 or values.shape != members.shape or members.dtype != np.bool_ or not values.size:
        raise PrivacyError(
            f"scores of shape {values.shape}, members of shape {members.shape} and type {members.dtype}",
            allowed="two tables [models, rows], and the members true or false",
        )
    if not np.isfinite(values).all():
        raise PrivacyError("a score is not a finite number", allowed="finite numbers")
