import numpy as np
import pytest
from federated_fit import cut, fit, simulate
from sklearn.linear_model import ElasticNet, LogisticRegression

from haina.errors import StrategyError
from haina.learners.glm import GlmLearner
from haina.strategy.families import FAMILIES
from haina.strategy.server.elastic_net import ElasticNetPath

SIZES = (60, 90, 150)


def pooled_penalties(family, x, y, alpha, standardize):
    """glmnet's conventions, from all rows: scales of the columns and the divisor of the ridge part."""
    scale = x.std(axis=0) if standardize else np.ones(x.shape[1])
    return scale, (y.std() if family == "gaussian" else 1.0)


def kkt(family, x, y, beta, lam, alpha, standardize):
    """Largest violation of the optimality conditions of the penalised likelihood of all rows."""
    scale, spread = pooled_penalties(family, x, y, alpha, standardize)
    residual = y - FAMILIES[family].mean(beta[0] + x @ beta[1:])
    b = beta[1:] * scale
    gradient = x.T @ residual / scale / len(y) - lam * (1 - alpha) / spread * b
    inside = np.maximum(np.abs(gradient) - lam * alpha, 0.0)
    active = np.abs(gradient - lam * alpha * np.sign(b))
    return max(abs(residual.mean()), np.where(b != 0, active, inside).max())


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_every_point_of_the_path_is_optimal_for_the_pooled_rows(family, alpha, standardize):
    x, y = simulate(family, SIZES)
    server = ElasticNetPath(family, alpha, n_lambda=30, standardize=standardize)
    fitted = fit(GlmLearner(family, 5), server, cut(x, y, SIZES))
    done, state = int(fitted.state["index"]), fitted.state
    assert fitted.last.notes["converged"] == 1
    for beta, lam in zip(state["path"][:done], state["lambdas"], strict=False):
        assert kkt(family, x, y, beta, lam, alpha, standardize) <= 1e-7
    assert np.array_equal(fitted.model, state["path"][done - 1])
    assert fitted.rounds <= (2 if family == "gaussian" else 4 * done)
    # The path starts where the first column enters.
    assert not state["path"][0, 1:].any()
    assert state["path"][1, 1:].any()
    residual = y - FAMILIES[family].mean(state["path"][:done, 0] + x @ state["path"][:done, 1:].T).T
    assert abs(residual.mean(axis=1)).max() < 1e-9


@pytest.mark.parametrize("standardize", [True, False])
@pytest.mark.parametrize("alpha", [1.0, 0.5])
def test_gaussian_equals_scikit_learn(alpha, standardize):
    x, y = simulate("gaussian", SIZES)
    lambdas = (0.5, 0.1, 0.02)
    server = ElasticNetPath("gaussian", alpha, lambdas, standardize=standardize)
    fitted = fit(GlmLearner("gaussian", 5), server, cut(x, y, SIZES))
    scale, spread = pooled_penalties("gaussian", x, y, alpha, standardize)
    for beta, lam in zip(fitted.state["path"], lambdas, strict=True):
        l1, l2 = lam * alpha, lam * (1 - alpha) / spread
        theirs = ElasticNet(l1 + l2, l1_ratio=l1 / (l1 + l2), tol=1e-14, max_iter=1_000_000)
        theirs.fit((x - x.mean(0)) / scale, y)
        assert beta[1:] * scale == pytest.approx(theirs.coef_, abs=1e-8)


def test_binomial_lasso_equals_scikit_learn():
    x, y = simulate("binomial", SIZES)
    lambdas = (0.1, 0.02)
    fitted = fit(GlmLearner("binomial", 5), ElasticNetPath("binomial", 1.0, lambdas), cut(x, y, SIZES))
    z = (x - x.mean(0)) / x.std(0)
    for beta, lam in zip(fitted.state["path"], lambdas, strict=True):
        theirs = LogisticRegression(
            C=1 / (lam * len(y)), l1_ratio=1, solver="saga", tol=1e-12, max_iter=100_000
        )
        theirs.fit(z, y)
        assert beta[1:] * x.std(0) == pytest.approx(theirs.coef_[0], abs=1e-5)


