from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import LearnerError
from haina.learners.gradient import bounded
from haina.learners.learner import Training, Work, client_rng
from haina.shards import Shards

CLIENTS = ("a", "b", "c")


def work_of(**training):
    shards = Shards(CLIENTS, np.zeros((3, 1)), np.zeros(3), np.array([[0, 1], [1, 2], [2, 3]]))
    return Work(np.zeros(5, np.float32), 4, shards, Training(**training), 0.1, seed=9)


def rows_of(scale=1.0):
    return (scale * np.random.default_rng(0).standard_normal((3, 5))).astype(np.float32)


def test_nothing_asked_for_changes_nothing():
    rows = rows_of()
    assert bounded(work_of(), CLIENTS, rows) is rows


@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_no_increment_is_longer_than_the_limit_nor_turned(limit, scale):
    rows = rows_of(scale)
    out = bounded(work_of(clip_update=limit), CLIENTS, rows)
    norms = np.linalg.norm(rows.astype(np.float64), axis=1)
    np.testing.assert_allclose(out, rows * np.minimum(1, limit / norms)[:, None], rtol=1e-5)
    assert (np.linalg.norm(out.astype(np.float64), axis=1) <= limit * (1 + 1e-6)).all()


def test_noise_is_the_clients_own_and_of_the_size_asked_for():
    work = work_of(clip_update=0.5, noise=2.0)
    clipped, noisy = (bounded(w, CLIENTS, rows_of()) for w in (work_of(clip_update=0.5), work))
    for k, client in enumerate(CLIENTS):
        drawn = client_rng(9, 4, client, 2).standard_normal(5)
        np.testing.assert_allclose(noisy[k] - clipped[k], 2.0 * 0.5 * drawn, rtol=1e-5)
        alone = bounded(work, [client], rows_of()[k : k + 1])
        assert alone.tobytes() == noisy[k].tobytes()
    assert not np.allclose(bounded(replace(work, round=5), CLIENTS, rows_of()), noisy)


def test_what_is_not_finite_stays_so_and_alone():
    rows = rows_of()
    clean = bounded(work_of(clip_update=0.5), CLIENTS, rows)
    rows[1, 2] = np.inf
    out = bounded(work_of(clip_update=0.5), CLIENTS, rows)
    assert not np.isfinite(out[1]).all()
    np.testing.assert_array_equal(out[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"noise": 1.0}, "clip_update is not given"),
        ({"clip_update": 0.0}, "clip_update is 0.0"),
        ({"clip_update": 1.0, "noise": -1.0}, "noise is -1.0"),
        ({"clip_update": 1.0, "noise": float("inf")}, "noise is inf"),
    ],
)
def test_settings_that_guard_nothing_are_refused(settings, says):
    with pytest.raises(LearnerError, match=says):
        Training(**settings)
