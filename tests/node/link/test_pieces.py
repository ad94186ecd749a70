import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import HainaError
from haina.node.link import pieces
from haina.wire.calls import CHUNK


@given(st.binary(max_size=5000), st.integers(0, 5000), st.one_of(st.none(), st.floats(1, 10_000)))
def test_pieces_are_the_file_in_order_and_no_faster_than_asked(data, offset, rate):
    offset = min(offset, len(data))
    now, slept, told = [0.0], [], []

    def sleep(seconds):
        slept.append(seconds)
        now[0] += seconds

    out = b"".join(pieces(io.BytesIO(data), offset, len(data), told.append, rate, lambda: now[0], sleep))
    assert out == data[offset:]
    assert told == sorted(told)
    if out:
        assert told[-1] == len(data)
    if rate is not None and len(out) > max(1024, rate):
        # All but the last piece have been waited for.
        last = len(data) - (told[-2] if len(told) > 1 else offset)
        assert now[0] == pytest.approx((len(out) - last) / rate)


def test_a_piece_is_never_larger_than_a_message_may_be():
    sizes = [len(piece) for piece in pieces(io.BytesIO(bytes(3 * CHUNK + 5)), 0, 3 * CHUNK + 5)]
    assert sizes == [CHUNK, CHUNK, CHUNK, 5]


def test_a_file_that_shrank_is_an_error_and_not_a_short_upload():
    with pytest.raises(HainaError, match="ends at 10 of 20 bytes"):
        list(pieces(io.BytesIO(bytes(10)), 0, 20))
