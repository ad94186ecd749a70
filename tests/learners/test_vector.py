import numpy as np
import pytest

from haina.errors import ConfigError, LearnerError
from haina.federation.federation import Federation
from haina.learners.glm import Design, GlmLearner
from haina.learners.learner import Training, Work
from haina.learners.r.coefficients import Coefficients
from haina.learners.vector import VectorLearner
from haina.shards import Shards

FILE = """\
name = "vectors"
[model]
learner = "vector"
{model}
[data]
target = "y"
task = "regression"
features = ["age", "stay"]
"""


def learner(model):
    return Federation.of(FILE.format(model=model)).learner


def test_a_file_names_the_vector_or_says_its_size():
    assert learner("size = 3").initial(0).tolist() == [0.0, 0.0, 0.0]
    assert learner("size = 2\ninitial = [0.5, 1e-300]").initial(0).tolist() == [0.5, 1e-300]
    # A family names the coefficients, as the regression does.
    assert learner('family = "gaussian"').describe()["coefficients"] == ["(Intercept)", "age", "stay"]
    with pytest.raises(ConfigError, match="neither names nor size"):
        learner("")


def test_bytes_are_float64_and_come_back():
    vector = learner("size = 3")
    model = np.array([0.1, 1 / 3, 5e-324])
    assert vector.from_bytes(vector.to_bytes(model)).tobytes() == model.tobytes()


def test_nobody_is_trained_here():
    x, y = np.ones((4, 2)), np.ones(4)
    shards = Shards(("a", "b"), x, y, np.array([[0, 2], [2, 4]]))
    results = list(learner("size = 3").train(Work(np.zeros(3), 1, shards, Training(), 0.1)))
    assert [result.client for result in results] == ["a", "b"]
    assert all("no training here" in result.reason for result in results)


def test_a_family_evaluates_and_predicts_as_the_regression_does():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 2)), rng.integers(0, 2, 30)
    glm = GlmLearner("binomial", Design.named(["age", "stay"]))
    vector = VectorLearner(Coefficients(("(Intercept)", "age", "stay")), glm)
    model = np.array([0.2, -1.0, 0.5])
    assert vector.evaluate(model, x, y) == glm.evaluate(model, x, y)
    assert np.array_equal(vector.predict(model, x), glm.predict(model, x))
    assert VectorLearner(Coefficients(size=3)).evaluate(model, x, y) is None
    with pytest.raises(LearnerError, match="nothing here predicts"):
        VectorLearner(Coefficients(size=3)).predict(model, x)


def test_other_names_than_those_of_the_regression_are_refused():
    with pytest.raises(LearnerError, match="the names are a, b"):
        VectorLearner(Coefficients(("a", "b")), GlmLearner("gaussian", Design.named(["age", "stay"])))


def test_r_is_told_names_and_what_every_task_says():
    import json

    from haina.federation.envelope import Envelope

    federation = Federation.of(FILE.format(model='names = ["(Intercept)", "age"]') + "[train]\nepochs = 3\n")
    brief = json.loads(federation.brief(Envelope.of(federation.learner.to_bytes(np.zeros(2)))))
    assert brief["learner"]["coefficients"] == ["(Intercept)", "age"]
    assert (brief["payload"], brief["length"], brief["dtype"]) == ("average", 2, "float64")
    assert brief["task"]["epochs"] == 3
    assert brief["remembers"] is False
    # What one round alone says is not promised.
    assert not {"round", "version", "model", "learning_rate", "limit"} & brief["task"].keys()
