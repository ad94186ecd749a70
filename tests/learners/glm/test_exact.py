import math

import numpy as np
import pytest
import statsmodels.api as sm
from federated_fit import cut, fit, outcomes, simulate

from haina.errors import DataError, RoundError
from haina.learners.glm import Design, GlmLearner, GlmResult, Term
from haina.learners.learner import Training, Work
from haina.strategy.parts import Aggregate, Payload
from haina.strategy.server.newton import Newton
from haina.strategy.sums import Sums
from haina.update import Update

FAMILIES = {
    "gaussian": sm.families.Gaussian(),
    "binomial": sm.families.Binomial(),
    "poisson": sm.families.Poisson(),
}
SITES = {2: (150, 250), 5: (40, 60, 150, 20, 130), 20: tuple(range(12, 32))}


def pooled(family, X, y):
    return sm.GLM(y, X, family=FAMILIES[family]).fit(tol=1e-15, tol_criterion="params", maxiter=100)


def check(result, reference):
    scale = np.maximum(1, np.abs(reference.params))
    assert np.max(np.abs(result.coefficients - reference.params) / scale) < 1e-8
    assert np.max(np.abs(result.standard_errors - reference.bse) / np.maximum(1, reference.bse)) < 1e-6
    assert result.deviance == pytest.approx(reference.deviance, abs=1e-6)
    assert result.null_deviance == pytest.approx(reference.null_deviance, abs=1e-6)


