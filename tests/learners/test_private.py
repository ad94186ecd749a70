from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("opacus")
import torch
from scipy import stats
from sgd_reference import OPTIONS, logistic_sgd, work_of
from torch import nn
from torch.nn import functional as F  # noqa: N812

from haina.errors import LearnerError
from haina.learners.dpsgd import UNITS, Draws, spent
from haina.learners.forest import ForestLearner
from haina.learners.glm import GlmLearner
from haina.learners.judge import HeldSamples
from haina.learners.learner import Training, Work
from haina.learners.models import Model
from haina.learners.torch import TorchLearner, learner
from haina.learners.torch.private import MARGIN, Private, clipped
from haina.shards import Shards
from haina.update import Update

pytestmark = pytest.mark.torch

MODELS = {
    "logistic": Model("logistic", (6,), 3),
    "mlp": Model("mlp", (6,), 3, (7, 5)),
    "cnn": Model("cnn", (8, 8), 3),
    "transformer": Model("transformer", (5, 6), 3, width=8, layers=1, heads=2),
    "tokens": Model("transformer", (5,), 3, vocabulary=4, width=8, layers=1, heads=2),
}
LOGISTIC = MODELS["logistic"]


def data_of(maker, model, sizes, **options):
    work = work_of(maker, sizes, model.features, **options)
    if model.vocabulary:
        tokens = np.abs(10 * work.shards.x).astype(np.int32) % model.vocabulary
        work = replace(work, shards=replace(work.shards, x=tokens))
    return work


def by_hand(maker, work, k, rows):
    """The mean clipped gradient of some rows, example by example and in float64."""
    module, training = maker._module, work.training
    maker._flat.load(work.model, maker._first(work.seed))
    module.train()
    x, y = work.shards.of(k)
    total, norms = np.zeros(len(work.model)), []
    for row in rows:
        loss = F.cross_entropy(module(torch.from_numpy(x[row : row + 1])), torch.tensor([int(y[row])]))
        gradients = torch.autograd.grad(loss, maker._flat.parameters)
        one = np.concatenate([g.double().numpy().ravel() for g in gradients])
        norms.append(np.linalg.norm(one))
        total += one * min(1.0, MARGIN * training.example_clip / norms[-1])
    return total / min(training.batch_size, len(x)), norms


def vectors_of(maker, work):
    return {r.client: r.vector.tobytes() for r in maker.train(work) if isinstance(r, Update)}


@pytest.mark.parametrize("kind", MODELS)
def test_each_example_is_clipped_by_itself(kind, monkeypatch):
    # Seven rows at once, so that the last portion is smaller.
    maker = learner(MODELS[kind])
    monkeypatch.setattr("haina.learners.torch.private.AT_ONCE", 7 * maker._flat.weights.nbytes)
    work = data_of(maker, MODELS[kind], (30,), learning_rate=1.0)
    _, norms = by_hand(maker, replace(work, training=Training(example_clip=1.0)), 0, range(30))
    clip = float(np.median(norms))
    work = replace(work, training=Training(batch_size=30, example_clip=clip))
    [update] = maker.train(work)
    mean, _ = by_hand(maker, work, 0, range(30))
    np.testing.assert_allclose(update.vector, -mean, atol=3e-6 * clip, rtol=1e-4)
    assert np.linalg.norm(update.vector) < clip


@pytest.mark.parametrize("option", OPTIONS)
def test_with_all_rows_and_a_wide_bound_it_is_gradient_descent(option):
    maker, (training, settings) = learner(LOGISTIC), OPTIONS[option]
    work = work_of(maker, training=Training(batch_size=64, example_clip=1e3, **training), **settings)
    for k, update in enumerate(maker.train(work)):
        np.testing.assert_allclose(update.vector, logistic_sgd(work, k, 3), atol=1e-3)
    assert update.report.steps == work.training.steps_of(40)


def test_drawn_batches_are_divided_by_their_expected_size():
    maker = learner(LOGISTIC)
    training = Training(batch_size=4, steps=1, example_clip=0.5)
    sizes = set()
    for number in range(1, 13):
        work = work_of(maker, (40,), training=training, learning_rate=1.0, round=number)
        rows = Draws(work, "client-0").rows(40)
        sizes.add(len(rows))
        [update] = maker.train(work)
        mean, _ = by_hand(maker, work, 0, rows)
        np.testing.assert_allclose(update.vector, -mean, atol=1e-6)
    assert len(sizes) > 3


