"""GlmResult: what a fitted regression says, from the final sums alone.

Covariance is the inverse Hessian times the dispersion: 1 for binomial and Poisson, D / (n - p) for gaussian (McCullagh & Nelder 1989, sec.
2.4-2.5). Tests are normal where the dispersion is known and Student's t where it is estimated; AIC counts the dispersion as a parameter, as R
does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.strategy.families import family
from haina.strategy.parts import State
from haina.strategy.server.newton import Status
from haina.strategy.sums import Sums
from haina.update import Vector


@dataclass(frozen=True)
class GlmResult:
    """A fitted regression. Arrays are `[p]`, in the order of `names`.

    Args:
        names: of the coefficients.
        family: gaussian, binomial or poisson.
        coefficients: maximum-likelihood estimates.
        standard_errors: their estimated standard deviations; NaN if there are no degrees of freedom left.
        p_values: two-sided, against 0; None where Student's t is needed and scipy is not installed.
        dispersion: 1, or the residual variance (gaussian).
        deviance: of the model.
        null_deviance: of the intercept alone (of eta = 0 without one); NaN if sites came or went during the fit.
        aic: Akaike's information criterion.
        examples: number of rows.
        iterations: Newton steps.
        converged: False if the fit was stopped; coefficients are then not estimates.
        runaway: the coefficient that was still moving when the fit was stopped, else "".
    """

    names: tuple[str, ...]
    family: str
    coefficients: Vector
    standard_errors: Vector
    p_values: Vector | None
    dispersion: float
    deviance: float
    null_deviance: float
    aic: float
    examples: int
    iterations: int
    converged: bool
    runaway: str = ""

    @classmethod
    def of(cls, model: Array, state: State, family_name: str, names: tuple[str, ...]) -> GlmResult:
        """The result of a finished fit.

        Args:
            model: `[p]` final model.
            state: what `haina.strategy.server.newton.Newton` remembers after the last round.
            family_name: of the fit.
            names: p names.

        Raises:
            LearnerError: the fit is not finished, or there are not p names.
        """
        p = len(model)
        if state["status"] not in (Status.CONVERGED, Status.STOPPED):
            raise LearnerError("the fit is not finished", remedy="Run rounds until the strategy says so")
        if len(names) != p:
            raise LearnerError(f"there are {len(names)} names", allowed=f"{p}, one for each coefficient")
        law, sums = family(family_name), Sums.unpack(state["sums"], p)
        n, freedom = sums.examples, sums.examples - p
        dispersion = (sums.deviance / freedom if freedom > 0 else math.nan) if law.dispersed else 1.0
        errors = np.sqrt(inverse_diagonal(sums.hessian) * dispersion)
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = np.abs(model / errors)
        if law.dispersed:
            variance = max(sums.deviance / n, float(np.finfo(np.float64).tiny))
            aic = n * (math.log(2 * math.pi * variance) + 1) + 2 * (p + 1)
        else:
            aic = sums.deviance - 2 * sums.saturated + 2 * p
        converged = bool(state["status"] == Status.CONVERGED)
        return cls(
            names=names,
            family=family_name,
            coefficients=np.asarray(model, np.float64),
            standard_errors=errors,
            p_values=_student(statistic, freedom) if law.dispersed else _normal(statistic),
            dispersion=dispersion,
            deviance=sums.deviance,
            null_deviance=float(state["null_deviance"]),
            aic=aic,
            examples=round(n),
            iterations=int(state["iterations"]),
            converged=converged,
            runaway="" if converged else names[int(state["runaway"])],
        )

    def summary(self) -> str:
        """A table in the manner of R's `summary(glm)`."""
        letter = "t" if family(self.family).dispersed else "z"
        width = max(len(name) for name in self.names)
        lines = [
            f"{'':{width}}  {'Estimate':>12}  {'Std. Error':>12}  {letter + ' value':>9}  {f'Pr(>|{letter}|)':>9}"
        ]
        for j, name in enumerate(self.names):
            estimate, error = self.coefficients[j], self.standard_errors[j]
            value = estimate / error if error > 0 else math.nan
            chance = math.nan if self.p_values is None else self.p_values[j]
            lines.append(f"{name:{width}}  {estimate:12.6g}  {error:12.6g}  {value:9.3f}  {chance:9.3g}")
        p = len(self.names)
        lines += [
            "",
            f"Dispersion parameter for {self.family} family: {self.dispersion:.6g}",
            f"    Null deviance: {self.null_deviance:.6g}",
            f"Residual deviance: {self.deviance:.6g} on {self.examples - p} degrees of freedom",
            f"AIC: {self.aic:.6g}    rows: {self.examples}    Newton steps: {self.iterations}",
        ]
        if not self.converged:
            lines.append(
                f"The fit did NOT converge: {self.runaway} was still moving, so these numbers are not estimates. "
                "Some combination of columns predicts the outcome perfectly: merge levels, or penalise (elastic net)."
            )
        return "\n".join(lines)


def inverse_diagonal(hessian: Vector) -> Vector:
    """`[p]` diagonal of the inverse, solved at unit diagonal; infinite where the matrix is singular."""
    diagonal = np.diag(hessian)
    if not (diagonal > 0).all():
        return np.full(len(diagonal), np.inf)
    scale = 1.0 / np.sqrt(diagonal)
    try:
        inverse = np.linalg.inv(hessian * np.outer(scale, scale))
    except np.linalg.LinAlgError:
        return np.full(len(diagonal), np.inf)
    return np.where(np.diag(inverse) > 0, np.diag(inverse), np.inf) * scale**2


def _normal(statistic: Vector) -> Vector:
    return np.array([math.erfc(value / math.sqrt(2.0)) for value in statistic])


def _student(statistic: Vector, freedom: float) -> Vector | None:
    try:
        from scipy.special import stdtr
    except ImportError:
        return None
    return np.asarray(2.0 * stdtr(freedom, -statistic), np.float64)
