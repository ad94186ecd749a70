"""Dynamic settings: what an operator may change while everything runs, with types, bounds, defaults and who obeys.

A value is looked for in three scopes, the nearest first: the node, its group, all (`global`). Settings of rounds belong to everybody at once and are
global only; None leaves them to the federation file. Durations are seconds, or text such as "5s", "5m", "2h", "1d".

The trap: a node and its coordinator may be of different ages. Keys that a reader does not know are passed over (`effective`), never refused; only a
change is refused (`check`), by the side that knows the newest list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from haina.errors import ConfigError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DAY = 86_400
_NODE: dict[str, Any] = {"obeyed_by": "node"}
_COORDINATOR: dict[str, Any] = {"obeyed_by": "coordinator"}


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


def _seconds(value: Any) -> Any:
    match = (
        re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([smhd])\s*", value) if isinstance(value, str) else None
    )
    return _number(value) if match is None else float(match[1]) * _UNITS[match[2]]


# Outermost, so that bounds are those of the number.
_NUMBER, _SECONDS = BeforeValidator(_number), BeforeValidator(_seconds)


class Dynamic(BaseModel):
    """All dynamic settings, with their defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    report_interval: Annotated[float, Field(ge=1, le=_DAY), _SECONDS] = Field(
        default=5.0, description="seconds between a periodic node's reports", json_schema_extra=_NODE
    )
    ask_interval: Annotated[float, Field(ge=1, le=_DAY), _SECONDS] = Field(
        default=300.0,
        description="seconds between two questions of a node that cannot be pushed to",
        json_schema_extra=_NODE,
    )
    upload_bytes_per_second: Annotated[int, Field(ge=0, le=10**12), _NUMBER] = Field(
        default=0,
        description="most bytes a second of a node's uploads; 0 for no limit",
        json_schema_extra=_NODE,
    )
    threads: Annotated[int, Field(ge=0, le=1024), _NUMBER] = Field(
        default=0, description="threads a node trains with; 0 for its own choice", json_schema_extra=_NODE
    )
    paused: bool = Field(default=False, description="a node takes no tasks", json_schema_extra=_NODE)
    codec: Literal["float32", "bf16", "int8", "topk"] | None = Field(
        default=None,
        description="how updates are written, where the federation allows it; null for the federation's first choice",
        json_schema_extra=_NODE,
    )
    keep_models: Annotated[int, Field(ge=1, le=100_000), _NUMBER] | None = Field(
        default=None, description="versions of the model that are kept", json_schema_extra=_COORDINATOR
    )
    deadline: Annotated[float, Field(ge=1, le=366 * _DAY), _SECONDS] | None = Field(
        default=None, description="seconds a round may take", json_schema_extra=_COORDINATOR
    )
    quorum: (
        Annotated[int, Field(ge=1, le=10**9), _NUMBER] | Annotated[float, Field(gt=0, le=1), _NUMBER] | None
    ) = Field(
        default=None,
        description="updates that make a round at its deadline: a number, or a share (with a point) of those wanted",
        json_schema_extra=_COORDINATOR,
    )
    over_selection: Annotated[float, Field(ge=1, le=100), _NUMBER] | None = Field(
        default=None, description="clients invited for each client wanted", json_schema_extra=_COORDINATOR
    )
    round_every: Annotated[float, Field(ge=0, le=366 * _DAY), _SECONDS] | None = Field(
        default=None,
        description="seconds from one round's opening to the next; 0 for at once",
        json_schema_extra=_COORDINATOR,
    )


#: Settings of rounds and models: they hold for a whole federation, so they have the global scope only.
GLOBAL_ONLY = frozenset(
    name for name, field in Dynamic.model_fields.items() if field.json_schema_extra == _COORDINATOR
)


def check(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as an operator gave them, in their own types. None (take the scope's own value away) stays.

    Raises:
        ConfigError: an unknown key, with the nearest known one; or a value that does not fit, with key and bounds.
    """
    for key in values:
        if key not in Dynamic.model_fields:
            near = difflib.get_close_matches(key, Dynamic.model_fields, n=1)
            raise ConfigError(
                f"there is no setting {key!r}",
                allowed=", ".join(Dynamic.model_fields),
                remedy=f"Did you mean {near[0]}?" if near else "",
            )
    given = {key: value for key, value in values.items() if value is not None}
    try:
        read = Dynamic.model_validate(given).model_dump(include=set(given))
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise ConfigError(f"{key} is {given[key]!r}", allowed=allowed(key)) from error
    return {key: read.get(key) for key in values}


def effective(*scopes: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every key: defaults, then the own values of scopes, the nearest last; keys nobody knows any more are passed over."""
    values: dict[str, Any] = Dynamic().model_dump()
    for own in scopes:
        values.update({key: value for key, value in own.items() if key in values})
    return values


def schema() -> dict[str, Any]:
    """JSON schema of all settings: types, bounds, defaults, descriptions, and `obeyed_by` (coordinator: global scope only)."""
    return Dynamic.model_json_schema()


def allowed(key: str) -> str:
    """What a setting may be, in words."""
    field = schema()["properties"][key]
    words = [_words(kind) for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    unit = " seconds, or text such as 30s, 5m, 2h" if field["description"].startswith("seconds") else ""
    return " or ".join(words) + unit


def _words(kind: Mapping[str, Any]) -> str:
    if "enum" in kind:
        return ", ".join(kind["enum"])
    if kind["type"] == "boolean":
        return "true, false"
    whole = "a whole number " if kind["type"] == "integer" else ""
    low = f"{kind['minimum']} to" if "minimum" in kind else f"above {kind['exclusiveMinimum']}, up to"
    return f"{whole}{low} {kind['maximum']}"
