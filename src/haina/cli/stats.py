"""`haina stats`: exact statistics of several tables, as if their rows lay in one, by the protocol of a federation.

What each command does is in `haina.cli.analysis`; here are their options and nothing else.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

stats = typer.Typer(add_completion=False, no_args_is_help=True)

Files = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[FILE]...", help="One CSV or Parquet file for each site.", show_default=False),
]
Sites = Annotated[
    list[Path] | None,
    typer.Option("--sites", metavar="FILE...", help="The same, behind a name.", show_default=False),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON line, numbers with all their digits.")]
Formula = Annotated[
    str, typer.Argument(metavar="FORMULA", help="As in R, for example 'y ~ sex * bmi + age'.")
]
Factors = Annotated[str, typer.Option(metavar="A,B", help="Columns of numbers that are factors.")]
Columns = Annotated[str, typer.Option(metavar="A,B", help="Columns; all numbers if not given.")]
MinCell = Annotated[int, typer.Option(min=1, help="Fewer rows than this are not shown.")]
_FEW = 5


class Family(StrEnum):
    """Families of outcomes."""

    GAUSSIAN = "gaussian"
    BINOMIAL = "binomial"
    POISSON = "poisson"


class Ties(StrEnum):
    """Ways with events at one time."""

    EFRON = "efron"
    BRESLOW = "breslow"


@stats.command()
def glm(
    formula: Formula,
    files: Files = None,
    family: Annotated[Family, typer.Option(help="Of the outcome.")] = Family.GAUSSIAN,
    sites: Sites = None,
    factors: Factors = "",
    tolerance: Annotated[float, typer.Option(help="Length of the last step, in standard errors.")] = 1e-7,
    as_json: Json = False,
) -> None:
    """Fit a generalised linear model, as R's glm on all rows would."""
    _fit(
        "glm",
        formula,
        files,
        sites,
        factors,
        {"family": family.value, "tolerance": tolerance},
        as_json=as_json,
    )


