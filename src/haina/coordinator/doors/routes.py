"""From an HTTP request line to a call of the table and the fields that its path holds."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from haina.wire.calls import CALLS, Call
from haina.wire.refusal import Refusal, unfit

_BROKEN = re.compile("%(?![0-9A-Fa-f]{2})")
#: Stands for any one segment in the tree of paths.
_ANY = "{}"
#: Longest request target that is looked at.
_LONGEST = 2048


class _Place:
    """One segment of a path: what follows it, and the calls that end here."""

    def __init__(self) -> None:
        self.next: dict[str, _Place] = {}
        self.calls: dict[str, Call[Any, Any]] = {}


class Routes:
    """All calls by method and path."""

    def __init__(self, calls: tuple[Call[Any, Any], ...] = CALLS) -> None:
        self._root = _Place()
        self._fields: dict[tuple[str, str], TypeAdapter[Any]] = {}
        for call in calls:
            place = self._root
            for segment in call.path.split("/")[1:]:
                place = place.next.setdefault(_ANY if segment.startswith("{") else segment, _Place())
            place.calls[call.method] = call
            for name in call.parameters:
                field = call.request.model_fields[name]
                self._fields[call.name, name] = _adapter(field)

    def find(self, method: str, target: str) -> tuple[Call[Any, Any], dict[str, Any], dict[str, str]]:
        """The call of a request line.

        Args:
            method: HTTP method; HEAD is the GET without its body.
            target: path and query as they came.

        Returns:
            The call, its fields in the path (checked), and those in the query (not yet).

        Raises:
            Refusal: "not_found", "method", "malformed" (percent-encoding, query), or "invalid" (a name in the path cannot be one).
        """
        path, _, query = target.partition("?")
        if len(target) > _LONGEST or _BROKEN.search(target):
            raise Refusal(
                "malformed",
                "the address cannot be read",
                allowed=f"at most {_LONGEST} characters, with % before two hexadecimal digits",
            )
        place: _Place | None = self._root
        values = []
        for segment in path.split("/")[1:]:
            if place is None:
                break
            known = place.next.get(segment)
            if known is None and (known := place.next.get(_ANY)) is not None:
                values.append(segment)
            place = known
        if place is None or not place.calls:
            raise Refusal(
                "not_found", "there is nothing at this address", allowed="what /v1/openapi.json lists"
            )
        call = place.calls.get("GET" if method == "HEAD" else method)
        if call is None:
            raise Refusal(
                "method", f"{method[:20]} is not a way to call this", allowed=", ".join(place.calls)
            )
        named = zip(call.parameters, values, strict=True)
        return call, {name: self._field(call, name, value) for name, value in named}, _fields(query)

    def _field(self, call: Call[Any, Any], name: str, value: str) -> Any:
        try:
            return self._fields[call.name, name].validate_python(unquote(value, errors="strict"))
        except UnicodeDecodeError:
            raise Refusal("malformed", f"{name} in the address is not UTF-8") from None
        except ValidationError as error:
            raise unfit(f"{name} in the address", error) from None


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    """Checks one field of a message by itself."""
    kind: Any = Annotated[field.annotation, field]
    return TypeAdapter(kind)


def _fields(query: str) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=20
        )
    except ValueError:
        raise Refusal("malformed", "the query cannot be read", allowed="?name=value&name=value") from None
    return dict(pairs)
