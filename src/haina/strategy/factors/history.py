"""History: how well a client's link holds, how often it takes part, how old its news is.

The trap: a past that is rewarded repeats itself. Only the inverse propensity of `Participation` undoes a bias; the others add one on purpose.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from haina.errors import StrategyError
from haina.strategy.factors.reported import reported
from haina.strategy.parts import Needs, View
from haina.update import Vector


@dataclass(frozen=True)
class Link:
    """Quality of communication: how often an invited client delivers, as the mean of its posterior under a Beta(1, 1) prior."""

    needs: ClassVar[Needs] = Needs.COUNTS
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ()

    def values(self, view: View) -> Vector:
        """`[n]` success rates (delivered + 1) / (invited + 2), in (0, 1)."""
        return (view.recall("delivered") + 1) / (view.recall("invited") + 2)


@dataclass(frozen=True)
class Participation:
    """How often a client takes part: pi_k = (delivered + 2) / (round + 2), its deliveries so far and this one, under a Beta(1, 1) prior.

    Args:
        mode: `inverse` multiplies by 1 / pi_k (inverse propensity, Horvitz and Thompson 1952): the expected aggregate is then that of all clients,
            however unevenly they turn up. As shares sum to 1 this is Hajek's ratio form, whose bias falls with the size of the cohort; the cap of
            the shares brings bias back for clients that come less than half as often as most. `reward` favours those who turn up often. Beware:
            rewarding frequency bends the model towards fast and well-connected clients, and away from those whose data are rare.
    """

    mode: Literal["inverse", "reward"] = "inverse"
    needs: ClassVar[Needs] = Needs.COUNTS
    needs_judge: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        if self.mode not in ("inverse", "reward"):
            raise StrategyError(f"the mode of participation is {self.mode!r}", allowed="inverse, reward")

    @property
    def absolute(self) -> bool:
        """An inverse propensity is an amount (clipping it would bring the bias back); a reward is a quality."""
        return self.mode == "inverse"

    def values(self, view: View) -> Vector:
        """`[n]` 1 / pi_k, or pi_k."""
        propensity = (view.recall("delivered") + 2) / (view.round + 2)
        return 1 / propensity if self.mode == "inverse" else propensity


@dataclass(frozen=True)
class Staleness:
    """Old news counts less: (1 + age)^-exponent, the polynomial form of FedAsync (Xie et al. 2019); 0.5 is FedBuff's (Nguyen et al. 2022).

    Args:
        exponent: >= 0; 0 ignores age.
    """

    exponent: float = 0.5
    needs: ClassVar[Needs] = Needs.COUNTS
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("staleness",)

    def __post_init__(self) -> None:
        if not 0 <= self.exponent < math.inf:
            raise StrategyError(f"the exponent of staleness is {self.exponent}", allowed="a number >= 0")

    def values(self, view: View) -> Vector:
        """`[n]` factors in (0, 1]."""
        factors: Vector = (1 + np.maximum(reported(view, "staleness"), 0.0)) ** -self.exponent
        return factors


@dataclass(frozen=True)
class StalenessHinge:
    """FedAsync's hinge (Xie et al. 2019): 1 up to `grace` versions of age, then 1 / (1 + slope * (age - grace)).

    Args:
        slope: how fast the factor falls, > 0.
        grace: age that costs nothing, >= 0.
    """

    slope: float = 10.0
    grace: float = 4.0
    needs: ClassVar[Needs] = Needs.COUNTS
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = True
    reads: ClassVar[tuple[str, ...]] = ("staleness",)

    def __post_init__(self) -> None:
        if not (0 < self.slope < math.inf and 0 <= self.grace < math.inf):
            raise StrategyError(
                f"the hinge has slope {self.slope} and grace {self.grace}", allowed="slope > 0, grace >= 0"
            )

    def values(self, view: View) -> Vector:
        """`[n]` factors in (0, 1]."""
        factors: Vector = 1 / (1 + self.slope * np.maximum(reported(view, "staleness") - self.grace, 0.0))
        return factors
