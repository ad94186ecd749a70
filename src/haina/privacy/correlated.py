"""Correlated noise: the noise of one round takes back a part of the noise of earlier ones, so that their sum, the model, has less of it.

DP-FTRL by matrix factorisation without sampling: Kairouz et al. 2021, "Practical and Private (Deep) Learning without Sampling or Shuffling"; banded
matrices: Choquette-Choo et al. 2023; the square root of the prefix sums as C: Fichtenberger, Henzinger & Upadhyay 2023. With x_r the sum of round r,

    released is  x + C^-1 z,  which is  C^-1 (C x + z),

C lower triangular and Toeplitz, with coefficients 1, 1/2, 3/8 ... cut to a band. What costs privacy is C x + z, once for all rounds together: z needs
the standard deviation of one Gaussian release whose sensitivity is that of C x for one client, who takes part at most `participations` times and at
least `separation` rounds apart. Where everyone takes part in every round nothing is gained, and the band is 1: independent noise.

Integers throughout. The coefficients are rounded to m / 2^16, so that u = 2^16 C x + z is an integer vector with discrete Gaussian noise. The answers
are made of u alone, and of earlier *answers*:

    y_r = round(u_r / 2^16 - sum over j >= 1 of c_j y_(r-j)).

Writing y = x + n, as x is an integer and `round` moves with integers, x cancels:

    n_r = round(z_r / 2^16 - sum over j >= 1 of c_j n_(r-j)).

So adding n_r to the sum of round r *is* post-processing of u, rounding and all; it is exact, and n needs nothing but z. The trap is to round C^-1 z
in floating point instead: whether a coordinate is rounded up would depend on z and no longer on u, and the argument ends there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.errors import PrivacyError
from haina.privacy.mechanisms import Mechanism
from haina.privacy.stream import Stream

Vector = NDArray[np.float64]

#: Bits after the point of a coefficient.
_BITS = 16


@dataclass(frozen=True)
class Banded:
    """A banded square root of the prefix sums.

    Args:
        rounds: n, of the whole training.
        separation: a client takes part in one of so many rounds in a row at most, >= 1.
        participations: and at most so often, >= 1.
        band: coefficients that are not zero, b; 0 takes the best of a few. Drawing keeps b - 1 vectors in memory, of
            4 bytes a coordinate where that is enough.

    Raises:
        PrivacyError: a setting is impossible.
    """

    rounds: int
    separation: int
    participations: int
    band: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "separation", "participations"):
            if getattr(self, name) < 1:
                raise PrivacyError(
                    f"{name} of correlated noise is {getattr(self, name)}", allowed="1 or more"
                )
        if not 0 <= self.band <= self.rounds:
            raise PrivacyError(
                f"the band of correlated noise is {self.band}", allowed=f"1 to {self.rounds}, the rounds"
            )
        if not self.band:
            widths = sorted(
                {min(b, self.rounds) for b in (1, 16, self.separation, 2 * self.separation, self.rounds)}
            )
            best = min(widths, key=lambda b: _loss(_integers(self.rounds, b), self))
            object.__setattr__(self, "band", best)

    @cached_property
    def integers(self) -> NDArray[np.int64]:
        """`[n]` coefficients in units of 2^-16: the first column of C."""
        return _integers(self.rounds, self.band)

    @property
    def coefficients(self) -> Vector:
        """`[n]`, the first column of C: 1, 1/2, 3/8 ... and zeros after the band."""
        return np.ldexp(self.integers.astype(np.float64), -_BITS)

    @property
    def inverse(self) -> Vector:
        """`[n]`, the first column of C^-1: how much of the noise z of each round before is in that of a round."""
        return _inverse(self.coefficients, self.band)

    @property
    def sensitivity(self) -> float:
        """Of C x in L2, where a client's vectors have L2 norm 1: at least 1."""
        return _sensitivity(self.coefficients, self)

    @property
    def rmse(self) -> float:
        """Root mean square, over rounds, of the noise in the sum of all rounds so far, where z has variance 1."""
        return _rmse(self.inverse)

    @cached_property
    def gain(self) -> float:
        """How many times less noise the model sees than with independent noise of the same privacy; at least about 1."""
        identity = _integers(self.rounds, 1)
        return _loss(identity, self) / (self.sensitivity * self.rmse)

    def allows(self, rounds: Sequence[int]) -> bool:
        """Whether a client may take part in these rounds, counted from 0; the noise covers no one else."""
        ordered = sorted(rounds)
        apart = all(b - a >= self.separation for a, b in pairwise(ordered))
        within = not ordered or (ordered[0] >= 0 and ordered[-1] < self.rounds)
        return apart and within and len(ordered) <= self.participations


