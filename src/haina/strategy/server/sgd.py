"""SGD: v <- momentum * v + delta, w <- w + lr * v. FedAvg (McMahan et al. 2017) with lr 1, FedAvgM (Hsu et al. 2019) with momentum.

The trap: there is no (1 - momentum) factor, as in the paper and in Flower, so a steady delta is amplified 1 / (1 - momentum) times.
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
class SGD:
    """Gradient descent on the aggregate.

    Args:
        lr: server learning rate, > 0.
        momentum: in [0, 1); 0 remembers nothing.
    """

    lr: float = 1.0
    momentum: float = 0.0
    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.AVERAGE

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise StrategyError(f"the server's lr is {self.lr}", allowed="a number > 0")
        if not 0 <= self.momentum < 1:
            raise StrategyError(f"the server's momentum is {self.momentum}", allowed="a number in [0, 1)")

    def init(self, model: Array) -> State:
        """The velocity v `[d]`, with momentum."""
        return {"v": np.zeros_like(model)} if self.momentum else {}

    def control(self, state: State) -> None:
        """Clients correct nothing."""

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """w + lr * v."""
        velocity: Array = aggregate.vector.astype(model.dtype, copy=False)
        if self.momentum:
            moved: Array = self.momentum * state["v"]
            moved += velocity
            velocity, state = moved, {"v": moved}
        new: Array = self.lr * velocity
        new += model
        return Stepped(new, state)