def test_a_step_without_rows_is_one_of_noise():
    maker = learner(LOGISTIC)
    work = work_of(maker, (10_000,), training=Training(batch_size=1, steps=1, example_clip=1.0))
    number = next(n for n in range(1, 50) if not len(Draws(replace(work, round=n), "client-0").rows(10_000)))
    [still] = maker.train(replace(work, round=number))
    assert not still.vector.any()
    noisy = replace(work.training, example_noise=1.0)
    [moved] = maker.train(replace(work, round=number, training=noisy))
    expected = Draws(replace(work, round=number, training=noisy), "client-0").noise(21) / UNITS * 0.1
    np.testing.assert_allclose(moved.vector, -expected, rtol=1e-5)
    assert moved.vector.all()


def test_rows_are_drawn_independently_and_at_the_rate():
    work = work_of(learner(LOGISTIC), (50,), training=Training(batch_size=10, example_clip=1.0))
    draws, steps = Draws(work, "client-0"), 4000
    taken = np.zeros((steps, 50), bool)
    for step in taken:
        step[draws.rows(50)] = True
    sizes = np.bincount(taken.sum(1), minlength=51)[3:19]
    expected = steps * stats.binom(50, 0.2).pmf(np.arange(3, 19))
    assert stats.chisquare(sizes, expected * sizes.sum() / expected.sum()).pvalue > 1e-3
    assert stats.chisquare(taken.sum(0)).pvalue > 1e-3
    together = (taken[:, :-1] & taken[:, 1:]).mean()
    assert together == pytest.approx(0.04, abs=4 * (0.04 * 0.96 / (49 * steps)) ** 0.5)


@given(
    st.integers(0, 2**32 - 1),
    st.floats(1e-6, 1e6),
    st.floats(1e-12, 1e12),
    st.sampled_from([(1, 1), (3, 5), (2, 700)]),
)
def test_a_clipped_row_is_whole_units_and_never_longer_than_the_bound(seed, clip, scale, shape):
    rng = np.random.default_rng(seed)
    raw = [scale * rng.standard_normal((4, *shape)), scale * rng.standard_normal((4, shape[1]))]
    gradients = [torch.from_numpy(part.astype(np.float32)) for part in raw]
    units = np.concatenate([part.flatten(1).double().numpy() for part in clipped(gradients, clip)], 1)
    assert (units == np.trunc(units)).all()
    assert (np.square(units).sum(1) <= ((MARGIN + 2**-22) * UNITS) ** 2).all()
    flat = np.concatenate([part.flatten(1).double().numpy() for part in gradients], 1)
    norm = np.linalg.norm(flat, axis=1, keepdims=True)
    exact = flat * np.minimum(1, MARGIN * clip / norm) * UNITS / clip
    assert np.abs(units - exact).max() <= 1 + 2**-22 * UNITS
    # Cut off and not rounded, so that no row becomes longer.
    assert (np.abs(units) <= (1 + 2**-22) * np.abs(exact)).all()


