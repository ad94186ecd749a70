import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.wire.messages import Ack, Ask, Event, Fate, Hello, Settings, Task, Welcome
from haina.wire.refusal import Refusal
from haina.wire.requests import Slot
from haina.wire.v1 import haina_pb2
from haina.wire.v1.convert import decode, encode

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**63 - 1)
values = st.dictionaries(
    words,
    st.recursive(st.none() | st.booleans() | st.integers() | numbers | words, st.lists, max_leaves=5),
    max_size=4,
)
set_to = st.builds(Settings, version=counts, values=values)
tasks = st.builds(
    Task,
    federation=st.just("f"),
    round=counts,
    version=counts,
    model=st.just("a" * 64),
    bytes=counts,
    learning_rate=numbers,
    clip_norm=st.none() | numbers,
    steps=st.none() | st.integers(1, 2**62),
    measure=st.lists(words, max_size=3).map(tuple),
    seed=counts,
)
events = st.builds(
    Event,
    settings=st.none() | set_to,
    task=st.none() | tasks,
    finished=st.booleans(),
    reason=words,
    retry=numbers,
)


@given(events)
def test_nothing_is_lost_on_the_way(event):
    assert decode(Event, encode(event)) == event


@given(
    st.builds(
        Ask,
        federation=st.just("f"),
        settings_version=counts,
        wait=st.floats(0, 60),
        idle=st.booleans(),
        doing=words,
    )
)
def test_a_zero_that_was_said_is_a_zero(ask):
    assert decode(Ask, encode(ask)) == ask


def test_what_was_not_said_takes_its_default():
    assert decode(Ask, haina_pb2.Ask(federation="f").SerializeToString()) == Ask(federation="f")
    assert decode(Hello, b"") == Hello()
    # The one loss: an empty list is "not said".
    assert decode(Hello, encode(Hello(codecs=()))).codecs == Hello().codecs != ()


def test_fields_of_a_later_version_are_ignored():
    assert decode(Slot, encode(Slot(federation="f", round=1)) + b"\x9a\x06\x03new") == Slot(
        federation="f", round=1
    )


def test_words_arrive_as_their_kind():
    assert decode(Ack, encode(Ack(fate=Fate.REFUSED, reason="no"))).fate is Fate.REFUSED


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        (Ask, b"\xff", "malformed"),
        (Settings, haina_pb2.Settings(version=1, values="{").SerializeToString(), "malformed"),
        (Settings, haina_pb2.Settings(version=1, values='{"a": NaN}').SerializeToString(), "malformed"),
        (Settings, haina_pb2.Settings(version=1, values="[1]").SerializeToString(), "invalid"),
        (Settings, haina_pb2.Settings(version=-1, values="{}").SerializeToString(), "invalid"),
        (Ask, haina_pb2.Ask(federation="../x").SerializeToString(), "invalid"),
        (Welcome, b"", "invalid"),
        (Ack, haina_pb2.Ack(fate="maybe").SerializeToString(), "invalid"),
    ],
)
def test_what_cannot_be_is_refused(kind, data, code):
    with pytest.raises(Refusal) as caught:
        decode(kind, data)
    assert caught.value.code == code
