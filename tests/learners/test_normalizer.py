from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import LearnerError
from haina.learners.normalizer import norm_a

VECTORS = Path(__file__).parents[1] / "vectors" / "aggregation.json"


def test_published_vector():
    [vector] = [v for v in json.loads(VECTORS.read_text())["vectors"] if v["id"] == "fednova_normalisers"]
    found = [norm_a(v["tau"], v.get("rho", 0.0), v.get("eta_mu", 0.0)) for v in vector["inputs"]]
    np.testing.assert_allclose(found, vector["expected"], rtol=1e-9)


@given(steps=st.integers(0, 500), rho=st.floats(0, 0.99), pull=st.floats(0, 1))
def test_is_the_reach_of_a_constant_gradient(steps, rho, pull):
    away = velocity = 0.0
    for _ in range(steps):
        velocity = rho * velocity + 1 - pull * away
        away += velocity
    assert norm_a(steps, rho, pull) == pytest.approx(away, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("arguments", [(-1,), (5, 1.0), (5, 0.0, 1.5), (5, 0.0, -0.1), (5, float("nan"))])
def test_refuses_what_has_no_meaning(arguments):
    with pytest.raises(LearnerError, match="Allowed"):
        norm_a(*arguments)
