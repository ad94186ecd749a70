"""Formulas, survival and summaries between a real coordinator and real nodes: the same bytes as in a simulation, and so R's numbers."""

import pytest
from deployment import deploy
from pooled_in_r import off, sites, stored

from haina.federation.federation import Federation

MODELS = {
    "glm": 'learner = "glm"\nfamily = "binomial"\nformula = "yb ~ sex * x0 + ward"',
    "cox": 'learner = "cox"\nformula = "Surv(time, yb) ~ x0 + strata(sex)"',
    "summary": 'learner = "summary"\ncolumns = ["x0", "yb"]',
}


@pytest.mark.slow
@pytest.mark.parametrize("learner", MODELS)
def test_a_federation_of_real_sites_ends_where_a_simulation_does(tmp_path, learner):
    for name, rows in sites().items():
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
    named = ", ".join(f'{name} = "{name}.csv"' for name in sites())
    text = f"""
name = "live"
[model]
{MODELS[learner]}
[data]
{{sites}}
target = "yb"
task = "regression"
features = ["time", "x0", "sex", "ward"]
categorical = {{{{sex = ["F", "M"], ward = ["a", "b", "c"]}}}}
test = 0
[train]
rounds = 30
[serve]
nodes = 4
deadline = "60s"
"""
    file = tmp_path / "federation.toml"
    file.write_text(text.format(sites=""), encoding="utf-8")
    simulated = Federation.of(text.format(sites=f"sites = {{{named}}}"), folder=tmp_path)
    simulation = simulated.simulation()
    run, identities = simulation.start(), []
    while not run.finished:
        run, record = simulation.advance(run)
        identities.append(record.model)
    models, _ = deploy(tmp_path, file, {name: tmp_path / f"{name}.csv" for name in sites()})
    assert models[1:] == identities
    if learner == "glm":
        assert off(run.model, stored()["glm/binomial/interaction"]["coef"]) < 1e-8