def test_a_row_that_is_not_finite_counts_as_zero():
    rows = torch.tensor([[3.0, 4.0], [np.inf, 0.0], [0.0, np.nan], [-np.inf, np.inf], [3e38, 3e38]])
    whole = np.trunc(MARGIN * UNITS * np.array([[0.6, 0.8], [0.5**0.5, 0.5**0.5]]))
    np.testing.assert_allclose(clipped([rows], 1.0)[0], whole, atol=2)
    maker = learner(LOGISTIC)
    work = work_of(maker, (12,), training=Training(batch_size=12, example_clip=0.5), learning_rate=1.0)
    work.shards.x[3, 2], work.shards.x[7, 0] = np.nan, np.inf
    [update] = maker.train(work)
    mean, _ = by_hand(maker, work, 0, [row for row in range(12) if row not in (3, 7)])
    np.testing.assert_allclose(update.vector, -mean, atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_one_row_more_changes_the_sum_by_one_row_and_what_floats_round(kind):
    # What the free part of the bound is for ("What remains" in `haina.learners.dpsgd`).
    maker, clip = learner(MODELS[kind]), 0.1
    work = data_of(maker, MODELS[kind], (40,))
    maker._flat.load(work.model, maker._first(work.seed))
    private, client = Private(maker._flat, maker._losses), maker._client(work, 0)
    with private._rowwise.hooked() as module:
        more, fewer = (private.sum(module, client, np.arange(n, 40), clip) for n in (0, 1))
        alone = private.sum(module, client, np.arange(1), clip)
    assert float((more - fewer - alone).norm()) < 39 * 2**-22 * UNITS
    assert float((more - fewer).norm()) < UNITS
    assert float(alone.norm()) == pytest.approx(MARGIN * UNITS, rel=1e-4)


class _Nothing(nn.Linear):
    """Its answer has a gradient of zero."""

    def forward(self, x):
        return 0 * super().forward(x)


def test_the_noise_has_the_deviation_that_was_asked_for():
    maker = TorchLearner(lambda: _Nothing(200, 101, bias=False), loss=lambda outputs, y: outputs.sum(-1))
    training = Training(batch_size=8, steps=3, example_clip=0.25, example_noise=1.5)
    work = work_of(maker, (64,), (200,), training=training, learning_rate=0.5)
    [update] = maker.train(work)
    noise = update.vector / (0.5 * 1.5 * 0.25 / 8 * 3**0.5)
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert noise.std() == pytest.approx(1, abs=4 / (2 * len(noise)) ** 0.5)
    assert noise.mean() == pytest.approx(0, abs=4 / len(noise) ** 0.5)


def test_same_numbers_for_the_same_seed_and_others_for_another_key():
    maker = learner(MODELS["mlp"])
    training = Training(batch_size=8, epochs=2, example_clip=0.5, example_noise=1.0)
    work = work_of(maker, (23, 0, 1, 40), training=training)
    seeded = vectors_of(maker, work)
    assert vectors_of(learner(MODELS["mlp"]), work) == seeded
    alone = replace(work, shards=work.shards.take([3]))
    assert vectors_of(maker, alone).items() <= seeded.items()
    keyed = replace(work, noise_key=bytes(range(32)))
    assert vectors_of(maker, keyed) == vectors_of(maker, keyed)
    seen = [
        Draws(replace(task, **change), client).noise(8).tobytes() + Draws(task, client).rows(1000).tobytes()
        for task in (work, keyed, replace(work, noise_key=bytes(32)))
        for change in ({}, {"round": 4}, {"seed": 6}, {"model": work.model + 1})
        for client in ("client-0", "client-1")
    ]
    # The seed counts for nothing where a key does, and the model for nothing where a seed does.
    assert len(set(seen)) == len(seen) - 2 * (1 + 2)


def test_a_key_changes_batches_too_and_is_never_shown():
    work = work_of(learner(LOGISTIC), (1000,), training=Training(example_clip=1.0))
    key = b"a key that has thirty-two bytes."
    keyed = replace(work, noise_key=key)
    assert not np.array_equal(Draws(work, "a").rows(1000), Draws(keyed, "a").rows(1000))
    for task in (work, keyed):
        draws = Draws(task, "a")
        assert draws._sampling.bytes(16) != draws._noise.bytes(16)
    assert "thirty-two" not in repr(keyed)
    with pytest.raises(LearnerError, match="noise_key has 31 bytes"):
        replace(work, noise_key=key[:31])


class _Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


class _Following(nn.Module):
    """Mixes in the row that comes next, so that the first row is felt by none."""

    def forward(self, x):
        return x + torch.cat([x[1:], torch.zeros_like(x[:1])])


class _Gated(nn.Module):
    """Mixes rows once its gates have opened; at its first weights nothing shows."""

    def __init__(self):
        super().__init__()
        self.gates = nn.Parameter(torch.zeros(6))

    def forward(self, x):
        return x + self.gates.relu() * x.mean(0)


class _Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x):
        self.seen += x.detach().sum(0)
        return x


