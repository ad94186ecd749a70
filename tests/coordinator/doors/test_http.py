import asyncio
import base64
import io
import json
import os
import socket
import ssl
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from doors import FEDERATION, house, manifest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haina.coordinator.contract import Caller
from haina.coordinator.doors.limits import Limits
from haina.errors import Unreachable
from haina.node.link.http import HttpLink
from haina.wire.calls import MAX_JSON, MAX_MANIFEST
from haina.wire.messages import Ask, Problem, Role, SettingsChange


@contextmanager
def connected(home, name="alpha", port=None, role=Role.NODE, tls=True, timeout=10):
    """A socket to the HTTP door."""
    with ExitStack() as stack:
        wire = stack.enter_context(
            socket.create_connection(("127.0.0.1", port or home.http_port), timeout=timeout)
        )
        if tls:
            wire = home.context(name, role).wrap_socket(
                wire, server_hostname="localhost", suppress_ragged_eofs=False
            )
            stack.enter_context(wire)
        yield wire


def rest(wire):
    """Everything until the other end closes."""
    out = b""
    while part := wire.recv(65536):
        out += part
    return out


def cut(wire):
    """Whether the other end gave the connection up, with no answer."""
    try:
        return rest(wire) == b""
    except (ConnectionError, ssl.SSLError):
        return True


def speak(home, data, end=False, **options):
    """Some bytes into the HTTP door; everything that comes back."""
    with connected(home, **options) as wire:
        wire.sendall(data)
        if end:
            wire.shutdown(socket.SHUT_WR)
        try:
            return rest(wire)
        except ssl.SSLEOFError:
            return b""


def request(method, path, body=b"", **headers):
    fields = {"Host": "localhost", "Connection": "close", "Content-Length": len(body)}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    if body and method == "POST":
        fields.setdefault("Content-Type", "application/json")
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def parsed(answer):
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return (
        int(first.split()[1]),
        {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)},
        body,
    )


def problem(answer):
    status, headers, body = parsed(answer)
    assert headers["content-type"].startswith("application/problem+json")
    return status, Problem.model_validate_json(body).code, Problem.model_validate_json(body)


UPDATE = f"/v1/federations/{FEDERATION}/rounds/1/update"


CHUNKED, UNKNOWN = b"3\r\nabc\r\n0\r\n\r\n", {"Content_Length": None, "Transfer_Encoding": "chunked"}


