import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2
from secret_sum import stream

from haina.privacy.secagg.shamir import (
    LIMBS,
    PRIME,
    from_limbs,
    join,
    random_field,
    readable,
    split,
    to_limbs,
)

LIMB = st.integers(0, PRIME - 1)


def value(coefficients, x):
    """A polynomial by Python's own integers, Horner's rule."""
    total = 0
    for c in reversed(coefficients):
        total = (total * x + c) % PRIME
    return total


@given(st.data())
def test_shares_are_the_values_of_a_polynomial_at_the_points(data):
    threshold = data.draw(st.integers(1, 9))
    secrets = data.draw(st.lists(LIMB, min_size=1, max_size=4))
    points = data.draw(st.lists(st.integers(1, PRIME - 1), min_size=1, max_size=6, unique=True))
    seed = data.draw(st.integers(0, 99))
    shares = split(np.array(secrets, np.uint64), threshold, np.array(points, np.uint64), stream(seed))
    random = random_field(threshold - 1, len(secrets), stream(seed)).tolist()
    for row, x in zip(shares.tolist(), points, strict=True):
        assert row == [value([s, *(line[m] for line in random)], x) for m, s in enumerate(secrets)]


@given(st.data())
def test_any_threshold_of_the_shares_give_the_secrets_back(data):
    threshold, secrets = data.draw(st.integers(1, 12)), data.draw(st.binary(min_size=64, max_size=64))
    points = np.array(
        data.draw(st.lists(st.integers(1, 5000), min_size=threshold, max_size=20, unique=True)), np.uint64
    )
    shares = split(to_limbs(secrets), threshold, points, stream(data.draw(st.integers(0, 99))))
    rows = np.array([data.draw(st.permutations(range(len(points))))[:threshold] for _ in range(3)])
    joined = join(points[rows], shares[rows])
    for limbs in joined.tolist():
        assert from_limbs(limbs[:LIMBS]) == secrets[:32]
        assert from_limbs(limbs[LIMBS:]) == secrets[32:]


def test_known_polynomial():
    """f(x) = 1234 + 166 x + 94 x^2: the worked example that encyclopaedias give for the scheme."""
    points = np.array([[2, 4, 5], [1, 3, 6]], np.uint64)
    shares = np.array([[[1942], [3402], [4414]], [[1494], [2578], [5614]]], np.uint64)
    assert join(points, shares).tolist() == [[1234], [1234]]


def test_one_share_too_few_is_uniform_whatever_the_secret():
    """With threshold 3, any two shares of one secret are two independent uniform numbers."""
    draws, cells = 400_000, 16
    for secret in (0, PRIME - 1):
        pair = split(np.full(draws, secret, np.uint64), 3, np.array([3, 9], np.uint64), stream(secret))
        cell = (pair * np.uint64(cells) // np.uint64(PRIME)).astype(np.int64)
        counts = np.bincount(cell[0] * cells + cell[1], minlength=cells**2)
        expected = draws / cells**2
        statistic = float(((counts - expected) ** 2 / expected).sum())
        assert 1e-4 < chi2.sf(statistic, cells**2 - 1) < 1 - 1e-4


def test_random_numbers_of_the_field_leave_out_the_prime():
    """Where 31 bits are all ones, they are drawn again."""
    draws = iter([b"\xff\xff\xff\xff" + b"\x05\x00\x00\x80", b"\xff\xff\xff\x7f", b"\x07\x00\x00\x00"])
    assert random_field(1, 2, lambda size: next(draws)).tolist() == [[7, 5]]


@given(st.binary(min_size=32, max_size=32))
def test_limbs_are_a_secret_in_thirty_bits_each(secret):
    limbs = to_limbs(secret).tolist()
    assert len(limbs) == LIMBS
    assert sum(limb << (30 * i) for i, limb in enumerate(limbs)) == int.from_bytes(secret, "little")
    assert from_limbs(limbs) == secret


@pytest.mark.parametrize("place", [0, 8])
def test_limbs_that_no_secret_has_are_none(place):
    limbs = [0] * LIMBS
    limbs[place] = 1 << 30
    assert from_limbs(limbs) is None
    limbs[place] = 0
    limbs[8] = 1 << 16
    assert from_limbs(limbs) is None


def test_bytes_that_are_no_shares():
    assert readable((PRIME - 1).to_bytes(4, "little") * 2)
    assert not readable(PRIME.to_bytes(4, "little"))
    assert not readable(bytes(7))
