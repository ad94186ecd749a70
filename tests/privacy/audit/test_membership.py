"""The attacks, against closed forms and against the figures of research/privacy.md, section 6."""

import json
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, rankdata

from haina.errors import PrivacyError
from haina.privacy.audit import membership


class Shadows:
    """Logistic regressions with an L2 penalty, each on a random half of a pool: the prototype's, number by number."""

    def __init__(self, pool, d, models, penalty):
        self.rng = np.random.default_rng(0)
        self.truth = self.rng.standard_normal(d)
        x, y = self.rows(pool, d)
        self.test = self.rows(4000, d)
        self.rows(1000, d)
        self.members = self.rng.random((models, pool)) < 0.5
        self.signed = x * y[:, None]
        self.coefficients = self.train(x, penalty)

    def rows(self, n, d):
        x = self.rng.standard_normal((n, d))
        x /= np.maximum(1, np.linalg.norm(x, axis=1, keepdims=True))
        return x, np.sign(x @ self.truth * 3 + self.rng.standard_normal(n) * 0.7)

    def train(self, x, penalty):
        """Twelve Newton steps of all models at once."""
        out = np.zeros((len(self.members), x.shape[1]))
        count, products = self.members.sum(axis=1, keepdims=True), x[:, :, None] * x[:, None, :]
        for _ in range(12):
            wrong = self.members / (1 + np.exp(out @ self.signed.T)) / count
            right = wrong * (1 / (1 + np.exp(-(out @ self.signed.T))))
            gradient = penalty * out - wrong @ self.signed
            hessian = (right @ products.reshape(len(x), -1)).reshape(len(out), *products.shape[1:])
            hessian += penalty * np.eye(x.shape[1])
            out -= np.linalg.solve(hessian, gradient[..., None])[..., 0]
        return out

    def release(self, scale):
        """Accuracy, and `[models, rows]` logits of the true class, with Laplace noise on each coefficient."""
        released = self.coefficients + (self.rng.laplace(0, scale, self.coefficients.shape) if scale else 0)
        x, y = self.test
        return (np.sign(released @ x.T) == y).mean(), released @ self.signed.T


#: For epsilon 1: L1 sensitivity 2 sqrt(d) / (n penalty) of rows no longer than 1 (Chaudhuri, Monteleoni and Sarwate 2011).
CALIBRATED = 2 * sqrt(20) / (2000 * 0.01)
#: Setting -> (pool, d, models, penalty), and Laplace scale -> test accuracy, AUC, TPR at 1 % FPR, in the prototype's order of releases.
TABLE = {
    "overfit": (
        (400, 50, 128, 1e-3),
        {
            0: (0.847, 0.680, 0.044),
            2: (0.669, 0.527, 0.015),
            1: (0.761, 0.550, 0.017),
            0.2: (0.842, 0.657, 0.040),
        },
    ),
    "regularised": (
        (4000, 20, 64, 0.01),
        {
            0: (0.914, 0.517, 0.013),
            2: (0.608, 0.499, 0.010),
            1: (0.679, 0.501, 0.010),
            0.2: (0.877, 0.501, 0.009),
            CALIBRATED / 10: (0.912, 0.509, 0.011),
            CALIBRATED: (0.810, 0.502, 0.011),
        },
    ),
}


@pytest.mark.parametrize("setting", TABLE)
def test_lira_finds_what_it_found_in_the_prototype(setting):
    settings, releases = TABLE[setting]
    shadows = Shadows(*settings)
    for scale, (accuracy, auc, tpr) in releases.items():
        measured, logits = shadows.release(scale)
        found = membership.attack(membership.lira(logits, shadows.members, "shared"), shadows.members)
        assert measured == pytest.approx(accuracy, abs=0.01)
        assert found.auc == pytest.approx(auc, abs=0.01)
        assert found.tpr_at_1 == pytest.approx(tpr, abs=0.005)
        if setting == "overfit" and scale == 0:
            # The bells of a row's own models do as well with so many; the plain threshold does not.
            rows = membership.attack(membership.lira(logits, shadows.members), shadows.members)
            assert rows.auc == pytest.approx(found.auc, abs=0.02)
            plain = membership.attack(membership.threshold(np.logaddexp(0, -logits)), shadows.members)
            assert 0.55 < plain.auc < found.auc
            assert plain.tpr_at_1 < found.tpr_at_1
            assert found.epsilon > 1


