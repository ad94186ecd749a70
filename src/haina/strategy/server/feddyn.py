"""FedDyn's server half (Acar et al. 2021, Alg. 1); the client half is `haina.strategy.local`, with the same alpha as its proximal weight.

    h <- h - alpha * participation * delta            w <- w + delta - h / alpha

The trap: h sums all increments ever made, so it takes many rounds to forget a bad one; screen updates from the first round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import StrategyError
from haina.strategy.parts import Aggregate, Payload, State, Stepped


@dataclass(frozen=True)
class FedDyn:
    """Dynamic regularisation.

    Args:
        alpha: weight of the regulariser, > 0; 0.01 to 0.1 is usual.
    """

    alpha: float
    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.AVERAGE

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise StrategyError(f"FedDyn's alpha is {self.alpha}", allowed="a number > 0")

    def init(self, model: Array) -> State:
        """The sum h `[d]`, from zero."""
        return {"h": np.zeros_like(model)}

    def control(self, state: State) -> None:
        """Clients correct by their own memory only."""

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """The next model and h."""
        delta = aggregate.vector.astype(model.dtype, copy=False)
        h = state["h"] - self.alpha * aggregate.participation * delta
        return Stepped(model + delta - h / self.alpha, {"h": h})