class _Borrowed(nn.Module):
    """Uses a layer's weight without calling the layer."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.outer(x @ self.inner.weight)


class _Frozen(nn.BatchNorm1d):
    """A subclass, unknown to Opacus, with nothing to train."""

    def __init__(self):
        super().__init__(6, affine=False)


class _Folded(nn.Module):
    """Reads half rows as rows of their own."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)

    def forward(self, x):
        return self.inner(x.reshape(-1, 3)).reshape(len(x), 2, 3).sum(1)


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (lambda: nn.BatchNorm1d(6), r"layer '0' \(BatchNorm1d\).*torch.nn.GroupNorm"),
        (lambda: nn.BatchNorm1d(6, affine=False), r"layer '0' \(BatchNorm1d\).*torch.nn.GroupNorm"),
        (_Frozen, "its rows depend on each other"),
        (_Centred, "its rows depend on each other"),
        (_Following, "its rows depend on each other"),
        (_Gated, "the gradients of its rows do not add up"),
        (_Counting, "training changes its buffer '0.seen'"),
        (_Borrowed, "the gradients of its rows do not add up"),
        (_Folded, "a layer reads its rows in other portions"),
    ],
)
def test_a_module_whose_examples_cannot_be_told_apart_is_refused(layer, says):
    def build():
        first = layer()
        return nn.Sequential(first, *([] if hasattr(first, "inner") else [nn.Linear(6, 3)]))

    maker = TorchLearner(build)
    work = work_of(maker, (20,), training=Training(example_clip=1.0))
    with pytest.raises(LearnerError, match=says):
        list(maker.train(work))
    # And nothing of the attempt is left.
    plain = replace(work, training=Training())
    assert vectors_of(maker, plain) == vectors_of(TorchLearner(build), plain)


def test_a_loss_that_compares_examples_is_refused():
    def loss(outputs, y):
        losses = F.cross_entropy(outputs, y.long(), reduction="none")
        return losses * losses.mean()

    maker = learner(LOGISTIC, loss=loss)
    with pytest.raises(LearnerError, match="its rows depend on each other"):
        list(maker.train(work_of(maker, training=Training(example_clip=1.0))))


def test_a_model_that_is_not_finite_is_no_fault_of_the_module():
    maker = learner(LOGISTIC)
    work = work_of(maker, (20,), training=Training(example_clip=1.0, example_noise=1.0))
    [update] = maker.train(replace(work, model=np.full_like(work.model, np.nan)))
    assert np.isnan(update.vector).all()


class _Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x * self.scale


def test_dropout_layer_norm_and_a_layer_of_ones_own_are_taken():
    maker = TorchLearner(
        lambda: nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Dropout(0.5), _Scaled(), nn.Linear(5, 3))
    )
    work = work_of(maker, (20,), training=Training(example_clip=1.0, example_noise=0.5))
    assert vectors_of(maker, work) == vectors_of(maker, work)


def test_plain_training_is_the_same_afterwards():
    maker, plain = learner(MODELS["cnn"]), Training(batch_size=8)
    work = data_of(maker, MODELS["cnn"], (20,), training=plain)
    before = vectors_of(maker, work)
    list(maker.train(replace(work, training=Training(example_clip=1.0))))
    assert vectors_of(maker, work) == before
    assert not any(vars(parameter) for parameter in maker._flat.parameters)
    assert all(parameter.grad is None for parameter in maker._flat.parameters)


def test_a_personal_head_is_trained_and_stays():
    memory = {}
    maker = learner(MODELS["mlp"], local=("output.*",), memory=memory)
    work = work_of(
        maker, (20,), training=Training(example_clip=1.0, example_noise=0.5), proximal=0.1, offset=True
    )
    [update] = maker.train(work)
    assert len(update.vector) == maker.layout.size < len(maker._flat.weights)
    assert not np.array_equal(memory["client-0"]["output.weight"], maker._first(5)["output.weight"])


