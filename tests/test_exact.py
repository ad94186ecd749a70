from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina import exact
from haina.errors import LayoutError, RoundError
from haina.exact import BLOCK, MOST, ExactSum

#: What models and attackers send: ordinary increments, nothing, tiny and huge ones.
FLOAT32 = st.one_of(
    st.floats(-0.5, 0.5, width=32),
    st.sampled_from([0.0, 1e-45, -1e-30, 3e-12, 1.0, -1.0, 1e9, -3e18]).map(np.float32).map(float),
)
WEIGHT = st.floats(-2, 2) | st.sampled_from([1e-6, 0.5, 1.0])
#: Every float64 that a squared norm can be measured of, with all bits above 2^-203.
FLOAT64 = st.one_of(
    st.floats(-1e3, 1e3).map(lambda x: x if abs(x) > 1e-40 else 0.0),
    st.sampled_from([1e15, 1e-6, 1e100, -1e100, 1 / 3, 2.0**-150, -(2.0**-203)]),
)


def terms(numbers, weights=WEIGHT, most=8, width=5):
    row = st.lists(numbers, min_size=width, max_size=width)
    return st.lists(st.tuples(row, weights), min_size=1, max_size=most)


def norm(row):
    return float(np.linalg.norm(np.asarray(row, np.float64)))


def total(rows, d=5, *, lossless=False, dtype=np.float32):
    out = ExactSum(d, lossless=lossless)
    for row, weight in rows:
        out.add(np.array(row, dtype), weight, norm(row))
    return out


def content(total):
    return {name: array.tobytes() for name, array in total.to_arrays().items()}


@st.composite
def trees(draw, leaves):
    """A random order and a random tree of merges of single-vector sums."""
    sums = [total([leaf]) for leaf in draw(st.permutations(leaves))]
    while len(sums) > 1:
        left = sums.pop(draw(st.integers(0, len(sums) - 1)))
        right = sums.pop(draw(st.integers(0, len(sums) - 1)))
        left.merge(right)
        sums.append(left)
    return sums[0]


@given(terms(FLOAT32).flatmap(lambda rows: st.tuples(st.just(rows), trees(rows))))
def test_no_order_and_no_tree_of_merges_changes_a_bit(case):
    rows, merged = case
    there = total(rows)
    assert content(merged) == content(there)
    for scale, dtype in ((1.0, np.float64), (0.3, np.float32)):
        assert merged.value(scale, dtype).tobytes() == there.value(scale, dtype).tobytes()


@given(terms(FLOAT32))
def test_what_was_added_can_be_taken_out(rows):
    sums = total(rows)
    before = content(sums)
    for sign in (1, -1):
        for row, weight in rows[::-1]:
            sums.add(np.array(row, np.float32), sign * 3 * weight, norm(row))
    assert content(sums) == before


@given(terms(FLOAT32))
def test_increments_are_summed_to_the_forty_fourth_place_or_sixteen_bits(rows):
    value = total(rows).value()
    products = [np.array(row, np.float32).astype(np.float64) * weight for row, weight in rows]
    bound = sum(max(min(2.0**-44, np.abs(p).max() * 2.0**-16), 2.0**-203) for p in products)
    for j in range(5):
        true = sum(Fraction(float(p[j])) for p in products)
        assert abs(Fraction(float(value[j])) - true) <= Fraction(bound) + abs(true) * Fraction(2, 2**53)


@settings(max_examples=300)
@given(terms(FLOAT64, st.just(1.0)))
def test_statistics_lose_nothing_before_the_end(rows):
    sums = total(rows, lossless=True, dtype=np.float64)
    for j in range(5):
        true = sum(Fraction(row[j]) for row, _ in rows)
        digits = {int(e): int(array[j]) for e, array in sums.to_arrays().items()}
        assert sum(Fraction(n) * Fraction(2) ** e for e, n in digits.items()) == true
        # Rounded at most twice: the largest digit, and the sum.
        assert abs(Fraction(float(sums.value()[j])) - true) <= abs(true) * Fraction(2, 2**53)


