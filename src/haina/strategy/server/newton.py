"""Newton's method on summed statistics: maximum likelihood exactly as if all rows lay in one place.

Iteratively reweighted least squares with a canonical link is Newton's method (McCullagh & Nelder 1989, sec. 2.5): beta <- beta + H^-1 g, with the
summed gradient and Hessian. Every fit enters by the same door, the null model (intercept only): it needs no more than n and the sum of y, so one
round finds it from anywhere, and it is a start from which the step cannot explode as it does from zero (counts near 1,000 would ask for
exp(999)). A step that raises the deviance is halved, which costs a round.

The step's length is measured in standard errors, sqrt(g' H^-1 g): free of units and of collinearity. Newton's error after a step of t standard
errors is of order t^2, so the fit ends with the step that is shorter than 1e-7.

The trap is separation: when some combination of columns predicts outcomes perfectly, the best coefficient is infinite. Steps in standard
errors still shrink, but by a factor e^(1/2) a round instead of quadratically, so a fit that is not there after 25 rounds is stopped and says so.

Sites are to answer every round: when rows come or go, deviances of two rounds cannot be compared, and the fit goes on to the rows that are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import RoundError, StrategyError
from haina.strategy.families import Family, family
from haina.strategy.parts import Aggregate, Payload, State, Stepped
from haina.strategy.sums import Sums
from haina.update import Vector

#: Share of a column that its predecessors do not explain, below which it counts as explained (rounding leaves about 1e-15).
COLLINEAR = 1e-12
#: In place of a family: a log partial likelihood, whose sums hold -2 log L as deviance and the number of events as outcome; no intercept, no
#: dispersion, and the null model is zero (Cox 1972, "Regression Models and Life-Tables").
COX = "cox"
#: A deviance may rise by this share of itself through rounding alone.
SLACK = 1e-10
#: A direction that is no descent after so many halvings is none.
HALVINGS = 40


class Status(IntEnum):
    """How far a fit has come."""

    STARTING = 0
    FITTING = 1
    CONVERGED = 2
    STOPPED = 3


@dataclass(frozen=True)
class Newton:
    """Maximum likelihood of a generalised linear model, or of Cox's.

    Args:
        family: gaussian, binomial or poisson, or `COX`; the clients' learner must have the same.
        intercept: column 0 of the design is the constant 1.
        columns: p names for messages; () calls them by number.
        tolerance: length of the last step in standard errors, > 0.
        max_iterations: Newton steps before the fit is stopped, >= 1. R stops at 25 too.
        offset: the clients add numbers of their own to the linear predictor, so the null model is not the mean outcome.

    What it remembers: the last accepted point (`anchor` `[p]`) and its packed `sums`, from which `haina.learners.glm.GlmResult` is made, the
    deviance of the null model, its score statistic g' H^-1 g (`score`), the root mean square of each column at it (`spread` `[p]`), and counters.

    Notes of a round: `deviance`, `examples`, `iterations`, `step` (in standard errors) and, when the fit ends, `converged` (1 or 0) and, if it
    did not converge, `runaway`, the number of the column whose coefficient was moving most.
    """

    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.SUM
    family: str = "gaussian"
    intercept: bool = True
    columns: tuple[str, ...] = ()
    tolerance: float = 1e-7
    max_iterations: int = 25
    offset: bool = False

    def __post_init__(self) -> None:
        if self.family == COX:
            if self.intercept:
                raise StrategyError("Cox's model has no intercept", allowed="intercept=False")
        else:
            family(self.family)
        if not 0 < self.tolerance < 1:
            raise StrategyError(
                f"tolerance is {self.tolerance}", allowed="a number in (0, 1), in standard errors"
            )
        if self.max_iterations < 1:
            raise StrategyError(f"max_iterations is {self.max_iterations}", allowed="an integer >= 1")

    def init(self, model: Array) -> State:
        """An empty memory for p coefficients."""
        return {
            "anchor": np.zeros(len(model)),
            "sums": np.zeros(Sums.size(len(model))),
            "null_deviance": np.array(np.nan),
            "score": np.array(np.nan),
            "spread": np.ones(len(model)),
            "iterations": np.array(0),
            "halvings": np.array(0),
            "status": np.array(int(Status.STARTING)),
            "runaway": np.array(-1),
        }

    def control(self, state: State) -> Array | None:
        """Clients add nothing."""
        return None

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """One Newton step, or half of the last one.

        Raises:
            RoundError: a column of the design is empty or explained by the columns before it, or no outcome varies.
            LayoutError: the sums belong to another number of columns.
        """
        sums, before = Sums.unpack(aggregate.vector, len(model)), Sums.unpack(state["sums"], len(model))
        iterations, halvings = int(state["iterations"]), int(state["halvings"])
        notes = {"deviance": sums.deviance, "examples": sums.examples, "iterations": float(iterations)}
        null_deviance, spread, score = state["null_deviance"], state["spread"], state["score"]
        starting = state["status"] == Status.STARTING
        if starting:
            null = self._null(np.asarray(model, np.float64), sums)
            # With an offset the null model is found by steps that end at rounding, and not by a formula of n and sum y alone.
            near = 1e-9 if self.offset else 0.0
            if not np.allclose(model, null, rtol=1e-12, atol=near):
                return Stepped(null, state, notes=notes)
            null_deviance = np.array(sums.deviance)
            spread = np.sqrt(np.diag(sums.hessian) / sums.examples)
        elif sums.examples != before.examples:
            # Other rows, another likelihood: deviances cannot be compared, and the null model's belongs to rows that are gone.
            null_deviance = np.array(np.nan)
        elif rises(before.deviance, sums.deviance) and halvings < HALVINGS:
            half: Vector = (state["anchor"] + model) / 2
            return Stepped(half, {**state, "halvings": np.array(halvings + 1)}, notes=notes)

        culprit = dependent_column(sums.hessian)
        if culprit is not None and (starting or sums.examples != before.examples):
            raise RoundError(
                f"column {self._name(culprit)} is empty at every site, or a combination of the columns before it",
                allowed="columns that each say something the others do not",
                remedy="Leave the column out of the design, or merge the factor level with another",
            )
        direction, length = newton_direction(sums) if culprit is None else (np.zeros(len(model)), np.inf)
        if starting:
            score = np.array(length**2)
        length /= np.sqrt(self._dispersion(sums, float(null_deviance)))
        converged = length <= self.tolerance
        # Weights that vanish make a sound design singular: that is separation, the same as steps that never end.
        stopped = not converged and (
            culprit is not None or iterations >= self.max_iterations or halvings >= HALVINGS
        )
        status = Status.CONVERGED if converged else Status.STOPPED if stopped else Status.FITTING
        notes |= {"step": float(length)} if np.isfinite(length) else {}
        if status is not Status.FITTING:
            notes["converged"] = float(converged)
        runaway = int(np.argmax(np.abs(model - state["anchor"]) * spread)) if stopped else -1
        if stopped:
            notes["runaway"] = float(runaway)
        return Stepped(
            model=model if stopped else model + direction,
            state={
                "anchor": np.array(model),
                "sums": sums.pack(),
                "null_deviance": null_deviance,
                "score": score,
                "spread": spread,
                "iterations": np.array(iterations + (0 if stopped else 1)),
                "halvings": np.array(0),
                "status": np.array(int(status)),
                "runaway": np.array(runaway),
            },
            finished=status is not Status.FITTING,
            notes=notes,
        )

    def _null(self, model: Vector, sums: Sums) -> Vector:
        """`[p]` the null model, from the sums at `model`."""
        if self.family == COX:
            return null_model(sums, None, intercept=False)
        law = family(self.family)
        if not (self.offset and self.intercept):
            return null_model(sums, law, self.intercept)
        null = null_model(sums, law, intercept=True)
        if model[1:].any():
            return null
        # The step that makes the sum of the means right: exact for the identity and the logarithm, whatever the offset is.
        fitted = sums.outcome - sums.gradient[0]
        shift = sums.gradient[0] / sums.examples if law.dispersed else np.log(sums.outcome / fitted)
        null[0] = model[0] + shift
        return null

    def _dispersion(self, sums: Sums, null_deviance: float) -> float:
        """Variance of an outcome, where the family does not fix it; outcomes far from zero bring rounding of their own size."""
        if self.family == COX or not family(self.family).dispersed:
            return 1.0
        spread = null_deviance if np.isfinite(null_deviance) else sums.deviance
        mean = sums.outcome / sums.examples
        return max(spread / sums.examples + (1e-6 * mean) ** 2, float(np.finfo(np.float64).tiny))

    def _name(self, column: int) -> str:
        return repr(self.columns[column]) if column < len(self.columns) else str(column)


def null_model(sums: Sums, law: Family | None, intercept: bool) -> Vector:
    """`[p]` coefficients of the model that knows no columns: the intercept at link(mean outcome), all else zero.

    Raises:
        RoundError: there are no rows, or all outcomes lie on the family's border (all 0, all 1), where the link is infinite.
    """
    if not sums.examples > 0:
        raise RoundError("no rows were summed", remedy="Wait for clients that have data")
    null = np.zeros(len(sums.gradient))
    if intercept and law is not None:
        mean = sums.outcome / sums.examples
        low, high = law.interior
        if not low < mean < high:
            raise RoundError(
                f"every outcome is {mean:g}, so there is nothing that a {law.name} model could explain",
                allowed=f"a mean outcome strictly between {low:g} and {high:g}",
                remedy="Invite sites with other outcomes",
            )
        null[0] = law.link(mean)
    return null


def rises(before: float, now: float) -> bool:
    """True when an objective grew by more than rounding."""
    return not now <= before + SLACK * (abs(before) + 1.0)


def newton_direction(sums: Sums) -> tuple[Vector, float]:
    """H^-1 g `[p]` and its length sqrt(g' H^-1 g), solved with the Hessian scaled to a unit diagonal."""
    scale = 1.0 / np.sqrt(np.diag(sums.hessian))
    scaled = sums.gradient * scale
    solution = np.linalg.solve(sums.hessian * np.outer(scale, scale), scaled)
    return solution * scale, float(np.sqrt(max(float(solution @ scaled), 0.0)))


def dependent_column(hessian: Vector) -> int | None:
    """The first column that is empty or a combination of its predecessors (a Cholesky pivot of the scaled Hessian vanishes); None for none."""
    diagonal = np.diag(hessian)
    scale = np.where(diagonal > 0, 1.0 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0)), 0.0)
    rest = hessian * np.outer(scale, scale)
    for j in range(len(rest)):
        if not rest[j, j] > COLLINEAR:
            return j
        rest[j:, j:] -= np.outer(rest[j:, j], rest[j, j:]) / rest[j, j]
    return None
