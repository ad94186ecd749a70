"""Canaries: clients that send what nobody else would, so that the released models can be searched for them.

Andrew, Kairouz, Oh, Oprea, McMahan and Suriyakumar 2023, "One-shot Empirical Privacy Estimation for Federated Learning": in d dimensions random
directions are nearly at right angles, to each other and to what is learnt, so that many canaries can join one run and each can be looked for alone.
Here each joins by a fair coin, as one-run bounds ask for (`bounds.lower_bound`), and those that stayed out show what the score is by chance.

A canary is an ordinary client whose increment is `contribution`: longer than any clip, so that a clip that is off shows, and in every round
forwards or backwards by a coin of its own. Turning it round costs a correct federation nothing, and it parts the canary from everything that lasts:
the drift of learning, and noise that is used again.

Its score is the likelihood ratio of Gaussian noise. The cosine of each released increment with the canary, in units of what chance gives, is freed
from what the other rounds foretell of it (the inverse of the increments' correlation: independent noise passes, noise that returns cancels), and
the rounds are added up. Where only some clients take part in a round, each round adds log(1 - q + q e^(a x - a^2 / 2)): small shifts add up, and of
large ones the largest rounds count, as in the paper's maximum.

The trap: the coins must be hidden from whoever trains, and a canary that is out must be as out as any stranger: it sends nothing, or zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log, log1p, sqrt
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import PrivacyError
from haina.privacy.stream import Stream

#: Coordinates that are looked at together, and canaries whose bits (not numbers) are in memory together.
_COLUMNS, _ROWS, _BITS = 1 << 13, 256, 1 << 30

Real = TypeVar("Real", np.float32, np.float64)


@dataclass(frozen=True)
class Canaries:
    """Canaries that are made again from their seed whenever they are needed.

    Args:
        count: m, how many, in or out.
        dimension: d, the length of a model's vector.
        seed: 32 bytes of the auditor's, secret until the run has ended.
        norm: in which vectors are clipped. 2: each canary is a random corner of a cube, +-1 / sqrt(d) everywhere. 1: a single +-1 at a coordinate
            of its own, which is what noise on each coordinate hides worst.
        length: norm of a contribution, in clip limits; above 1, as a dishonest client would have it.
        turning: forwards and backwards by rounds. Without it a canary can be found in the final model alone, and what lasts hides it.

    Raises:
        PrivacyError: no canaries, no coordinates, fewer coordinates than canaries for norm 1, or a length that is not positive.
    """

    count: int
    dimension: int
    seed: bytes = field(repr=False)
    norm: Literal[1, 2] = 2
    length: float = 5.0
    turning: bool = True

    def __post_init__(self) -> None:
        if self.count < 1 or self.dimension < 1 or not 0 < self.length < inf:
            raise PrivacyError(
                f"{self.count} canaries of length {self.length} in {self.dimension} dimensions",
                allowed="one canary and one dimension at least, and a length above 0",
            )
        if self.norm == 1 and self.count > self.dimension:
            raise PrivacyError(
                f"{self.count} canaries for a model of {self.dimension} numbers, clipped in L1",
                allowed=f"at most {self.dimension}, a coordinate for each",
            )

    @cached_property
    def included(self) -> NDArray[np.bool_]:
        """`[m]`: the coins, who is in."""
        return self._bits("coins", self.count).astype(np.bool_)

    def vector(self, i: int) -> NDArray[np.float32]:
        """`[d]` canary i, of norm 1."""
        if self.norm == 1:
            out = np.zeros(self.dimension, np.float32)
            out[self._places[i]] = self._heads[i]
            return out
        corner = _signs(np.unpackbits(self._packed(i), count=self.dimension), np.float32)
        return corner * np.float32(1 / sqrt(self.dimension))

    def signs(self, round: int) -> NDArray[np.float32]:
        """`[m]` whether each canary points forwards (1) or backwards (-1) in a round."""
        if not self.turning:
            return np.ones(self.count, np.float32)
        return _signs(self._bits(f"round {round}", self.count), np.float32)

    def contribution(self, i: int, round: int, limit: float) -> NDArray[np.float32]:
        """`[d]` what canary i, if it is in, says that it has learnt in a round.

        Args:
            i: which.
            round: its number.
            limit: the clip limit of the round, in units of the model.
        """
        return self.vector(i) * np.float32(self.signs(round)[i] * limit * self.length)

    def scores(self, increment: Array) -> NDArray[np.float64]:
        """`[m]` inner products of an increment `[d]` with every canary, signs of the round left out.

        Raises:
            PrivacyError: an increment of another length, or with numbers that are not finite.
        """
        return self._projections([increment])[0][:, 0]

    def search(
        self,
        increments: Sequence[Array],
        rounds: Sequence[int] | None = None,
        *,
        rate: float = 1.0,
        shift: float = 1.0,
    ) -> NDArray[np.float64]:
        """`[m]` how much each canary looks like one that is in; comparable between the canaries of one search only.

        Args:
            increments: T released increments `[d]` (model after a round minus model before it); views of files are read in pieces.
            rounds: their numbers; 0 to T - 1 if not given.
            rate: q, the probability that a client takes part in a round.
            shift: a, a clipped contribution in standard deviations of the noise, 1 / noise multiplier. It matters for q < 1, and need not be exact.

        Raises:
            PrivacyError: no increment that is not zero everywhere, one of another length or with numbers that are not finite, or an impossible rate
                or shift.
        """
        numbers = list(range(len(increments)) if rounds is None else rounds)
        if len(numbers) != len(increments):
            raise PrivacyError(
                f"{len(increments)} increments have {len(numbers)} round numbers", allowed="a number for each"
            )
        if not 0 < rate <= 1 or not 0 < shift < inf:
            raise PrivacyError(f"rate is {rate} and shift {shift}", allowed="0 < rate <= 1 and shift > 0")
        projections, products = self._projections(increments)
        moved = np.flatnonzero(np.diag(products) > 0)
        if not len(moved):
            raise PrivacyError("no round has changed the model", remedy="Audit a run that has trained")
        units = 1 / np.sqrt(np.diag(products)[moved])
        # Chance gives cosines of variance 1 / d.
        cosines = projections[:, moved] * (units * sqrt(self.dimension))
        inverse = _inverse(products[np.ix_(moved, moved)] * np.outer(units, units), self.dimension)
        turns = np.stack([self.signs(numbers[t]) for t in moved], axis=1)
        evidence = turns * (cosines @ inverse)
        if rate == 1:
            return np.asarray(evidence.sum(axis=1))
        exponent = shift * evidence - shift**2 / 2 * np.diag(inverse)
        return np.asarray(np.logaddexp(log1p(-rate), log(rate) + exponent).sum(axis=1))

    def _projections(self, increments: Sequence[Array]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`[m, T]` inner products of canaries and increments, and `[T, T]` of increments. Canaries are never in memory all at once."""
        for increment in increments:
            if increment.shape != (self.dimension,):
                raise PrivacyError(
                    f"an increment has shape {increment.shape}", allowed=f"({self.dimension},)"
                )
        out = np.zeros((self.count, len(increments)))
        products = np.zeros((len(increments),) * 2)
        for columns, tile in self._tiles(increments):
            products += tile @ tile.T
            if self.norm == 1:
                here = np.flatnonzero((self._places >= columns.start) & (self._places < columns.stop))
                out[here] += (tile[:, self._places[here] - columns.start] * self._heads[here]).T
        for start in range(0, self.count if self.norm == 2 and len(increments) else 0, self._together):
            rows = slice(start, min(start + self._together, self.count))
            packed = np.stack([self._packed(i) for i in range(rows.start, rows.stop)])
            for columns, tile in self._tiles(increments):
                bits = np.unpackbits(
                    packed[:, columns.start // 8 : -(-columns.stop // 8)], axis=1, count=tile.shape[1]
                )
                out[rows] += _signs(bits, np.float64) @ tile.T
        return out * (1 / sqrt(self.dimension) if self.norm == 2 else 1.0), products

    def _tiles(self, increments: Sequence[Array]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """Columns, and `[T, columns]` of the increments."""
        for start in range(0, self.dimension, _COLUMNS):
            columns = slice(start, min(start + _COLUMNS, self.dimension))
            tile = np.array([increment[columns] for increment in increments], np.float64)
            if not np.isfinite(tile).all():
                raise PrivacyError("an increment holds numbers that are not finite", allowed="finite numbers")
            yield columns, tile

    @property
    def _together(self) -> int:
        return max(1, min(_ROWS, _BITS // self.dimension))

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """`[m]` coordinates, no two alike: those whose random keys are the smallest."""
        keys = Stream.derived(self.seed, "haina canary places").uint64(self.dimension)
        return np.argsort(keys, kind="stable")[: self.count].astype(np.int64)

    @cached_property
    def _heads(self) -> NDArray[np.float32]:
        return _signs(self._bits("heads", self.count), np.float32)

    def _packed(self, i: int) -> NDArray[np.uint8]:
        """The signs of canary i, eight to a byte."""
        if not 0 <= i < self.count:
            raise PrivacyError(f"there is no canary {i}", allowed=f"0 to {self.count - 1}")
        stream = Stream.derived(self.seed, f"haina canary vector {i}")
        return np.frombuffer(stream.bytes(-(-self.dimension // 8)), np.uint8)

    def _bits(self, purpose: str, size: int) -> NDArray[np.uint8]:
        data = Stream.derived(self.seed, f"haina canary {purpose}").bytes(-(-size // 8))
        return np.unpackbits(np.frombuffer(data, np.uint8), count=size)


def _signs(bits: NDArray[np.uint8], dtype: type[Real]) -> NDArray[Real]:
    """0 and 1 as -1 and 1."""
    return bits.astype(dtype) * 2 - 1


def _inverse(correlation: NDArray[np.float64], dimension: int) -> NDArray[np.float64]:
    """Of a correlation `[T, T]` that is first drawn towards independence, by as much as d coordinates leave it uncertain; so it always exists."""
    rounds = len(correlation)
    trust = dimension / (dimension + rounds)
    return np.asarray(np.linalg.inv(trust * correlation + (1 - trust) * np.eye(rounds)))
