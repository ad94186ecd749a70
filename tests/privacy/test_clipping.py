from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.clipping import clip_l1, clip_l2

NUMBERS = st.one_of(
    st.floats(-10, 10),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-200, 1e200, -1.7e308]),
)
VECTORS = st.lists(NUMBERS, min_size=1, max_size=8)
BOUNDS = st.one_of(st.floats(1e-3, 1e3), st.sampled_from([1e-100, 1e100, 1.0]))


def exact(vector, power):
    return sum(abs(Fraction(float(x))) ** power for x in vector)


@given(VECTORS, BOUNDS)
def test_no_vector_comes_out_longer_than_the_bound_in_exact_arithmetic(vector, bound):
    assert exact(clip_l1(vector, bound), 1) <= Fraction(bound)
    assert exact(clip_l2(vector, bound), 2) <= Fraction(bound) ** 2


@given(VECTORS, BOUNDS)
def test_short_vectors_stay_as_they_are_and_long_ones_keep_their_direction(vector, bound):
    for clip, power in ((clip_l1, 1), (clip_l2, 2)):
        out, length = clip(vector, bound), exact(vector, power)
        limit = Fraction(bound) ** power
        if length <= limit * (1 - Fraction(1, 10**12)):
            assert out.tolist() == np.array(vector, np.float64).tolist()
        elif length > limit:
            # As long as is allowed, but for one part in 10^12; all coordinates scaled alike.
            assert exact(out, power) >= limit * (1 - Fraction(1, 10**12))
            largest = int(np.argmax(np.abs(vector)))
            scale = Fraction(float(out[largest])) / Fraction(vector[largest])
            for before, after in zip(vector, out.tolist(), strict=True):
                assert abs(Fraction(after) - scale * Fraction(before)) <= Fraction(bound) / 10**12


def test_long_vectors_are_no_longer_than_the_bound_either():
    vector = np.random.default_rng(0).standard_normal(70_000)
    for clip, power in ((clip_l1, 1), (clip_l2, 2)):
        out = clip(vector.astype(np.float32), 3.0)
        assert out.dtype == np.float64
        assert 3.0**power * (1 - 1e-12) <= exact(out, power) <= 3.0**power


def test_the_vector_that_was_given_is_not_touched():
    vector = np.array([3.0, 4.0])
    assert clip_l2(vector, 1.0) == pytest.approx([0.6, 0.8])
    assert clip_l1(vector, 1.0) == pytest.approx([3 / 7, 4 / 7])
    assert clip_l2(vector, 10.0) is not vector
    assert vector.tolist() == [3.0, 4.0]
    assert clip_l2([], 1.0).shape == (0,)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_its_place(value):
    with pytest.raises(PrivacyError, match="coordinate 2 of"):
        clip_l2([1.0, 2.0, value], 1.0)


@pytest.mark.parametrize("bound", [0.0, -1.0, np.nan, np.inf])
def test_bounds_that_bound_nothing_are_refused(bound):
    with pytest.raises(PrivacyError, match="bound of a norm"):
        clip_l1([1.0], bound)
