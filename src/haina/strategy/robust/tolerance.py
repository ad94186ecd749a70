"""How many clients a rule assumes to be hostile, and how many clients it then needs.

An assumed number f that is too low voids every guarantee, one that is too high costs accuracy in proportion to f / (n - 2f); a fraction keeps its
meaning when the size of the cohort changes from round to round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from haina.errors import RoundError, StrategyError


@dataclass(frozen=True)
class Tolerant:
    """A rule that is told how many clients to distrust.

    Args:
        byzantine: a fraction (float in [0, 0.5)) of the clients that compete, f = floor(fraction * n), or their number f (int >= 0).

    Raises:
        StrategyError: a number that no cohort can satisfy.
    """

    byzantine: float | int = 0.2

    #: (a, b): the rule needs n >= a * f + b clients.
    least: ClassVar[tuple[int, int]] = (2, 1)

    def __post_init__(self) -> None:
        value, limit = self.byzantine, 1 / self.least[0]
        number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        fraction = isinstance(value, float) and 0 <= value < limit
        if not number and not fraction:
            raise StrategyError(
                f"byzantine is {value!r}",
                allowed=f"a fraction in [0, {limit:g}) with a decimal point, or a whole number of clients >= 0",
                remedy=f"{type(self).__name__} cannot outvote {limit:.0%} of the clients",
            )

    def tolerated(self, n: int) -> int:
        """f for a cohort of n competing clients.

        Raises:
            RoundError: n is too small for the rule.
        """
        f = self.byzantine if isinstance(self.byzantine, int) else math.floor(self.byzantine * n + 1e-9)
        a, b = self.least
        if n < a * f + b:
            raise RoundError(
                f"{type(self).__name__} got {n} clients and assumes {f} of them hostile",
                allowed=f"at least {a}f + {b} = {a * f + b} clients",
                remedy="Invite more clients, assume fewer to be hostile, or take a rule that needs fewer",
            )
        return f
