"""Coefficients: a model that is a vector of float64, told in the federation file, so that every machine can make it without R."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.layout import Layout

#: 800 MB as float64.
MAX_SIZE = 100_000_000


@dataclass(frozen=True)
class Coefficients:
    """What is learnt.

    Args:
        names: of the coefficients, in order, all different; empty for a vector without names.
        size: how many, >= 1; 0 to count the names.
        start: the values before the first round; empty for zeros.

    Raises:
        LearnerError: names, size and start contradict each other, or there are neither names nor a size.
    """

    names: Sequence[str] = ()
    size: int = 0
    start: Sequence[float] = ()

    def __post_init__(self) -> None:
        names, length = tuple(self.names), self.length
        checks = (
            (
                not (names or self.size),
                "neither names nor size is given",
                'names = ["(Intercept)", "age"], or size = 2',
            ),
            (len(set(names)) != len(names), "a name occurs twice among names", "a name for each coefficient"),
            (
                bool(names) and self.size not in (0, len(names)),
                f"size is {self.size}, and there are {len(names)} names",
                str(len(names)),
            ),
            (not 1 <= length <= MAX_SIZE, f"there are {length} coefficients", f"1 to {MAX_SIZE}"),
            (
                len(self.start) not in (0, length),
                f"initial has {len(self.start)} numbers",
                f"{length}, or leave it out for zeros",
            ),
            (
                not np.isfinite(self.start).all(),
                "initial holds a number that is not finite",
                "finite numbers",
            ),
        )
        for wrong, what, allowed in checks:
            if wrong:
                raise LearnerError(what, allowed=allowed)

    @property
    def length(self) -> int:
        """How many coefficients there are."""
        return len(self.names) or self.size

    @cached_property
    def layout(self) -> Layout:
        """One tensor of float64."""
        return Layout.vector(self.length, name="coefficients", dtype="float64")

    def initial(self) -> Array:
        """`[d]` values before the first round."""
        return np.array(self.start, np.float64) if len(self.start) else np.zeros(self.length)

    def name(self, place: int) -> str:
        """A coefficient in words, by its place from 0."""
        return f"params[{place + 1}]" + (f" ({self.names[place]})" if self.names else "")
