"""Exact statistics by name: regressions, elastic nets, survival and summaries, as `[model]` names them and as `haina stats` asks for them.

All of them send sums and nothing else, so all of them are one line of a strategy: add, then step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from haina.data.schema import Schema
from haina.errors import LearnerError
from haina.federation.made import NOT_ANSWERED, NOT_CONVERGED, ONCE, Finding, Made
from haina.learners.disclosure import MIN_CELL
from haina.learners.learner import Learner
from haina.learners.variables import Variables
from haina.simulation.simulation import Run
from haina.strategy.combine import Sum
from haina.strategy.parts import Server
from haina.strategy.server import CrossValidation, ElasticNetPath, Inquiry, Newton
from haina.strategy.server.cross_validation import Points
from haina.strategy.server.newton import COX
from haina.strategy.strategy import Strategy
from haina.update import Vector

Family = Literal["gaussian", "binomial", "poisson"]
#: Whose counts must hold no few persons: each site's, or only the sum's, where nobody sees a site's.
Check = Literal["site", "sum"]


def variables_of(schema: Schema) -> Variables:
    """The variables of rows of that schema: a table's columns, or x0, x1, ... of arrays."""
    if schema.columns is None:
        names = schema.features or tuple(f"x{j}" for j in range(schema.shape[0]))
        return Variables.of(names, {}, "y", schema.classes)
    columns = schema.columns
    return Variables.of(columns.features, columns.categorical, columns.target, schema.classes)


def glm(schema: Schema, folder: Path) -> Callable[..., Made]:
    """`learner = "glm"`."""

    def glm(
        family: Family = "gaussian",
        formula: str | None = None,
        intercept: bool = True,
        alpha: float | None = None,
        lambdas: tuple[float, ...] | None = None,
        n_lambda: int = 100,
        standardize: bool = True,
        folds: int | None = None,
        tolerance: float = 1e-7,
        min_cell: int = MIN_CELL,
        check: Check = "site",
    ) -> Made:
        from haina.learners.glm import Design, Formula, GlmLearner, GlmResult, ModelMatrix, PathResult
        from haina.learners.glm.cross_validation import CrossValidationLearner

        _check_target(schema, family, formula)
        design: Design | ModelMatrix
        if formula is None:
            names = schema.features or tuple(f"x{j}" for j in range(schema.shape[0]))
            design = Design.named(names, intercept)
        elif not intercept:
            raise LearnerError("intercept is false, and there is a formula", allowed="y ~ x - 1")
        else:
            variables = variables_of(schema)
            design = ModelMatrix(Formula.parse(formula, variables.names), variables)
            response = design.formula.response
            if family != "binomial" and response.column and variables[response.column].levels is not None:
                raise LearnerError(f"{response.text!r} is a factor, and the {family} family predicts numbers")
        learner: Learner = GlmLearner(family, design, min_cell=_seen(min_cell, check))
        terms, constant = design.names, design.intercept
        if alpha is None:
            for name, given in (("lambdas", lambdas), ("folds", folds)):
                if given is not None:
                    raise LearnerError(
                        f"{name} is of a penalised path, and alpha is not given",
                        allowed="alpha in [0, 1]: 1 is the lasso",
                    )
            newton = Newton(family, constant, terms, tolerance, offset=design.offsets)
            return _made(
                learner,
                newton,
                "glm",
                lambda run: GlmResult.of(run.model, _memory(run), family, terms, intercept=constant),
            )
        if not constant or design.offsets:
            raise LearnerError(
                "an elastic net has an intercept and no offset", allowed="y ~ x, without - 1 and offset()"
            )
        server: Server = ElasticNetPath(family, alpha, lambdas, n_lambda, standardize=standardize)
        if folds is not None:
            if folds < 3:
                raise LearnerError(
                    f"folds is {folds}", allowed="3 or more, as in cv.glmnet; 5 or 10 are usual"
                )
            length = n_lambda if lambdas is None else len(lambdas)
            points = Points.fitting(folds, length, len(terms))
            assert isinstance(server, ElasticNetPath)
            assert isinstance(learner, GlmLearner)
            server, learner = CrossValidation(points, server), CrossValidationLearner(learner, points)
        return _made(
            learner,
            server,
            "elastic net",
            lambda run: PathResult.of(_memory(run), terms, converged=int(_memory(run)["status"]) == 2),
        )

    return glm


