from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("jax")
from sgd_reference import OPTIONS, work_of

from haina.errors import LearnerError
from haina.learners import jax, torch
from haina.learners.learner import Training
from haina.learners.models import Model
from haina.shards import Shards

pytestmark = pytest.mark.torch

TOKENS = Model("transformer", (6,), 2, layers=1, width=12, heads=3, vocabulary=7)
SERIES = Model("transformer", (5, 3), 4, layers=1, width=8, heads=2)


def rows_of(model, count, seed=0):
    rng = np.random.default_rng(seed)
    if model.vocabulary:
        return rng.integers(0, model.vocabulary, (count, *model.features))
    return rng.standard_normal((count, *model.features)).astype(np.float32)


@pytest.mark.parametrize("model", [TOKENS, SERIES], ids=["tokens", "series"])
def test_transformers_are_the_same_bytes_and_function_in_both_frameworks(model):
    ours, theirs = torch.learner(model), jax.learner(model)
    vector = ours.initial(7)
    assert ours.to_bytes(vector) == theirs.to_bytes(theirs.initial(7))
    vector = vector + 0.1 * np.random.default_rng(1).standard_normal(vector.shape).astype(np.float32)
    x, y = rows_of(model, 20), np.arange(20) % model.outputs
    np.testing.assert_allclose(ours.predict(vector, x), theirs.predict(vector, x), atol=1e-5)
    assert ours.evaluate(vector, x, y).loss == pytest.approx(theirs.evaluate(vector, x, y).loss, rel=1e-5)


@pytest.mark.parametrize(
    ("model", "option"), [(TOKENS, "all"), (SERIES, "plain")], ids=["tokens-all", "series-plain"]
)
def test_transformers_are_trained_alike(model, option):
    training, settings = OPTIONS[option]
    ours, theirs = torch.learner(model), jax.learner(model)
    work = work_of(
        ours,
        (20, 9),
        model.features,
        model.outputs,
        training=Training(batch_size=8, **training),
        learning_rate=0.05,
        **settings,
    )
    work = replace(work, shards=replace(work.shards, x=rows_of(model, 29)), model=ours.initial(5))
    for mine, other in zip(ours.train(work), theirs.train(work), strict=True):
        np.testing.assert_allclose(mine.vector, other.vector, atol=1e-5)
        assert np.abs(mine.vector).max() > 1e-3


@pytest.mark.parametrize("home", [jax, torch])
def test_a_transformer_learns_which_token_occurs_more_often(home):
    model = Model("transformer", (9,), 2, layers=1, width=16, heads=2, vocabulary=2)
    learner, x = home.learner(model), np.random.default_rng(3).integers(0, 2, (600, 9))
    y = (x.sum(1) > 4).astype(np.int64)
    shards = Shards(("a", "b"), x, y, np.array([[0, 250], [250, 500]]))
    work = work_of(learner, training=Training(batch_size=10, epochs=8), learning_rate=0.1)
    trained = [
        update.vector for update in learner.train(replace(work, model=learner.initial(1), shards=shards))
    ]
    before = learner.evaluate(learner.initial(1), x[500:], y[500:]).accuracy
    after = learner.evaluate(learner.initial(1) + np.mean(trained, 0), x[500:], y[500:]).accuracy
    assert before < 0.8
    assert after > 0.95


@pytest.mark.parametrize("home", [jax, torch])
def test_an_unknown_token_spoils_its_own_row_and_no_other(home):
    learner, x = home.learner(TOKENS), rows_of(TOKENS, 5)
    right = learner.predict(learner.initial(0), x)
    x[1, 2], x[3, 0] = TOKENS.vocabulary, -1
    spoilt = learner.predict(learner.initial(0), x)
    assert np.isnan(spoilt[[1, 3]]).all()
    np.testing.assert_allclose(spoilt[[0, 2, 4]], right[[0, 2, 4]], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"features": (6, 2, 2)}, r"cannot read rows of shape \(6, 2, 2\)"),
        ({"features": (6,), "vocabulary": 0}, "Set vocabulary"),
        ({"features": (6, 2)}, "tokens cannot read"),
        ({"width": 10}, "width a multiple of heads"),
        ({"layers": 0}, "layers 0"),
        ({"vocabulary": -1}, "vocabulary -1"),
    ],
)
def test_sizes_that_a_transformer_cannot_have(settings, says):
    with pytest.raises(LearnerError, match=says):
        replace(TOKENS, **settings)


@pytest.mark.parametrize("kind", ["logistic", "mlp", "cnn"])
def test_first_values_are_those_of_the_paper(kind):
    tensors = Model(kind, (8, 8), 4, (300,)).initial(3)
    for name, values in tensors.items():
        spread = 0.0 if kind == "logistic" or values.ndim == 1 else np.sqrt(2 / np.prod(values.shape[1:]))
        assert values.std() == pytest.approx(spread, rel=0.15)
        assert name.endswith((".weight", ".bias"))