def told(separation, seed=0, models=40, rows=500):
    """Scores of two bells whose means lie apart."""
    rng = np.random.default_rng(seed)
    members = rng.random((models, rows)) < 0.5
    return rng.standard_normal(members.shape) + separation * members, members


@pytest.mark.parametrize("separation", [0.0, 1.0, 3.0])
def test_an_attack_on_two_bells_is_what_theory_says(separation):
    found = membership.attack(*told(separation))
    assert found.auc == pytest.approx(norm.cdf(separation / sqrt(2)), abs=0.01)
    assert found.tpr_at_1 == pytest.approx(norm.sf(norm.isf(0.01) - separation), abs=0.03)
    assert found.tpr_at_01 == pytest.approx(norm.sf(norm.isf(0.001) - separation), abs=0.05)
    # Members are found at 0.1 % at no more than e^epsilon times 0.1 %.
    best = max(np.log(norm.sf(norm.isf(rate) - separation) / rate) for rate in membership.RATES)
    assert 0.5 * best - 0.1 < found.epsilon <= max(best, 0.1)


def test_chance_proves_nothing_at_its_level():
    # Scores without a meaning: 100 attacks at 95 %, 5 expected at most, 12 have a probability of 0.4 %.
    assert sum(membership.attack(*told(0.0, seed, 1, 400)).epsilon > 0 for seed in range(100)) < 12


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_area_counts_pairs(pairs):
    scores, members = (np.array([column]) for column in zip(*pairs, strict=True))
    if members.all() or not members.any():
        with pytest.raises(PrivacyError, match="some of each"):
            membership.attack(scores, members)
        return
    ranks, n = rankdata(scores[0]), int(members.sum())
    expected = (ranks[members[0]].sum() - n * (n + 1) / 2) / (n * (members.size - n))
    assert membership.attack(scores, members).auc == pytest.approx(expected)


def test_lira_leaves_the_model_under_attack_out():
    rng = np.random.default_rng(0)
    logits, members = rng.standard_normal((12, 8)) + 1e6, np.zeros((12, 8), bool)
    members[rng.permuted(np.tile(np.arange(12) % 2 == 0, (8, 1)), axis=1).T] = True
    scores = membership.lira(logits, members)
    for k in range(12):
        for j in range(8):
            others = np.arange(12) != k
            bells = []
            for side in (members[:, j], ~members[:, j]):
                values = logits[others & side, j]
                bells.append(norm.logpdf(logits[k, j], values.mean(), values.std()))
            assert scores[k, j] == pytest.approx(bells[0] - bells[1], rel=1e-4, abs=1e-4)


@given(st.floats(1e-9, 1 - 1e-9))
def test_confidence_is_the_logit_of_the_true_class(p):
    assert membership.confidence(-np.log(p)) == pytest.approx(np.log(p) - np.log1p(-p), rel=1e-6, abs=1e-6)


def test_confidence_has_no_infinities():
    ends = membership.confidence([0.0, 1e9, np.inf])
    assert np.isfinite(ends).all()
    assert ends[0] > 600 > -600 > ends[1]
    for loss in (-0.1, np.nan):
        with pytest.raises(PrivacyError, match="negative or not a number"):
            membership.confidence([loss])


def test_an_attack_is_plain_json():
    found = json.loads(json.dumps(membership.attack(*told(1.0)).to_json(), allow_nan=False))
    assert set(found) == {"auc", "tpr_at_1_percent", "tpr_at_0.1_percent", "epsilon", "confidence"}


@pytest.mark.parametrize(
    ("values", "members", "message"),
    [
        (np.zeros((4, 2)), np.ones((4, 3), bool), "shape"),
        (np.zeros(4), np.ones(4, bool), "shape"),
        (np.zeros((4, 2)), np.ones((4, 2)), "float64"),
        (np.full((4, 2), np.nan), np.ones((4, 2), bool), "not a finite"),
        (np.zeros((4, 2)), np.ones((4, 2), bool), "only 0 of 4 models"),
    ],
)
def test_tables_that_do_not_fit_are_refused(values, members, message):
    with pytest.raises(PrivacyError, match=message):
        membership.lira(values, members)
