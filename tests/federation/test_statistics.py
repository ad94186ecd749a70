"""Exact statistics by a federation file: in simulation, under secure aggregation, and by real sites."""

import numpy as np
import pytest
from pooled_in_r import TABLE, off, sites, stored

from haina.errors import ConfigError
from haina.federation.federation import Federation

SECURE = "[privacy]\nsecure_aggregation = true\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("sites")
    for name, rows in sites().items():
        rows.to_csv(path / f"{name}.csv", index=False)
    return path


def file(model, data, more="", rounds=40):
    named = ", ".join(f'{name} = "{name}.csv"' for name in sites())
    return f'name = "stats"\n[model]\n{model}\n[data]\nsites = {{{named}}}\ntest = 0\n{data}\n[train]\nrounds = {rounds}\n{more}'


def played(federation):
    simulation = federation.simulation()
    run = simulation.start()
    while not run.finished and run.round < simulation.rounds:
        run, record = simulation.advance(run)
        assert not record.reason
    assert run.finished
    return run


GLM = 'learner = "glm"\nfamily = "binomial"\nformula = "yb ~ sex * x0 + ward"'
GLM_DATA = 'target = "yb"\ntask = "regression"\nfeatures = ["ward", "x0", "sex"]\ncategorical = {sex = ["F", "M"], ward = ["a", "b", "c"]}'
COX = 'learner = "cox"\nformula = "Surv(time, event) ~ x0 + ward + strata(sex)"'
COX_DATA = GLM_DATA.replace('target = "yb"', 'target = "event"').replace('["ward",', '["time", "ward",')


@pytest.mark.parametrize("more", ["", SECURE], ids=["open", "secure"])
def test_a_formula_in_a_federation_file(folder, more):
    federation = Federation.of(file(GLM, GLM_DATA, more), folder=folder)
    run, theirs = played(federation), stored()["glm/binomial/interaction"]
    assert list(federation.learner.describe()["coefficients"]) == theirs["names"]
    assert off(run.model, theirs["coef"]) < 1e-8
    found = federation.found(run)
    assert off(found.standard_errors, theirs["se"]) < 1e-6
    assert "sexM:x0" in federation.tell(run)


@pytest.mark.parametrize("more", ["", SECURE], ids=["open", "secure"])
def test_survival_in_a_federation_file(folder, more):
    federation = Federation.of(file(COX, COX_DATA, more), folder=folder)
    run, theirs = played(federation), stored()["cox/efron/strata"]
    assert off(run.model, theirs["coef"]) < 1e-8
    assert federation.learner.describe()["levels"] == {"ward": ["a", "b", "c"], "sex": ["F", "M"]}


@pytest.mark.parametrize("more", ["", SECURE], ids=["open", "secure"])
def test_summaries_in_a_federation_file(folder, more):
    model, data = (
        'learner = "summary"\ncolumns = ["x0", "yp"]',
        'target = "yp"\ntask = "regression"\nfeatures = ["x0"]',
    )
    federation = Federation.of(file(model, data, more), folder=folder)
    for one in federation.found(played(federation)).to_json()["columns"]:
        theirs = stored()[f"describe/{one['name']}"]
        # A secure sum rounds to a grid, at random; counts stay whole, and so do quantiles.
        assert off([one["mean"], one["sd"]], [theirs["mean"][0], theirs["sd"][0]]) < (1e-9 if more else 1e-12)
        assert off(list(one["quantiles"].values()), theirs["quantiles"]) < 1e-12


def test_an_area_needs_hidden_sums(folder):
    model = 'learner = "summary"\nkind = "auc"\ncolumns = ["score"]'
    data = 'target = "end"\nfeatures = ["score"]\nclasses = ["alive", "dead"]'
    federation = Federation.of(file(model + '\ncheck = "sum"', data, SECURE), folder=folder)
    found = federation.found(played(federation)).to_json()
    assert off([found["auc"]], stored()["auc"]["value"]) < 1e-4
    assert found["outcome"] == "end"
    # In the open each site refuses, and the record of the round says why.
    simulation = Federation.of(file(model, data), folder=folder).simulation()
    run = simulation.start()
    for _ in range(3):
        run, record = simulation.advance(run)
    assert not run.finished
    assert all("fewer than 5 rows" in client.reason for client in record.clients)


@pytest.mark.parametrize("more", ["", SECURE], ids=["open", "secure"])
def test_a_cross_validated_path_in_a_federation_file(folder, more):
    model = 'learner = "glm"\nformula = "yg ~ x0 + ward"\nalpha = 1.0\nfolds = 5\nn_lambda = 8'
    data = GLM_DATA.replace('"yb"', '"yg"').replace(', "sex"]', "]").replace('sex = ["F", "M"], ', "")
    federation = Federation.of(file(model, data, more), folder=folder)
    run = played(federation)
    found = federation.found(run).to_json()
    assert found["names"] == ["(Intercept)", "x0", "wardb", "wardc"]
    assert found["cross_validation"]["lambda_min"] <= found["cross_validation"]["lambda_1se"]
    assert "lambda.min" in federation.tell(run)
    assert federation.learner.update_size == 6 * 8 * (5 + 10 + 4 + 1)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (
            'learner = "cox"\nformula = "Surv(time, event) ~ x0"\nstratified = false',
            "time of each event from each site",
        ),
        ('learner = "cox"', "formula must be given"),
        ('learner = "glm"\nformula = "yb ~ scale(x0)"', "at each site"),
        ('learner = "glm"\nformula = "yb ~ nope"', "no column 'nope'"),
        ('learner = "glm"\nformula = "yb ~ x0"\nintercept = false', "y ~ x - 1"),
        ('learner = "glm"\nformula = "yb ~ x0"\nfolds = 5', "alpha is not given"),
        ('learner = "glm"\nformula = "yb ~ x0 - 1"\nalpha = 1.0', "has an intercept"),
        ('learner = "glm"\nformula = "yb ~ x0"\nalpha = 1.0\nfolds = 2', "3 or more"),
        ('learner = "glm"\nformula = "sex ~ x0"', "is a factor"),
        ('learner = "summary"\nkind = "mean"', "does not fit"),
        ('learner = "summary"\nkind = "table"\ncolumns = ["sex"]\ncheck = "sum"', "small cells of each site"),
        ('learner = "summary"\nkind = "table"\ncolumns = ["x0"]', "'x0' is a number"),
    ],
)
def test_what_cannot_be_asked_names_file_and_key(folder, model, words):
    with pytest.raises(ConfigError, match=words) as caught:
        _ = Federation.of(file(model, GLM_DATA), folder=folder).strategy
    assert str(caught.value).startswith("federation.toml: model")


def test_the_table_is_the_one_that_r_saw():
    assert TABLE.is_file()
    assert sum(len(rows) for rows in sites().values()) == 900
    assert np.isfinite(stored()["cor"]["value"]).all()
