"""Federated fits of four unlike sites against R's fits of all rows together."""

import numpy as np
import pandas as pd
import pytest
from pooled_in_r import TABLE, fitted, off, sites, stored

from haina.cli.analysis import Tables, analyse
from haina.learners.glm import Formula
from haina.learners.glm import cross_validation as folding

FORMULAS = {
    ("binomial", "numbers"): "yb ~ x0 + x1 + x2 + x3 + x4 + x5",
    ("binomial", "interaction"): "yb ~ sex * x0 + ward",
    ("binomial", "missing"): "yb ~ stay + grade * sex",
    ("binomial", "classes"): "end ~ x0 + smoker + sex:x1",
    ("gaussian", "numbers"): "yg ~ x0 + x1 + x2 + x3 + x4 + x5",
    ("gaussian", "factors"): "yg ~ ward * sex + x1",
    ("gaussian", "no_intercept"): "yg ~ sex * ward - 1",
    ("gaussian", "cells"): "yg ~ 0 + ward:sex",
    ("gaussian", "slopes"): "yg ~ x0:ward - 1",
    ("gaussian", "margin"): "yg ~ sex + sex:ward",
    ("gaussian", "three"): "yg ~ sex:x0:ward + x1",
    ("gaussian", "cube"): "yg ~ (x0 + sex + smoker)^3",
    ("gaussian", "order"): "yg ~ x1 + sex:ward + x0 + ward",
    ("gaussian", "arithmetic"): "yg ~ I(x0^2)+I((x1+1)^2/2) + exp( x2/4 ) + log(x5 + 1000) + sqrt(abs(x3))",
    ("gaussian", "levels"): "yg ~ factor(level) * x0",
    ("gaussian", "nested"): "yg ~ ward / x0",
    ("poisson", "numbers"): "yp ~ x0 + x1 + x2 + x3 + x4 + x5",
    ("poisson", "offset"): "yp ~ x0 + sex + offset(log(days))",
    ("poisson", "slopes"): "yp ~ ward:x0 + sex",
}
OUTCOMES = {"gaussian": "yg", "binomial": "yb", "poisson": "yp"}
NUMBERS = " + ".join(f"x{j}" for j in range(6))


def test_the_sites_are_unlike():
    assert "c" not in set(sites()["s3"]["ward"])
    assert sorted(len(rows) for rows in sites().values()) == [90, 150, 260, 400]


def test_every_formula_is_compared():
    cases = {tuple(key.split("/")[1:]) for key in stored() if key.startswith("glm/")}
    assert {case for case in cases if len(case) == 2} == {*FORMULAS, ("gaussian", "dot")}


@pytest.mark.parametrize(("family", "case"), FORMULAS)
def test_coefficients_and_names_are_those_of_glm(in_r, family, case):
    tight = fitted("glm", FORMULAS[family, case], family=family, tolerance=1e-10).finding
    theirs = in_r[f"glm/{family}/{case}"]
    assert list(tight.names) == theirs["names"]
    assert off(tight.coefficients, theirs["coef"]) < 1e-12
    # R's weights are those of its last step but one, and a column that the intercept nearly explains costs digits in any inverse.
    loose = family == "poisson" or case == "arithmetic"
    assert off(tight.standard_errors, theirs["se"]) < (1e-9 if loose else 1e-12)
    assert off(tight.p_values, theirs["p"]) < (1e-8 if loose else 1e-11)
    for ours, field in ((tight.deviance, "deviance"), (tight.null_deviance, "null"), (tight.aic, "aic")):
        assert off([ours], theirs[field]) < 1e-12, field
    assert off([tight.dispersion], theirs["dispersion"]) < 1e-12
    assert off(tight.intervals().ravel(), theirs["ci"]) < (1e-8 if loose else 1e-11)
    assert [tight.freedom, tight.null_freedom, tight.examples] == [
        theirs[f][0] for f in ("df", "null_df", "n")
    ]


