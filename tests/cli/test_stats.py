"""`haina stats` as a person types it: over files, against R."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from pooled_in_r import TABLE, off, sites, stored
from rlang import environment, require_r

from haina.cli.analysis import Tables, analyse
from haina.errors import DataError, RunError
from haina.learners.glm import Formula


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sites")
    for name, rows in sites().items():
        # Truth values as R writes them; pandas' own True is text to R.
        rows = rows.assign(smoker=rows["smoker"].map({True: "TRUE", False: "FALSE"}))
        rows.to_csv(folder / f"{name}.csv", index=False, na_rep="NA")
    return [str(folder / f"{name}.csv") for name in sites()]


def haina(*words, code=0):
    done = subprocess.run(
        [sys.executable, "-c", "from haina.cli import main; main()", "stats", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**environment(), "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def test_glm_with_missing_values_is_that_of_r(files):
    done = haina("glm", "yb ~ stay + grade * sex", "--family", "binomial", "--sites", *files, "--json")
    found, theirs = json.loads(done.stdout), stored()["glm/binomial/missing/default"]
    assert list(found["coefficients"]) == theirs["names"]
    assert off(list(found["coefficients"].values()), theirs["coef"]) < 1e-8
    assert off(list(found["standard_errors"].values()), theirs["se"]) < 1e-6
    assert (found["n"], found["df"]) == (theirs["n"][0], theirs["df"][0])
    assert off([found["deviance"], found["aic"]], [theirs["deviance"][0], theirs["aic"][0]]) < 1e-8
    assert sum(found["dropped"].values()) == 900 - found["n"]


def test_glm_is_r_s_of_these_very_files(files, tmp_path):
    rscript = require_r()
    code = (
        "files <- commandArgs(TRUE); d <- do.call(rbind, lapply(files, read.csv)); "
        "m <- glm(as.factor(end) ~ smoker * ward + stay, binomial, d, na.action = na.omit, control = glm.control(1e-14, 100)); "
        "cat(names(coef(m)), sprintf('%a', coef(m)), nobs(m), sep = '\\n')"
    )
    script = tmp_path / "fit.R"
    script.write_text(code, encoding="utf-8")
    said = subprocess.run(
        [rscript, "--vanilla", str(script), *files],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environment(),
    ).stdout.split("\n")
    done = haina("glm", "end ~ smoker * ward + stay", *files, "--family", "binomial", "--json")
    found = json.loads(done.stdout)
    p = len(found["coefficients"])
    assert list(found["coefficients"]) == said[:p]
    theirs = [float.fromhex(value) for value in said[p : 2 * p]]
    assert off(list(found["coefficients"].values()), theirs) < 1e-10
    assert found["n"] == int(said[2 * p])


def test_tables_for_people(files):
    done = haina("glm", "yb ~ stay + sex", "--family", "binomial", *files)
    assert "Number of Fisher Scoring iterations" in done.stdout
    assert "rows left out, for a value is missing" in done.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("elasticnet", "yg ~ x0 + x1 + ward", "--alpha", "0.5", "--n-lambda", "10", "--folds", "5"),
            "lambda.1se",
        ),
        (("elasticnet", "yg ~ x0 + x1", "--lambdas", "0.1,0.01"), "Coefficients at lambda 0.01"),
        (("cox", "Surv(time, event) ~ x0 + strata(ward)", "--ties", "breslow"), "Likelihood ratio test"),
        (("describe",), "stay"),
        (("describe", "--columns", "x0"), "-2.4773"),
        (("quantiles", "--columns", "x0", "--at", "0.5"), "-0.1275"),
        (("table", "--columns", "ward,sex"), "158"),
        (("table", "--columns", "level"), "309"),
        (("histogram", "x0"), "use wider bins"),
        (("corr", "--columns", "x0,x1"), "complete rows: 900"),
        (("auc", "yb", "score"), "0.647"),
        (("auc", "end", "score", "--bins", "10000"), "0.647320"),
    ],
)
def test_every_command(files, words, expected):
    assert expected in haina(*words, *files).stdout
    said = json.loads(haina(*words, "--sites", *files, "--json").stdout)
    assert said["silent"] == {}
    assert said["rounds"] >= 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("glm", "yg ~ scale(x0)"), "at each site"),
        (("glm", "yg ~ nope"), "no column 'nope'"),
        (("glm", "yg ~ ward:sex + x0"), "combination of the columns before it"),
        (("table",), "--columns ward"),
        (("describe", "--columns", "ward"), "'ward' is a factor"),
        (("elasticnet", "yg ~ x0", "--lambdas", "a"), "--lambdas is 'a'"),
        (("cox", "yg ~ x0"), "no Surv()"),
    ],
)
def test_refusals_name_the_way_out(files, words, expected):
    done = subprocess.run(
        [sys.executable, "-c", "from haina.cli import main; main()", "stats", *words, *files],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (1, 2, 4)
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_no_files():
    assert "--sites a.csv b.csv" in haina("glm", "y ~ x", code=2).stderr


def test_truth_values_and_text_are_factors_as_in_r():
    tables = Tables({name: rows.copy() for name, rows in sites().items()})
    first = next(iter(tables.frames.values()))
    first["smoker"] = first["smoker"].astype(object)
    first.loc[:4, "smoker"] = None
    done = analyse(tables, "glm", ["yg", "smoker"], {"formula": "yg ~ smoker"})
    assert done.finding.names == ("(Intercept)", "smokerTRUE")
    assert done.dropped == {"s1": 5}


def test_a_level_that_gaps_take_away_is_no_level():
    # R's model.frame drops levels that no complete row has.
    frames = {name: rows.copy() for name, rows in sites().items()}
    for rows in frames.values():
        rows.loc[rows["ward"] == "b", "x0"] = np.nan
    done = analyse(Tables(frames), "glm", ["yg", "x0", "ward"], {"formula": "yg ~ x0 + ward"})
    assert done.finding.names == ("(Intercept)", "x0", "wardc")


def test_a_small_site_is_named_and_the_others_go_on():
    frames = {**sites(), "tiny": next(iter(sites().values())).head(7)}
    formula = "yg ~ x0 + sex"
    done = analyse(Tables(frames), "glm", Formula.parse(formula).columns, {"formula": formula})
    assert done.silent == {"tiny": "it has fewer than 10 rows, which its answer would give away"}
    assert done.finding.examples == 900
    with pytest.raises(RunError, match="fewer than 10 rows"):
        analyse(Tables({"tiny": frames["tiny"]}), "glm", ["yg", "x0"], {"formula": "yg ~ x0"})


def test_columns_that_a_site_lacks():
    frames = dict(sites())
    frames["s2"] = frames["s2"].drop(columns="x0")
    with pytest.raises(DataError, match="s2 has no column 'x0'"):
        analyse(Tables(frames), "glm", ["yg", "x0"], {"formula": "yg ~ x0"})
    frames["s2"] = sites()["s2"].assign(x0=np.inf)
    with pytest.raises(DataError, match="s2: column 'x0' holds an infinite number"):
        analyse(Tables(frames), "glm", ["yg", "x0"], {"formula": "yg ~ x0"})


def test_the_table_has_gaps():
    assert pd.read_csv(TABLE)["grade"].isna().any()
