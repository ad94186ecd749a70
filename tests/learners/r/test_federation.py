"""Whole federations whose sites train in R: as a simulation, and with real nodes."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import finished, haina
from rlang import require_r
from served import Served

from haina.artifact import load
from haina.errors import ConfigError
from haina.federation.federation import Federation
from haina.report import Report
from haina.strategy.presets import PRESETS
from haina.update import Update

FILE = """\
name = "in-r"
[model]
learner = "rscript"
script = "train.R"
names = ["(Intercept)", "age", "stay"]
timeout = 60
{model}
[data]
sites = {{a = "a.csv", b = "b.csv", c = "c.csv"}}
target = "y"
features = ["age", "stay"]
classes = ["no", "yes"]
test = {test}
[train]
rounds = {rounds}
{more}
"""

#: A whole fit, or one step of iterated least squares from the params received, as the file says.
FIT = """\
train <- function(params, data, config) {
  x <- cbind(1, data$x)
  one <- isTRUE(config$settings$one_step)
  fit <- suppressWarnings(glm.fit(x, data$y, family = binomial(), start = if (one) params, control = list(
    maxit = if (one) 1 else 25, epsilon = if (one) 1e-8 else 1e-14)))
  list(params = unname(fit$coefficients), n = nrow(x), metrics = list(deviance = fit$deviance))
}
predict <- function(params, x, config) plogis(drop(cbind(1, x) %*% params))
"""
SIZES = {"a": 500, "b": 300, "c": 200}


def table(path, rows, seed):
    rng = np.random.default_rng(seed)
    x = np.column_stack([rng.normal(0, 1 + 0.3 * seed, rows), rng.gamma(2.0, 0.5, rows)])
    y = (rng.random(rows) < 1 / (1 + np.exp(-(x @ [0.8, -0.5] + 0.1 * seed)))).astype(int)
    lines = [f"{a!r},{s!r},{['no', 'yes'][k]}" for a, s, k in zip(*x.T.tolist(), y.tolist(), strict=True)]
    path.write_text("\n".join(["age,stay,y", *lines]) + "\n")
    return np.column_stack([np.ones(rows), x]), y


@pytest.fixture
def project(tmp_path):
    """Write three sites and a script; gives a function that writes the file."""
    require_r("jsonlite")
    rows = {
        name: table(tmp_path / f"{name}.csv", size, seed) for seed, (name, size) in enumerate(SIZES.items())
    }
    (tmp_path / "train.R").write_text(FIT)

    def write(model="", rounds=1, test=0, more="", text=FILE):
        path = tmp_path / "federation.toml"
        path.write_text(text.format(model=model, rounds=rounds, test=test, more=more))
        return path

    write.rows = rows
    return write


def steps(design, y, beta, count):
    """Newton's steps of a logistic regression."""
    for _ in range(count):
        p = 1 / (1 + np.exp(-(design @ beta)))
        beta = beta + np.linalg.solve((design.T * (p * (1 - p))) @ design, design.T @ (y - p))
    return beta


def averaged(fits):
    """The weighted mean that FedAvg makes, in plain numpy."""
    weights = np.array(list(SIZES.values()), float)
    return (weights / weights.sum()) @ np.stack(fits)


def model_of(folder):
    (path,) = Path(folder).glob("runs/*/model.safetensors")
    return load(path.read_bytes())[0]["coefficients"]


def test_glm_fit_on_three_clients_equals_the_average_in_python(project, capsys, monkeypatch, tmp_path):
    path = project()
    monkeypatch.chdir(tmp_path)
    assert haina(capsys, monkeypatch, "run", path.name).code == 0
    wanted = averaged([steps(x, y, np.zeros(3), 25) for x, y in project.rows.values()])
    np.testing.assert_allclose(model_of(tmp_path), wanted, rtol=0, atol=1e-12)


