from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.report import MAX_EXAMPLES, MEASURED, Report

POSITIVE = st.floats(min_value=0, exclude_min=True, max_value=MAX_EXAMPLES)
LOSS = st.none() | st.floats(-1e12, 1e12)


@given(
    st.builds(
        Report,
        examples=POSITIVE,
        steps=st.integers(1, 10**12),
        normalizer=st.none() | st.floats(1, 1000),
        learning_rate=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
        loss_before=LOSS,
        loss_after=LOSS,
        accuracy=st.none() | st.floats(0, 1),
        label_counts=st.none() | st.lists(st.integers(0, 10**12), max_size=4).map(tuple),
        seconds=st.none() | st.floats(min_value=0, allow_infinity=False),
        staleness=st.integers(0, 10**12),
        extra=st.dictionaries(st.text(), st.floats(), max_size=100),
    )
)
def test_what_an_honest_client_can_say_is_usable(report):
    assert report.fault() is None
    assert 0 < report.norm_a <= MAX_EXAMPLES


IMPOSSIBLE = [
    ("examples", value)
    for value in (0, -1, -0.5, np.nan, np.inf, -np.inf, 1e13, 10**400, -(10**400), "12", 1j)
]
IMPOSSIBLE += [("steps", value) for value in (0, -3, 10**13, 10**400, np.nan)]
IMPOSSIBLE += [("normalizer", value) for value in (0.0, -1.0, np.nan, np.inf)]
IMPOSSIBLE += [("learning_rate", value) for value in (0.0, -0.1, np.nan, np.inf)]
IMPOSSIBLE += [(name, value) for name in ("loss_before", "loss_after") for value in (np.nan, np.inf, 10**400)]
IMPOSSIBLE += [("accuracy", value) for value in (-0.001, 1.001, np.nan, np.inf)]
IMPOSSIBLE += [("seconds", value) for value in (-1.0, np.nan, np.inf)]
IMPOSSIBLE += [("staleness", value) for value in (-1, 10**400)]
IMPOSSIBLE += [("label_counts", value) for value in ((3, -1), (10**400,), (np.nan,))]
IMPOSSIBLE += [("extra", value) for value in ({"f1": 10**5000}, {"f1": "high"}, {"f1": None})]


@pytest.mark.parametrize(
    ("name", "value"), IMPOSSIBLE, ids=[f"{name}-{i}" for i, (name, _) in enumerate(IMPOSSIBLE)]
)
def test_what_no_honest_client_can_say_is_named(name, value):
    fault = Report(**{"examples": 10, name: value}).fault()
    assert fault is not None
    assert {"extra": "f1", "label_counts": "label"}.get(name, name) in fault
    assert len(fault) < 200


def test_the_fault_says_what_is_allowed():
    assert Report(examples=-5).fault() == "examples is -5, which must be > 0 and <= 1e+12"
    assert Report(examples=1, accuracy=2).fault() == "accuracy is 2, which must be >= 0 and <= 1"
    assert Report(examples=1, learning_rate=0).fault() == "learning_rate is 0, which must be > 0"


def test_plain_sgd_needs_no_normalizer():
    assert Report(examples=1, steps=7).norm_a == 7.0
    assert Report(examples=1, steps=7, normalizer=30.5).norm_a == 30.5


def test_what_costs_a_pass_over_the_data_is_a_field_of_the_report():
    assert {field.name for field in fields(Report)} >= MEASURED
