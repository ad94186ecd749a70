"""Attacks: a class for each published way to falsify labels or updates.

Conventions differ between papers and libraries, so each class says its own. `mean` and `std` are over the honest rows of the round, coordinate
by coordinate, with ddof = 1, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import DataError
from haina.simulation.attack import Attack as Attack
from haina.update import Vector


@dataclass(frozen=True)
class LabelFlip(Attack):
    """Train on y -> classes - 1 - y (Fang et al. 2020, "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning")."""

    relabels: ClassVar[bool] = True

    def relabel(self, y: Array, classes: int) -> Array:
        """See `Attack.relabel`."""
        if not classes:
            raise DataError("targets that are values have no labels to flip", allowed="classes")
        return classes - 1 - y


@dataclass(frozen=True)
class LyingReports(Attack):
    """Train and send honestly, and exaggerate in the report alone.

    With a label flip: `LabelFlip(exaggerate=10)`. Measured: 3 label flippers of 30 clients that report ten times the median of examples take
    FedAvg on digits from 0.95 to 0.55.
    """

    exaggerate: float = field(default=10.0, kw_only=True)


@dataclass(frozen=True)
class SignFlip(Attack):
    """Send -scale times the own update. (byzfl's attack of that name flips the honest mean, which is `IPM(1)`.)"""

    forges: ClassVar[bool] = True
    scale: float = 1.0

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        return -self.scale * own


@dataclass(frozen=True)
class Gaussian(Attack):
    """Send noise whose root mean squared norm is scale * ||mean||."""

    forges: ClassVar[bool] = True
    scale: float = 3.0

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        deviation = float(self.scale * np.linalg.norm(honest.mean(axis=0)) / np.sqrt(own.shape[1]))
        return deviation * rng.standard_normal(own.shape)


@dataclass(frozen=True)
class ALIE(Attack):
    """A little is enough: all send mean - z * std (Baruch et al. 2019); byzfl's sign is z < 0."""

    forges: ClassVar[bool] = True
    z: float = 1.5

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        return _all_send(honest.mean(axis=0) - self.z * _std(honest), own)


@dataclass(frozen=True)
class IPM(Attack):
    """Inner-product manipulation: all send -epsilon * mean (Xie et al. 2020, "Fall of Empires")."""

    forges: ClassVar[bool] = True
    epsilon: float = 0.8

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        return _all_send(-self.epsilon * honest.mean(axis=0), own)


@dataclass(frozen=True)
class Mimic(Attack):
    """All copy one honest client, which then counts many times over (Karimireddy et al. 2022).

    Args:
        victim: position among the honest clients of the round, taken modulo their number.
    """

    forges: ClassVar[bool] = True
    victim: int = 0

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        return _all_send(honest[self.victim % len(honest)], own)


@dataclass(frozen=True)
class MinMax(Attack):
    """The farthest point along -std that is no farther from any honest row than they are from each other (Shejwalkar and Houmansadr 2021,
    the min-max attack with the inverse-standard-deviation perturbation).

    All send mean + gamma * p with p = -std. With a_i = mean - h_i and D the largest honest distance, ||a_i + gamma p|| <= D is a quadratic in
    gamma, so the largest gamma is found in closed form and not by bisection.
    """

    forges: ClassVar[bool] = True

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        mean, p = honest.mean(axis=0), -_std(honest)
        a = mean - honest
        gram = a @ a.T
        squares = np.diag(gram)
        farthest = (squares[:, None] + squares[None, :] - 2 * gram).max()
        along, length = a @ p, p @ p
        if not length > 0:
            return _all_send(mean, own)
        root = np.sqrt(along**2 + length * np.maximum(farthest - squares, 0.0))
        return _all_send(mean + ((root - along) / length).min() * p, own)


@dataclass(frozen=True)
class ScaledCopy(Attack):
    """Sybils: all send scale times the mean of what the attackers trained (the boost of Bagdasaryan et al. 2020)."""

    forges: ClassVar[bool] = True
    scale: float = 10.0

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        return _all_send(self.scale * own.mean(axis=0), own)


@dataclass(frozen=True)
class NaNSender(Attack):
    """Send not-a-number throughout, as a diverged or broken client does."""

    forges: ClassVar[bool] = True

    def forge(self, honest: Vector, own: Vector, rng: np.random.Generator) -> Vector:
        """See `Attack.forge`."""
        return np.full_like(own, np.nan)


def sleeper(start: int = 30, *, scale: float = 3.0, fraction: float = 0.2) -> Attack:
    """Honest until round `start`, to earn trust, then a sign flip."""
    return SignFlip(scale, start=start, fraction=fraction)


def on_off(period: int = 5, *, scale: float = 3.0, fraction: float = 0.2) -> Attack:
    """A sign flip for `period` rounds, honest conduct for as many, and so on."""
    return SignFlip(scale, period=period, fraction=fraction)


#: Name in a federation file -> attack; its settings are the fields of the class or the arguments of the function.
ATTACKS: dict[str, Callable[..., Attack]] = {
    "label_flip": LabelFlip,
    "lying_reports": LyingReports,
    "sign_flip": SignFlip,
    "gaussian": Gaussian,
    "alie": ALIE,
    "ipm": IPM,
    "mimic": Mimic,
    "min_max": MinMax,
    "scaled_copy": ScaledCopy,
    "nan_sender": NaNSender,
    "sleeper": sleeper,
    "on_off": on_off,
}


def _all_send(row: Vector, own: Vector) -> Vector:
    return np.repeat(row[None], len(own), axis=0)


def _std(rows: Vector) -> Vector:
    return rows.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(rows.shape[1])