@pytest.mark.parametrize(("family", "case"), FORMULAS)
def test_both_at_their_defaults(in_r, family, case):
    ours = fitted("glm", FORMULAS[family, case], family=family).finding
    theirs = in_r[f"glm/{family}/{case}/default"]
    assert off(ours.coefficients, theirs["coef"]) < 1e-8
    # glm's weights are those of its last step but one: with rates far from 1 its own standard errors are off by 4e-6 (ours by 3e-10).
    assert off(ours.standard_errors, theirs["se"]) < (1e-5 if case == "offset" else 1e-6)


def test_a_dot_is_every_other_column(in_r):
    tables = Tables({name: rows[["x0", "sex", "yg", "ward"]] for name, rows in sites().items()})
    formula = Formula.parse("yg ~ .^2 - x0:sex", tables.columns)
    assert formula.written == "yg ~ x0 + sex + ward + x0:ward + sex:ward"
    ours = analyse(tables, "glm", formula.columns, {"formula": "yg ~ .^2 - x0:sex"}).finding
    assert list(ours.names) == in_r["glm/gaussian/dot"]["names"]
    assert off(ours.coefficients, in_r["glm/gaussian/dot"]["coef"]) < 1e-12


def test_rows_with_gaps_are_counted():
    assert sum(fitted("glm", FORMULAS["binomial", "missing"], family="binomial").dropped.values()) == int(
        pd.read_csv(TABLE)[["yb", "stay", "grade", "sex"]].isna().any(axis=1).sum()
    )


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("family", OUTCOMES)
def test_elastic_net_paths_are_those_of_glmnet(in_r, family, alpha, standardize):
    formula = f"{OUTCOMES[family]} ~ {NUMBERS}"
    settings = {"family": family, "alpha": alpha, "standardize": standardize, "n_lambda": 30}
    ours = fitted("glm", formula, **settings).finding
    theirs = in_r[f"glmnet/{family}/{alpha:g}/{str(standardize).upper()}"]
    # The same lambdas, and the path ends where glmnet's ends.
    assert off(ours.lambdas, theirs["lambda"]) < 1e-12
    assert off(ours.path.ravel(), theirs["beta"]) < 1e-5
    assert off(ours.path.ravel(), theirs["beta"]) < 1e-6, "measured: at most 1.4e-7"


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("family", OUTCOMES)
def test_cross_validation_chooses_what_cv_glmnet_chooses(in_r, family, alpha, monkeypatch):
    dealt = {name: rows["fold"].to_numpy() for name, rows in sites().items()}
    monkeypatch.setattr(folding, "folds_of", lambda seed, client, rows, folds: dealt[client])
    formula = f"{OUTCOMES[family]} ~ {NUMBERS}"
    ours = fitted("glm", formula, family=family, alpha=alpha, n_lambda=30, folds=5)
    path, choice = ours.finding, ours.finding.choice
    theirs = in_r[f"cv/{family}/{alpha:g}"]
    assert off(path.lambdas, theirs["lambda"]) < 1e-12
    assert off(choice.mean, theirs["cvm"]) < 1e-6
    assert off(choice.error, theirs["cvsd"]) < 1e-6
    assert path.lambdas[choice.least] == pytest.approx(theirs["lambda_min"][0], rel=1e-12)
    assert path.lambdas[choice.sparest] == pytest.approx(theirs["lambda_1se"][0], rel=1e-12)
    assert off(path.path[choice.least], theirs["beta_min"]) < 1e-6
    assert ours.rounds <= 8


def test_stars_and_lines_as_summary_prints_them():
    text = fitted("glm", FORMULAS["gaussian", "factors"]).finding.summary()
    for words in (
        "Coefficients:",
        "Pr(>|t|)",
        "Signif. codes:",
        "family estimated as",
        "Number of Fisher Scoring iterations:",
    ):
        assert words in text
    (line,) = [line for line in text.splitlines() if line.startswith("sexM ")]
    assert line.endswith("*")
    assert np.isclose(float(line.split()[1]), stored()["glm/gaussian/factors"]["coef"][3], rtol=1e-4)