@stats.command()
def elasticnet(
    formula: Formula,
    files: Files = None,
    family: Annotated[Family, typer.Option(help="Of the outcome.")] = Family.GAUSSIAN,
    sites: Sites = None,
    factors: Factors = "",
    alpha: Annotated[float, typer.Option(min=0, max=1, help="1 is the lasso, 0 ridge.")] = 1.0,
    lambdas: Annotated[
        str, typer.Option(metavar="A,B", help="Penalties, falling; chosen if not given.")
    ] = "",
    n_lambda: Annotated[int, typer.Option(min=2, help="How many are chosen.")] = 100,
    standardize: Annotated[bool, typer.Option(help="Penalise columns at unit variance.")] = True,
    folds: Annotated[int | None, typer.Option(min=3, help="Cross-validate in so many folds.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit an elastic-net path, as R's glmnet on all rows would; with --folds, choose as cv.glmnet does."""
    settings: dict[str, Any] = {
        "family": family.value,
        "alpha": alpha,
        "lambdas": _numbers("lambdas", lambdas) or None,
        "n_lambda": n_lambda,
        "standardize": standardize,
        "folds": folds,
    }
    _fit("glm", formula, files, sites, factors, settings, as_json=as_json, seed=seed)


@stats.command()
def cox(
    formula: Annotated[str, typer.Argument(metavar="FORMULA", help="'Surv(time, event) ~ x1 + x2'.")],
    files: Files = None,
    ties: Annotated[Ties, typer.Option(help="How events at one time count.")] = Ties.EFRON,
    sites: Sites = None,
    factors: Factors = "",
    as_json: Json = False,
) -> None:
    """Fit Cox's model, each site a stratum, as R's coxph with strata(site) would."""
    _fit("cox", formula, files, sites, factors, {"ties": ties.value}, as_json=as_json)


@stats.command()
def describe(
    files: Files = None,
    sites: Sites = None,
    columns: Columns = "",
    min_cell: MinCell = _FEW,
    as_json: Json = False,
) -> None:
    """Count, mean, standard deviation and quantiles of each number; minimum and maximum are single persons'."""
    _ask(files, sites, _names(columns), {"kind": "describe", "min_cell": min_cell}, as_json=as_json)


@stats.command()
def quantiles(
    files: Files = None,
    sites: Sites = None,
    columns: Columns = "",
    at: Annotated[str, typer.Option(metavar="A,B", help="Probabilities.")] = "0.05,0.25,0.5,0.75,0.95",
    min_cell: MinCell = _FEW,
    as_json: Json = False,
) -> None:
    """Exact quantiles (R's type 7) of each number."""
    settings = {"kind": "quantiles", "probabilities": _numbers("at", at), "min_cell": min_cell}
    _ask(files, sites, _names(columns), settings, as_json=as_json)


@stats.command()
def table(
    files: Files = None,
    sites: Sites = None,
    columns: Annotated[
        str, typer.Option(metavar="A,B", help="Factors; two or more make a cross-table.")
    ] = "",
    min_cell: MinCell = _FEW,
    as_json: Json = False,
) -> None:
    """Count levels, or combinations of levels; small cells are hidden."""
    names = _names(columns)
    if not names:
        from haina.errors import ConfigError

        raise ConfigError(
            "no factors are named", allowed="--columns ward, or --columns ward,sex for a cross-table"
        )
    settings = {"kind": "table", "min_cell": min_cell, "check": "sum"}
    _ask(files, sites, names, settings, as_json=as_json, factors=names)


@stats.command()
def histogram(
    column: Annotated[str, typer.Argument(metavar="COLUMN", help="A number.")],
    files: Files = None,
    sites: Sites = None,
    bins: Annotated[int, typer.Option(min=1, help="How many bins are made.")] = 12,
    breaks: Annotated[
        str, typer.Option(metavar="A,B", help="Edges of bins, rising, in place of --bins.")
    ] = "",
    min_cell: MinCell = _FEW,
    as_json: Json = False,
) -> None:
    """Count a number in bins; small bins are hidden."""
    settings = {"kind": "histogram", "bins": bins, "breaks": _numbers("breaks", breaks), "min_cell": min_cell}
    _ask(files, sites, [column], {**settings, "check": "sum"}, as_json=as_json)


@stats.command()
def corr(files: Files = None, sites: Sites = None, columns: Columns = "", as_json: Json = False) -> None:
    """Correlations of all pairs of numbers, over complete rows."""
    _ask(files, sites, _names(columns), {"kind": "correlation"}, as_json=as_json)


@stats.command()
def auc(
    outcome: Annotated[str, typer.Argument(metavar="OUTCOME", help="0 and 1, or a factor with two levels.")],
    score: Annotated[str, typer.Argument(metavar="SCORE", help="A number, higher for cases.")],
    files: Files = None,
    sites: Sites = None,
    bins: Annotated[int, typer.Option(min=2, help="More are more exact.")] = 1000,
    as_json: Json = False,
) -> None:
    """The area under the ROC curve of a score."""
    settings = {"kind": "auc", "outcome": outcome, "bins": bins, "check": "sum"}
    _ask(files, sites, [score], settings, as_json=as_json, also=[outcome], complete=True)


def _fit(
    learner: str,
    formula: str,
    files: list[Path] | None,
    sites: list[Path] | None,
    factors: str,
    settings: dict[str, Any],
    *,
    as_json: bool,
    seed: int = 0,
) -> None:
    from haina.cli.analysis import Tables, analyse
    from haina.learners.glm import Formula

    tables = Tables.read(_sites(files, sites))
    parsed = Formula.parse(formula, tables.columns)
    tables = Tables(tables.frames, frozenset(_names(factors)) | frozenset(parsed.declared))
    # Nobody sees a single site's sums here. Columns are spelt out, for '.' means all columns of the tables and not those that are used.
    given = {**settings, "formula": parsed.text, "check": "sum"}
    _show(analyse(tables, learner, parsed.columns, given, seed=seed), as_json=as_json)


def _ask(
    files: list[Path] | None,
    sites: list[Path] | None,
    names: list[str],
    settings: dict[str, Any],
    *,
    as_json: bool,
    also: list[str] | None = None,
    factors: list[str] | None = None,
    complete: bool = False,
) -> None:
    from haina.cli.analysis import Tables, analyse

    tables = Tables.read(_sites(files, sites), factors or [])
    names = names or [name for name in tables.columns if not tables.is_factor(name)]
    given = {**settings, "columns": names}
    _show(analyse(tables, "summary", [*names, *(also or [])], given, complete=complete), as_json=as_json)


def _show(analysis: Any, *, as_json: bool) -> None:
    from haina.cli.talk import data, json_line, say

    for site, why in analysis.silent.items():
        say(f"{site} took no part: {why}")
    if as_json:
        json_line(analysis.to_json())
        return
    data(analysis.finding.summary())
    if analysis.dropped:
        sites = ", ".join(f"{site} {count}" for site, count in analysis.dropped.items())
        say(f"({sum(analysis.dropped.values())} rows left out, for a value is missing: {sites})")


def _sites(files: list[Path] | None, sites: list[Path] | None) -> list[Path]:
    return [*(sites or []), *(files or [])]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(option: str, text: str) -> list[float]:
    from haina.errors import ConfigError

    try:
        return [float(part) for part in _names(text)]
    except ValueError as error:
        raise ConfigError(
            f"--{option.replace('_', '-')} is {text!r}", allowed="numbers between commas"
        ) from error