class CorrelatedNoise:
    """The noise of round after round, on the grid of what is summed. All of it comes from one key, so that a run that resumes draws the same.

    The whole training is one release of the mechanism: `epsilon(mechanism, 1, delta)`.

    Args:
        matrix: how rounds are correlated.
        mechanism: Gaussian or DiscreteGaussian.
        sensitivity: of one round's integers in L2, in units of the grid (`Grid.sensitivity`).
        size: coordinates, d.
        key: 32 secret bytes of this training alone.

    Raises:
        PrivacyError: the mechanism is none for this, or so much noise does not fit in integers of 64 bits.
    """

    def __init__(
        self, matrix: Banded, mechanism: Mechanism, sensitivity: float, size: int, key: bytes
    ) -> None:
        if mechanism.norm != 2:
            raise PrivacyError(
                f"{type(mechanism).__name__} noise is to be correlated",
                allowed="gaussian or discrete_gaussian",
            )
        self._matrix, self._mechanism, self._size, self._key = matrix, mechanism, size, key
        self._sensitivity = sensitivity * matrix.sensitivity * (1 << _BITS)
        #: No number of any round is larger than this, in units.
        self.tail = self._tail()
        if self.tail * float(matrix.integers.sum()) > 2.0**62:
            raise PrivacyError(
                f"correlated noise may reach {float(self.tail):.3g} units",
                allowed=f"{2.0**62 / float(matrix.integers.sum()):.3g}",
                remedy="Take a coarser grid",
            )
        self._kept = np.int32 if self.tail < 2**31 else np.int64
        self._past: list[NDArray[Any]] = []
        self._next = 0

    def noise(self, round: int) -> NDArray[np.int64]:
        """The noise of a round, `[d]`; cheap for the next round, while any other is computed again from the first.

        Args:
            round: 0 ... n - 1.

        Raises:
            PrivacyError: there is no such round.
        """
        if not 0 <= round < self._matrix.rounds:
            raise PrivacyError(
                f"noise of round {round} is asked for", allowed=f"0 to {self._matrix.rounds - 1}"
            )
        if round < self._next:
            self._past, self._next = [], 0
        while self._next < round:
            self._advance()
        return self._advance()

    def _advance(self) -> NDArray[np.int64]:
        stream = Stream.derived(self._key, f"{self._next}")
        out = self._mechanism.noise(self._size, self._sensitivity, stream)
        for coefficient, before in zip(
            self._matrix.integers[1 : self._matrix.band], self._past, strict=False
        ):
            out -= coefficient * before
        out += 1 << (_BITS - 1)
        out >>= _BITS
        self._past = [out.astype(self._kept), *self._past][: self._matrix.band - 1]
        self._next += 1
        return out

    def _tail(self) -> int:
        # n = C^-1 (z / 2^16 + e), with each rounding error |e| <= 1/2.
        largest = self._mechanism.tail(self._sensitivity) / (1 << _BITS) + 1
        return ceil(float(np.abs(self._matrix.inverse).sum()) * largest * (1 + 1e-9))


def _integers(rounds: int, band: int) -> NDArray[np.int64]:
    """C's first column in units of 2^-16: binomial(2k, k) / 4^k, non-increasing as rounding keeps the order."""
    k = np.arange(1, band)
    column = np.zeros(rounds, np.int64)
    column[0] = 1 << _BITS
    column[1:band] = np.rint(np.cumprod((2 * k - 1) / (2 * k)) * (1 << _BITS))
    return column


def _inverse(column: Vector, band: int) -> Vector:
    out = np.zeros(len(column))
    out[0] = 1 / column[0]
    for r in range(1, len(column)):
        reach = min(r, band - 1)
        out[r] = -(column[1 : reach + 1] @ out[r - reach : r][::-1]) / column[0]
    return out


def _sensitivity(column: Vector, matrix: Banded) -> float:
    """Length of the columns of C that are `separation` apart, from the first on, added up.

    No other pattern has a longer sum, as the coefficients are >= 0 and fall: Kalinin & Lampert 2024, "Banded Square Root Matrix Factorization for
    Differentially Private Model Training".
    """
    total = np.zeros(len(column))
    for start in range(0, len(column), matrix.separation)[: matrix.participations]:
        total[start:] += column[: len(column) - start]
    return sqrt(float(np.square(total).sum()))


def _rmse(inverse: Vector) -> float:
    """Rows of A C^-1, A the prefix sums, are reversed cumulative sums of C^-1's first column."""
    return sqrt(float(np.cumsum(np.square(np.cumsum(inverse))).mean()))


def _loss(integers: NDArray[np.int64], matrix: Banded) -> float:
    column = np.ldexp(integers.astype(np.float64), -_BITS)
    band = int(np.count_nonzero(integers))
    return _sensitivity(column, matrix) * _rmse(_inverse(column, band))
