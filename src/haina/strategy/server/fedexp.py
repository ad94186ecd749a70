"""FedExP: the step length follows from how much clients agree (Jhunjhunwala et al. 2023, eq. 8).

    eta = max(1, sum_k p_k ||delta_k||^2 / (2 (||delta||^2 + eps)))            w <- w + eta * delta

The trap: whoever sends one long vector inflates eta for everybody. Clip updates before, or combine by a robust rule.
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
class FedExP:
    """Extrapolated averaging.

    Args:
        eps: keeps the ratio finite where increments cancel, > 0; in units of a squared norm of an increment.
    """

    eps: float = 1e-3
    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.AVERAGE

    def __post_init__(self) -> None:
        if not 0 < self.eps < math.inf:
            raise StrategyError(f"FedExP's eps is {self.eps}", allowed="a number > 0")

    def init(self, model: Array) -> State:
        """Nothing."""
        return {}

    def control(self, state: State) -> None:
        """Clients correct nothing."""

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """w + eta * delta; eta is noted as `server_rate`."""
        delta = aggregate.vector.astype(model.dtype, copy=False)
        square = float(np.einsum("i,i->", delta, delta, dtype=np.float64))
        eta = max(1.0, aggregate.mean_square / (2 * (square + self.eps)))
        return Stepped(model + eta * delta, state, notes={"server_rate": eta})
