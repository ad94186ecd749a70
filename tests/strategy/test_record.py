import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMED = st.dictionaries(st.text(max_size=5), NUMBERS, max_size=3)
CLIENTS = st.builds(
    ClientRecord,
    client=st.text(),
    verdict=st.sampled_from(Verdict),
    share=st.none() | NUMBERS,
    prior=st.none() | NUMBERS,
    factors=NAMED,
    evidence=NAMED,
    report=st.dictionaries(st.text(max_size=5), st.none() | NUMBERS | st.integers()),
    norm=st.none() | NUMBERS,
    clip=NUMBERS,
    reason=st.text(),
)
RECORDS = st.builds(
    RoundRecord,
    round=st.integers(1, 10**6),
    outcome=st.sampled_from(Outcome),
    clients=st.lists(CLIENTS, max_size=3).map(tuple),
    reason=st.text(),
    model=st.text(),
    parent=st.text(),
    notes=NAMED,
    decisions=st.dictionaries(st.text(max_size=5), st.text(), max_size=3),
    metrics=NAMED,
    timing=NAMED,
    cost=NAMED,
)


@given(RECORDS)
def test_a_record_is_one_line_of_json_and_comes_back_equal(record):
    line = json.dumps(record.to_json(), allow_nan=False)
    assert "\n" not in line
    back = RoundRecord.from_json(json.loads(line))
    assert back == record
    assert all(isinstance(client.verdict, Verdict) for client in back.clients)
    assert isinstance(back.outcome, Outcome)


LOOSE = st.dictionaries(
    st.text(max_size=5),
    st.one_of(
        st.floats(),
        st.floats(width=32).map(np.float32),
        st.floats().map(np.float64),
        st.integers(0, 9).map(np.int64),
    ),
)


@given(RECORDS, LOOSE)
def test_the_quick_line_is_the_careful_one(record, numbers):
    record = replace(record, notes=numbers, metrics=MappingProxyType(numbers))
    careful = json.dumps(record.to_json(), separators=(",", ":")).encode() + b"\n"
    assert record.to_line() == careful


def test_numbers_that_are_not_finite_become_null_wherever_they_stand():
    client = ClientRecord(
        "a",
        Verdict.REFUSED,
        share=float("nan"),
        evidence={"distance": float("inf"), "deviation": 1.0},
        report={"loss_before": float("-inf"), "steps": 3},
    )
    record = RoundRecord(
        1, Outcome.KEPT, (client,), notes={"rate": float("nan")}, metrics={"loss": float("inf")}
    )
    plain = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert plain["clients"][0]["share"] is None
    assert plain["clients"][0]["evidence"] == {"distance": None, "deviation": 1.0}
    assert plain["clients"][0]["report"] == {"loss_before": None, "steps": 3}
    assert plain["notes"] == {"rate": None}
    assert plain["metrics"] == {"loss": None}


def test_numpy_numbers_of_a_learner_become_plain_ones():
    # A learner of the user's own may report what its library computes with.
    client = ClientRecord(
        "a",
        Verdict.ADMITTED,
        report={"examples": np.float32(1.5), "steps": np.int64(3), "done": np.bool_(True)},
    )
    record = RoundRecord(
        1, Outcome.STEPPED, (client,), metrics={"loss": np.float32("nan"), "f1": np.float64(0.5)}
    )
    plain = json.loads(json.dumps(record.to_json(), allow_nan=False))
    assert plain["clients"][0]["report"] == {"examples": 1.5, "steps": 3, "done": True}
    assert plain["metrics"] == {"loss": None, "f1": 0.5}
