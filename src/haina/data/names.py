"""Names of clients that have none of their own: made from a client's number when asked for, so that a million registered clients are no list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

_PREFIX = "client-"


@dataclass(frozen=True)
class Numbered(Sequence[str]):
    """client-000, client-001, ...: numbers of equal width, three digits at least. Position and name follow from each other.

    Args:
        size: how many, >= 0.
    """

    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        # Of a range come negative positions, steps and the error beyond the end.
        found = range(self.size)[index]
        return self._name(found) if isinstance(found, int) else tuple(map(self._name, found))

    def index(self, value: str, start: int = 0, stop: int | None = None) -> int:
        """The position of a name, by arithmetic.

        Raises:
            ValueError: it is none of these names.
        """
        digits = value[len(_PREFIX) :] if isinstance(value, str) else ""
        if digits.isascii() and digits.isdecimal():
            number = int(digits) if len(digits) == self._width else self.size
            if number in range(self.size)[start:stop] and value == self._name(number):
                return number
        raise ValueError(f"{value!r} is none of the {self.size} names")

    def __contains__(self, value: object) -> bool:
        try:
            self.index(value)  # type: ignore[arg-type]
        except ValueError:
            return False
        return True

    @property
    def _width(self) -> int:
        return max(3, len(str(self.size - 1)))

    def _name(self, number: int) -> str:
        return f"{_PREFIX}{number:0{self._width}d}"
