"""The vignette of three nodes, run as it stands, against Haina's Python on the same numbers."""

import json
from pathlib import Path

import numpy as np
import pytest
from federated_fit import cut, fit
from rounds import play
from rsite import evaluate, needs_r
from scipy.stats import laplace

from haina.learners.glm import GlmLearner
from haina.privacy.ledger import Budget, Charge, admits, totals
from haina.privacy.mechanisms import Laplace
from haina.report import Report
from haina.strategy.presets import PRESETS
from haina.strategy.server import Newton
from haina.update import Update

pytestmark = pytest.mark.slow

VIGNETTE = Path(__file__).parents[2] / "r/haina/vignettes/three-nodes.Rmd"
SAMPLES = {"A": 500, "B": 300, "C": 200}
COEFFICIENTS = {"A": [0.8, -0.5], "B": [0.6, -0.7], "C": [0.9, -0.3]}
#: Runs the vignette's own code, and writes its values with every bit.
CODE = """
at <- new.env()
invisible(knitr::knit("VIGNETTE", "out.md", envir = at, quiet = TRUE))
hex <- function(x) if (is.list(x) && !is.data.frame(x)) lapply(x, hex) else matrix(sprintf("%a", as.matrix(x)), nrow(as.matrix(x)))
at$mean <- at$average(at$coefficients, at$samples)
at$left <- at$budget$left()
names <- c("mean", "fits", "averaged", "pooled", "patients", "scale", "each", "scales", "quantiles", "probabilities", "left", "draws")
cat(jsonlite::toJSON(lapply(mget(names, envir = at), hex)))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    r = needs_r("knitr", "ggplot2")
    folder = tmp_path_factory.mktemp("vignette")
    said = evaluate(CODE.replace("VIGNETTE", str(VIGNETTE)), folder, r, 300)
    values = {name: numbers(value) for name, value in json.loads(said).items()}
    return {**values, "text": (folder / "out.md").read_text()}


def numbers(value):
    if isinstance(value, dict):
        return {name: numbers(inner) for name, inner in value.items()}
    return np.array([[float.fromhex(cell) for cell in row] for row in value])


def averaged(vectors):
    """The mean of the nodes' vectors, as a round of the preset `fedavg` makes it from a model of zeros."""
    updates = [
        Update(name, np.asarray(vectors[name], np.float64), Report(examples=n)) for name, n in SAMPLES.items()
    ]
    model = np.zeros(len(vectors["A"]))
    return play(PRESETS["fedavg"](), updates, model).model


def test_the_average_of_the_three_nodes(told):
    # Not [0.77, -0.51], as the example is sometimes printed: 760 / 1000 and -520 / 1000.
    assert averaged(COEFFICIENTS) == pytest.approx([0.76, -0.52], abs=1e-12)
    assert told["mean"].ravel() == pytest.approx(averaged(COEFFICIENTS), abs=1e-12)
    assert "0.76 -0.52" in told["text"]


def test_each_nodes_regression_and_their_average(told):
    server = Newton("binomial")
    fits = {}
    for row, name in enumerate(SAMPLES):
        rows = told["patients"][name]
        assert len(rows) == SAMPLES[name]
        learner = GlmLearner("binomial", 2)
        fits[name] = fit(learner, server, cut(rows[:, 1:], rows[:, 0], [len(rows)])).model
        assert told["fits"][row] == pytest.approx(fits[name], abs=1e-12)
    assert told["averaged"].ravel() == pytest.approx(averaged(fits), abs=1e-12)
    everyone = np.concatenate([told["patients"][name] for name in SAMPLES])
    shards = cut(everyone[:, 1:], everyone[:, 0], list(SAMPLES.values()))
    pooled = fit(GlmLearner("binomial", 2), server, shards).model
    assert told["pooled"].ravel() == pytest.approx(pooled, abs=1e-12)


def test_noise_of_a_coefficient_at_epsilon_one_half(told):
    assert told["scale"].item() == 2.0
    assert np.sqrt(2) * told["scale"].item() == pytest.approx(Laplace(0.5).std(1.0), abs=1e-12)
    expected = laplace.ppf(told["probabilities"].ravel(), loc=2.5, scale=2.0)
    assert told["quantiles"].ravel() == pytest.approx(expected, abs=1e-12)
    # The draws come from the system's random bytes. Six standard errors of the mean and of the variance (kurtosis at most 6).
    shares = np.array(list(SAMPLES.values())) / 1000
    variance = 2 * 2.0**2 * (shares**2).sum()
    draws = told["draws"].ravel()
    assert abs(draws.mean() - 0.76) < 6 * np.sqrt(variance / len(draws))
    assert abs(draws.var() / variance - 1) < 6 * np.sqrt(5 / len(draws))


def test_the_budget_is_spent_after_five_rounds(told):
    assert told["scales"].ravel() == pytest.approx([10.0] * 5, abs=1e-12)
    assert told["left"].item() == pytest.approx(0.0, abs=1e-12)
    assert "the privacy budget of this site is spent" in told["text"]
    # The coordinator's ledger says the same.
    each = told["each"].item()
    budget = Budget("A", "patients", 0.5, 0.0, "pure")
    charges = [
        Charge(f"three-nodes/{n}/A", "A", "patients", "*", "three-nodes", n, "laplace", each, 0.0, 0.0)
        for n in range(1, 7)
    ]
    assert admits(budget, totals(budget, charges[:4]), charges[4]) is None
    assert admits(budget, totals(budget, charges[:5]), charges[5]) is not None
