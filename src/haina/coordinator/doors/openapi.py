"""The OpenAPI 3.1 document of the HTTP door, made from the table of calls and pydantic's own JSON schemas."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import TypeAdapter

from haina import __version__
from haina.wire.calls import CALLS, MANIFEST, OFFSET, Call
from haina.wire.messages import Problem

_REF = "#/components/schemas/{model}"
_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


def document(calls: tuple[Call[Any, Any], ...] = CALLS) -> bytes:
    """The document as JSON."""
    asked: list[tuple[str, Literal["validation", "serialization"], TypeAdapter[Any]]] = [
        ("Problem", "serialization", TypeAdapter(Problem))
    ]
    for call in calls:
        asked.append((call.name, "validation", TypeAdapter(call.request)))
        asked.append((call.name, "serialization", call.answer))
    schemas, rest = TypeAdapter.json_schemas(asked, ref_template=_REF)
    components = rest.get("$defs", {})
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        # A request is in the document by its fields, in path, query or body.
        request = _resolved(schemas[call.name, "validation"], components)
        answer = schemas[call.name, "serialization"]
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, request, answer)
    content = {
        "openapi": "3.1.0",
        "info": {
            "title": "Haina coordinator",
            "version": __version__,
            "description": "The caller is the holder of the connection's client certificate.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                "Problem": _answers(schemas["Problem", "serialization"], "application/problem+json")
            },
            "securitySchemes": {"certificate": {"type": "mutualTLS"}},
        },
    }
    return json.dumps(content, separators=(",", ":")).encode()


def _operation(call: Call[Any, Any], request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    fields = request.get("properties", {})
    required = [name for name in request.get("required", ()) if name not in call.parameters]
    parameters = [_parameter(name, "path", fields[name], True) for name in call.parameters]
    outside = {name: schema for name, schema in fields.items() if name not in call.parameters}
    operation: dict[str, Any] = {
        "operationId": call.name,
        "summary": call.summary,
        "description": f"May be called by: {call.who}.",
        "tags": [call.who],
        "security": [] if call.who == "anyone" else [{"certificate": []}],
        "responses": {"200": _answer(call, answer), "default": {"$ref": "#/components/responses/Problem"}},
    }
    if call.method == "GET":
        parameters += [
            _parameter(name, "query", schema, name in required) for name, schema in outside.items()
        ]
    if call.method == "POST":
        body = {"type": "object", "properties": outside, "required": required}
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if call.kind == "upload":
        text = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}
        whole = {"type": "integer", "minimum": 0, "default": 0}
        parameters += [_parameter(MANIFEST, "header", text, True), _parameter(OFFSET, "header", whole, False)]
        operation["requestBody"] = {"required": True, "content": _BYTES}
    if call.kind == "download":
        parameters.append(
            _parameter("Range", "header", {"type": "string", "pattern": "^bytes=[0-9]{1,18}-$"}, False)
        )
        operation["responses"]["206"] = {"description": "The part asked for", "content": _BYTES}
    if parameters:
        operation["parameters"] = parameters
    return operation


def _answer(call: Call[Any, Any], schema: dict[str, Any]) -> dict[str, Any]:
    if call.kind == "download":
        return {"description": "The bytes", "content": _BYTES}
    return _answers(schema, "application/x-ndjson" if call.kind == "lines" else "application/json")


def _answers(schema: dict[str, Any], media: str) -> dict[str, Any]:
    said = schema.get("description") or schema.get("title") or "The answer"
    return {"description": said, "content": {media: {"schema": schema}}}


def _parameter(name: str, place: str, schema: dict[str, Any], required: bool) -> dict[str, Any]:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    return schema if reference is None else components[reference.rsplit("/", 1)[1]]
