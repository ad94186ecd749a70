"""Messages to protobuf and back, by the names of their fields: one function each way for all of them.

Table-valued fields (`dict`) travel as JSON text. Presence is explicit on the wire: a field that was not said takes its default, a zero that was said
is a zero. The one loss: an empty list cannot be told from none, so it becomes the field's default.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any, TypeVar, get_origin

from google.protobuf.message import DecodeError
from pydantic_core import from_json

from haina.wire import messages
from haina.wire.messages import Message
from haina.wire.refusal import Refusal, checked
from haina.wire.v1 import haina_pb2

M = TypeVar("M", bound=Message)


def encode(message: Message) -> bytes:
    """A message as the bytes of its protobuf twin."""
    wire = getattr(haina_pb2, type(message).__name__)()
    _fill(wire, message)
    return bytes(wire.SerializeToString())


def decode(kind: type[M], data: bytes) -> M:
    """The message in some bytes. Fields of a newer version are ignored.

    Raises:
        Refusal: "malformed" (no protobuf of this message) or "invalid" (a field is missing or out of bounds).
    """
    try:
        wire = getattr(haina_pb2, kind.__name__).FromString(data)
        fields = _plain(wire)
    except (DecodeError, ValueError) as error:
        raise Refusal("malformed", f"these {len(data)} bytes are no {kind.__name__}") from error
    return checked(kind, fields)


def _fill(wire: Any, message: Message) -> None:
    for field in wire.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if value is None:
            continue
        if isinstance(value, Message):
            part = getattr(wire, field.name)
            part.SetInParent()
            _fill(part, value)
        elif isinstance(value, tuple):
            getattr(wire, field.name).extend(value)
        elif isinstance(value, dict):
            setattr(wire, field.name, json.dumps(value, allow_nan=False))
        else:
            setattr(wire, field.name, value)


def _plain(wire: Any) -> dict[str, Any]:
    name = wire.DESCRIPTOR.name
    out: dict[str, Any] = {}
    for field, value in wire.ListFields():
        if field.message_type is not None:
            out[field.name] = _plain(value)
        elif field.is_repeated:
            out[field.name] = list(value)
        elif field.name in _tables(name):
            out[field.name] = from_json(value, allow_inf_nan=False)
        else:
            out[field.name] = value
    return out


@cache
def _tables(name: str) -> frozenset[str]:
    """Fields of a message that hold tables; the few requests that are no message of `haina.wire.messages` have none."""
    kind = getattr(messages, name, None)
    fields = {} if kind is None else kind.model_fields
    return frozenset(name for name, field in fields.items() if get_origin(field.annotation) is dict)
