import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.artifact import dump
from haina.errors import LayoutError
from haina.interop.fate.convert import from_bytes, to_bytes
from haina.interop.fate.model import HomoLrModel
from haina.learners.glm import GlmLearner
from haina.learners.models import Model

single = st.floats(width=32, allow_nan=False, allow_infinity=False).filter(lambda x: x == 0 or abs(x) > 1e-30)
MODEL = HomoLrModel((1.5, -0.25, 0.1), -0.75)
X = np.array([[0.2, 1.0, -3.0], [4.0, -2.0, 0.5]])
CHANCE = 1 / (1 + np.exp(-(X @ MODEL.weights + MODEL.intercept)))


def test_a_glm_predicts_as_fate_does():
    learner = GlmLearner("binomial", 3)
    assert np.abs(learner.predict(learner.from_bytes(to_bytes(MODEL, "glm")), X)[:, 1] - CHANCE).max() < 1e-15


def test_the_jax_network_predicts_as_fate_does():
    jax = pytest.importorskip("haina.learners.jax")
    learner = jax.learner(Model("logistic", (3,), 2))
    vector = learner.from_bytes(to_bytes(MODEL, "logistic"))
    assert np.abs(learner.predict(vector, X.astype(np.float32))[:, 1] - CHANCE).max() < 1e-6
    assert learner.to_bytes(vector) == to_bytes(MODEL, "logistic")


@pytest.mark.torch
def test_the_torch_network_predicts_as_fate_does():
    torch = pytest.importorskip("haina.learners.torch")
    learner = torch.learner(Model("logistic", (3,), 2))
    vector = learner.from_bytes(to_bytes(MODEL, "logistic"))
    assert np.abs(learner.predict(vector, X.astype(np.float32))[:, 1] - CHANCE).max() < 1e-6


@given(st.lists(single, min_size=1, max_size=8), single)
def test_float32_models_come_back_bit_for_bit(weights, intercept):
    model = HomoLrModel(tuple(weights), intercept)
    assert from_bytes(to_bytes(model, "logistic")) == model
    assert from_bytes(to_bytes(model, "glm")) == model


@pytest.mark.parametrize(
    "tensors",
    [
        {"output.weight": np.zeros((3, 2), np.float32), "output.bias": np.zeros(3, np.float32)},
        {"coefficients": np.zeros((2, 2))},
        {"hidden1.weight": np.zeros((2, 2), np.float32)},
    ],
)
def test_other_models_have_no_place_in_fate(tensors):
    with pytest.raises(LayoutError, match="logistic"):
        from_bytes(dump(tensors))
    with pytest.raises(LayoutError):
        from_bytes(b"not a model")


def test_a_model_of_an_intercept_alone_is_none():
    with pytest.raises(LayoutError, match="0 weights"):
        from_bytes(dump({"coefficients": np.zeros(1)}))
