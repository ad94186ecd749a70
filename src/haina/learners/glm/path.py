"""PathResult: what an elastic-net path says: how many coefficients each penalty leaves, what it explains, and the error of rows left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from haina.learners.glm.words import json_number
from haina.strategy.parts import State
from haina.strategy.server.cross_validation import Choice, choose
from haina.update import Vector


@dataclass(frozen=True)
class PathResult:
    """An elastic-net path.

    Args:
        names: of the p coefficients.
        lambdas: `[L]` penalties, falling.
        path: `[L, p]` coefficients of the columns as they came.
        deviance: `[L]`.
        null_deviance: of the intercept alone.
        choice: what cross-validation chose; None without it.
        converged: False if the path was stopped early.
    """

    names: tuple[str, ...]
    lambdas: Vector
    path: Vector
    deviance: Vector
    null_deviance: float
    choice: Choice | None = None
    converged: bool = True

    @classmethod
    def of(cls, state: State, names: Sequence[str], *, converged: bool = True) -> PathResult:
        """From what `ElasticNetPath` or `CrossValidation` of `haina.strategy.server` remembers after the last round."""
        done = int(state["index"])
        folded = "error" in state
        return cls(
            tuple(names),
            state["lambdas"][:done],
            state["path"][0, :done] if folded else state["path"][:done],
            state["deviance"][:done],
            float(np.ravel(state["null_deviance"])[0]),
            choose(state) if folded and done else None,
            converged,
        )

    @property
    def explained(self) -> Vector:
        """`[L]` share of the null deviance that each lambda explains."""
        return 1.0 - self.deviance / self.null_deviance

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, numbers with all their digits."""
        said: dict[str, Any] = {
            "kind": "elastic net",
            "names": list(self.names),
            "lambda": self.lambdas.tolist(),
            "coefficients": self.path.tolist(),
            "deviance": self.deviance.tolist(),
            "explained": [json_number(value) for value in self.explained],
            "null_deviance": json_number(self.null_deviance),
            "converged": self.converged,
        }
        if self.choice is not None:
            said["cross_validation"] = {
                "mean": self.choice.mean.tolist(),
                "standard_error": self.choice.error.tolist(),
                "lambda_min": float(self.lambdas[self.choice.least]),
                "lambda_1se": float(self.lambdas[self.choice.sparest]),
            }
        return said

    def summary(self) -> str:
        """A table of at most a dozen lambdas, and the coefficients of the one that matters: lambda.min, or else the smallest."""
        done = len(self.lambdas)
        if not done:
            return "The path was stopped before its first lambda was settled."
        marked = [] if self.choice is None else [self.choice.sparest, self.choice.least]
        spread = np.linspace(0, done - 1, min(done, 12)).round().astype(int).tolist()
        error = "" if self.choice is None else f"  {'cvm':>12}  {'cvsd':>10}"
        lines = [f"{'lambda':>12}  {'nonzero':>7}  {'deviance':>12}  {'explained':>9}{error}"]
        for i in sorted({*spread, *marked}):
            count = int(np.count_nonzero(self.path[i][1:]))
            line = f"{self.lambdas[i]:12.6g}  {count:7d}  {self.deviance[i]:12.6g}  {self.explained[i]:9.1%}"
            if self.choice is not None:
                line += f"  {self.choice.mean[i]:12.6g}  {self.choice.error[i]:10.4g}"
                line += "  lambda.min" * (i == self.choice.least) + "  lambda.1se" * (
                    i == self.choice.sparest
                )
            lines.append(line)
        width = max(len(name) for name in self.names)
        shown = done - 1 if self.choice is None else self.choice.least
        lines += ["", f"Coefficients at lambda {self.lambdas[shown]:.6g}:"]
        coefficients = zip(self.names, self.path[shown], strict=True)
        lines += [f"{name:{width}}  {value:12.6g}" for name, value in coefficients if value]
        if not self.converged:
            lines.append("The path was stopped: the fit of the next lambda did NOT converge.")
        return "\n".join(lines)
