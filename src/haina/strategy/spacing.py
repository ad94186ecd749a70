"""Spacing: clients that have just taken part rest for some rounds, and take part so often at most.

Correlated noise (`haina.privacy.correlated`) covers a client that comes seldom: one that came more often would be covered less than was promised. So
whoever rests is not invited, and that depends on when it last delivered, never on its data.

The trap is a small population: so many rounds apart, a round of k clients needs `separation` times k of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from haina.errors import StrategyError
from haina.strategy.members import Members


@dataclass(frozen=True)
class Spacing:
    """How often clients take part.

    Args:
        separation: a client takes part in one of so many rounds in a row at most, >= 1.
        participations: and at most so often, >= 1.
    """

    separation: int
    participations: int

    def __post_init__(self) -> None:
        for name in ("separation", "participations"):
            if getattr(self, name) < 1:
                raise StrategyError(f"{name} of clients is {getattr(self, name)}", allowed="1 or more")

    def resting(self, members: Members, names: Sequence[str], number: int) -> frozenset[str]:
        """Those of `names` that may not take part in round `number`."""
        last, delivered = members.get("last_round", names), members.get("delivered", names)
        rests = ((last >= 0) & (number - last < self.separation)) | (delivered >= self.participations)
        return frozenset(name for name, gone in zip(names, rests, strict=True) if gone)
