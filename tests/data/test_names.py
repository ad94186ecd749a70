import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.data.names import Numbered

SIZES = st.one_of(st.integers(1, 3000), st.sampled_from([999, 1000, 1001, 10**6, 10**6 + 1, 2**40]))


@given(SIZES, st.data())
def test_position_and_name_follow_from_each_other(size, data):
    names = Numbered(size)
    assert len(names) == size
    one, other = (data.draw(st.integers(0, size - 1)) for _ in range(2))
    assert names.index(names[one]) == one
    assert names[one] in names
    assert (names[one] == names[other]) == (one == other)
    assert len(names[one]) == len(names[size - 1]) == len("client-") + max(3, len(str(size - 1)))
    assert names[one - size] == names[one]
    assert (names[one] < names[other]) == (one < other)


@given(st.integers(0, 1200), st.text(max_size=12))
def test_nothing_else_is_a_name(size, text):
    names = Numbered(size)
    listed = list(names)
    assert len(set(listed)) == size
    for candidate in (text, f"client-{text}", listed[0] if listed else ""):
        assert (candidate in names) == (candidate in listed)


@pytest.mark.parametrize(
    "name",
    [
        "client-7",
        "client-0007",
        "client-010",
        "client-٠٠٧",
        "client-+07",
        "client- 07",
        "Client-007",
        "",
        7,
        None,
    ],
)
def test_what_is_like_a_name_is_none(name):
    assert name not in Numbered(10)
    with pytest.raises(ValueError, match="none of the 10 names"):
        Numbered(10).index(name)


def test_it_is_a_sequence():
    names = Numbered(1001)
    assert (names[0], names[-1]) == ("client-0000", "client-1000")
    assert names[2:8:3] == ("client-0002", "client-0005")
    assert list(Numbered(2)) == ["client-000", "client-001"]
    assert json.dumps(list(reversed(Numbered(2)))) == '["client-001", "client-000"]'
    assert names.index("client-0005", 3, 9) == 5
    assert (len(Numbered(0)), list(Numbered(0))) == (0, [])
    for k in (1001, -1002):
        with pytest.raises(IndexError):
            names[k]
    with pytest.raises(ValueError, match="none"):
        names.index("client-0005", 6)