@pytest.mark.parametrize("sites", SITES)
@pytest.mark.parametrize("family", FAMILIES)
def test_sites_fit_what_one_site_with_all_rows_would(family, sites):
    x, y = simulate(family, SITES[sites])
    learner = GlmLearner(family, features=5, min_cell=1)
    fitted = fit(learner, Newton(family), cut(x, y, SITES[sites]))
    result = GlmResult.of(fitted.model, fitted.state, family, learner.design.names)
    reference = pooled(family, sm.add_constant(x), y)
    check(result, reference)
    assert result.converged
    assert fitted.rounds <= 9
    if family != "gaussian":
        assert result.aic == pytest.approx(reference.aic, rel=1e-10)
        assert result.p_values == pytest.approx(reference.pvalues, abs=1e-9)
    else:
        ols = sm.OLS(y, sm.add_constant(x)).fit()
        assert result.p_values == pytest.approx(ols.pvalues, abs=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_site_may_lack_a_level_of_a_factor(family):
    rng = np.random.default_rng(3)
    sizes, levels = (120, 90, 60), (("a", "b", "c"), ("a", "c"), ("b", "c", "d"))
    ward = np.concatenate([rng.choice(held, n) for held, n in zip(levels, sizes, strict=True)])
    age = rng.normal(size=270)
    effect = {"a": 0.0, "b": 0.5, "c": -0.3, "d": 0.2}
    y = outcomes(family, 0.2 + 0.4 * age + np.array([effect[w] for w in ward]), rng)
    x = np.empty((270, 2), dtype=object)
    x[:, 0], x[:, 1] = age, ward
    shards = cut(x, y, sizes)
    open_design = Design((Term("age"), Term("ward", levels=())))
    told = [open_design.levels(shards.of(k)[0]) for k in range(3)]
    assert told[1] == {"ward": ["a", "c"]}
    design = open_design.agreed(told)
    assert design.names == ("(Intercept)", "age", "wardb", "wardc", "wardd")
    fitted = fit(GlmLearner(family, design), Newton(family, columns=design.names), shards)
    X = np.column_stack([np.ones(270), age, *(ward == level for level in "bcd")])
    check(GlmResult.of(fitted.model, fitted.state, family, design.names), pooled(family, X, y))


def test_a_site_may_have_one_class_only():
    x, y = simulate("binomial", (300,))
    order = np.argsort(y, kind="stable")
    zeros = int((y == 0).sum())
    x, y = x[order], y[order]
    fitted = fit(GlmLearner("binomial", 5), Newton("binomial"), cut(x, y, (zeros - 30, 300 - zeros + 30)))
    result = GlmResult.of(fitted.model, fitted.state, "binomial", tuple("abcdef"))
    check(result, pooled("binomial", sm.add_constant(x), y))


@pytest.mark.parametrize("family", FAMILIES)
def test_without_an_intercept(family):
    x, y = simulate(family, (80, 120))
    x[:, -1] /= 100
    learner = GlmLearner(family, 5, intercept=False)
    fitted = fit(learner, Newton(family, intercept=False), cut(x, y, (80, 120)))
    result, reference = (
        GlmResult.of(fitted.model, fitted.state, family, learner.design.names),
        pooled(family, x, y),
    )
    assert result.coefficients == pytest.approx(reference.params, abs=1e-8)
    assert result.standard_errors == pytest.approx(reference.bse, abs=1e-6)


def test_dobsons_counts_as_printed_in_the_manual_of_r():
    # Dobson (1990), the example of R's help page of glm: outcome and treatment as factors of three levels.
    counts = np.array([18, 17, 15, 20, 10, 20, 25, 13, 12.0])
    x = np.column_stack([np.tile([1.0, 2, 3], 3), np.repeat([1.0, 2, 3], 3)])
    design = Design((Term("outcome", levels=()), Term("treatment", levels=())))
    design = design.agreed([design.levels(x)])
    learner, server = GlmLearner("poisson", design), Newton("poisson")
    model = learner.initial(0)
    state, finished = server.init(model), False
    while not finished:
        stepped = server.step(model, Aggregate(learner.sums(model, x, counts).pack(), 1), state)
        model, state, finished = stepped.model, stepped.state, stepped.finished
    result = GlmResult.of(model, state, "poisson", design.names)
    assert design.names == ("(Intercept)", "outcome2", "outcome3", "treatment2", "treatment3")
    assert result.coefficients[:3] == pytest.approx([3.045e00, -4.543e-01, -2.930e-01], rel=5e-4)
    assert result.standard_errors == pytest.approx([0.1709, 0.2022, 0.1927, 0.2000, 0.2000], abs=5e-5)
    assert result.deviance == pytest.approx(5.1291, abs=5e-5)
    assert result.null_deviance == pytest.approx(10.5814, abs=5e-5)
    assert result.aic == pytest.approx(56.76, abs=5e-3)
    assert "outcome2" in result.summary()
    assert "z value" in result.summary()


def test_aic_of_gaussian_counts_the_dispersion():
    x, y = simulate("gaussian", (60,))
    fitted = fit(GlmLearner("gaussian", 5), Newton("gaussian"), cut(x, y, (60,)))
    result = GlmResult.of(fitted.model, fitted.state, "gaussian", tuple("abcdef"))
    assert result.aic == pytest.approx(sm.OLS(y, sm.add_constant(x)).fit().aic + 2, rel=1e-12)


def test_large_counts_do_not_explode():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    y = rng.poisson(np.exp(9 + 0.3 * x[:, 0])).astype(float)
    fitted = fit(GlmLearner("poisson", 2), Newton("poisson"), cut(x, y, (100, 100)))
    reference = pooled("poisson", sm.add_constant(x), y)
    assert fitted.model == pytest.approx(reference.params, abs=1e-8)
    assert fitted.rounds <= 8


def test_columns_far_from_zero_and_outcomes_far_from_zero():
    rng = np.random.default_rng(0)
    year = 2020 + rng.normal(0, 3, 400)
    y = 1e6 + 2 * (year - 2020) + rng.normal(size=400)
    fitted = fit(GlmLearner("gaussian", 1), Newton("gaussian"), cut(year[:, None], y, (200, 200)))
    reference = sm.OLS(y - 1e6, sm.add_constant(year - 2020)).fit()
    assert fitted.model[1] == pytest.approx(reference.params[1], abs=1e-8)
    assert fitted.last.notes["converged"] == 1


@pytest.mark.parametrize("quasi", [False, True])
def test_perfect_separation_ends_and_says_so(quasi):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 2))
    if quasi:
        x[:, 1] = rng.random(200) < 0.2
        y = np.where(x[:, 1] > 0, 1.0, (rng.random(200) < 0.5).astype(float))
    else:
        y = (x[:, 1] > 0).astype(float)
    fitted = fit(GlmLearner("binomial", 2), Newton("binomial"), cut(x, y, (100, 100)), limit=60)
    assert fitted.last.notes["converged"] == 0
    assert fitted.last.notes["runaway"] == 2
    assert np.isfinite(fitted.model).all()
    result = GlmResult.of(fitted.model, fitted.state, "binomial", ("(Intercept)", "a", "marker"))
    assert not result.converged
    assert result.runaway == "marker"
    assert "NOT converge" in result.summary()