def test_huge_terms_that_cancel_uncover_the_small_ones():
    sums = total(
        [([1e100, 1e15, 1.0], 1.0), ([1e-30, 1e-6, 1e-20], 1.0), ([-1e100, -1e15, -1.0], 1.0)],
        3,
        lossless=True,
        dtype=np.float64,
    )
    assert sums.value().tolist() == [1e-30, 1e-6, 1e-20]


def test_a_mean_of_increments_is_as_good_as_one_in_float64():
    rng = np.random.default_rng(0)
    rows = 1e-3 * rng.standard_normal((100, 1000)).astype(np.float32)
    sums = total([(row, 0.01) for row in rows], 1000)
    assert list(sums.to_arrays()) == ["-43"]
    error = sums.value() - rows.astype(np.float64).mean(axis=0)
    assert np.abs(error).max() < 5e-12
    assert np.linalg.norm(error) < 1e-8 * np.linalg.norm(rows.mean(axis=0))
    ten = total([(row, 0.1) for row in rows[:10]], 1000).value() - rows[:10].astype(np.float64).mean(axis=0)
    assert np.linalg.norm(ten) < 1e-9 * np.linalg.norm(rows[:10].mean(axis=0))


def test_the_most_vectors_of_the_greatest_size_do_not_wrap():
    # As many as are allowed, by doubling: 1 + 2 + 4 ... + 2^19 = MOST - 1.
    power, sums = ExactSum(2), ExactSum(2)
    power.add(np.array([1.0, -1.0], np.float32) * np.float32(1 - 2**-24), 1.0, 2.0)
    for _ in range(20):
        sums.merge(power)
        power.merge(power)
    assert sums.value().tolist() == [(MOST - 1) * (1 - 2**-24), -(MOST - 1) * (1 - 2**-24)]
    assert np.abs(sums.to_arrays()["-43"]).max() < 2**63


def test_only_the_outlier_s_block_pays_for_the_outlier():
    vector = np.full(2 * BLOCK, 1e-3, np.float32)
    sums = ExactSum(len(vector))
    sums.add(vector, 0.5, 1.0)
    vector[BLOCK + 7] = 5e5
    sums.add(vector, 0.5, 1e6)
    arrays = sums.to_arrays()
    assert list(arrays) == ["-43", "-3"]
    assert not arrays["-3"][:BLOCK].any()
    assert sums.value()[BLOCK + 7] == pytest.approx(250000.0005, rel=1e-15)


def test_long_vectors_are_summed_in_blocks_of_their_own():
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((3, 2 * BLOCK + 5)) * 10.0 ** rng.integers(-9, 4, (3, 1))
    sums = total([(row, 1.0) for row in rows], rows.shape[1], lossless=True, dtype=np.float64)
    np.testing.assert_allclose(
        sums.value(2.0), (2 * rows.astype(np.longdouble).sum(axis=0)).astype(float), rtol=1e-13
    )


@given(terms(FLOAT32))
def test_a_snapshot_stays_as_it_was(rows):
    sums = total(rows)
    before = content(sums)
    taken = sums.snapshot()
    sums.add(np.ones(5, np.float32), 0.25, 3.0)
    assert content(taken) == before
    late = taken.snapshot()
    taken.merge(sums)
    assert content(late) == before
    assert content(taken) != before


@given(terms(FLOAT32))
def test_arrays_restore_a_sum_without_copying_it(rows):
    sums = total(rows)
    stored = {name: np.frombuffer(array.tobytes(), np.int64) for name, array in sums.to_arrays().items()}
    back = ExactSum.from_arrays(stored, 5)
    assert content(back) == content(sums)
    for name, array in back.to_arrays().items():
        assert array is stored[name]
    for one in (sums, back):
        one.add(np.ones(5, np.float32), 0.25, 3.0)
    assert content(back) == content(sums)


def test_an_empty_sum_is_zero():
    assert ExactSum(3).value(2.0, np.float32).tolist() == [0.0, 0.0, 0.0]
    assert ExactSum(3).to_arrays() == {}
    assert ExactSum(0).value().shape == (0,)


