import json
import re
from contextlib import suppress

import pytest
from doors import house
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import HypothesisException, Unsatisfiable

from haina.coordinator.contract import Caller
from haina.coordinator.doors.desk import ANYONE, KNOWN
from haina.coordinator.doors.limits import Limits
from haina.coordinator.doors.openapi import document
from haina.wire.calls import CALLS, FOLLOW, OPENAPI
from haina.wire.messages import Role

DOCUMENT = json.loads(document())


def test_every_call_is_answered_and_documented():
    documented = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert documented == {(call.method, call.path) for call in CALLS}
    answered = set(KNOWN) | set(ANYONE) | {"index", "openapi", "download", "upload", "follow"}
    assert answered == {call.name for call in CALLS}
    assert len({call.name for call in CALLS}) == len(CALLS)


def test_every_field_of_a_request_has_its_one_place():
    for call in CALLS:
        operation = DOCUMENT["paths"][call.path][call.method.lower()]
        places = [
            parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] != "header"
        ]
        body = (
            operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
        )
        places += body.get("properties", {})
        assert sorted(places) == sorted(call.request.model_fields)
        assert set(re.findall(r"{(\w+)}", call.path)) == set(call.parameters)


def test_every_reference_leads_somewhere():
    text = document().decode()
    for reference in set(re.findall(r'"#/([^"]+)"', text)):
        place = DOCUMENT
        for part in reference.split("/"):
            place = place[part]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("role", [Role.NODE, Role.OPERATOR])
def test_the_door_does_what_the_document_says(tmp_path, role):
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi import checks

    async def someone(certificate):
        return Caller("alpha", role, 1)

    limits = Limits(calls_at_once=10**6, strangers_at_once=10**6)
    with house(tmp_path, limits, identify=someone) as home:
        base = f"http://127.0.0.1:{home.plain_port}"
        schema = schemathesis.openapi.from_url(f"{base}/v1/openapi.json")
        wanted = [
            not_a_server_error,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_schema_conformance,
            checks.unsupported_method,
        ]
        statuses = {}
        for result in schema.get_all_operations():
            operation = result.ok()
            if operation.path == FOLLOW.path:
                # It has no end. The document itself is not tried either, by schemathesis' own choice.
                continue
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                try:
                    cases = operation.as_strategy(generation_mode=mode)
                    cases.validate()
                except (Unsatisfiable, HypothesisException):
                    continue

                @settings(
                    max_examples=10,
                    phases=[Phase.generate],
                    suppress_health_check=list(HealthCheck),
                    database=None,
                )
                @given(case=cases)
                def check(case):
                    if isinstance(case.body, dict) and "wait" in case.body:
                        case.body["wait"] = 0
                    response = case.call(base_url=base, timeout=20)
                    statuses.setdefault(case.operation.label, set()).add(response.status_code)
                    case.validate_response(response, checks=wanted)

                with suppress(Unsatisfiable):
                    check()
        expected = {f"{call.method} {call.path}" for call in CALLS if call not in (FOLLOW, OPENAPI)}
        assert set(statuses) == expected
        # Both sides were seen: calls that are granted, and calls that are refused.
        assert any(200 in seen for seen in statuses.values())
        assert any(422 in seen for seen in statuses.values())
