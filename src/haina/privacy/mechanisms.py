"""Mechanisms: how much noise, of which distribution, covers a vector of integers, and what one release costs.

The noise is an integer on the vector's grid, drawn exactly (`haina.privacy.noise`). A floating-point number with floating-point noise has holes that
give away what it covers: Mironov 2012, "On Significance of the Least Significant Bits for Differential Privacy".

A real mechanism and its discrete twin differ in what is proved of them:

* `Laplace` is real Laplace noise, rounded: an integer plus it is a function of the real mechanism's answer, so its accountant holds exactly.
* `Gaussian` has the variance sigma^2 + 4. An integer plus real Gaussian noise is y; rounded at random, to k with probability ~ exp(-(k - y)^2 / 8),
  it is the integer plus discrete Gaussian noise of that variance, every probability right to a factor of 1 +- 5 exp(-8 pi^2) = 1 +- 2^-111 (Poisson's
  summation formula). So the real Gaussian's accountant holds, for vectors, sampling and all. On a fine grid the 4 units^2 are nothing.
* `DiscreteLaplace` and `DiscreteGaussian` are the distributions of that name with no allowance: for counts, where a unit is a person.

The trap is the sensitivity, which is that of the *whole vector*, in units of the grid, after rounding (`Grid.sensitivity`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor, inf, sqrt
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from haina.errors import PrivacyError
from haina.privacy.noise import gaussian, laplace
from haina.privacy.stream import Stream

#: A draw plus an integer of 62 bits stays in an int64.
_LARGEST = 1 << 62
#: Largest distance from the whole noise that the parties' noises may have, over all coordinates.
_DISTANCE = 1e-9
#: Units in the sensitivity of a real vector that is released by itself.
_UNITS = 1 << 30


@dataclass(frozen=True)
class Cost:
    """What one release costs the one whose data are in it, without amplification by sampling.

    Args:
        epsilon: of pure differential privacy; None where there is no finite one.
        delta: in [0, 1).
        rho: of zero-concentrated differential privacy (Bun & Steinke 2016).
    """

    epsilon: float | None
    delta: float
    rho: float


class Mechanism(Protocol):
    """Noise for an integer vector."""

    #: In which norm vectors are bounded.
    norm: ClassVar[Literal[1, 2]]

    def std(self, sensitivity: float) -> float:
        """Standard deviation of the noise on a coordinate, in the units of the sensitivity."""

    def tail(self, sensitivity: float, parties: int = 1) -> int:
        """No draw of one party is larger than this, in units of the grid."""

    def noise(self, size: int, sensitivity: float, stream: Stream, parties: int = 1) -> NDArray[np.int64]:
        """Noise for an integer vector, `[size]`.

        Args:
            size: coordinates.
            sensitivity: largest norm of the difference that one client makes to the integers, in units of the grid, > 0.
            stream: random bits, never used before.
            parties: the noise of one of so many, whose sum is the whole.

        Raises:
            PrivacyError: such noise cannot be made.
        """

    def cost(self) -> Cost:
        """Of one release."""


@dataclass(frozen=True)
class _Gaussian:
    """What the two Gaussian mechanisms share."""

    norm: ClassVar[Literal[1, 2]] = 2
    #: What the variance grows by, in units^2.
    _more: ClassVar[int]
    noise_multiplier: float

    def __post_init__(self) -> None:
        _positive("noise_multiplier", self.noise_multiplier)

    def std(self, sensitivity: float) -> float:
        """z times the sensitivity. What is drawn has sqrt(std^2 + 4) units for the real mechanism, and a little less below 1 for the other."""
        return self.noise_multiplier * sensitivity

    def tail(self, sensitivity: float, parties: int = 1) -> int:
        """13 standard deviations, or a little more."""
        return gaussian.reach(self._variance(sensitivity, parties))

    def noise(self, size: int, sensitivity: float, stream: Stream, parties: int = 1) -> NDArray[np.int64]:
        """Discrete Gaussian noise, `[size]`. See `Mechanism.noise`."""
        variance = self._variance(sensitivity, parties)
        _possible(gaussian.reach(variance))
        if parties > 1 and size * gaussian.distance_of_sum(variance, parties) > _DISTANCE:
            raise PrivacyError(
                f"the noise of one of {parties} parties has a standard deviation of {float(variance) ** 0.5:.3g} units",
                allowed="about 2 to 3 or more, so that the sum is as good as one draw",
                remedy="Take a finer grid, or fewer parties",
            )
        return gaussian.gaussian(size, variance, stream)

    def cost(self) -> Cost:
        """rho = 1 / (2 z^2)."""
        return Cost(None, 0.0, 0.5 / self.noise_multiplier**2)

    def _variance(self, sensitivity: float, parties: int) -> Fraction:
        """Of one party's noise, in units^2."""
        _positive("sensitivity", sensitivity)
        if parties < 1:
            raise PrivacyError(f"noise is to be made by {parties} parties", allowed="1 or more")
        return (Fraction(self.noise_multiplier) ** 2 * Fraction(sensitivity) ** 2 + self._more) / parties


@dataclass(frozen=True)
class Gaussian(_Gaussian):
    """Gaussian noise of standard deviation `noise_multiplier` times the L2 sensitivity, as if it were real.

    Args:
        noise_multiplier: z > 0. One release is 1 / (2 z^2)-zCDP.
    """

    _more: ClassVar[int] = 4