def test_five_rounds_of_steps_equal_the_same_rounds_in_python(project, capsys, monkeypatch, tmp_path):
    """Each round begins from the average, so an error of one would be seen in all that follow."""
    path = project(model="settings = {one_step = true}", rounds=5)
    monkeypatch.chdir(tmp_path)
    assert haina(capsys, monkeypatch, "run", path.name).code == 0
    wanted = np.zeros(3)
    for _ in range(5):
        wanted = averaged([steps(x, y, wanted, 1) for x, y in project.rows.values()])
    np.testing.assert_allclose(model_of(tmp_path), wanted, rtol=0, atol=1e-12)


GLMNET = """\
train <- function(params, data, config) {
  fit <- glmnet::glmnet(data$x, data$y, family = "binomial", lambda = config$settings$lambda, thresh = 1e-14)
  list(params = as.numeric(coef(fit)), n = nrow(data$x))
}
"""


@pytest.mark.slow
def test_glmnet_on_three_clients_equals_glmnet_by_hand(project, capsys, monkeypatch, tmp_path):
    """The same fits asked of Rscript one by one, with hexadecimal digits, and averaged in Python."""
    require_r("jsonlite", "glmnet")
    path = project(model="settings = {lambda = 0.02}")
    (tmp_path / "train.R").write_text(GLMNET)
    monkeypatch.chdir(tmp_path)
    assert haina(capsys, monkeypatch, "run", path.name).code == 0
    code = """
        for (name in c("a", "b", "c")) {
          d <- read.csv(paste0(name, ".csv"))
          fit <- glmnet::glmnet(as.matrix(d[1:2]), as.numeric(d$y == "yes"), family = "binomial", lambda = 0.02, thresh = 1e-14)
          cat(sprintf("%a", as.numeric(coef(fit))), "\\n")
        }"""
    said = subprocess.run(
        ["Rscript", "--vanilla", "-e", code], capture_output=True, text=True, check=True
    ).stdout
    fits = [[float.fromhex(word) for word in line.split()] for line in said.splitlines()]
    np.testing.assert_allclose(model_of(tmp_path), averaged(fits), rtol=0, atol=1e-12)


