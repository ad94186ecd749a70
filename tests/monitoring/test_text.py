import math

import pytest

from haina.monitoring.text import duration, known, listing, number, percent, plain, score


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0, "0%"), (0.0004, "<0.1%"), (0.012, "1.2%"), (1.0, "100.0%"), (None, "–")],
)
def test_percent(value, said):
    assert percent(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(-0.8349, "-0.835"), (24.13, "24.1"), (12345.6, "12,346"), (1e9, "1e+09"), (0.0, "0"), (None, "–")],
)
def test_number(value, said):
    assert number(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.123, "0.12 s"), (3.42, "3.4 s"), (59.97, "1 min 0 s"), (200.0, "3 min 20 s"), (7500.0, "2 h 5 min")],
)
def test_duration(value, said):
    assert duration(value) == said


def test_score_has_two_decimals():
    assert score(-0.834) == "-0.83"


def test_listing():
    assert [listing(list("abcd")[:n], 3) for n in (1, 2, 3, 4)] == [
        "a",
        "a and b",
        "a, b and c",
        "a, b, c and 1 more",
    ]


def test_known_is_finite_or_none():
    values = {"a": 1, "b": math.nan, "c": None, "d": math.inf}
    assert [known(values, name) for name in "abcde"] == [1.0, None, None, None, None]


def test_plain_takes_the_sting_out_of_hostile_names():
    assert plain("a\x1b[31mb\nc\u202ed") == "a�[31mb�c�d"
    assert plain("x" * 500) == "x" * 159 + "…"