@dataclass(frozen=True)
class DiscreteGaussian(_Gaussian):
    """Discrete Gaussian noise of parameter sigma = `noise_multiplier` times the L2 sensitivity (Canonne, Kamath & Steinke 2020).

    Args:
        noise_multiplier: z > 0. One release of an integer vector is 1 / (2 z^2)-zCDP, exactly as the real Gaussian's.
    """

    _more: ClassVar[int] = 0


@dataclass(frozen=True)
class _Laplace:
    """What the two Laplace mechanisms share."""

    norm: ClassVar[Literal[1, 2]] = 1
    _rounded: ClassVar[bool]
    epsilon: float

    def __post_init__(self) -> None:
        _positive("epsilon", self.epsilon)

    def std(self, sensitivity: float) -> float:
        """sqrt(2) times the scale; discrete noise of a few units has a little less."""
        return sqrt(2) * sensitivity / self.epsilon

    def tail(self, sensitivity: float, parties: int = 1) -> int:
        """84 scales, or a little more."""
        return laplace.reach(self._scale(sensitivity, parties), rounded=self._rounded)

    def noise(self, size: int, sensitivity: float, stream: Stream, parties: int = 1) -> NDArray[np.int64]:
        """Laplace noise of scale sensitivity / epsilon, `[size]`. See `Mechanism.noise`; there are no parts of it."""
        scale = self._scale(sensitivity, parties)
        _possible(laplace.reach(scale, rounded=self._rounded))
        return laplace.laplace(size, scale, stream, rounded=self._rounded)

    def cost(self) -> Cost:
        """Epsilon, and rho = epsilon^2 / 2 (Bun & Steinke 2016, proposition 1.4)."""
        return Cost(self.epsilon, 0.0, self.epsilon**2 / 2)

    def _scale(self, sensitivity: float, parties: int) -> Fraction:
        _positive("sensitivity", sensitivity)
        if parties != 1:
            raise PrivacyError(
                f"Laplace noise is to be made by {parties} parties",
                allowed="one, for there is no Laplace noise in parts that are safe by themselves",
                remedy='Write mechanism = "discrete_gaussian", or noise = "central"',
            )
        return Fraction(sensitivity) / Fraction(self.epsilon)


@dataclass(frozen=True)
class Laplace(_Laplace):
    """Laplace noise of scale L1 sensitivity / epsilon on every coordinate, rounded to the grid.

    Args:
        epsilon: of one release, > 0. It is pure: delta is 0.
    """

    _rounded: ClassVar[bool] = True


@dataclass(frozen=True)
class DiscreteLaplace(_Laplace):
    """Two-sided geometric noise: k with probability ~ exp(-|k| epsilon / L1 sensitivity) (Ghosh, Roughgarden & Sundararajan 2009).

    Args:
        epsilon: of one release, > 0. It is pure: delta is 0.
    """

    _rounded: ClassVar[bool] = False


#: The kinds, by the names that a federation file calls them.
MECHANISMS: dict[str, Callable[[float], Mechanism]] = {
    "gaussian": Gaussian,
    "discrete_gaussian": DiscreteGaussian,
    "laplace": Laplace,
    "discrete_laplace": DiscreteLaplace,
}


def release(
    values: Sequence[float] | NDArray[np.float64],
    sensitivity: float,
    mechanism: Mechanism,
    stream: Stream,
) -> NDArray[np.float64]:
    """A few real numbers, released by themselves on a grid of 2^30 units in the sensitivity.

    Args:
        values: `[d]` finite numbers.
        sensitivity: largest norm, in the mechanism's, of the difference that one client makes, > 0.
        mechanism: covers them.
        stream: random bits, never used before.

    Returns:
        `[d]`.

    Raises:
        PrivacyError: a value is not finite, or the sensitivity not usable.
    """
    _positive("sensitivity", sensitivity)
    numbers = [float(value) for value in values]
    if not all(-inf < number < inf for number in numbers):
        raise PrivacyError("a value to be released is not finite", allowed="finite numbers")
    step, d = Fraction(sensitivity) / _UNITS, len(numbers)
    integers = [floor(Fraction(number) / step + Fraction(1, 2)) for number in numbers]
    # One number keeps its distance: the sensitivity is a whole number of units, and all are rounded alike. Of several, each gains one at most.
    rounding = 0.0 if d == 1 else float(d) if mechanism.norm == 1 else sqrt(d)
    noise = mechanism.noise(d, _UNITS + rounding, stream)
    # What happens to a sum once the noise is in it costs nothing.
    return np.array([float((k + int(e)) * step) for k, e in zip(integers, noise, strict=True)])


def laplace_scalar(value: float, epsilon: float, stream: Stream, sensitivity: float = 1.0) -> float:
    """One number with Laplace noise of scale sensitivity / epsilon.

    A coefficient of 2.5 at epsilon 0.5 gets noise of scale 2: on average 2.5, and 2 away from it. That is 0.5-differentially private when one person
    changes the coefficient by 1 at most, and when it is the only one: on each of d coefficients it is d times epsilon.

    Args:
        value: finite.
        epsilon: > 0.
        stream: random bits, never used before.
        sensitivity: how much one person can change the value.

    Raises:
        PrivacyError: a number is not usable.
    """
    return float(release([value], sensitivity, Laplace(epsilon), stream)[0])


def _positive(name: str, value: float) -> None:
    if not 0 < value < inf:
        raise PrivacyError(f"{name} is {value}", allowed="a finite number > 0")


def _possible(tail: int) -> None:
    if tail >= _LARGEST:
        raise PrivacyError(
            f"noise may reach {float(tail):.3g} units",
            allowed=f"less than {_LARGEST:.3g}",
            remedy="Take a coarser grid, or less noise",
        )
