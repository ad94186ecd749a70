"""The elastic-net path on summed statistics, in glmnet's conventions.

    minimise over beta:   D(beta) / (2 n) + lambda (alpha |b|_1 + (1 - alpha) |b|_2^2 / 2)

with b the coefficients of standardised columns and the intercept not penalised (Friedman, Hastie & Tibshirani 2010, "Regularization Paths for
Generalized Linear Models via Coordinate Descent", eq. 1 and 10). Each round brings gradient and Hessian at one point; the penalised quadratic
model is minimised here, without the clients (proximal Newton), so a lambda takes a few rounds, and all lambdas of a gaussian path take one
exchange, because there the quadratic is no model but the truth.

The path begins at the null model, as in `newton`. All weights are equal there, so the Hessian's row of the intercept over its corner holds the
means of the columns and its diagonal their second moments: nothing is sent for standardising, and its gradient gives the largest lambda worth
trying.

glmnet's conventions, each a trap: variances with 1/n; lambda on the scale of the outcomes; for gaussian outcomes the *squares* (not the absolute
values) are divided by sd(y), because glmnet scales y inside; coefficients are given back for the columns as they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import StrategyError
from haina.strategy.active_set import minimise
from haina.strategy.families import family
from haina.strategy.parts import Aggregate, Payload, State, Stepped
from haina.strategy.server.newton import HALVINGS, Status, null_model, rises
from haina.strategy.sums import Sums
from haina.update import Vector

#: glmnet ends a path of its own making when a lambda explains less than this share more (of what is explained, or of all for binomial outcomes; ten
#: times that over the last four lambdas for Poisson ones; measured on glmnet 4.1), or when all but a thousandth is explained.
GAIN, EXPLAINED, SHORTEST = 1e-5, 0.999, 5


@dataclass(frozen=True)
class ElasticNetPath:
    """Penalised regressions from the largest lambda to the smallest; the final model is that of the smallest.

    Args:
        family: gaussian, binomial or poisson; the clients' learner must have the same, with an intercept.
        alpha: share of the absolute values in the penalty, in [0, 1]: 1 is the lasso, 0 ridge.
        lambdas: the penalties, decreasing; None lets the data choose (`n_lambda`, `ratio`), and the path may then end early as glmnet's does.
        n_lambda: length of a chosen path, >= 2.
        ratio: smallest over largest lambda, in (0, 1); None for 1e-4 (0.01 with fewer rows than columns).
        standardize: penalise the coefficients of columns scaled to unit variance.
        tolerance: length of the last step of each lambda in standard errors, > 0; the error left is of the order of its square.
        max_rounds: rounds for one lambda before the path is stopped, >= 1.

    What it remembers: `lambdas` `[L]`, `path` `[L, p]` coefficients on the original scale, `deviance` `[L]`, `index` (lambdas done), the
    columns' `scale` `[p - 1]`, the null deviance, and the point of the last quadratic model. Lambdas not reached are NaN.

    Notes of a round: `lambda`, `index`, `deviance`, `nonzero` and, at the end, `converged`.
    """

    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.SUM
    family: str = "gaussian"
    alpha: float = 1.0
    lambdas: tuple[float, ...] | None = None
    n_lambda: int = 100
    ratio: float | None = None
    standardize: bool = True
    tolerance: float = 1e-5
    max_rounds: int = 25

    def __post_init__(self) -> None:
        family(self.family)
        given = self.lambdas
        allowed = (
            ("alpha", 0 <= self.alpha <= 1, "a number in [0, 1]"),
            (
                "lambdas",
                given is None
                or (len(given) > 0 and min(given) >= 0 and list(given) == sorted(set(given), reverse=True)),
                "strictly decreasing numbers >= 0",
            ),
            ("n_lambda", self.n_lambda >= 2, "an integer >= 2"),
            ("ratio", self.ratio is None or 0 < self.ratio < 1, "a number in (0, 1)"),
            ("tolerance", 0 < self.tolerance < 1, "a number in (0, 1), in standard errors"),
            ("max_rounds", self.max_rounds >= 1, "an integer >= 1"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise StrategyError(f"{name} is {getattr(self, name)}", allowed=words)

    def init(self, model: Array) -> State:
        """An empty path for p coefficients, the first of which is the intercept."""
        p, length = len(model), self.n_lambda if self.lambdas is None else len(self.lambdas)
        return {
            "lambdas": np.full(length, np.nan),
            "path": np.full((length, p), np.nan),
            "deviance": np.full(length, np.nan),
            "index": np.array(0),
            "scale": np.ones(p - 1),
            "null_deviance": np.array(np.nan),
            "anchor": np.zeros(p),
            "anchor_deviance": np.array(np.nan),
            "examples": np.array(np.nan),
            "rounds": np.array(0),
            "halvings": np.array(0),
            "status": np.array(int(Status.STARTING)),
        }

    def control(self, state: State) -> Array | None:
        """Clients add nothing."""
        return None

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """Solve the penalised quadratic at `model` for as many lambdas as it settles.

        Raises:
            RoundError: no outcome varies.
            LayoutError: the sums belong to another number of columns.
        """
        sums = Sums.unpack(aggregate.vector, len(model))
        if state["status"] == Status.STARTING:
            null = null_model(sums, family(self.family), intercept=True)
            if not np.allclose(model, null, rtol=1e-12, atol=0):
                return Stepped(null, state, notes={"deviance": sums.deviance})
            state = {**state, **self.begin(sums)}
        elif self._rose(model, sums, state):
            half: Vector = (state["anchor"] + model) / 2
            return Stepped(
                half, {**state, "halvings": state["halvings"] + 1}, notes={"deviance": sums.deviance}
            )
        return self._follow(np.asarray(model, np.float64), sums, state)

    def begin(self, sums: Sums) -> State:
        """Scales and lambdas, from the sums at the null model."""
        corner = sums.hessian[0, 0]
        means, squares = sums.hessian[0, 1:] / corner, np.diag(sums.hessian)[1:] / corner
        variance = squares - means**2
        # A constant column has no scale; rounding may leave it a variance of 1e-16 times its square.
        varies = variance > 1e-14 * squares
        unit = np.sqrt(np.where(varies, variance, 1.0)) if self.standardize else np.ones_like(means)
        scale = np.where(varies, 1.0 / unit, 0.0)
        if self.lambdas is not None:
            lambdas = np.array(self.lambdas)
        else:
            steepest = float(np.max(np.abs(sums.gradient[1:] * scale), initial=0.0)) / sums.examples
            largest = steepest / max(self.alpha, 1e-3)
            ratio = self.ratio or (1e-4 if sums.examples > len(means) else 1e-2)
            lambdas = largest * ratio ** (np.arange(self.n_lambda) / (self.n_lambda - 1))
        return {
            "lambdas": lambdas,
            "scale": scale,
            "null_deviance": np.array(sums.deviance),
            "status": np.array(int(Status.FITTING)),
        }

    def weights(self, state: State, index: int) -> tuple[float, float]:
        """Weights of the absolute values and of the squares, in units of the mean log-likelihood."""
        penalty = float(state["lambdas"][index])
        squares = penalty * (1.0 - self.alpha)
        spread = (
            np.sqrt(float(state["null_deviance"]) / float(state["examples"]))
            if family(self.family).dispersed
            else 1.0
        )
        return penalty * self.alpha, squares / spread if spread > 0 else squares

    def _rose(self, model: Array, sums: Sums, state: State) -> bool:
        if sums.examples != state["examples"] or state["halvings"] >= HALVINGS:
            return False
        l1, l2 = self.weights(state, int(state["index"]))

        def objective(point: Array, deviance: float) -> float:
            scale = state["scale"]
            b = np.where(scale > 0, point[1:] / np.where(scale > 0, scale, 1.0), 0.0)
            return deviance / 2 + sums.examples * (l1 * float(np.abs(b).sum()) + l2 / 2 * float(b @ b))

        return rises(
            objective(state["anchor"], float(state["anchor_deviance"])),
            objective(np.asarray(model), sums.deviance),
        )

    def _follow(self, model: Vector, sums: Sums, state: State) -> Stepped:
        """Go down the path as long as the quadratic model at `model` is good enough."""
        law = family(self.family)
        state = {
            **state,
            "examples": np.array(sums.examples),
            "anchor": model,
            "anchor_deviance": np.array(sums.deviance),
        }
        path, deviances = state["path"].copy(), state["deviance"].copy()
        index, length = int(state["index"]), len(path)
        quadratic = Quadratic(model, sums, state["scale"])
        new, rounds, halvings = model, int(state["rounds"]) + 1, int(state["halvings"])
        status = Status.FITTING
        while status is Status.FITTING:
            new = quadratic.minimum(new, *self.weights(state, index))
            if not law.dispersed and quadratic.distance(new) > self.tolerance:
                if rounds < self.max_rounds and halvings < HALVINGS:
                    break
                status = Status.STOPPED
                break
            path[index], deviances[index] = new, quadratic.deviance(new)
            index, rounds, halvings = index + 1, 0, 0
            if index == length or self.explained(deviances[:index], float(state["null_deviance"])):
                status = Status.CONVERGED
        done = status is not Status.FITTING
        notes = {
            "lambda": float(state["lambdas"][min(index, length - 1)]),
            "index": float(index),
            "deviance": sums.deviance,
            "nonzero": float(np.count_nonzero(new[1:])),
        }
        if done:
            notes["converged"] = float(status is Status.CONVERGED)
        memory = {
            **state,
            "path": path,
            "deviance": deviances,
            "index": np.array(index),
            "rounds": np.array(rounds),
            "halvings": np.array(0),
            "status": np.array(int(status)),
        }
        return Stepped(new, memory, finished=done, notes=notes)

    def explained(self, deviances: Vector, null_deviance: float) -> bool:
        """True when a path of its own making has nothing more to find."""
        if self.lambdas is not None or len(deviances) < SHORTEST or not null_deviance > 0:
            return False
        earlier, before, now = 1.0 - deviances[[-SHORTEST, -2, -1]] / null_deviance
        # glmnet's three families measure what a lambda gained in three ways.
        gain = {"binomial": now - before, "poisson": (now - earlier) / now / 10}.get(
            self.family, (now - before) / now
        )
        return bool(now > EXPLAINED or gain < GAIN)


class Quadratic:
    """The second-order model of D / 2 around a point, the intercept profiled out so that columns far from zero do no harm."""

    def __init__(self, point: Vector, sums: Sums, scale: Vector) -> None:
        self.point, self.sums, self.scale = point, sums, scale
        self.row, self.corner = sums.hessian[0, 1:], sums.hessian[0, 0]
        units = np.outer(scale, scale) / sums.examples
        self.A = (sums.hessian[1:, 1:] - np.outer(self.row, self.row) / self.corner) * units
        gradient = (sums.gradient[1:] - self.row * sums.gradient[0] / self.corner) * scale / sums.examples
        self.q = gradient + self.A @ self._scaled(point)

    def _scaled(self, point: Vector) -> Vector:
        return np.where(self.scale > 0, point[1:] / np.where(self.scale > 0, self.scale, 1.0), 0.0)

    def minimum(self, start: Vector, l1: float, l2: float) -> Vector:
        """`[p]` minimiser of the model plus the penalty."""
        columns = minimise(self.A, self.q, self._scaled(start), l1, l2) * self.scale
        shift = (self.sums.gradient[0] - self.row @ (columns - self.point[1:])) / self.corner
        return np.concatenate([[self.point[0] + shift], columns])

    def distance(self, point: Vector) -> float:
        """Length of the way to `point` in standard errors."""
        step = point - self.point
        return float(np.sqrt(max(float(step @ self.sums.hessian @ step), 0.0)))

    def deviance(self, point: Vector) -> float:
        """The model's deviance at `point`."""
        step = point - self.point
        return float(self.sums.deviance - 2 * self.sums.gradient @ step + step @ self.sums.hessian @ step)
