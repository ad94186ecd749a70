from fractions import Fraction
from math import ceil, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy.clipping import clip_l1, clip_l2
from haina.privacy.grid import Grid
from haina.privacy.mechanisms import DiscreteGaussian
from haina.privacy.stream import Stream

KEY = bytes(32)
WORDS = st.sampled_from([32, 64])


class Flood:
    """Bits that are all 0 or all 1."""

    def __init__(self, bit):
        self.word = np.uint64(0) if not bit else ~np.uint64(0)

    def uint64(self, n):
        return np.full(n, self.word)


def added(grid, vectors):
    """The sum of the vectors' words, as it comes out of a secure sum: modulo 2^word."""
    total = np.zeros(len(vectors[0]), np.uint32 if grid.word == 32 else np.uint64)
    for vector in vectors:
        total += grid.words(vector)
    return grid.integers(total)


@given(st.floats(1e-3, 1e3), st.integers(1, 10**6), WORDS, st.integers(0, 2000))
def test_no_sum_of_the_most_that_clients_may_send_wraps(bound, clients, word, tail):
    grid = Grid.for_sum(bound, clients, word=word, tail=tail)
    assert grid.holds(clients, tail)
    # The largest that anybody can send, in both directions, n times over.
    extreme = grid.quantise([bound, -bound], Flood(0)) + np.array([tail, -tail])
    assert np.abs(extreme).max() <= grid.most + tail
    total = np.multiply(grid.words(extreme), clients, dtype=f"u{word // 8}")
    assert grid.integers(total).tolist() == [clients * int(x) for x in extreme]


@given(st.floats(1e-3, 1e3), st.integers(1, 10**5), st.integers(0, 500))
def test_the_grid_is_the_finest_that_holds(bound, clients, tail):
    grid = Grid.for_sum(bound, clients, tail=tail)
    finer = ceil(bound / (grid.step / 2)) + tail
    assert clients * finer > 2**31 - 1
    assert Fraction(grid.step).numerator & (Fraction(grid.step).numerator - 1) == 0


def test_bits_are_what_is_asked_for():
    grid = Grid.for_sum(1.0, 100, bits=16)
    assert grid.most <= 2**15 - 1 < 2 * grid.most + 1
    # The table of privacy.md: 25 bits at 100 clients, 18 at 10,000; and not one more.
    for clients, bits in ((100, 25), (10_000, 18)):
        assert Grid.for_sum(0.99, clients, bits=bits)
        with pytest.raises(PrivacyError, match="ask for fewer bits"):
            Grid.for_sum(0.99, clients, bits=bits + 2)


def test_noise_that_depends_on_the_step_finds_its_grid():
    asked = []

    def tail(step):
        asked.append(step)
        return DiscreteGaussian(1.0).tail(1.0 / step + sqrt(1000), 50)

    grid = Grid.for_sum(1.0, 100, tail=tail)
    assert grid.holds(100, tail(grid.step))
    assert not Grid(grid.step / 2, 2 * grid.most).holds(100, tail(grid.step / 2))


def test_two_thousand_clients_who_each_send_a_half_have_a_mean_of_a_half():
    grid = Grid.for_sum(0.5, 2000)
    vector = grid.quantise(np.full(3, 0.5), Stream(KEY))
    assert (grid.values(added(grid, [vector] * 2000)) / 2000).tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("arguments", "settings", "words"),
    [
        ((1.0, 2**31), {}, "2147483648 clients are to be added up in words of 32 bits"),
        ((1.0, 200), {"bits": 26}, "200 clients with integers up to .* in 26 bits .* or ask for fewer bits"),
        ((1.0, 1000), {"tail": 2**22}, "noise up to 4194304 .* add less noise, or use words of 64 bits"),
        ((1.0, 2**40), {"word": 64, "tail": 2**40}, "do not fit in words of 64 bits"),
        ((0.0, 10), {}, "bounded by 0.0"),
        ((float("nan"), 10), {}, "bounded by nan"),
        ((1.0, 0), {}, "0 clients"),
        ((1.0, 10), {"bits": 33}, "integers of 33 bits"),
    ],
)
def test_sums_that_could_wrap_are_refused_before_they_begin(arguments, settings, words):
    with pytest.raises(PrivacyError, match=words):
        Grid.for_sum(*arguments, **settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ((0.0, 5), "step"),
        ((float("inf"), 5), "step"),
        ((1.0, 0), "largest integer"),
        ((1.0, 2**31), "largest integer"),
        ((1.0, 5, 16), "16 bits"),
    ],
)
def test_grids_that_are_none_are_refused(settings, words):
    with pytest.raises(PrivacyError, match=words):
        Grid(*settings)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20), st.floats(1e-4, 0.5))
