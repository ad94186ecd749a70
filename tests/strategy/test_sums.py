import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import LayoutError
from haina.strategy.sums import Sums


def example(p, seed):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(p, p))
    return Sums(rng.normal(size=p), half + half.T, *rng.normal(size=4))


@given(p=st.integers(1, 12), seed=st.integers(0, 99))
def test_unpack_undoes_pack_and_adding_vectors_adds_sums(p, seed):
    a, b = example(p, seed), example(p, seed + 1)
    assert a.pack().shape == (Sums.size(p),)
    total = Sums.unpack(a.pack() + b.pack(), p)
    assert np.array_equal(total.gradient, a.gradient + b.gradient)
    assert np.array_equal(total.hessian, a.hessian + b.hessian)
    assert (total.deviance, total.saturated) == (a.deviance + b.deviance, a.saturated + b.saturated)
    assert (total.examples, total.outcome) == (a.examples + b.examples, a.outcome + b.outcome)


def test_the_order_is_the_documented_one():
    sums = Sums(np.array([1.0, 2.0]), np.array([[3.0, 4.0], [4.0, 5.0]]), 6.0, 7.0, 8.0, 9.0)
    assert sums.pack().tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_another_length_is_refused():
    with pytest.raises(LayoutError, match="agree on the columns"):
        Sums.unpack(np.zeros(9), 3)
