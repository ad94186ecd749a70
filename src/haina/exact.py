"""Exact sums: weighted vectors added as whole numbers, so that neither order nor grouping can change a bit.

Floating-point addition depends on the order; addition of integers does not. Each product `weight * x` is therefore written in digits of 40 bits, and
digit k counts units of 2^(40 k - 43) in an int64 array of its own:

    digit      ...     -1          0         1         2     ...
    unit            2^-83      2^-43      2^-3      2^37
    holds up to     2^-40          1      2^40      2^80

A block of `BLOCK` numbers begins at the digit that holds its largest product, and goes on with what is left at the digit below:

* lossless sums (statistics in float64) until nothing is left: every bit down to 2^-203;
* the others (increments of models) down to digit 0, an error of at most 2^-44 = 6e-14 a product; float32 knows a weight of 0.01 to 1e-9. Where
  that would be fewer than 16 bits of the block's largest product, one digit further, so that models in tiny units can be summed too.

The products of an honest cohort lie below 1 and their blocks reach above 2^-27, so one array holds them all; an outlier opens another. Which digits a
block takes depends on its own numbers alone, so the digits too are the same for every order.

It is the idea of Kulisch's long accumulator, and of reproducible sums (Demmel & Nguyen 2015, "Parallel Reproducible Summation"), on a fixed grid.
Rounding to a unit is done by adding 1.5 * 2^52 units: the sum lies where float64 counts in units, so the difference of the bits is the integer.

The trap: integers wrap at 2^63. An addition brings at most 2^43 units to a digit, so fewer than 2^20 (`MOST`) never wrap; who opens a sum sees to it.

A vector that lies on a disk (`Stored`) is not read before the sum is. Of a few such vectors the digits never exist as a whole: block after block is
added up and read out, while it is in the processor's cache. No bit depends on it, because a block is read by what its own digits hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from math import frexp, ldexp
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from haina.artifact import Array
from haina.errors import LayoutError, RoundError

Digit = NDArray[np.int64]

#: Vectors in one sum, exclusive. A product p begins at the digit where |p| <= 2^43 units, and what is left for the digit below is at most half a
#: unit = 2^39 of its units: after n < 2^20 additions no digit exceeds (2^20 - 1) * 2^43 = 2^63 - 2^43. The carry of `value` is at most 2^23.
MOST = 1 << 20
#: Numbers that choose their digits together, so a part of the result's definition; as float64 half a megabyte, which stays in a level-2 cache.
BLOCK = 1 << 16
#: Numbers that are read out together; small, so that their temporaries are cheap to come by. Nothing else depends on it.
_STRETCH = 1 << 13
#: Bits from one digit to the next, and the exponent of digit 0's unit.
_STEP, _ORIGIN = 40, -43
#: A product that is not lossless keeps so many bits of the largest in its block.
_KEPT = 16
#: The last digit; 2^-203 is 8e-62. It bounds the memory that numbers of every size at once can ask for.
_LAST = -4
#: Products reach no further, so that 1.5 * 2^52 units of their digit is a number.
_LIMIT = 2.0**900
#: Vectors on a disk that wait together for the sum to be read: each holds a file open.
_TOGETHER = 64


class Stored(Protocol):
    """A vector that is not in memory. Blocks of it are read when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(d,)`."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the numbers."""

    def __getitem__(self, columns: slice) -> Array:
        """Some numbers; good until the next are asked for."""


class ExactSum:
    """A sum of weighted vectors, the same bits for every order of `add` and every tree of `merge`.

    Adding a vector again with the opposite weight takes it out without a trace.

    Args:
        dimension: d, the length of every vector.
        lossless: keep every bit, at the price of a digit more for each 40 bits between the largest and the smallest.
    """

    def __init__(self, dimension: int, *, lossless: bool = False) -> None:
        self.dimension, self.lossless = dimension, lossless
        #: Exponent of the unit -> `[d]`. An array that is not writeable is shared, and copied before it is written to.
        self._digits: dict[int, Digit] = {}
        #: Vectors that are still to be read, with their weights.
        self._waiting: list[tuple[Stored, float]] = []

    def add(self, vector: Array | Stored, weight: float, norm: float) -> None:
        """Add `weight * vector`; products in float64.

        Args:
            vector: `[d]` finite numbers; one that is not in memory is read when the sum is, so it must stay till then.
            weight: any finite number.
            norm: L2 norm of the vector, or another bound of its largest number.

        Raises:
            RoundError: the products are too large to be added, or not finite; the sum stays as it is.
            LayoutError: the vector has another length.
        """
        if vector.shape != (self.dimension,):
            raise LayoutError(f"a vector has shape {vector.shape}", allowed=f"({self.dimension},)")
        if not abs(weight) * norm < _LIMIT:
            raise RoundError(
                f"a vector of length {norm:g} has weight {weight:g}", allowed="a product below 2^900"
            )
        if not weight:
            return
        if isinstance(vector, np.ndarray):
            self._fold([(vector, weight)])
        else:
            self._waiting.append((vector, weight))
            if len(self._waiting) >= _TOGETHER:
                self._settle()

    def _settle(self) -> None:
        """Read what waits to be read."""
        if self._waiting:
            self._fold(self._waiting)
            self._waiting = []

    def _fold(self, terms: Iterable[tuple[Array | Stored, float]]) -> None:
        desk = _Desk(self.dimension, self.lossless)
        for start in range(0, self.dimension, BLOCK):
            columns = slice(start, min(start + BLOCK, self.dimension))
            desk.add(terms, columns, partial(self._part, columns))

    def merge(self, other: ExactSum) -> None:
        """Add what another sum holds, as if its vectors had been added here. Together they hold fewer than `MOST`.

        Raises:
            LayoutError: the other sum is of another kind.
        """
        if (other.dimension, other.lossless) != (self.dimension, self.lossless):
            raise LayoutError(
                f"a sum of {other.dimension} numbers (lossless: {other.lossless}) is to be merged",
                allowed=f"{self.dimension} numbers (lossless: {self.lossless})",
            )
        mine = other.snapshot()
        self._waiting += mine._waiting
        for exponent, theirs in mine._digits.items():
            if exponent in self._digits:
                ours = self._writeable(exponent)
                np.add(ours, theirs, out=ours)
            else:
                self._digits[exponent] = theirs

    def snapshot(self) -> ExactSum:
        """The sum as it is now. Nothing is copied before one of the two goes on."""
        for digit in self._digits.values():
            digit.flags.writeable = False
        out = ExactSum(self.dimension, lossless=self.lossless)
        out._digits, out._waiting = dict(self._digits), list(self._waiting)
        return out

    def value(self, scale: float = 1.0, dtype: DTypeLike = np.float64) -> Array:
        """`scale` times the sum, `[d]`: rounded to float64, multiplied, then rounded to `dtype`, in blocks."""
        out: Array = np.zeros(self.dimension, dtype)
        desk = _Desk(self.dimension, self.lossless)
        for start in range(0, self.dimension, BLOCK):
            columns = slice(start, min(start + BLOCK, self.dimension))
            digits = {exponent: digit[columns] for exponent, digit in self._digits.items()}
            copy = partial(desk.copy, digits, columns.stop - columns.start)
            added = desk.add(self._waiting, columns, copy)
            _read(digits | added, scale, out[columns])
        return out

    def to_arrays(self) -> dict[str, Array]:
        """The digits that are not zero everywhere, by the exponent of their unit: equal sums give equal arrays."""
        self._settle()
        return {
            str(exponent): self._digits[exponent]
            for exponent in sorted(self._digits)
            if self._digits[exponent].any()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], dimension: int, *, lossless: bool = False) -> Self:
        """The inverse of `to_arrays`. Arrays that are not writeable (views of a file's bytes) are not copied before they must be.

        Raises:
            LayoutError: an array is no digit of such a sum.
        """
        out = cls(dimension, lossless=lossless)
        for name, array in arrays.items():
            if name not in _NAMES or array.dtype != np.int64 or array.shape != (dimension,):
                raise LayoutError(
                    f"digit {name[:20]!r} of a sum holds {array.dtype} of shape {array.shape}",
                    allowed=f"int64 of shape ({dimension},)",
                    remedy="The bytes are damaged, or were written by another version",
                )
            out._digits[int(name)] = array
        return out

    def _part(self, columns: slice, exponent: int) -> Digit:
        return self._writeable(exponent)[columns]

    def _writeable(self, exponent: int) -> Digit:
        digit = self._digits.get(exponent)
        if digit is None:
            digit = self._digits[exponent] = np.zeros(self.dimension, np.int64)
        elif not digit.flags.writeable:
            digit = self._digits[exponent] = digit.copy()
        return digit


class _Desk:
    """Where one block's digits are added up.

    Between the bits of a rounded product and the integer in it is a difference that a digit's products share, so it is taken away once, for them all.
    """

    def __init__(self, dimension: int, lossless: bool) -> None:
        self._lossless = lossless
        size = min(BLOCK, dimension)
        self._rest, self._spare = np.empty(size), np.empty(size)
        self._copies: dict[int, Digit] = {}

    def add(
        self, terms: Iterable[tuple[Array | Stored, float]], columns: slice, place: Callable[[int], Digit]
    ) -> dict[int, Digit]:
        """Add the products of some vectors and their weights, `columns` of them.

        Args:
            terms: vectors and weights.
            columns: at most `BLOCK`.
            place: where a digit of the block is to be added to, by the exponent of its unit; asked once for each.

        Returns:
            The digits that were added to.
        """
        digits: dict[int, Digit] = {}
        counts: dict[int, int] = {}
        for vector, weight in terms:
            block = vector[columns]
            largest = abs(weight) * max(float(block.max()), -float(block.min()))
            if largest > 0:
                rest, spare = self._rest[: len(block)], self._spare[: len(block)]
                np.multiply(block, np.float64(weight), out=rest)
                for k, units in self._units(rest, spare, largest):
                    exponent = _ORIGIN + _STEP * k
                    if exponent not in digits:
                        digits[exponent], counts[exponent] = place(exponent), 0
                    np.add(digits[exponent], units, out=digits[exponent])
                    counts[exponent] += 1
        for exponent, digit in digits.items():
            # Modulo 2^64, as integers of 64 bits have it.
            extra = counts[exponent] * int(np.float64(ldexp(1.5, 52 + exponent)).view(np.int64)) % (1 << 64)
            np.subtract(digit, np.uint64(extra).view(np.int64), out=digit)
        return digits

    def copy(self, digits: Mapping[int, Digit], size: int, exponent: int) -> Digit:
        """A copy of a digit of a block, or zeros; good until that digit of the next block is copied."""
        if exponent not in self._copies:
            self._copies[exponent] = np.empty(len(self._rest), np.int64)
        copy = self._copies[exponent][:size]
        copy[:] = digits.get(exponent, 0)
        return copy

    def _units(
        self, rest: NDArray[np.float64], spare: NDArray[np.float64], largest: float
    ) -> Iterator[tuple[int, Digit]]:
        """Products, none above `largest`, as digits, each with the bits of its shift still in it. All arrays are overwritten as it goes on."""
        exponent = frexp(largest)[1]
        first = max(-(-exponent // _STEP), _LAST)
        last = max(min(0, (exponent - 1 - _KEPT - _ORIGIN) // _STEP), _LAST)
        if self._lossless:
            last = _LAST
        for k in range(first, last - 1, -1):
            shift = ldexp(1.5, 52 + _ORIGIN + _STEP * k)
            rounded = np.add(rest, shift, out=rest if k == last else spare)
            yield k, rounded.view(np.int64)
            if k > last:
                # Exact: what rounding to a unit leaves has no more bits than the number it was taken from.
                rounded -= shift
                rest -= rounded
                if not rest.any():
                    break


def _read(digits: Mapping[int, Digit], scale: float, out: Array) -> None:
    """Write a block of the sum, in stretches. Digits without a number are passed over, so that nothing depends on why they are there."""
    held = {exponent: digit for exponent, digit in digits.items() if digit.any()}
    exponents = range(min(held, default=0), max(held, default=-1) + 1, _STEP)
    for start in range(0, len(out), _STRETCH):
        columns = slice(start, min(start + _STRETCH, len(out)))
        total, carry = np.zeros(columns.stop - start), np.zeros((), np.int64)
        for exponent in exponents:
            digit = carry + held[exponent][columns] if exponent in held else carry
            if exponent < exponents[-1]:
                # Carried over, a digit is at most half a unit of the next, so that the two cannot cancel.
                carry = (digit + (1 << _STEP - 1)) >> _STEP
                digit = digit - (carry << _STEP)
            total += digit * ldexp(1.0, exponent)
        out[columns] = total * scale


_NAMES = {str(_ORIGIN + _STEP * k) for k in range(_LAST, -(-frexp(_LIMIT)[1] // _STEP) + 1)}
