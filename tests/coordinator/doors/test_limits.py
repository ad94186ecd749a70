import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.coordinator.doors.limits import Limits, Pace, Rate, Uploads
from haina.wire.refusal import Refusal


def refused(call, *args):
    """The refusal of a call, or None."""
    try:
        call(*args)
    except Refusal as refusal:
        return refusal
    return None


@given(st.lists(st.floats(0, 3), min_size=1, max_size=200), st.floats(0.1, 20), st.integers(1, 20))
def test_no_caller_gets_more_than_the_bucket_and_what_flows_in(gaps, per_second, at_once):
    now = [0.0]
    rate = Rate(per_second, at_once, lambda: now[0])
    for granted, gap in enumerate(gaps, start=1):
        now[0] += gap
        retry = refused(rate.take, "alpha")
        if retry is not None:
            assert 0 < retry.retry <= 1 / per_second + 1e-9
            # To come back when told is enough.
            now[0] += retry.retry + 1e-9
            rate.take("alpha")
        assert granted <= at_once + now[0] * per_second + 1e-6


def test_callers_have_buckets_of_their_own_and_few_are_kept(monkeypatch):
    monkeypatch.setattr("haina.coordinator.doors.limits._KEPT", 3)
    rate = Rate(1.0, 1, lambda: 0.0)
    for name in "abc":
        rate.take(name)
    with pytest.raises(Refusal, match="a calls too often"):
        rate.take("a")
    rate.take("d")
    # The longest unseen is forgotten, not the one that keeps calling.
    with pytest.raises(Refusal):
        rate.take("a")
    rate.take("b")


@given(st.lists(st.integers(0, 120), max_size=30))
def test_room_is_never_overdrawn_and_comes_back_whole(sizes):
    uploads = Uploads(4, 100, 4)
    held = []
    for size in sizes:
        room = uploads.room("a", size)
        refusal = refused(room.__enter__)
        if refusal is not None:
            fits = len(held) < 4 and sum(size for size, _ in held) + size <= 100
            assert not fits
            assert refusal.code == ("too_large" if size > 100 else "too_many")
            if held:
                held.pop(0)[1].__exit__(None, None, None)
        else:
            held.append((size, room))
            assert len(held) <= 4
            assert sum(size for size, _ in held) <= 100
    for _, room in held:
        room.__exit__(None, None, None)
    with uploads.room("a", 100):
        pass


def test_one_caller_cannot_take_the_room_of_all():
    uploads = Uploads(100, 1000, 2)
    held = [uploads.room("a", 1) for _ in range(2)]
    for room in held:
        room.__enter__()
    refusal = refused(uploads.room("a", 1).__enter__)
    assert (refusal.code, refusal.retry > 0) == ("too_many", True)
    with uploads.room("b", 1):
        pass
    held[0].__exit__(None, None, None)
    with uploads.room("a", 1):
        pass


def test_a_window_counts_waiting_and_not_our_own_work():
    limits = Limits(window_seconds=0.3, window_bytes=10)

    async def slow_consumer():
        pieces = iter([b"x" * 4] * 6 + [b""])

        async def body():
            await asyncio.sleep(0.01)
            return next(pieces)

        got = 0
        async for piece in Pace(limits).read(body):
            got += len(piece)
            await asyncio.sleep(0.15)
        return got

    assert asyncio.run(slow_consumer()) == 24

    async def slow_peer():
        async def body():
            await asyncio.sleep(0.12)
            return b"xxx"

        return [piece async for piece in Pace(limits).read(body)]

    with pytest.raises(Refusal, match=r"less than 10 bytes in 0.3 seconds"):
        asyncio.run(slow_peer())


def test_a_piece_may_take_as_long_as_the_slowest_allowed_peer_needs():
    limits = Limits(window_seconds=0.1, window_bytes=10)

    async def send(seconds):
        await Pace(limits).send(asyncio.sleep(seconds), 20)

    asyncio.run(send(0.2))
    with pytest.raises(Refusal):
        asyncio.run(send(0.5))
