"""Local: what a strategy asks of local training.

Every local method here is one rule: the gradient that a client follows is

    grad F_k(y) + proximal * (y - x) + offset_k

with x the received model. FedProx is `proximal` (Li et al. 2020, eq. 2). SCAFFOLD (Karimireddy et al. 2020, Alg. 1, Option II) and FedDyn
(Acar et al. 2021, Alg. 1) differ only in `offset_k` and in what a client remembers of it, and that is one rule as well:

    offset_k = c + m_k          m_k <- m_k + c + beta_k * delta_k

with c the server's control (zero for FedDyn), m_k the client's memory (-c_k in SCAFFOLD, -lambda_k in FedDyn), delta_k its increment, and
beta_k = 1 / (tau_k * eta_k) for SCAFFOLD, alpha for FedDyn. The memory never leaves the client, and the server derives SCAFFOLD's mean control
step from the increments, so that SCAFFOLD uploads one vector and not two.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from haina.artifact import Array
from haina.errors import StrategyError
from haina.report import Report


class Control(StrEnum):
    """Which correction a client remembers between rounds."""

    NONE = "none"
    SCAFFOLD = "scaffold"
    FEDDYN = "feddyn"


@dataclass(frozen=True)
class Local:
    """What the strategy asks of local training.

    Args:
        proximal: mu >= 0, weight of mu/2 ||y - x||^2. FedDyn uses it as its alpha.
        control: the correction that clients remember.
    """

    proximal: float = 0.0
    control: Control = Control.NONE

    def __post_init__(self) -> None:
        if not self.proximal >= 0 or self.proximal == float("inf"):
            raise StrategyError(f"proximal is {self.proximal}", allowed="a finite number >= 0")
        if self.control is Control.FEDDYN and not self.proximal > 0:
            raise StrategyError(
                "FedDyn with proximal 0 has no regulariser", allowed="proximal > 0 (0.01 to 0.1 is usual)"
            )

    @property
    def remembers(self) -> bool:
        """True when clients keep a vector between rounds."""
        return self.control is not Control.NONE

    def offset(self, control: Array | None, memory: Array | None) -> Array | None:
        """offset_k `[d]` (or `[k, d]` for k memories); None when there is nothing to add."""
        if not self.remembers:
            return None
        if control is None:
            return memory
        return control if memory is None else control + memory

    def remember(self, memory: Array, control: Array | None, delta: Array, report: Report) -> Array:
        """The client's memory `[d]` after training gave `delta` `[d]`; unchanged by a training that diverged."""
        if not np.isfinite(delta).all():
            return memory
        if self.control is Control.FEDDYN:
            return np.asarray(memory + np.asarray(self.proximal, delta.dtype) * delta)
        if report.learning_rate is None:
            raise StrategyError(
                "SCAFFOLD needs the local learning rate in the report", allowed="learning_rate > 0"
            )
        beta = np.asarray(1.0 / (report.steps * report.learning_rate), delta.dtype)
        return np.asarray(memory + (0 if control is None else control) + beta * delta)
