"""The message is checked against bytes that are made here by hand, after protobuf's encoding rules (protobuf.dev/programming-guides/encoding)."""

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import LayoutError
from haina.interop.fate.model import HomoLrModel
from haina.interop.fate.protobuf import read_message, write_message

POOLED = Path(__file__).parents[1] / "fixtures" / "pooled.json"
finite = st.floats(allow_nan=False, allow_infinity=False)


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def block(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def double(number, value):
    return varint(number << 3 | 1) + struct.pack("<d", value)


def entry(name, value):
    return block(4, block(1, name.encode()) + double(2, value))


BY_HAND = (
    b"\x08\x06"  # iters = 6
    + block(2, struct.pack("<2d", 0.7, 0.6))  # loss_history, packed
    + b"\x18\x01"  # is_converged
    + entry("age", 1.25)
    + entry("bmi", -0.1)
    + double(5, -0.3)
    + block(6, b"bmi")
    + block(6, b"age")
    + b"\x48\x05"  # best_iteration = 5
)
MODEL = HomoLrModel((-0.1, 1.25), -0.3, ("bmi", "age"), 6, (0.7, 0.6), True, 5)


def test_bytes_that_fate_would_write_are_read_in_the_order_of_the_header():
    assert read_message(BY_HAND) == MODEL


def test_bytes_that_fate_would_read_are_written():
    # Field by field in ascending order, so only the map's entries and field 5 might lie elsewhere.
    assert write_message(MODEL) == BY_HAND


@given(
    st.dictionaries(st.text(min_size=1), finite, min_size=1, max_size=8),
    finite,
    st.integers(0, 2**31 - 1),
    st.lists(finite, max_size=5),
    st.booleans(),
)
def test_a_round_trip_changes_nothing(weights, intercept, iterations, losses, converged):
    model = HomoLrModel(
        tuple(weights.values()), intercept, tuple(weights), iterations, tuple(losses), converged, 3
    )
    data = write_message(model)
    back = read_message(data)
    assert back == model
    assert [w.hex() for w in back.weights] == [w.hex() for w in weights.values()]
    assert write_message(back) == data


def test_coefficients_of_r_survive():
    pooled = json.loads(POOLED.read_text())
    model = HomoLrModel(tuple(pooled["coef"][1:]), pooled["coef"][0], tuple(pooled["names"][1:]))
    assert read_message(write_message(model)) == model


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "no HomoLR model"),
        (b"\xff\xff\xff", "no HomoLR model"),
        (BY_HAND[:-3], "no HomoLR model"),
        (BY_HAND + block(6, b"height"), "no HomoLR model"),
        (BY_HAND + block(10, block(1, b"age")), "encrypted"),
        (BY_HAND + block(11, block(1, b"key")), "encrypted"),
        (BY_HAND + b"\x40\x01", "several classes"),
        (BY_HAND + block(7, block(2, b"red")), "several classes"),
    ],
)
def test_what_cannot_be_used_is_refused(data, words):
    with pytest.raises(LayoutError) as refused:
        read_message(data)
    assert words in str(refused.value)
