"""Grid: vectors of numbers as vectors of integers modulo 2^32 or 2^64, so that a sum of them is exact and can be hidden.

A grid has a step: the value of one unit. A coordinate is rounded to one of its two neighbours at random, so that it is right on average: with the
fractional part f it goes up with probability f. Sums of rounded vectors are then sums of the vectors plus an error of at most sqrt(n) / 2 units.

The trap is the wrap. n clients with integers up to `most`, each with up to `tail` units of noise, stay in a word of b bits when

    n * (most + tail) <= 2^(b - 1) - 1,

and this is required of a grid before anything is sent, so that no sum can wrap. Where nobody asks, 2,000 clients who each send 0.5 can have a mean
of -7.69.

Steps made here are powers of two: dividing by them loses no bit, and rounding is unbiased to 2^-53 of a unit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, frexp, inf, ldexp, sqrt
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from haina.errors import PrivacyError
from haina.privacy.stream import Stream

#: Coordinates that are rounded together, so that their temporaries stay in a level-2 cache.
_BLOCK = 1 << 14


@dataclass(frozen=True)
class Grid:
    """Numbers as integers of a step.

    Args:
        step: the value of one unit, > 0.
        most: largest size of one client's integer before noise, >= 1.
        word: bits of a word, 32 or 64.

    Raises:
        PrivacyError: a setting is impossible, or `most` itself does not fit in a word.
    """

    step: float
    most: int
    word: Literal[32, 64] = 32

    def __post_init__(self) -> None:
        if self.word not in (32, 64):
            raise PrivacyError(f"words have {self.word} bits", allowed="32 or 64")
        if not 0 < self.step < inf:
            raise PrivacyError(f"the step of a grid is {self.step}", allowed="a finite number > 0")
        if not 1 <= self.most <= self.half:
            raise PrivacyError(
                f"the largest integer of a grid is {self.most}",
                allowed=f"1 to {self.half}, in {self.word} bits",
            )

    @classmethod
    def for_sum(
        cls,
        bound: float,
        clients: int,
        *,
        bits: int | None = None,
        word: Literal[32, 64] = 32,
        tail: Callable[[float], int] | int = 0,
    ) -> Grid:
        """The finest grid whose sums cannot wrap.

        Args:
            bound: largest size of a coordinate of one client, > 0.
            clients: n, vectors in one sum, >= 1.
            bits: of one client's integers with the sign, at least 2; the finest that fit if not given.
            word: bits of a word.
            tail: largest size of the noise on one client's coordinate in units, or what gives it for a step.

        Returns:
            A grid with a power of two as its step.

        Raises:
            PrivacyError: there is no such grid; the message has the numbers and the way out.
        """
        if not 2.0**-900 < bound < 2.0**900:
            raise PrivacyError(f"a coordinate is bounded by {bound}", allowed="a finite number > 0")
        if clients < 1:
            raise PrivacyError(f"{clients} clients are to be added up", allowed="1 or more")
        if bits is not None and not 2 <= bits <= word:
            raise PrivacyError(f"integers of {bits} bits are asked for", allowed=f"2 to {word}")
        # No client may use more than its part of the word.
        room = ((1 << (word - 1)) - 1) // clients
        if room < 1:
            raise PrivacyError(
                f"{clients} clients are to be added up in words of {word} bits",
                allowed=f"at most {(1 << (word - 1)) - 1}",
            )
        widest = room if bits is None else (1 << (bits - 1)) - 1
        step = _step(bound, widest)
        while True:
            grid = cls(step, max(1, ceil(bound / step)), word)
            units = tail if isinstance(tail, int) else tail(step)
            if grid.holds(clients, units):
                return grid
            # A coarser grid has less noise in units, until rounding is most of what it covers.
            if bits is not None or grid.most == 1:
                raise _wrap(clients, grid, units, bits)
            step *= 2

    @property
    def half(self) -> int:
        """Largest integer of a word, 2^(word - 1) - 1."""
        return (1 << (self.word - 1)) - 1

    def holds(self, clients: int, tail: int = 0) -> bool:
        """Whether so many clients, with noise of at most `tail` units each, can be added without a wrap."""
        return clients * (self.most + tail) <= self.half

    def sensitivity(self, bound: float, dimension: int, norm: Literal[1, 2] = 2) -> float:
        """How long a vector can be once it is rounded, in units.

        Rounding moves a coordinate by less than one unit, so by the triangle inequality d of them add less than sqrt(d) to the L2 norm and d to the
        L1 norm. Where that is much beside `bound / step`, the grid is too coarse; for Laplace noise that is so long before it is for Gaussian.

        Args:
            bound: largest norm before, as a value (not in units).
            dimension: d, coordinates that are rounded.
            norm: 1 or 2.
        """
        return bound / self.step + (dimension if norm == 1 else sqrt(dimension))

    def quantise(self, values: ArrayLike, stream: Stream) -> NDArray[np.int64]:
        """Numbers as integers, rounded at random and right on average.

        Args:
            values: `[d]` numbers of size at most `most * step`.
            stream: random bits, 8 bytes for a coordinate.

        Returns:
            `[d]` integers of size at most `most`.

        Raises:
            PrivacyError: a number is not finite, or too large; it must be clipped before.
        """
        numbers = np.asarray(values, np.float64)
        out = np.empty(numbers.shape, np.int64)
        for start in range(0, len(numbers), _BLOCK):
            with np.errstate(over="ignore"):
                block = numbers[start : start + _BLOCK] / self.step
            # Written so that what is not a number fails too.
            if not max(block.max(), -block.min()) <= self.most * (1 + 2.0**-50):
                first = start + int(np.argmin(np.abs(block) <= self.most))
                raise PrivacyError(
                    f"coordinate {first} of a vector is {numbers[first]:g}",
                    allowed=f"numbers of size at most {self.most * self.step:g}",
                    remedy="Clip it before, or ask for a wider range",
                )
            low = np.floor(block)
            block -= low
            # Signed, for processors have one instruction to make those numbers, and none for unsigned ones.
            dither = (stream.uint64(len(block)) >> np.uint64(11)).view(np.int64).astype(np.float64)
            dither *= 2.0**-53
            integers = low.astype(np.int64)
            integers += dither < block
            # A step that is no power of two may lead one unit too far.
            np.clip(integers, -self.most, self.most, out=out[start : start + _BLOCK])
        return out

    def words(self, integers: NDArray[np.int64]) -> NDArray[Any]:
        """Integers as words, in two's complement: uint32 or uint64, `[d]`.

        Raises:
            PrivacyError: an integer has no place in a word.
        """
        array = np.asarray(integers, np.int64)
        if array.size and not (-self.half <= int(array.min()) and int(array.max()) <= self.half):
            raise PrivacyError(
                f"an integer of size {max(-int(array.min()), int(array.max()))} is to be sent",
                allowed=f"at most {self.half}, in {self.word} bits",
                remedy="Make the grid with `for_sum`, which leaves room for the noise",
            )
        return array.astype(np.uint32 if self.word == 32 else np.uint64)

    def integers(self, words: NDArray[Any]) -> NDArray[np.int64]:
        """Words, or sums of them, as signed integers `[d]`."""
        unsigned, signed = (np.uint32, np.int32) if self.word == 32 else (np.uint64, np.int64)
        return np.asarray(words, unsigned).view(signed).astype(np.int64)

    def values(self, integers: NDArray[np.int64]) -> NDArray[np.float64]:
        """Integers as numbers, `[d]`."""
        return np.asarray(integers, np.float64) * self.step


def _step(bound: float, most: int) -> float:
    """The smallest power of two of which `bound` has at most `most`."""
    step = ldexp(1.0, frexp(bound)[1] - most.bit_length() - 1)
    while ceil(bound / step) > most:
        step *= 2
    return step


def _wrap(clients: int, grid: Grid, tail: int, bits: int | None) -> PrivacyError:
    asked = "" if bits is None else f" in {bits} bits"
    ways = ["ask for fewer clients in one sum"]
    if bits is not None:
        ways.append("ask for fewer bits")
    if tail:
        ways.append("add less noise")
    if grid.word == 32:
        ways.append("use words of 64 bits")
    return PrivacyError(
        f"{clients} clients with integers up to {grid.most}{asked} and noise up to {tail} do not fit in words of {grid.word} bits",
        allowed=f"clients * (integer + noise) <= {grid.half}",
        remedy=f"{', or '.join(ways).capitalize()}",
    )