def header(manifest):
    return base64.urlsafe_b64encode(manifest.model_dump_json().encode()).decode()


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (request("GET", "/nothing"), 404, "not_found"),
        (request("GET", "/v1/federations//models"), 422, "invalid"),
        (request("GET", "/v1/nodes/"), 404, "not_found"),
        (request("DELETE", "/v1/nodes"), 405, "method"),
        (request("BREW", "/v1/nodes"), 400, "malformed"),
        (request("GET", "/v1/federations/%2e%2e%2fetc/models"), 422, "invalid"),
        (request("GET", "/v1/federations/a%00b/models"), 422, "invalid"),
        (request("GET", "/v1/federations/%zz/models"), 400, "malformed"),
        (request("GET", "/v1/federations/%ff/models"), 400, "malformed"),
        (request("GET", f"/v1/federations/{FEDERATION}/rounds/-1"), 422, "invalid"),
        (request("GET", f"/v1/federations/{FEDERATION}/rounds/{1 << 63}"), 422, "invalid"),
        (request("GET", f"/v1/federations/{FEDERATION}/blobs/{'A' * 64}"), 422, "invalid"),
        (request("GET", "/v1/audit?last=0"), 422, "invalid"),
        (request("GET", "/v1/audit?last"), 400, "malformed"),
        (request("GET", "/v1/audit?" + "a=1&" * 30), 400, "malformed"),
        (request("GET", "/v1/" + "x" * 3000), 400, "malformed"),
        (request("POST", "/v1/ask?wait=1", b"{}"), 400, "malformed"),
        (request("POST", "/v1/ask", b"{"), 400, "malformed"),
        (request("POST", "/v1/ask", b"[]"), 400, "malformed"),
        (request("POST", "/v1/ask", b'{"federation": NaN}'), 400, "malformed"),
        (request("POST", "/v1/ask", b'{"federation": "\xff"}'), 400, "malformed"),
        (request("POST", "/v1/ask", b"[" * 100_000), 400, "malformed"),
        (request("POST", "/v1/ask", b"{}"), 422, "invalid"),
        (request("POST", "/v1/ask", b'{"federation": "heart", "wait": 1e6}'), 422, "invalid"),
        (request("POST", "/v1/ask", b"x" * (MAX_JSON + 1)), 413, "too_large"),
        (
            request("POST", "/v1/ask", b"federation=heart", Content_Type="application/x-www-form-urlencoded"),
            400,
            "malformed",
        ),
        (
            request("POST", f"/v1/federations/{FEDERATION}/rounds/1/failure", b'{"reason": "x", "round": 2}'),
            422,
            "invalid",
        ),
        (request("PUT", UPDATE, b"abc"), 400, "malformed"),
        (request("PUT", UPDATE, b"abc", Haina_Manifest="!!!"), 400, "malformed"),
        (request("PUT", UPDATE, b"abc", Haina_Manifest="e30="), 422, "invalid"),
        (
            request("PUT", UPDATE, b"abc", Haina_Manifest="A" * (MAX_MANIFEST * 4 // 3 + 100)),
            400,
            "malformed",
        ),
        (request("PUT", UPDATE, b"abc", Haina_Manifest=header(manifest_of(b"abc", round=2))), 422, "invalid"),
        (
            request("PUT", UPDATE, b"abc", Haina_Manifest=header(manifest_of(b"abc")), Haina_Offset="-1"),
            400,
            "malformed",
        ),
        (request("PUT", UPDATE, b"ab", Haina_Manifest=header(manifest_of(b"abc"))), 422, "invalid"),
        (request("PUT", UPDATE, b"abcd", Haina_Manifest=header(manifest_of(b"abc"))), 413, "too_large"),
        (
            request("PUT", UPDATE, CHUNKED, Haina_Manifest=header(manifest_of(b"abc")), **UNKNOWN),
            400,
            "malformed",
        ),
        (request("GET", "/v1/nodes", X="y" * 60_000), 400, "malformed"),
        (b"GET /v1/nodes HTTP/1.1\r\nHost: a\r\nBad Header\r\n\r\n", 400, "malformed"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n", 400, "malformed"),
    ],
)
def test_what_is_no_call_is_refused_in_one_form(shared, sent, status, code):
    got, name, said = problem(speak(shared, sent))
    assert (got, name) == (status, code), said


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with house(
        tmp_path_factory.mktemp("house"), Limits(calls_at_once=10**6, strangers_at_once=10**6)
    ) as home:
        yield home


def test_a_method_that_does_not_fit_names_those_that_do(shared):
    _, headers, _ = parsed(speak(shared, request("DELETE", "/v1/settings")))
    assert headers["allow"] == "GET, POST"


def test_a_name_in_a_path_is_looked_at_before_the_caller(shared):
    assert problem(speak(shared, request("GET", "/v1/federations/%2e%2e/models"), name=None))[1] == "invalid"
    assert (
        problem(speak(shared, request("GET", "/v1/federations/heart/models"), name=None))[1]
        == "unauthenticated"
    )


def test_who_shows_no_certificate_gets_health_and_documents_only(shared):
    for path in ("/v1/", "/v1/health", "/v1/livez", "/v1/readyz", "/v1/openapi.json"):
        assert parsed(speak(shared, request("GET", path), name=None))[0] == 200
    assert problem(speak(shared, request("GET", "/v1/nodes"), name=None))[:2] == (401, "unauthenticated")
    index = json.loads(parsed(speak(shared, request("GET", "/v1/"), name=None))[2])
    assert index["protocols"] == [1]
    assert index["documents"]["openapi"] == "/v1/openapi.json"


def test_readyz_says_when_it_is_not(tmp_path):
    with house(tmp_path) as home:
        home.core.ready = False
        assert problem(speak(home, request("GET", "/v1/readyz"), name=None))[:2] == (503, "unavailable")
        assert parsed(speak(home, request("GET", "/v1/livez"), name=None))[0] == 200


def test_a_certificate_of_another_authority_does_not_come_in(shared, tmp_path):
    with house(tmp_path) as other:
        context = other.context("alpha")
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    raw = socket.create_connection(("127.0.0.1", shared.http_port), timeout=10)
    with raw, context.wrap_socket(raw, server_hostname="localhost") as wire:
        # In TLS 1.3 the refusal of a certificate comes with the first answer.
        wire.sendall(request("GET", "/v1/health"))
        assert cut(wire)


def test_without_tls_nobody_is_known(shared):
    answer = speak(shared, request("GET", "/v1/nodes"), port=shared.plain_port, tls=False)
    assert problem(answer)[:2] == (401, "unauthenticated")


def test_plain_text_downloads_come_from_the_file_whole_and_in_parts(shared):
    async def someone(certificate):
        return Caller("alpha", Role.NODE, 1)

    data = os.urandom(3_500_000)
    sha256 = shared.core.put(data)
    path = f"/v1/federations/{FEDERATION}/blobs/{sha256}"
    known, shared.desk._identify = shared.desk._identify, someone
    try:
        for port, tls in ((shared.plain_port, False), (shared.http_port, True)):
            status, headers, body = parsed(speak(shared, request("GET", path), port=port, tls=tls))
            assert (status, body == data, headers["etag"]) == (200, True, f'"{sha256}"')
            for asked, part in (
                ("bytes=5-", data[5:]),
                ("bytes=100-199", data[100:200]),
                ("bytes=3499999-9999999", data[-1:]),
            ):
                status, headers, body = parsed(
                    speak(shared, request("GET", path, Range=asked), port=port, tls=tls)
                )
                assert (status, body == part) == (206, True)
                assert headers["content-range"].endswith("/3500000")
            assert problem(speak(shared, request("GET", path, Range="bytes=3500000-"), port=port, tls=tls))[
                :2
            ] == (416, "range")
            assert problem(speak(shared, request("GET", path, Range="bytes=-5"), port=port, tls=tls))[:2] == (
                400,
                "malformed",
            )
            status, headers, body = parsed(speak(shared, request("HEAD", path), port=port, tls=tls))
            assert (status, headers["content-length"], body) == (200, "3500000", b"")
    finally:
        shared.desk._identify = known


def test_who_asks_first_sends_only_what_is_wanted(tmp_path):
    with house(tmp_path) as home:
        data = os.urandom(100_000)

        def ask_first(manifest, body):
            fields = {
                "Haina_Manifest": header(manifest),
                "Expect": "100-continue",
                "Content_Length": len(body),
            }
            with connected(home) as wire:
                wire.sendall(request("PUT", UPDATE, **fields))
                first = wire.recv(65536)
                if first.startswith(b"HTTP/1.1 100 "):
                    wire.sendall(body)
                    return first, parsed(wire.recv(65536))
                return first, parsed(first)

        first, (status, _, body) = ask_first(manifest_of(data), data)
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (status, json.loads(body)["fate"]) == (200, "accepted")
        first, (status, _, body) = ask_first(manifest_of(data), data)
        assert (status, json.loads(body)["fate"]) == (200, "duplicate")
        first, (status, _, _) = ask_first(manifest_of(data[:50]), data[:50])
        assert status == 409


def test_a_body_that_ends_early_keeps_what_came(tmp_path):
    with house(tmp_path) as home:
        data = os.urandom(50_000)
        head = request("PUT", UPDATE, Haina_Manifest=header(manifest_of(data)), Content_Length=len(data))
        with connected(home) as wire:
            wire.sendall(head + data[:30_000])
            until = time.monotonic() + 5
            while not home.core.spooling or home.core.spooling["alpha", 1].missing > 20_000:
                assert time.monotonic() < until
                time.sleep(0.01)
        while not home.core.closed:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert home.core.spooling["alpha", 1].missing == 20_000
        assert (home.folder / "alpha-1.part").read_bytes() == data[:30_000]


@pytest.mark.parametrize("start", [b"", b"GET /v1/health HTTP/1.1\r\nHost: a\r\nX-Slow: "])
@pytest.mark.parametrize("tls", [True, False])
def test_a_head_that_does_not_come_ends_the_connection(tmp_path, start, tls):
    with house(tmp_path, Limits(header_seconds=0.5)) as home:
        port = home.http_port if tls else home.plain_port
        with connected(home, port=port, tls=tls) as wire:
            begun = time.monotonic()
            wire.sendall(start)
            wire.settimeout(0.05)
            over = False
            while not over and time.monotonic() - begun < 5:
                # One byte at a time does not buy more time.
                try:
                    wire.sendall(b"x" if start else b"")
                    over = wire.recv(10) == b""
                except TimeoutError:
                    continue
                except OSError:
                    over = True
            assert over
            assert 0.4 < time.monotonic() - begun < 3


def test_a_handshake_that_does_not_come_ends_the_connection(tmp_path):
    with house(tmp_path, Limits(header_seconds=0.5)) as home, connected(home, tls=False) as wire:
        begun = time.monotonic()
        assert cut(wire)
        assert 0.4 < time.monotonic() - begun < 3


def test_a_connection_at_rest_stays_and_a_second_head_has_its_own_time(tmp_path):
    with (
        house(tmp_path, Limits(header_seconds=0.4)) as home,
        connected(home, port=home.plain_port, tls=False) as wire,
    ):
        for _ in range(2):
            wire.sendall(request("GET", "/v1/health", Connection="keep-alive"))
            assert wire.recv(65536).startswith(b"HTTP/1.1 200")
            time.sleep(0.8)
        wire.sendall(b"GET /v1/hea")
        begun = time.monotonic()
        assert cut(wire)
        assert time.monotonic() - begun < 3


def test_connections_beyond_the_limit_are_closed_and_others_served(tmp_path):
    with house(tmp_path, Limits(connections=3)) as home:
        held = [socket.create_connection(("127.0.0.1", home.plain_port), timeout=5) for _ in range(3)]
        for wire in held:
            wire.sendall(request("GET", "/v1/health", Connection="keep-alive"))
            assert wire.recv(65536).startswith(b"HTTP/1.1 200")
        with connected(home, port=home.plain_port, tls=False) as extra:
            assert cut(extra)
        for wire in held:
            wire.close()
        time.sleep(0.1)
        assert parsed(speak(home, request("GET", "/v1/health"), port=home.plain_port, tls=False))[0] == 200


def test_a_reader_that_stalls_is_let_go(tmp_path):
    with house(tmp_path, Limits(window_seconds=0.2, window_bytes=1_000_000)) as home:
        sha256 = home.core.put(bytes(30_000_000))
        with connected(home, timeout=20) as wire:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            wire.sendall(request("GET", f"/v1/federations/{FEDERATION}/blobs/{sha256}"))
            time.sleep(1.5)
            with pytest.raises(OSError, match=r"EOF|reset"):
                rest(wire)


def test_what_happens_is_followed_line_by_line(tmp_path):
    with house(tmp_path) as home:
        api = home.api()
        lines = api.follow()
        first = asyncio.run_coroutine_threadsafe(_change_when_followed(home), home.loop)
        entry = next(lines)
        assert (entry.action, entry.who) == ("configure", "operator")
        first.result(5)
        api.configure(SettingsChange(values={"b": 2}))
        assert next(lines).id == 1
        home.run(home.http.close(0.2))
        with pytest.raises((Unreachable, StopIteration)):
            next(lines)
        api.close()


async def _change_when_followed(home):
    while not home.core.change._waiters:
        await asyncio.sleep(0.01)
    await home.core.configure(Caller("operator", Role.OPERATOR, 1), SettingsChange(values={"a": 1}))


def test_a_model_that_shrinks_under_the_answer_is_cut_and_not_filled_up(tmp_path):
    with house(tmp_path) as home:
        sha256 = home.core.put(os.urandom(2_000_000))
        home.core.blobs[sha256].path.write_bytes(b"x" * 1_500_000)
        link = home.link("http")
        to = io.BytesIO()
        with pytest.raises(Unreachable):
            link.download(FEDERATION, sha256, to)
        assert to.getvalue() == b"x" * len(to.getvalue())
        link.close()


def test_following_is_refused_before_it_begins(shared):
    assert problem(speak(shared, request("GET", "/v1/audit/follow")))[:2] == (403, "forbidden")


def test_a_newer_node_and_an_older_one_are_understood(shared):
    newer = {"federation": FEDERATION, "software": "9", "protocols": [1, 2], "colour": {"new": [1, 2]}}
    status, _, body = parsed(speak(shared, request("POST", "/v1/hello", json.dumps(newer).encode())))
    assert (status, json.loads(body)["protocol"]) == (200, 1)
    status, _, body = parsed(speak(shared, request("POST", "/v1/hello", b"{}")))
    assert (status, json.loads(body)["name"]) == (200, "alpha")


def test_a_newer_coordinator_is_understood(tmp_path):
    # What a later version may answer: more fields, and an unknown code of refusal.
    answers = [
        (200, "application/json", b'{"finished": true, "mood": "good"}'),
        (451, "application/problem+json", b'{"code": "legal", "what": "not here", "law": 5}'),
    ]
    with _answering(answers) as port:
        link = HttpLink(f"http://127.0.0.1:{port}", None)
        assert link.ask(Ask(federation=FEDERATION, wait=0)).finished
        with pytest.raises(Exception, match="not here") as caught:
            link.ask(Ask(federation=FEDERATION, wait=0))
        assert caught.value.code == "invalid"
        link.close()


@contextmanager
def _answering(answers):
    """A server that gives these answers, one a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run():
            for status, kind, body in answers:
                wire, _ = listener.accept()
                with wire:
                    wire.recv(65536)
                    fields = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
                    wire.sendall(f"HTTP/1.1 {status} X\r\n{fields}\r\n".encode() + body)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


leaves = st.none() | st.booleans() | st.floats() | st.integers() | st.text()
anything = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300)
    | anything.map(lambda value: json.dumps({"federation": value, "wait": value}).encode())
)
def test_no_json_brings_the_door_down(shared, body):
    status, code, _ = problem(speak(shared, request("POST", "/v1/ask", body), port=shared.http_port))
    assert code in ("malformed", "invalid", "not_found", "version")
    assert status in (400, 404, 422)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=200))
def test_no_bytes_bring_the_door_down(shared, data):
    answer = speak(shared, data + b"\r\n\r\n", port=shared.plain_port, tls=False, end=True)
    if answer:
        assert problem(answer)[0] in (400, 404, 405)
    assert parsed(speak(shared, request("GET", "/v1/livez"), port=shared.plain_port, tls=False))[0] == 200
