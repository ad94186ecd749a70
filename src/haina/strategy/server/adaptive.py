"""Adaptive federated optimisation: FedAdagrad, FedAdam, FedYogi (Reddi et al. 2021, Alg. 2).

    m <- beta1 m + (1 - beta1) delta
    v <- v + delta^2                                      Adagrad
         beta2 v + (1 - beta2) delta^2                    Adam
         v - (1 - beta2) delta^2 sign(v - delta^2)        Yogi
    w <- w + lr * correction(t) * m / (sqrt(v) + eps)

The trap is the correction for moments that start at zero. The paper has none and starts v at eps^2 or above. Kingma and Ba (2015, end of sec. 2)
multiply by sqrt(1 - beta2^t) / (1 - beta1^t). Flower's FedAdam uses t + 1 for t, which makes its first step a quarter shorter. t counts the steps
taken, not the rounds: a round that kept its model moves no moment.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from haina.artifact import Array
from haina.errors import StrategyError
from haina.strategy.parts import Aggregate, Payload, State, Stepped

#: `none` (Reddi et al.), `kingma` (exponent t) or `flower` (exponent t + 1).
BiasCorrection = Literal["none", "kingma", "flower"]

#: Which exponent the bias correction uses beside t.
_AHEAD = {"kingma": 0, "flower": 1}


class _Adaptive(ABC):
    """What the methods share: all but the second moment and the correction."""

    lr: float
    beta1: float
    eps: float
    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.AVERAGE

    @abstractmethod
    def _start(self) -> float:
        """What the second moment starts at."""

    @abstractmethod
    def _second(self, v: Array, square: Array) -> Array:
        """The next second moment."""

    def _correction(self, t: int) -> float:
        return 1.0

    def init(self, model: Array) -> State:
        """The moments m and v `[d]`, and the number t of steps taken."""
        return {
            "m": np.zeros_like(model),
            "v": np.full_like(model, self._start()),
            "t": np.array(0, dtype=np.int64),
        }

    def control(self, state: State) -> None:  # noqa: B027
        """Clients correct nothing."""

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """w + lr * correction * m / (sqrt(v) + eps)."""
        delta = aggregate.vector.astype(model.dtype, copy=False)
        t = int(state["t"]) + 1
        m = self.beta1 * state["m"] + (1 - self.beta1) * delta
        v = self._second(state["v"], delta * delta)
        rate = self.lr * self._correction(t)
        new = model + rate * m / (np.sqrt(v) + self.eps)
        return Stepped(new, {"m": m, "v": v, "t": np.array(t, dtype=np.int64)})


@dataclass(frozen=True)
class Adagrad(_Adaptive):
    """FedAdagrad: v sums the squares, so the rate of a coordinate only falls.

    Args:
        lr: server learning rate, > 0; tune it, the paper gives no universal value.
        beta1: decay of the first moment, in [0, 1); 0 in the paper.
        eps: degree of adaptivity (tau in the paper), > 0.
        v0: start of v, >= 0; None for eps^2.
    """

    lr: float = 0.03
    beta1: float = 0.0
    eps: float = 1e-3
    v0: float | None = None

    def __post_init__(self) -> None:
        _check(self.lr, self.eps, self.v0, beta1=self.beta1)

    def _start(self) -> float:
        return self.eps**2 if self.v0 is None else self.v0

    def _second(self, v: Array, square: Array) -> Array:
        return np.asarray(v + square)


@dataclass(frozen=True)
class Adam(_Adaptive):
    """FedAdam: v is a moving average of the squares.

    Args:
        lr: server learning rate, > 0; tune it, the paper gives no universal value.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        eps: degree of adaptivity (tau in the paper), > 0.
        v0: start of v, >= 0; None for eps^2 without bias correction, and for 0 with it (which is what it corrects).
        bias_correction: see `BiasCorrection`.
    """

    lr: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-3
    v0: float | None = None
    bias_correction: BiasCorrection = "none"

    def __post_init__(self) -> None:
        _check(self.lr, self.eps, self.v0, beta1=self.beta1, beta2=self.beta2)
        if self.bias_correction not in ("none", *_AHEAD):
            raise StrategyError(
                f"bias_correction is {self.bias_correction!r}", allowed=", ".join(("none", *_AHEAD))
            )

    def _start(self) -> float:
        if self.v0 is not None:
            return self.v0
        return self.eps**2 if self.bias_correction == "none" else 0.0

    def _second(self, v: Array, square: Array) -> Array:
        return np.asarray(self.beta2 * v + (1 - self.beta2) * square)

    def _correction(self, t: int) -> float:
        if self.bias_correction == "none":
            return 1.0
        exponent = t + _AHEAD[self.bias_correction]
        return math.sqrt(1 - self.beta2**exponent) / (1 - self.beta1**exponent)


@dataclass(frozen=True)
class Yogi(Adam):
    """FedYogi: Adam whose v moves by at most (1 - beta2) delta^2 a step, so that it does not collapse under sparse increments; settings as `Adam`."""

    def _second(self, v: Array, square: Array) -> Array:
        return np.asarray(v - (1 - self.beta2) * square * np.sign(v - square))


def _check(lr: float, eps: float, v0: float | None, **betas: float) -> None:
    if not 0 < lr < math.inf:
        raise StrategyError(f"the server's lr is {lr}", allowed="a number > 0")
    if not 0 < eps < math.inf:
        raise StrategyError(f"eps is {eps}", allowed="a number > 0")
    if v0 is not None and not 0 <= v0 < math.inf:
        raise StrategyError(f"v0 is {v0}", allowed="a number >= 0, or none")
    for name, beta in betas.items():
        if not 0 <= beta < 1:
            raise StrategyError(f"{name} is {beta}", allowed="a number in [0, 1)")