def cox(schema: Schema, folder: Path) -> Callable[..., Made]:
    """`learner = "cox"`."""

    def cox(
        formula: str,
        ties: Literal["efron", "breslow"] = "efron",
        stratified: bool = True,
        tolerance: float = 1e-7,
        min_cell: int = MIN_CELL,
        check: Check = "site",
    ) -> Made:
        from haina.learners.cox import CoxLearner, CoxResult
        from haina.learners.glm import Formula, ModelMatrix

        if not stratified:
            raise LearnerError(
                "stratified is false, and risk sets across sites need the time of each event from each site",
                allowed="stratified = true: each site has a baseline hazard of its own, and sends sums only",
                remedy="Leave stratified out",
            )
        variables = variables_of(schema)
        matrix = ModelMatrix(Formula.parse(formula, variables.names), variables)
        learner = CoxLearner(matrix, ties, _seen(min_cell, check))
        names = learner.design.names
        newton = Newton(COX, intercept=False, columns=names, tolerance=tolerance)
        return _made(learner, newton, "cox", lambda run: CoxResult.of(run.model, _memory(run), names))

    return cox


def summary(schema: Schema, folder: Path) -> Callable[..., Made]:
    """`learner = "summary"`."""

    def summary(
        kind: Literal["describe", "quantiles", "table", "histogram", "correlation", "auc"] = "describe",
        columns: tuple[str, ...] = (),
        probabilities: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95),
        breaks: tuple[float, ...] = (),
        bins: int | None = None,
        outcome: str | None = None,
        min_cell: int = MIN_CELL,
        check: Check = "site",
    ) -> Made:
        from haina.learners import summary as asked

        variables = variables_of(schema)
        question: asked.Question
        if kind in ("describe", "quantiles"):
            question = asked.Distribution(variables, columns, probabilities, min_cell)
        elif kind == "table":
            question = asked.Table(variables, columns, min_cell, check)
        elif kind == "correlation":
            question = asked.Correlation(variables, columns)
        elif len(columns) != 1:
            raise LearnerError(f"{len(columns)} columns are named", allowed=f"one for kind {kind}")
        elif kind == "histogram":
            question = asked.Histogram(variables, columns[0], breaks, bins or 12, min_cell, check)
        else:
            by = outcome or variables.target
            question = asked.Roc(variables, by, columns[0], bins or 1000, min_cell, check)
        learner = asked.SummaryLearner(question)
        return _made(
            learner,
            Inquiry(question.learn),
            "summary",
            lambda run: _Answer(question, run.model),
            NOT_ANSWERED,
        )

    return summary


@dataclass(frozen=True)
class _Answer:
    """What was asked, and what is known."""

    question: Any
    known: Vector

    def summary(self) -> str:
        """For people."""
        return str(self.question.summary(self.known))

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        return dict(self.question.found(self.known))


def _made(
    learner: Learner,
    server: Server,
    name: str,
    found: Callable[[Run], Finding],
    unfinished: str = NOT_CONVERGED,
) -> Made:
    def tell(run: Run) -> str:
        return found(run).summary() if run.finished else unfinished.format(rounds=run.round)

    strategy = Strategy(weigh=ONCE, combine=Sum(), server=server, name=name)
    return Made(lambda: learner, strategy, tell, found=found)


def _seen(min_cell: int, check: Check) -> int:
    """Fewest rows behind what the coordinator sees of a site."""
    if min_cell < 1:
        raise LearnerError(f"min_cell is {min_cell}", allowed="an integer >= 1")
    return min_cell if check == "site" else 1


def _memory(run: Run) -> Any:
    return run.state.parts["server"]


def _check_target(schema: Schema, family: Family, formula: str | None) -> None:
    if formula is not None or schema.classes is None:
        return
    if family != "binomial":
        raise LearnerError(
            f"the target is in classes, and the {family} family predicts numbers",
            allowed='[data] task = "regression"',
        )
    if len(schema.classes) != 2:
        raise LearnerError(
            f"the target has {len(schema.classes)} classes", allowed="2 classes for the binomial family"
        )
