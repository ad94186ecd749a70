"""SCAFFOLD's server half (Karimireddy et al. 2020, Alg. 1, Option II); the client half is `haina.strategy.local`.

A client's control moves by c_k+ - c_k = -c - delta_k / (tau_k eta_k), and the server's by participation times the mean of those moves. That mean
follows from the increments alone (`Aggregate.drift`), so clients upload one vector and not two:

    c <- c + participation * (-c - drift)            w <- w + lr * delta
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
class Scaffold:
    """Variance reduction across clients.

    Args:
        lr: server learning rate, > 0.
    """

    lr: float = 1.0
    uses_drift: ClassVar[bool] = True
    accepts: ClassVar[Payload] = Payload.AVERAGE

    def __post_init__(self) -> None:
        if not 0 < self.lr < math.inf:
            raise StrategyError(f"the server's lr is {self.lr}", allowed="a number > 0")

    def init(self, model: Array) -> State:
        """The control c `[d]`, from zero."""
        return {"c": np.zeros_like(model)}

    def control(self, state: State) -> Array:
        """c `[d]`."""
        return state["c"]

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """The next model and control.

        Raises:
            StrategyError: the aggregate has no drift.
        """
        if aggregate.drift is None:
            raise StrategyError(
                "SCAFFOLD was given no drift of the clients", remedy="Clients must report their learning rate"
            )
        delta = aggregate.vector.astype(model.dtype, copy=False)
        drift = aggregate.drift.astype(model.dtype, copy=False)
        c = state["c"]
        return Stepped(model + self.lr * delta, {"c": c - aggregate.participation * (c + drift)})
