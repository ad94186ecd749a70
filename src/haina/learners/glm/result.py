"""GlmResult: what a fitted regression says, from the final sums alone.

Covariance is the inverse Hessian times the dispersion: 1 for binomial and Poisson, D / (n - p) for gaussian (McCullagh & Nelder 1989, sec.
2.4-2.5). Tests are normal where the dispersion is known and Student's t where it is estimated; AIC counts the dispersion as a parameter, as R
does. Confidence intervals are Wald's (R's `confint.default`).

What R prints and is not here: quantiles of the deviance residuals, for they need rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.distributions import normal_quantile, normal_tails, student_tails
from haina.learners.glm.words import LEGEND, by_name, json_number, stars
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
        p_values: two-sided, against 0.
        dispersion: 1, or the residual variance (gaussian).
        deviance: of the model.
        null_deviance: of the intercept alone (of eta = 0 without one); NaN if sites came or went during the fit.
        aic: Akaike's information criterion.
        examples: number of rows.
        iterations: Newton steps.
        converged: False if the fit was stopped; coefficients are then not estimates.
        runaway: the coefficient that was still moving when the fit was stopped, else "".
        null_freedom: degrees of freedom of the null deviance.
    """

    names: tuple[str, ...]
    family: str
    coefficients: Vector
    standard_errors: Vector
    p_values: Vector
    dispersion: float
    deviance: float
    null_deviance: float
    aic: float
    examples: int
    iterations: int
    converged: bool
    runaway: str = ""
    null_freedom: int = -1

    @classmethod
    def of(
        cls, model: Array, state: State, family_name: str, names: tuple[str, ...], *, intercept: bool = True
    ) -> GlmResult:
        """The result of a finished fit.

        Args:
            model: `[p]` final model.
            state: what `haina.strategy.server.newton.Newton` remembers after the last round.
            family_name: of the fit.
            names: p names.
            intercept: the first coefficient is the constant.

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
            p_values=np.array(
                [student_tails(v, freedom) if law.dispersed else normal_tails(v) for v in statistic]
            ),
            dispersion=dispersion,
            deviance=sums.deviance,
            null_deviance=float(state["null_deviance"]),
            aic=aic,
            examples=round(n),
            iterations=int(state["iterations"]),
            converged=converged,
            runaway="" if converged else names[int(state["runaway"])],
            null_freedom=round(n) - int(intercept),
        )

    @property
    def freedom(self) -> int:
        """Residual degrees of freedom, n - p."""
        return self.examples - len(self.names)

    @property
    def statistics(self) -> Vector:
        """`[p]` estimates in standard errors (z or t values)."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.coefficients / self.standard_errors

    def intervals(self, level: float = 0.95) -> Vector:
        """`[p, 2]` Wald confidence intervals at a level in (0, 1): estimate -/+ normal quantile x standard error.

        Raises:
            LearnerError: the level is no probability.
        """
        if not 0 < level < 1:
            raise LearnerError(f"the level is {level}", allowed="a number in (0, 1), such as 0.95")
        half = normal_quantile((1 + level) / 2) * self.standard_errors
        return np.column_stack([self.coefficients - half, self.coefficients + half])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, numbers with all their digits; what is not a number is null."""
        return {
            "kind": "glm",
            "family": self.family,
            "coefficients": by_name(self.names, self.coefficients),
            "standard_errors": by_name(self.names, self.standard_errors),
            "statistics": by_name(self.names, self.statistics),
            "p_values": by_name(self.names, self.p_values),
            "ci95": {
                name: [json_number(bound) for bound in interval]
                for name, interval in zip(self.names, self.intervals(), strict=True)
            },
            "dispersion": json_number(self.dispersion),
            "null_deviance": json_number(self.null_deviance),
            "null_df": self.null_freedom,
            "deviance": json_number(self.deviance),
            "df": self.freedom,
            "aic": json_number(self.aic),
            "n": self.examples,
            "iterations": self.iterations,
            "converged": self.converged,
        }

    def summary(self) -> str:
        """A table in the manner of R's `summary(glm)`."""
        letter = "t" if family(self.family).dispersed else "z"
        width = max(len(name) for name in self.names)
        heads = (f"{letter} value", f"Pr(>|{letter}|)")
        lines = [
            "Coefficients:",
            f"{'':{width}}  {'Estimate':>12}  {'Std. Error':>12}  {heads[0]:>9}  {heads[1]:>9}",
        ]
        columns = (self.names, self.coefficients, self.standard_errors, self.statistics, self.p_values)
        for name, estimate, error, value, chance in zip(*columns, strict=True):
            line = f"{name:{width}}  {estimate:12.6g}  {error:12.6g}  {value:9.3f}  {chance:9.3g} {stars(chance)}"
            lines.append(line.rstrip())
        known = "estimated as" if family(self.family).dispersed else "taken to be"
        lines += [
            LEGEND,
            "",
            f"(Dispersion parameter for {self.family} family {known} {self.dispersion:.6g})",
            "",
            f"    Null deviance: {self.null_deviance:.6g}  on {self.null_freedom}  degrees of freedom",
            f"Residual deviance: {self.deviance:.6g}  on {self.freedom}  degrees of freedom",
            f"AIC: {self.aic:.6g}    rows: {self.examples}",
            "",
            f"Number of Fisher Scoring iterations: {self.iterations}",
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
