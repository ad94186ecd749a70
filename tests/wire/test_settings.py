import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import ConfigError
from haina.wire.messages import Settings
from haina.wire.settings import GLOBAL_ONLY, Dynamic, allowed, check, effective, schema


def test_every_key_has_a_description_a_default_in_bounds_and_someone_who_obeys():
    properties = schema()["properties"]
    assert list(properties) == list(Dynamic.model_fields)
    for key, field in properties.items():
        assert field["description"]
        assert field["obeyed_by"] == ("coordinator" if key in GLOBAL_ONLY else "node")
        assert allowed(key)
        default = getattr(Dynamic(), key)
        if default is not None:
            assert check({key: default}) == {key: default}
    assert {"keep_models", "deadline", "quorum", "over_selection", "round_every"} == GLOBAL_ONLY
    assert (
        schema()["properties"]["threads"] | {"minimum": 0, "maximum": 1024}
        == schema()["properties"]["threads"]
    )
    json.dumps(schema())


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("5m", 300.0),
        (" 2 h ", 7200.0),
        ("1d", 86_400.0),
        ("1.5m", 90.0),
        (7, 7.0),
        (7.5, 7.5),
        ("30", 30.0),
    ],
)
def test_durations(text, seconds):
    assert check({"report_interval": text}) == {"report_interval": seconds}


@pytest.mark.parametrize(
    ("values", "typed"),
    [
        ({"threads": 4.0}, 4),
        ({"threads": "4"}, 4),
        ({"paused": "true"}, True),
        ({"quorum": 1}, 1),
        ({"quorum": 1.0}, 1.0),
        ({"quorum": 0.7}, 0.7),
        ({"round_every": 0}, 0.0),
        ({"codec": "int8"}, "int8"),
        ({"deadline": None}, None),
    ],
)
def test_values_get_their_types(values, typed):
    (value,) = check(values).values()
    assert value == typed
    assert type(value) is type(typed)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"threads": 1025}, "threads is 1025. Allowed: a whole number 0 to 1024."),
        ({"threads": -1}, "threads is -1. Allowed: a whole number 0 to 1024."),
        ({"threads": 1.5}, "threads is 1.5. Allowed: a whole number 0 to 1024."),
        ({"threads": True}, "threads is True. Allowed: a whole number 0 to 1024."),
        (
            {"report_interval": "0s"},
            "report_interval is '0s'. Allowed: 1 to 86400 seconds, or text such as 30s, 5m, 2h.",
        ),
        ({"report_interval": "2d"}, "report_interval is '2d'."),
        ({"report_interval": "soon"}, "report_interval is 'soon'."),
        ({"report_interval": float("nan")}, "report_interval is nan."),
        ({"report_interval": True}, "report_interval is True."),
        ({"upload_bytes_per_second": float("inf")}, "upload_bytes_per_second is inf."),
        ({"codec": "raw"}, "codec is 'raw'. Allowed: float32, bf16, int8, topk."),
        ({"codec": ["int8"]}, "codec is ['int8']."),
        ({"paused": 2}, "paused is 2. Allowed: true, false."),
        ({"quorum": 0}, "quorum is 0."),
        ({"quorum": 1.5}, "quorum is 1.5."),
        ({"over_selection": 0.9}, "over_selection is 0.9. Allowed: 1 to 100."),
        ({"thread": 1}, "there is no setting 'thread'."),
        ({"thread": 1}, "Did you mean threads?"),
        ({"zzz": None}, "there is no setting 'zzz'."),
    ],
)
def test_what_does_not_fit_is_said_with_its_bounds(values, words):
    with pytest.raises(ConfigError) as caught:
        check({"paused": False, **values})
    assert words in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from(list(Dynamic.model_fields)),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
            ),
            max_leaves=4,
        ),
        max_size=4,
    )
)
def test_any_json_is_checked_and_what_passes_stays_as_it_is(values):
    try:
        typed = check(values)
    except ConfigError:
        return
    assert set(typed) == set(values)
    assert check(typed) == typed
    # What a node gets is finite and of known types.
    Settings(version=1, values=effective(typed))
    json.dumps(effective(typed), allow_nan=False)


def test_the_nearest_scope_wins_and_unknown_keys_are_passed_over():
    values = effective({"threads": 1, "paused": True}, {"threads": 2}, {"threads": 3, "from_the_future": 1})
    assert values == {**Dynamic().model_dump(), "paused": True, "threads": 3}
    assert effective() == Dynamic().model_dump()