def test_hard_but_regular_fits_are_not_taken_for_separation():
    # 3 events in 2000 rows and a strong effect: many standard errors from the null model, yet finite.
    rng = np.random.default_rng(8)
    x = np.r_[rng.normal(size=1997), 3.0, 3.5, 0.5][:, None]
    y = np.r_[np.zeros(1997), np.ones(3)]
    fitted = fit(GlmLearner("binomial", 1, min_cell=1), Newton("binomial"), cut(x, y, (1000, 1000)))
    assert fitted.last.notes["converged"] == 1
    assert fitted.model == pytest.approx(pooled("binomial", sm.add_constant(x), y).params, abs=1e-8)


@pytest.mark.parametrize(
    ("marked", "cases", "told"),
    [
        (0, 50, True),
        (1, 50, False),
        (4, 50, False),
        (5, 50, True),
        (96, 50, False),
        (50, 1, False),
        (50, 97, False),
    ],
)
def test_the_mark_of_a_few_persons_keeps_a_site_silent(marked, cases, told):
    """H[j, k] / H[j, j] of a column with a single one is that person's k-th cell."""
    rng = np.random.default_rng(marked)
    x = np.column_stack([np.arange(100) < marked, rng.normal(size=100)]).astype(float)
    y = (rng.permutation(100) < cases).astype(float)
    shards = cut(x, y, (100,))
    (said,) = GlmLearner("binomial", 2).train(Work(np.zeros(3), 1, shards, Training(), 1.0))
    assert isinstance(said, Update) == told
    if not told:
        assert "fewer than 5 rows" in said.reason
        assert 'check = "sum"' in said.reason
    (open_,) = GlmLearner("binomial", 2, min_cell=1).train(Work(np.zeros(3), 1, shards, Training(), 1.0))
    assert isinstance(open_, Update)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_collinear_column_is_named(family):
    x, y = simulate(family, (100, 100))
    x[:, 3] = 2 * x[:, 0] - x[:, 1] + 3
    names = ("(Intercept)", "a", "b", "c", "double", "e")
    with pytest.raises(RoundError, match="'double' is empty at every site, or a combination"):
        fit(GlmLearner(family, 5), Newton(family, columns=names), cut(x, y, (100, 100)))


def test_an_empty_column_is_named():
    x, y = simulate("gaussian", (100,))
    x[:, 2] = 0
    with pytest.raises(RoundError, match="column 3 is empty"):
        fit(GlmLearner("gaussian", 5), Newton("gaussian"), cut(x, y, (100,)))


@pytest.mark.parametrize(("family", "value"), [("binomial", 1.0), ("binomial", 0.0), ("poisson", 0.0)])
def test_outcomes_that_do_not_vary_are_refused(family, value):
    x = np.random.default_rng(0).normal(size=(50, 1))
    with pytest.raises(RoundError, match=f"every outcome is {value:g}"):
        fit(GlmLearner(family, 1), Newton(family), cut(x, np.full(50, value), (50,)))


def test_constant_gaussian_outcomes_have_a_fit():
    x = np.random.default_rng(0).normal(size=(50, 1))
    fitted = fit(GlmLearner("gaussian", 1), Newton("gaussian"), cut(x, np.full(50, 7.3), (20, 30)))
    assert fitted.model == pytest.approx([7.3, 0.0], abs=1e-12)
    assert fitted.last.notes["converged"] == 1


def test_small_and_broken_clients_say_why_and_the_others_answer():
    x, y = simulate("binomial", (100, 9, 0, 100, 50))
    y[-1] = 0.625
    learner = GlmLearner("binomial", 5)
    results = list(
        learner.train(Work(learner.initial(0), 1, cut(x, y, (100, 9, 0, 100, 50)), Training(), 1.0))
    )
    assert [r.client for r in results] == [f"site{k}" for k in range(5)]
    assert [isinstance(r, Update) for r in results] == [True, False, False, True, False]
    assert "fewer than 10 rows" in results[1].reason
    assert "no rows" in results[2].reason
    assert "0 and 1" in results[4].reason
    assert "0.625" not in results[4].reason
    with pytest.raises(DataError, match=r"0\.625"):
        learner.sums(learner.initial(0), x, y)