@pytest.mark.slow
def test_two_workers_with_an_r_each_give_the_bytes_of_one(project, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = []
    for workers in (1, 2):
        path = project(
            rounds=2, model="settings = {one_step = true}", more=f"[simulation]\nworkers = {workers}"
        )
        assert haina(capsys, monkeypatch, "run", path.name, "--overwrite").code == 0
        made.append((tmp_path / "runs/in-r/model.safetensors").read_bytes())
    assert made[0] == made[1]


def test_a_client_that_fails_is_named_and_the_run_goes_on(project, tmp_path):
    simulation = Federation.read(project(rounds=2, test=100)).simulation()
    (tmp_path / "train.R").write_text(
        FIT.replace("{\n", '{\n  if (config$client == "b" && config$round == 1) stop("locked")\n', 1)
    )
    run = simulation.start()
    run, record = simulation.advance(run)
    verdicts = {client.client: client for client in record.clients}
    assert verdicts["b"].verdict != "admitted"
    assert "its R script stopped (train): locked" in verdicts["b"].reason
    assert 0.5 < record.metrics["accuracy"] <= 1
    run, record = simulation.advance(run)
    assert [client.verdict for client in record.clients] == ["admitted"] * 3


def test_a_script_that_does_not_predict_leaves_the_model_unevaluated(project, tmp_path):
    (tmp_path / "train.R").write_text(FIT.split("predict <-")[0])
    simulation = Federation.read(project(test=100)).simulation()
    _, record = simulation.advance(simulation.start())
    assert record.metrics == {}


def test_the_chapter_on_simulation_comes_out_as_it_should(project, tmp_path):
    """Nodes A, B and C with 500, 300 and 200 samples give [0.76, -0.52].

    The request prints [0.77, -0.51], a slip: 0.5 * 0.8 + 0.3 * 0.6 + 0.2 * 0.9 is 0.76, and 0.5 * -0.5 + 0.3 * -0.7 + 0.2 * -0.3 is -0.52.
    """
    said = {"A": (500, [0.8, -0.5]), "B": (300, [0.6, -0.7]), "C": (200, [0.9, -0.3])}
    for name, (rows, _) in said.items():
        table(tmp_path / f"{name}.csv", rows, 1)
    (tmp_path / "train.R").write_text("""
        said <- list(A = c(0.8, -0.5), B = c(0.6, -0.7), C = c(0.9, -0.3))
        train <- function(params, data, config) list(params = said[[config$client]], n = nrow(data$x))
    """)
    text = FILE.replace('names = ["(Intercept)", "age", "stay"]', 'names = ["age", "stay"]')
    text = text.replace('a = "a.csv", b = "b.csv", c = "c.csv"', 'A = "A.csv", B = "B.csv", C = "C.csv"')
    simulation = Federation.read(project(text=text)).simulation()
    in_r, _ = simulation.advance(simulation.start())
    strategy = PRESETS["fedavg"]()
    state = strategy.init(np.zeros(2))
    open_round = strategy.open(
        state, np.zeros(2), {name: Report(rows) for name, (rows, _) in said.items()}, dimension=2
    )
    for name, (rows, params) in said.items():
        open_round.add(Update(name, np.array(params), Report(rows)))
    in_python = open_round.close().model
    np.testing.assert_allclose(in_r.model, [0.76, -0.52], rtol=0, atol=1e-12)
    np.testing.assert_allclose(in_python, in_r.model, rtol=0, atol=1e-12)


def test_what_a_file_says_wrong_is_named(project):
    for model, words in (
        ("size = 4", "size is 4, and there are 3 names"),
        ("initial = [1.0]", "initial has 1 numbers"),
    ):
        with pytest.raises(ConfigError, match=words):
            _ = Federation.read(project(model=model)).learner
    text = FILE.replace("timeout = 60", 'timeout = "5 parsecs"')
    with pytest.raises(ConfigError, match="timeout is '5 parsecs'"):
        _ = Federation.read(project(text=text)).learner
    text = FILE.replace("timeout = 60", 'timeout = "5m"')
    assert Federation.read(project(text=text)).learner.home.timeout == 300


@pytest.mark.slow
def test_real_nodes_train_in_r_and_a_coordinator_without_the_script_averages(project, tmp_path):
    """Three processes of `haina join` over mutual TLS, all digits kept (`codecs = ["raw"]`); the script is in the sites' folder alone, and one node's
    script fails in the first round.
    """
    path = project(
        rounds=3,
        model="settings = {one_step = true}",
        more='[serve]\nnodes = 3\nquorum = 2\ncodecs = ["raw"]',
    )
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("sites ="))
    path.unlink()
    script = FIT.replace("{\n", '{\n  if (config$client == "b" && config$round == 1) stop("locked")\n', 1)
    sites, coordinator = tmp_path / "sites", tmp_path / "coordinator"
    sites.mkdir()
    coordinator.mkdir()
    (sites / "train.R").write_text(script)
    house = Served(coordinator, text)
    try:
        for name in SIZES:
            house.haina("invite", name)
        nodes = [
            house.join(f"{name}.invite", "--data", tmp_path / f"{name}.csv", "--folder", sites)
            for name in SIZES
        ]
        for node in nodes:
            assert finished(node, 60).code == 0
        rounds = house.haina("rounds", "--json")
        house.haina("models", "fetch", "--out", "final.safetensors", "--json")
        model = load((coordinator / "final.safetensors").read_bytes())[0]["coefficients"]
    finally:
        house.close()
    print(rounds)
    weights = {name: size for name, size in SIZES.items() if name != "b"}
    some = [steps(*project.rows[name], np.zeros(3), 1) for name in weights]
    wanted = np.array(list(weights.values())) / sum(weights.values()) @ np.stack(some)
    for _ in range(2):
        wanted = averaged([steps(x, y, wanted, 1) for x, y in project.rows.values()])
    np.testing.assert_allclose(model, wanted, rtol=0, atol=1e-12)
