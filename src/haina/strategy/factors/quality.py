"""Qualities: how good a client's training is. `haina.strategy.weigh` takes them relative to the cohort's median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haina.errors import StrategyError
from haina.strategy.factors.reported import reported
from haina.strategy.parts import Needs, View
from haina.update import Vector, to_numpy

#: Loss per second credited to a client whose loss did not fall, so that one bad round is not an exclusion.
LEAST_DROP = 1e-9


@dataclass(frozen=True)
class Accuracy:
    """max(accuracy, floor).

    Args:
        floor: accuracy below which all models are alike, in (0, 1].
        checked: measure each client's model on samples held by the server instead of believing the client.
    """

    floor: float = 0.1
    checked: bool = False
    absolute: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise StrategyError(f"the floor of accuracy is {self.floor}", allowed="a number in (0, 1]")

    @property
    def needs(self) -> Needs:
        """Checking needs the vectors; believing needs the reports."""
        return Needs.VECTORS if self.checked else Needs.REPORTS

    @property
    def needs_judge(self) -> bool:
        """True when checked."""
        return self.checked

    @property
    def reads(self) -> tuple[str, ...]:
        """Nothing when checked."""
        return () if self.checked else ("accuracy",)

    def values(self, view: View) -> Vector:
        """`[n]` accuracies, in [floor, 1].

        Raises:
            StrategyError: checked, and the view holds no vectors or no judge.
        """
        if not self.checked:
            return np.maximum(reported(view, "accuracy"), self.floor)
        if view.judge is None or view.cohort is None:
            lacks = "samples held by the server" if view.judge is None else "the vectors of the cohort"
            raise StrategyError(
                f"accuracy is to be checked without {lacks}",
                remedy="Let the server hold some samples, or set checked = false",
            )
        increments = np.concatenate([to_numpy(block) for _, block in view.cohort.blocks()], axis=1)
        return np.maximum(view.judge.accuracies(increments), self.floor)


@dataclass(frozen=True)
class Convergence:
    """Speed of convergence: fall of the local loss per second of local training.

    Wall seconds are not reproduced by the same seed, so neither are these weights, unless the seconds are simulated.
    """

    needs: ClassVar[Needs] = Needs.REPORTS
    needs_judge: ClassVar[bool] = False
    absolute: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("loss_before", "loss_after", "seconds")

    def values(self, view: View) -> Vector:
        """`[n]` loss per second, at least `LEAST_DROP`; NaN without both losses and a time above 0."""
        drop = reported(view, "loss_before") - reported(view, "loss_after")
        seconds = reported(view, "seconds")
        with np.errstate(over="ignore"):
            speed = np.maximum(drop, 0.0) / np.where(seconds > 0, seconds, np.nan)
        return np.maximum(speed, LEAST_DROP)
