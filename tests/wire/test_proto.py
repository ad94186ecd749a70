import importlib.util
import os
import subprocess
import sys
import types
from enum import Enum
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest

from haina.wire import calls, messages, requests
from haina.wire.messages import Message
from haina.wire.v1 import haina_pb2

ROOT = Path(__file__).parents[2]
SINGLE = {str: "string", bool: "bool", float: "double", int: "int"}


@pytest.mark.skipif(importlib.util.find_spec("grpc_tools") is None, reason="needs grpcio-tools")
def test_the_code_is_what_the_proto_gives(tmp_path):
    (tmp_path / "haina/wire/v1").mkdir(parents=True)
    subprocess.run(
        [ROOT / "proto/generate.sh", tmp_path],
        check=True,
        timeout=60,
        env={**os.environ, "PYTHON": sys.executable},
    )
    made = (tmp_path / "haina/wire/v1/haina_pb2.py").read_text()
    kept = (ROOT / "src/haina/wire/v1/haina_pb2.py").read_text()

    def descriptor(text):
        return next(line for line in text.splitlines() if line.startswith("DESCRIPTOR"))

    # Another release of the generator writes another head; what it says of the messages is the same.
    assert descriptor(made) == descriptor(kept)


def twins():
    for name, wire in haina_pb2.DESCRIPTOR.message_types_by_name.items():
        twin = getattr(messages, name, None) or getattr(requests, name)
        # Its fields are known once it is used; here nobody has.
        twin.model_rebuild()
        yield name, wire, twin


def kind_of(annotation):
    """How a pydantic field must look in the .proto: type, and whether it is repeated."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return kind_of(next(arg for arg in get_args(annotation) if arg is not type(None)))
    if get_origin(annotation) is tuple:
        return kind_of(get_args(annotation)[0])[0], True
    if get_origin(annotation) is dict or get_origin(annotation) is Literal:
        return "string", False
    if issubclass(annotation, Enum):
        return "string", False
    if issubclass(annotation, Message):
        return annotation.__name__, False
    return SINGLE[annotation], False


def test_every_message_has_the_fields_of_its_twin():
    seen = set()
    for name, wire, twin in twins():
        seen.add(name)
        assert [field.name for field in wire.fields] == list(twin.model_fields), name
        for field in wire.fields:
            kind, repeated = kind_of(twin.model_fields[field.name].annotation)
            names = {field.TYPE_STRING: "string", field.TYPE_BOOL: "bool", field.TYPE_DOUBLE: "double"}
            names |= {field.TYPE_INT32: "int", field.TYPE_INT64: "int"}
            found = field.message_type.name if field.message_type else names[field.type]
            assert (found, field.is_repeated) == (kind, repeated), f"{name}.{field.name}"
            # "Not said" and "zero" must differ.
            assert field.is_repeated or field.has_presence, f"{name}.{field.name}"
    assert {"Ask", "Event", "Task", "Settings", "Ack"} <= seen


def test_field_numbers_are_for_ever():
    # A number, once given, keeps its meaning: this list only grows.
    numbers = {name: {field.name: field.number for field in wire.fields} for name, wire, _ in twins()}
    assert numbers["Ask"] == {"federation": 1, "settings_version": 2, "wait": 3, "idle": 4, "doing": 5}
    event = {"settings": 1, "task": 2, "finished": 3, "paused": 4, "reason": 5, "retry": 6, "sealed": 7}
    assert numbers["Event"] == event
    assert numbers["Ack"] == {"fate": 1, "reason": 2, "settings_version": 3}
    assert numbers["Received"] == {"bytes": 1, "done": 2, "sha256": 3}
    assert numbers["Slot"] == {"federation": 1, "round": 2}
    assert numbers["Wanted"] == {"federation": 1, "sha256": 2}
    assert numbers["Settings"] == {"version": 1, "values": 2}
    assert numbers["Failed"] == {"federation": 1, "round": 2, "reason": 3, "where": 4}
    assert numbers["Renew"] == {"csr": 1}
    assert numbers["Enrolled"] == {"name": 1, "role": 2, "certificate": 3, "authority": 4}
    assert numbers["Sealed"] == {"federation": 1, "round": 2, "stage": 3, "data": 4, "reason": 5}
    assert list(numbers["SealedTask"].values()) == list(range(1, 8))
    assert list(numbers["Task"].values()) == list(range(1, 24))
    assert list(numbers["Hello"].values()) == list(range(1, 10))
    assert list(numbers["Welcome"].values()) == list(range(1, 9))


def test_every_method_is_a_call_of_the_table():
    known = {call.name: call for call in calls.CALLS}
    for method in haina_pb2.DESCRIPTOR.services_by_name["Coordinator"].methods:
        call = known["ask" if method.name == "Watch" else method.name.lower()]
        assert method.input_type.name == call.request.__name__
        assert method.output_type.name == call.answer._type.__name__