@pytest.mark.parametrize(
    ("vector", "weight", "norm"),
    [
        (np.full(3, 1e150), 1e200, 1e151),
        (np.ones(3), float("inf"), 2.0),
        (np.ones(3), float("nan"), 2.0),
        (np.array([1, np.nan, 0]), 1.0, float("nan")),
    ],
)
def test_what_cannot_be_added_leaves_the_sum_alone(vector, weight, norm):
    sums = total([([1.0, 2.0, 3.0], 1.0)], 3)
    before = content(sums)
    with pytest.raises(RoundError, match="product below"):
        sums.add(vector, weight, norm)
    assert content(sums) == before


def test_sums_of_different_kinds_do_not_mix():
    with pytest.raises(LayoutError, match="shape"):
        ExactSum(3).add(np.ones(4), 1.0, 2.0)
    for other in (ExactSum(4), ExactSum(3, lossless=True)):
        with pytest.raises(LayoutError, match="to be merged"):
            ExactSum(3).merge(other)


@pytest.mark.parametrize(
    "arrays",
    [
        {"-42": np.zeros(3, np.int64)},
        {"-4003": np.zeros(3, np.int64)},
        {"x": np.zeros(3, np.int64)},
        {"-43": np.zeros(3, np.float64)},
        {"-43": np.zeros(4, np.int64)},
    ],
)
def test_arrays_that_are_no_sum_are_refused(arrays):
    with pytest.raises(LayoutError, match="digit"):
        ExactSum.from_arrays(arrays, 3)


def test_numbers_of_every_size_at_once_open_a_bounded_number_of_digits():
    sums = ExactSum(1)
    for exponent in range(-149, 64):
        sums.add(np.array([2.0**exponent], np.float32), 1.0, 2.0**exponent)
    assert len(sums.to_arrays()) <= 2 - exact._LAST + 1


class OnDisk:
    """A vector that is read by blocks, and counts how often."""

    def __init__(self, vector):
        self.vector, self.shape, self.dtype, self.reads = vector, vector.shape, vector.dtype, 0

    def __getitem__(self, columns):
        self.reads += 1
        return self.vector[columns].copy()


@given(terms(FLOAT32), st.booleans())
def test_vectors_on_a_disk_add_up_to_the_same_bits(rows, lossless):
    there = total(rows, lossless=lossless)
    for materialised in (False, True):
        sums = ExactSum(5, lossless=lossless)
        for row, weight in rows:
            sums.add(OnDisk(np.array(row, np.float32)), weight, norm(row))
        if materialised:
            assert content(sums) == content(there)
        assert sums.value(0.3, np.float32).tobytes() == there.value(0.3, np.float32).tobytes()
        assert sums.value().tobytes() == there.value().tobytes()


@pytest.mark.parametrize("outlier", [0.0, 1e6, 1e30])
def test_vectors_on_a_disk_and_in_memory_mix_over_many_blocks(outlier):
    rows = np.random.default_rng(3).standard_normal((5, 2 * BLOCK + 11), dtype=np.float32)
    rows[1, 7] += outlier
    there = total([(row, 0.2) for row in rows], rows.shape[1])
    sums, other = ExactSum(rows.shape[1]), ExactSum(rows.shape[1])
    later = [OnDisk(row) for row in rows[:3]]
    for vector in later[:2]:
        sums.add(vector, 0.2, norm(vector.vector))
    sums.add(rows[3], 0.2, norm(rows[3]))
    other.add(later[2], 0.2, norm(rows[2]))
    other.add(rows[4], 0.2, norm(rows[4]))
    assert [vector.reads for vector in later] == [0, 0, 0]
    sums.merge(other)
    kept = sums.snapshot()
    assert sums.value(1.0, np.float32).tobytes() == there.value(1.0, np.float32).tobytes()
    # A snapshot, and the same sum again, are what they were.
    assert [vector.reads for vector in later] == [3, 3, 3]
    assert content(kept) == content(sums) == content(there)


def test_so_many_vectors_on_a_disk_are_folded_before_more_wait():
    vectors = [OnDisk(np.full(3, 0.5, np.float32)) for _ in range(100)]
    sums = ExactSum(3)
    for vector in vectors:
        sums.add(vector, 1.0, 1.0)
    assert sum(vector.reads for vector in vectors) == 64
    assert sums.value().tolist() == [50.0] * 3
