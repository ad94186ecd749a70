"""Cox's model of four sites, each a stratum, against R's coxph of all rows together."""

import numpy as np
import pytest
from pooled_in_r import fitted, off, sites

from haina.cli.analysis import Tables, analyse
from haina.errors import ConfigError, LearnerError, RunError
from haina.learners.cox import CoxLearner
from haina.learners.glm import Formula, ModelMatrix
from haina.learners.variables import Variables

FORMULAS = {
    "plain": "Surv(time, event) ~ x0 + x1 + x3",
    "factors": "Surv(time, event) ~ sex * x0 + ward + I(x1^2)",
    "strata": "Surv(time, event) ~ x0 + ward + strata(sex)",
}


@pytest.mark.parametrize("ties", ["efron", "breslow"])
@pytest.mark.parametrize("case", FORMULAS)
def test_fits_are_those_of_coxph(in_r, case, ties):
    ours = fitted("cox", FORMULAS[case], ties=ties).finding
    theirs = in_r[f"cox/{ties}/{case}"]
    assert list(ours.names) == theirs["names"]
    assert off(ours.coefficients, theirs["coef"]) < 1e-12
    assert off(ours.standard_errors, theirs["se"]) < 1e-12
    assert off(ours.p_values, theirs["p"]) < 1e-10
    assert off([ours.null_log_likelihood, ours.log_likelihood], theirs["loglik"]) < 1e-12
    assert off([ours.wald], theirs["wald"]) < 1e-10
    said = ours.to_json()["tests"]
    # summary(coxph) rounds Wald's statistic.
    for place, name in ((0, "likelihood_ratio"), (2, "score")):
        assert off([said[name]["statistic"]], theirs["tests"][[place]]) < 1e-10
        assert off([said[name]["p_value"]], theirs["test_p"][[place]]) < 1e-10
    assert (ours.examples, ours.events) == (theirs["n"][0], theirs["events"][0])


def test_a_table_as_summary_prints_it():
    text = fitted("cox", FORMULAS["plain"]).finding.summary()
    for words in (
        "n= 900, number of events= 673",
        "exp(coef)",
        "lower .95",
        "Likelihood ratio test",
        "Score (logrank) test",
    ):
        assert words in text


def test_the_model_without_strata_is_refused_with_its_reason():
    with pytest.raises(ConfigError, match=r"time of each event.*baseline hazard of its own"):
        fitted("cox", FORMULAS["plain"], stratified=False)


def test_a_site_with_few_events_is_silent():
    tables = {name: rows.copy() for name, rows in sites().items()}
    tables["s3"]["event"] = (np.arange(len(tables["s3"])) < 4).astype(int)
    formula = FORMULAS["plain"]
    done = analyse(Tables(tables), "cox", Formula.parse(formula).columns, {"formula": formula})
    assert done.silent == {"s3": "it has fewer than 5 events, which its answer would give away"}
    assert done.finding.examples == 810


@pytest.mark.parametrize(
    ("column", "value", "words"), [("event", 2, "0 .censored. or 1"), ("time", -1.0, "finite times >= 0")]
)
def test_rows_that_cannot_be_used_are_not_shown(column, value, words):
    tables = {name: rows.copy() for name, rows in sites().items()}
    for rows in tables.values():
        rows.loc[0, column] = value
    with pytest.raises(RunError, match=words):
        analyse(Tables(tables), "cox", ["time", "event", "x0"], {"formula": "Surv(time, event) ~ x0"})


@pytest.mark.parametrize("formula", ["t ~ x", "Surv(t, d) ~ x + offset(t)"])
def test_formulas_that_are_no_survival(formula):
    variables = Variables.of(("t", "d", "x"), {})
    with pytest.raises(LearnerError):
        CoxLearner(ModelMatrix(Formula.parse(formula), variables))


def test_evaluation_is_the_partial_likelihood_of_an_event():
    variables = Variables.of(("t", "d", "x"), {})
    learner = CoxLearner(ModelMatrix(Formula.parse("Surv(t, d) ~ x - 1"), variables))
    x = np.array([[1.0, 1, 5], [2.0, 1, 1], [3.0, 0, 2]])
    metrics = learner.evaluate(np.zeros(1), x, np.zeros(3))
    assert metrics.loss == pytest.approx((np.log(3) + np.log(2)) / 2)
    assert learner.predict(np.array([2.0]), x).tolist() == [10, 2, 4]
    assert learner.describe()["coefficients"] == ["x"]
    assert learner.from_bytes(learner.to_bytes(np.array([0.25]))) == [0.25]