def test_rounding_goes_to_a_neighbour_in_either_direction(values, step):
    grid = Grid(step, ceil(1 / step))
    exact = np.array([Fraction(value) / Fraction(step) for value in values])
    low, high = grid.quantise(values, Flood(1)), grid.quantise(values, Flood(0))
    assert (np.abs(low) <= grid.most).all()
    assert (np.abs(high) <= grid.most).all()
    tolerance = Fraction(1, 2**40)
    assert all(x - 1 - tolerance <= int(n) <= x + tolerance for x, n in zip(exact, low, strict=True))
    assert all(x - tolerance <= int(n) < x + 1 + tolerance for x, n in zip(exact, high, strict=True))


@pytest.mark.parametrize("value", [0.3, -0.3, 1000.01, 2.0**30 + 0.25, -(2.0**-20)])
def test_rounding_is_right_on_average(value):
    # A fine fraction of a large number too, which float32 would lose.
    grid, n = Grid(1.0, 2**31 - 1), 400_000
    rounded = grid.quantise(np.full(n, value), Stream(KEY))
    fraction = value % 1
    error = (rounded - int(np.floor(value))).mean() - fraction
    assert abs(error) <= 5 * sqrt(fraction * (1 - fraction) / n)
    assert set(np.unique(rounded)) <= {np.floor(value), np.floor(value) + 1}


def test_whole_numbers_of_units_are_not_rounded():
    grid = Grid.for_sum(4.0, 10)
    values = np.arange(-100, 101) * grid.step * 7
    assert (grid.quantise(values, Stream(KEY)) == np.arange(-100, 101) * 7).all()
    assert grid.values(grid.quantise(values, Stream(KEY))).tolist() == values.tolist()


def test_the_same_stream_rounds_in_the_same_way_whatever_the_length():
    grid, values = Grid.for_sum(1.0, 10, bits=8), np.random.default_rng(0).uniform(-1, 1, 50_000)
    whole = grid.quantise(values, Stream(KEY))
    stream = Stream(KEY)
    parts = [grid.quantise(values[:16384], stream), grid.quantise(values[16384:], stream)]
    assert np.concatenate(parts).tolist() == whole.tolist()


@pytest.mark.parametrize("value", [1.5, -1.5, np.nan, np.inf, 1e300])
def test_what_was_not_clipped_is_refused(value):
    grid = Grid(2.0**-20, 2**20)
    with pytest.raises(PrivacyError, match=r"coordinate 20001 .* Clip it before"):
        grid.quantise(np.r_[np.zeros(20001), value, 0.0], Stream(KEY))


@given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1), min_size=1), WORDS)
def test_words_are_integers_and_back(integers, word):
    grid = Grid(1.0, 1, word)
    if max(map(abs, integers)) <= grid.half:
        assert grid.integers(grid.words(np.array(integers))).tolist() == integers
    else:
        with pytest.raises(PrivacyError, match="is to be sent"):
            grid.words(np.array(integers))


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=4, max_size=4), min_size=2, max_size=6),
    st.lists(st.floats(0, 1), min_size=6, max_size=6),
    st.floats(0.05, 3),
    st.integers(3, 20),
    st.sampled_from([1, 2]),
    st.integers(0, 2**32),
)
def test_a_client_that_is_zeroed_out_changes_the_sum_by_no_more_than_the_sensitivity(
    vectors, weights, bound, bits, norm, seed
):
    grid, clip = Grid.for_sum(bound, len(vectors), bits=bits), clip_l1 if norm == 1 else clip_l2
    stream = Stream.derived(KEY, str(seed))
    sent = [
        grid.quantise(clip(vector, bound) * weight, stream)
        for vector, weight in zip(vectors, weights, strict=False)
    ]
    without = [np.zeros_like(sent[0]), *sent[1:]]
    change = added(grid, sent) - added(grid, without)
    length = np.abs(change).sum() if norm == 1 else sqrt(np.square(change).sum())
    assert length <= grid.sensitivity(bound, 4, norm)


def test_rounding_can_use_up_the_sensitivity_that_it_is_given():
    # Every coordinate just above a unit and rounded up: the allowance of a unit each is needed.
    grid, d = Grid(1.0, 100), 10_000
    change = grid.quantise(np.full(d, 1e-9), Flood(0))
    assert np.abs(change).sum() == d
    assert grid.sensitivity(1e-9 * d, d, 1) == pytest.approx(d, rel=1e-6)
    assert np.linalg.norm(change) == pytest.approx(grid.sensitivity(1e-7, d, 2), rel=1e-6)