@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_the_chosen_path_is_geometric_from_the_first_lambda_that_matters(family):
    x, y = simulate(family, SIZES)
    fitted = fit(GlmLearner(family, 5), ElasticNetPath(family, 0.5, n_lambda=4, ratio=0.1), cut(x, y, SIZES))
    z = (x - x.mean(0)) / x.std(0)
    largest = np.abs(z.T @ (y - y.mean())).max() / len(y) / 0.5
    assert fitted.state["lambdas"] == pytest.approx(largest * 0.1 ** (np.arange(4) / 3), rel=1e-10)
    null = FAMILIES[family].deviance(y, np.full(len(y), FAMILIES[family].link(y.mean())))
    assert float(fitted.state["null_deviance"]) == pytest.approx(null, rel=1e-10)
    direct = FAMILIES[family].deviance(y, fitted.model[0] + x @ fitted.model[1:])
    assert fitted.state["deviance"][3] == pytest.approx(direct, rel=1e-9)


def test_more_columns_than_rows():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(90, 60))
    x = np.column_stack([x, x[:, :60] + 0.01 * rng.normal(size=(90, 60))])
    y = x[:, 0] - x[:, 5] + rng.normal(size=90)
    from haina.strategy.parts import Aggregate

    learner, server = GlmLearner("gaussian", 120), ElasticNetPath("gaussian", 1.0, n_lambda=20)
    model = learner.initial(0)
    state, finished = server.init(model), False
    while not finished:
        sums = learner.sums(model, x[:45], y[:45]).pack() + learner.sums(model, x[45:], y[45:]).pack()
        stepped = server.step(model, Aggregate(sums, 1), state)
        model, state, finished = stepped.model, stepped.state, stepped.finished
    done = int(state["index"])
    assert done > 10
    assert (
        max(
            kkt("gaussian", x, y, b, lam, 1.0, True)
            for b, lam in zip(state["path"][:done], state["lambdas"], strict=False)
        )
        <= 1e-7
    )


def test_a_constant_column_stays_out():
    x, y = simulate("gaussian", SIZES)
    x[:, 2] = 3.7
    fitted = fit(GlmLearner("gaussian", 5), ElasticNetPath("gaussian", 0.5, (0.01,)), cut(x, y, SIZES))
    assert fitted.model[3] == 0
    assert np.count_nonzero(fitted.model) > 2


def test_a_step_that_raises_the_penalised_deviance_is_halved():
    x, y = simulate("poisson", SIZES)
    x[0, 0], y[0] = 12.0, 3000.0
    fitted = fit(GlmLearner("poisson", 5), ElasticNetPath("poisson", 1.0, (1e-3,)), cut(x, y, SIZES))
    assert fitted.halved > 0
    assert fitted.last.notes["converged"] == 1
    assert kkt("poisson", x, y, fitted.model, 1e-3, 1.0, True) <= 1e-7


def test_separable_outcomes_have_a_penalised_fit():
    x = np.random.default_rng(5).normal(size=(200, 2))
    y = (x[:, 1] > 0).astype(float)
    server = ElasticNetPath("binomial", 1.0, n_lambda=20, ratio=0.01)
    fitted = fit(GlmLearner("binomial", 2), server, cut(x, y, (100, 100)))
    done = int(fitted.state["index"])
    assert fitted.last.notes["converged"] == 1
    lambdas = fitted.state["lambdas"]
    assert (
        max(
            kkt("binomial", x, y, b, lam, 1.0, True)
            for b, lam in zip(fitted.state["path"][:done], lambdas, strict=False)
        )
        <= 1e-7
    )


@pytest.mark.parametrize(
    "setting",
    [
        {"alpha": 1.5},
        {"lambdas": (0.1, 0.2)},
        {"lambdas": ()},
        {"ratio": 1.0},
        {"n_lambda": 1},
        {"family": "gamma"},
    ],
)
def test_impossible_settings(setting):
    with pytest.raises(StrategyError):
        ElasticNetPath(**setting)