def test_the_servers_own_samples_are_not_protected():
    maker = learner(LOGISTIC)
    work = work_of(maker, (30,))
    order = np.argsort(work.shards.y, kind="stable")
    x, y = work.shards.x[order], work.shards.y[order]
    held = replace(work, round=1, shards=Shards(("server",), x, y, np.array([[0, 30]])))
    [plain] = maker.train(held)
    training = replace(held.training, example_clip=0.01, example_noise=9.0)
    direction = HeldSamples(maker, work.model, x, y, training, 1, 0.1, held.seed).direction()
    assert np.array_equal(direction, plain.vector)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"example_noise": 1.0}, "example_clip is not given"),
        ({"example_clip": 0.0}, "example_clip is 0.0"),
        ({"example_clip": float("inf")}, "example_clip is inf"),
        ({"example_clip": 1.0, "example_noise": -1.0}, "example_noise is -1.0"),
        ({"example_clip": 1.0, "example_noise": float("nan")}, "example_noise is nan"),
        (
            {"example_clip": 1.0, "example_noise": 1.0, "measure": frozenset({"accuracy"})},
            "accuracy would leave",
        ),
    ],
)
def test_impossible_settings_are_refused(settings, says):
    with pytest.raises(LearnerError, match=says):
        Training(**settings)


def test_other_learners_name_the_one_that_can():
    pytest.importorskip("jax")
    from haina.learners import jax

    work = work_of(learner(LOGISTIC), training=Training(example_clip=0.5))
    others = {
        "jax": jax.learner(LOGISTIC),
        "forest": ForestLearner("classification", 6, 3),
        "glm": GlmLearner("binomial", 6),
    }
    for name, other in others.items():
        with pytest.raises(LearnerError, match=rf'example_clip is 0.5, and the {name} .*learner = "torch"'):
            list(other.train(replace(work, model=other.initial(0))))


def test_the_missing_extra_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("opacus")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("private", "rowwise"):
        monkeypatch.delitem(sys.modules, f"haina.learners.torch.{name}")
    monkeypatch.setitem(sys.modules, "opacus", None)
    maker = learner(LOGISTIC)
    assert list(maker.train(work_of(maker)))
    with pytest.raises(
        LearnerError, match=r"needs opacus, which is not installed.*pip install 'haina\[opacus\]'"
    ):
        list(maker.train(work_of(maker, training=Training(example_clip=1.0))))


def test_opacus_leaves_the_logs_as_they_were():
    code = "import logging, haina.learners.torch.private; print(logging.root.handlers)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps", "rounds", "noise", "delta", "epsilon"),
    [
        # dp-accounting 0.6.0 by privacy loss distributions.
        (60_000, 256, 14_062, 1, 1.1, 1e-5, 2.3817),
        (1000, 100, 10, 10, 1.0, 1e-5, 7.0466),
        (100, 100, 1, 50, 8.0, 1e-5, 3.7965),
        (100, 300, 1, 50, 8.0, 1e-5, 3.7965),
    ],
)
def test_what_a_client_has_spent(rows, batch_size, steps, rounds, noise, delta, epsilon):
    assert spent(rows, batch_size, steps, rounds, noise, delta) == pytest.approx(epsilon, abs=1e-3)


def test_nothing_is_spent_before_the_first_step_and_all_without_noise():
    assert spent(100, 10, 5, 0, 1.0, 1e-5) == 0
    assert spent(100, 10, 5, 1, 0.0, 1e-5) == float("inf")


def test_digits_are_learnt_with_an_epsilon_of_eight():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    from haina.privacy.accounting import Sampling, calibrated

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    rows, batch_size, rounds = 1497, 256, 40
    noise = calibrated(
        "gaussian", 8, 1e-5, 6 * rounds, Sampling("poisson", batch_size / rows)
    ).noise_multiplier
    training = Training(batch_size=batch_size, example_clip=1.0, example_noise=noise)
    assert training.steps_of(rows) == 6
    assert 7.9 < spent(rows, batch_size, 6, rounds, noise, 1e-5) <= 8
    maker = learner(Model("mlp", (64,), 10))
    shards = Shards(("everybody",), x[:rows], y[:rows], np.array([[0, rows]]))
    model = maker.initial(1)
    for number in range(1, rounds + 1):
        [update] = maker.train(Work(model, number, shards, training, 1.0, seed=3))
        model = model + update.vector
    accuracy = maker.evaluate(model, x[rows:], y[rows:]).accuracy
    print(f"digits: accuracy {accuracy:.3f} with epsilon 8, delta 1e-5, noise multiplier {noise:.3f}")
    assert accuracy > 0.92
