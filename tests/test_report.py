import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.errors import ReportError
from haina.report import MAX_EXAMPLES, MEASURED, Report

POSITIVE = st.floats(min_value=0, exclude_min=True, max_value=MAX_EXAMPLES)
LOSS = st.none() | st.floats(-1e12, 1e12)


HONEST = st.builds(
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
    extra=st.dictionaries(st.text(max_size=200), st.floats(), max_size=100),
)


@given(HONEST)
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
IMPOSSIBLE += [("label_counts", (1,) * 1_000_001), ("extra", {"f1" * 101: 0.0})]
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


@given(HONEST)
def test_json_brings_back_what_was_said(report):
    line = json.dumps(report.to_json(), allow_nan=False)
    back = Report.read(json.loads(line))
    # JSON has no infinity, and numbers of the user's own may be anything.
    assert replace(back, extra={}) == replace(report, extra={})
    finite = {name: value for name, value in report.extra.items() if np.isfinite(value)}
    assert {name: value for name, value in back.extra.items() if np.isfinite(value)} == finite
    assert back.extra.keys() == report.extra.keys()
    assert json.dumps(back.to_json()) == line


def test_numpy_numbers_and_names_of_tomorrow_are_no_trouble():
    report = Report(np.int64(3), steps=np.int32(2), seconds=np.float32(0.5), label_counts=(np.int64(3),))
    said = json.loads(json.dumps(report.to_json()))
    assert said == {"examples": 3, "steps": 2, "seconds": 0.5, "label_counts": [3], "staleness": 0}
    assert Report.read({**said, "colour": ["blue"], "accuracy": None}) == report
    assert Report.read({"examples": 2.5, "steps": 3.0}).steps == 3


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -(10**30)])
    | st.floats()
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
FIELDS = st.sampled_from([field.name for field in fields(Report)])


@settings(max_examples=400)
@given(
    JSON
    | st.dictionaries(FIELDS, JSON)
    | st.dictionaries(FIELDS, JSON).map(lambda said: {"examples": 5, **said})
)
def test_any_json_is_a_usable_report_or_an_error_in_words(value):
    try:
        report = Report.read(value)
    except ReportError as error:
        words = str(error)
    else:
        words = "a usable report"
        assert report.fault() is None
        assert Report.read(json.loads(json.dumps(report.to_json()))).to_json() == report.to_json()
    assert 10 < len(words) < 400


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ([1], "the report is a list. Allowed: a table"),
        ({}, "does not say how many examples"),
        ({"examples": True}, "examples is true or false. Allowed: a number"),
        ({"examples": 10**400}, "examples is not a finite number"),
        ({"examples": 1, "steps": 2.5}, "steps is 2.5, which must be a whole number"),
        ({"examples": 1, "label_counts": [1, [2]]}, "label counts are not a list of numbers"),
        ({"examples": 1, "label_counts": [1.5]}, "a label count is not a whole number"),
        ({"examples": 1, "extra": {"f1": {}}}, "extra is not a table of numbers"),
    ],
)
def test_what_is_wrong_with_a_report_is_said(said, words):
    with pytest.raises(ReportError, match=words):
        Report.read(said)
