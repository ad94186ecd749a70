import numpy as np
import pytest
from federated_fit import cut, simulate

from haina.errors import LearnerError, StrategyError
from haina.learners.glm import GlmLearner
from haina.learners.glm.cross_validation import CrossValidationLearner, bounded_deviance, folds_of
from haina.learners.learner import Training, Work
from haina.strategy.families import BINOMIAL
from haina.strategy.parts import Aggregate
from haina.strategy.server import CrossValidation, ElasticNetPath
from haina.strategy.server.cross_validation import Points, choose
from haina.update import Failure

SIZES = (60, 90, 150)


def run(family, points, path, shards, seed=0):
    learner = CrossValidationLearner(GlmLearner(family, 5), points)
    server = CrossValidation(points, path)
    model = learner.initial(0)
    state, rounds, finished = server.init(model), 0, False
    while not finished:
        rounds += 1
        assert rounds < 200
        updates = learner.train(Work(model, rounds, shards, Training(), 1.0, seed=seed))
        stepped = server.step(model, Aggregate(sum(update.vector for update in updates), rounds), state)
        model, state, finished = (
            stepped.model,
            {k: np.array(v) for k, v in stepped.state.items()},
            stepped.finished,
        )
    return learner, stepped, state, rounds


def test_folds_are_even_and_their_own_for_each_client():
    folds = folds_of(3, "site", 103, 5)
    assert sorted(np.bincount(folds)[1:]) == [20, 20, 21, 21, 21]
    assert np.array_equal(folds, folds_of(3, "site", 103, 5))
    assert not np.array_equal(folds, folds_of(4, "site", 103, 5))
    assert not np.array_equal(folds, folds_of(3, "other", 103, 5))


def test_folds_are_the_same_in_every_language():
    """Pinned in `r/haina/tests/testthat/test-summary.R` too."""
    assert "".join(map(str, folds_of(7, "north", 20, 3))) == "13223112331223231112"
    assert "".join(map(str, folds_of(2**62 + 1, "a", 9, 4))) == "412112343"


@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
def test_blocks_of_lambdas_give_what_all_together_give(family):
    x, y = simulate(family, SIZES)
    path = ElasticNetPath(family, 0.7, n_lambda=12)
    _, _, at_once, few = run(family, Points(3, 12, 6), path, cut(x, y, SIZES))
    _, last, in_blocks, many = run(family, Points(3, 5, 6), path, cut(x, y, SIZES))
    assert few < many
    assert few <= 9
    assert last.notes["converged"] == 1
    done = int(at_once["index"])
    assert int(in_blocks["index"]) == done
    assert in_blocks["path"][:, :done] == pytest.approx(at_once["path"][:, :done], abs=1e-7)
    assert in_blocks["error"][:, :done] == pytest.approx(at_once["error"][:, :done], abs=1e-7)


def test_errors_are_those_of_rows_that_a_fit_has_not_seen():
    x, y = simulate("binomial", SIZES)
    shards, points = cut(x, y, SIZES), Points(4, 3, 6)
    path = ElasticNetPath("binomial", 1.0, (0.1, 0.03, 0.01))
    learner, stepped, state, _ = run("binomial", points, path, shards, seed=9)
    fold = np.concatenate(
        [folds_of(9, client, n, 4) for client, n in zip(shards.clients, SIZES, strict=True)]
    )
    for k in range(1, 5):
        hidden = fold == k
        for j in range(3):
            beta = state["path"][k, j]
            mean = np.clip(1 / (1 + np.exp(-(beta[0] + x[hidden] @ beta[1:]))), 1e-5, 1 - 1e-5)
            deviance = -2 * np.mean(np.where(y[hidden] == 1, np.log(mean), np.log(1 - mean)))
            assert state["error"][k - 1, j] == pytest.approx(deviance, rel=1e-6)
    # The model that is left predicts with the coefficients of lambda.min.
    assert np.array_equal(learner.coefficients(stepped.model), state["path"][0, choose(state).least])
    assert learner.predict(stepped.model, x[:3]).shape == (3, 2)


def test_choices_by_hand():
    error = np.array([[4.0, 2.0, 1.0, 1.5], [4.0, 2.4, 2.0, 1.5]])
    state = {"index": np.array(4), "error": error, "rows": np.array([40.0, 20.0, 20.0])}
    choice = choose(state)
    assert choice.mean == pytest.approx([4, 2.2, 1.5, 1.5])
    assert choice.error == pytest.approx([0, 0.2, 0.5, 0])
    # Of two least the larger lambda; within its error, 1.5 + 0.5, no larger one.
    assert (choice.least, choice.sparest) == (2, 2)


def test_probabilities_of_rows_left_out_are_cut_as_in_cv_glmnet():
    assert bounded_deviance(BINOMIAL, np.array([0.0]), np.array([50.0])) == pytest.approx(-2 * np.log(1e-5))


def test_a_site_needs_rows_for_every_fold():
    x, y = simulate("gaussian", SIZES)
    learner = CrossValidationLearner(GlmLearner("gaussian", 5), Points(8, 1, 6))
    small, *others = learner.train(Work(learner.initial(0), 1, cut(x, y, SIZES), Training(), 1.0))
    assert isinstance(small, Failure)
    assert "fewer than 80 rows" in small.reason
    assert "fewer folds" in small.reason
    assert not any(isinstance(one, Failure) for one in others)


def test_points_fill_an_update_and_no_more():
    assert Points.fitting(5, 100, 6).together == 100
    wide = Points.fitting(10, 100, 200)
    assert 1 <= wide.together < 100
    assert np.prod(wide.answers) <= 1 << 20
    assert Points.fitting(10, 100, 2000).together == 1


def test_impossible_settings():
    with pytest.raises(StrategyError):
        CrossValidation(Points(1, 3, 6))
    with pytest.raises(LearnerError):
        CrossValidationLearner(GlmLearner("gaussian", 5, intercept=False), Points(3, 1, 5))
    learner = CrossValidationLearner(GlmLearner("gaussian", 5), Points(3, 1, 6))
    with pytest.raises(LearnerError, match="shape"):
        list(learner.train(Work(np.zeros(4), 1, cut(*simulate("gaussian", SIZES), SIZES), Training(), 1.0)))
