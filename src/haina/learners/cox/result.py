"""CoxResult: what a fitted Cox model says, as R's `summary(coxph)` prints it, from the final sums alone.

Variances are the inverse information. The three tests of the whole model are of the likelihood ratio, of Wald and of the score, each against
chi-squared with p degrees of freedom (Therneau & Grambsch 2000, sec. 3.4).

What R prints and is not here: the concordance, for it compares pairs of rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.distributions import chi_squared_tail, normal_quantile, normal_tails
from haina.learners.glm.result import inverse_diagonal
from haina.learners.glm.words import LEGEND, by_name, json_number, stars
from haina.strategy.parts import State
from haina.strategy.server.newton import Status
from haina.strategy.sums import Sums
from haina.update import Vector


@dataclass(frozen=True)
class CoxResult:
    """A fitted Cox model. Arrays are `[p]`, in the order of `names`.

    Args:
        names: of the coefficients.
        coefficients: log hazard ratios.
        standard_errors: their estimated standard deviations.
        log_likelihood: of the fit.
        null_log_likelihood: of no effect.
        score: the score statistic of no effect.
        wald: Wald's statistic.
        examples: number of rows.
        events: how many of them.
        iterations: Newton steps.
        converged: False if the fit was stopped; coefficients are then not estimates.
        runaway: the coefficient that was still moving, else "".
    """

    names: tuple[str, ...]
    coefficients: Vector
    standard_errors: Vector
    log_likelihood: float
    null_log_likelihood: float
    score: float
    wald: float
    examples: int
    events: int
    iterations: int
    converged: bool
    runaway: str = ""

    @classmethod
    def of(cls, model: Array, state: State, names: tuple[str, ...]) -> CoxResult:
        """The result of a finished fit, from what `haina.strategy.server.newton.Newton` remembers.

        Raises:
            LearnerError: the fit is not finished.
        """
        if state["status"] not in (Status.CONVERGED, Status.STOPPED):
            raise LearnerError("the fit is not finished", remedy="Run rounds until the strategy says so")
        sums, beta = Sums.unpack(state["sums"], len(model)), np.asarray(model, np.float64)
        converged = bool(state["status"] == Status.CONVERGED)
        return cls(
            names=names,
            coefficients=beta,
            standard_errors=np.sqrt(inverse_diagonal(sums.hessian)),
            log_likelihood=-sums.deviance / 2,
            null_log_likelihood=-float(state["null_deviance"]) / 2,
            score=float(state["score"]),
            wald=float(beta @ sums.hessian @ beta),
            examples=round(sums.examples),
            events=round(sums.outcome),
            iterations=int(state["iterations"]),
            converged=converged,
            runaway="" if converged else names[int(state["runaway"])],
        )

    @property
    def statistics(self) -> Vector:
        """`[p]` estimates in standard errors."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.coefficients / self.standard_errors

    @property
    def p_values(self) -> Vector:
        """`[p]` two-sided, against 0."""
        return np.array([normal_tails(z) for z in self.statistics])

    @property
    def tests(self) -> dict[str, float]:
        """The three statistics of the whole model, each chi-squared with p degrees of freedom where nothing has an effect."""
        ratio = 2 * (self.log_likelihood - self.null_log_likelihood)
        return {"likelihood_ratio": ratio, "wald": self.wald, "score": self.score}

    def intervals(self, level: float = 0.95) -> Vector:
        """`[p, 2]` Wald confidence intervals of the coefficients."""
        half = normal_quantile((1 + level) / 2) * self.standard_errors
        return np.column_stack([self.coefficients - half, self.coefficients + half])

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, numbers with all their digits; what is not a number is null."""
        p = len(self.names)
        return {
            "kind": "cox",
            "coefficients": by_name(self.names, self.coefficients),
            "hazard_ratios": by_name(self.names, map(_exp, self.coefficients)),
            "standard_errors": by_name(self.names, self.standard_errors),
            "statistics": by_name(self.names, self.statistics),
            "p_values": by_name(self.names, self.p_values),
            "hazard_ratio_ci95": {
                name: [json_number(_exp(bound)) for bound in interval]
                for name, interval in zip(self.names, self.intervals(), strict=True)
            },
            "log_likelihood": json_number(self.log_likelihood),
            "null_log_likelihood": json_number(self.null_log_likelihood),
            "tests": {
                name: {
                    "statistic": json_number(value),
                    "df": p,
                    "p_value": json_number(chi_squared_tail(value, p)),
                }
                for name, value in self.tests.items()
            },
            "n": self.examples,
            "events": self.events,
            "iterations": self.iterations,
            "converged": self.converged,
        }

    def summary(self) -> str:
        """A table in the manner of R's `summary(coxph)`."""
        width = max(len(name) for name in self.names)
        lines = [
            f"n= {self.examples}, number of events= {self.events}; each site a stratum",
            "",
            f"{'':{width}}  {'coef':>12}  {'exp(coef)':>12}  {'se(coef)':>12}  {'z':>8}  {'Pr(>|z|)':>9}",
        ]
        columns = (self.names, self.coefficients, self.standard_errors, self.statistics, self.p_values)
        for name, b, error, z, chance in zip(*columns, strict=True):
            line = f"{name:{width}}  {b:12.6g}  {_exp(b):12.6g}  {error:12.6g}  {z:8.3f}  {chance:9.3g} {stars(chance)}"
            lines.append(line.rstrip())
        lines += [
            LEGEND,
            "",
            f"{'':{width}}  {'exp(coef)':>12}  {'exp(-coef)':>12}  {'lower .95':>12}  {'upper .95':>12}",
        ]
        for name, b, (low, high) in zip(self.names, self.coefficients, self.intervals(), strict=True):
            lines.append(
                f"{name:{width}}  {_exp(b):12.6g}  {_exp(-b):12.6g}  {_exp(low):12.6g}  {_exp(high):12.6g}"
            )
        lines.append("")
        p = len(self.names)
        for label, value in zip(
            ("Likelihood ratio test", "Wald test", "Score (logrank) test"), self.tests.values(), strict=True
        ):
            lines.append(f"{label:21}= {value:.6g}  on {p} df,   p={chi_squared_tail(value, p):.3g}")
        lines.append(f"Log partial likelihood: {self.log_likelihood:.8g}    Newton steps: {self.iterations}")
        if not self.converged:
            lines.append(
                f"The fit did NOT converge: {self.runaway} was still moving, so these numbers are not estimates. "
                "Some combination of columns tells who dies first without fail: leave one out, or merge levels."
            )
        return "\n".join(lines)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