def test_an_unknown_level_is_not_told_to_the_server():
    design = Design((Term("ward", levels=("a", "b")),))
    x = np.array([["a"], ["b"], ["secret"]] * 10, dtype=object)
    (failure,) = GlmLearner("gaussian", design).train(
        Work(np.zeros(2), 1, cut(x, np.ones(30), (30,)), Training(), 1.0)
    )
    assert failure.reason == "some of its rows cannot be used (allowed: a, b in 'ward')"


def test_the_least_number_of_rows_grows_with_the_columns():
    x = np.random.default_rng(0).normal(size=(21, 20))
    learner = GlmLearner("gaussian", 20)
    (failure,) = learner.train(Work(learner.initial(0), 1, cut(x, x[:, 0], (21,)), Training(), 1.0))
    assert "fewer than 22 rows" in failure.reason


def test_sites_that_come_and_go_do_not_make_a_step_look_bad():
    sizes = (100, 100, 200)
    x, y = simulate("binomial", sizes)
    learner, server = GlmLearner("binomial", 5), Newton("binomial")
    full, short = cut(x, y, sizes), cut(x[:200], y[:200], sizes[:2])
    model = learner.initial(0)
    state, finished, number = server.init(model), False, 0
    while not finished:
        number += 1
        shards = short if number in (2, 6) else full
        total = sum(u.vector for u in learner.train(Work(model, number, shards, Training(), 1.0)))
        stepped = server.step(model, Aggregate(total, number), state)
        model, state, finished = stepped.model, stepped.state, stepped.finished
    result = GlmResult.of(model, state, "binomial", tuple("abcdef"))
    reference = pooled("binomial", sm.add_constant(x), y)
    assert result.coefficients == pytest.approx(reference.params, abs=1e-8)
    assert result.deviance == pytest.approx(reference.deviance, abs=1e-6)
    assert math.isnan(result.null_deviance)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sums_are_the_derivatives_of_the_deviance(family):
    x, y = simulate(family, (40,), features=2)
    x[:, -1] /= 100
    learner, beta, step = GlmLearner(family, 2), np.array([0.2, -0.3, 0.1]), 1e-5
    sums = learner.sums(beta, x, y)
    for j, e in enumerate(np.eye(3) * step):
        up, down = learner.sums(beta + e, x, y), learner.sums(beta - e, x, y)
        assert -(up.deviance - down.deviance) / (4 * step) == pytest.approx(sums.gradient[j], rel=1e-6)
        assert -(up.gradient - down.gradient) / (2 * step) == pytest.approx(sums.hessian[j], rel=1e-6)


def test_deviance_is_finite_at_absurd_points():
    for family in FAMILIES:
        x, y = np.array([[1e5], [-1e5]]), np.array([1.0, 0.0])
        sums = GlmLearner(family, 1).sums(np.array([1e5, -1e5]), x, y)
        assert np.isfinite(sums.pack()).all()


def test_evaluate_predict_and_bytes():
    x, y = simulate("binomial", (100,))
    learner = GlmLearner("binomial", 5)
    model = np.array([0.1, 0.2, -0.3, 0.4, 0.0, 0.001])
    p = learner.predict(model, x)
    assert p.shape == (100, 2)
    metrics = learner.evaluate(model, x, y)
    assert metrics.loss == pytest.approx(-np.mean(np.log(np.where(y == 1, p[:, 1], p[:, 0]))), rel=1e-12)
    assert metrics.accuracy == np.mean(p.argmax(1) == y)
    data = learner.to_bytes(model)
    assert np.array_equal(learner.from_bytes(data), model)
    assert learner.from_bytes(data).dtype == np.float64
    assert learner.payload is Payload.SUM
    assert learner.describe()["coefficients"][0] == "(Intercept)"
    assert learner.update_size == Sums.size(6) == 6 + 21 + 4


def test_rows_in_blocks_give_the_same_sums(monkeypatch):
    x, y = simulate("poisson", (100,))
    learner, beta = GlmLearner("poisson", 5), np.full(6, 0.01)
    whole = learner.sums(beta, x, y).pack()
    monkeypatch.setattr("haina.learners.glm.learner._ROWS", 7)
    assert learner.sums(beta, x, y).pack() == pytest.approx(whole, rel=1e-12)
