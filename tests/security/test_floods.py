"""Too much, too slow, too often: whoever does it is held up, and nobody else."""

import io
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import pytest
from fortress import Fortress, answer_of, code_in, code_of, head, http, problem_of

from haina.coordinator.doors.limits import Limits
from haina.errors import Unreachable
from haina.wire.messages import Ask, Fate, Hello
from haina.wire.refusal import Refusal
from haina.wire.v1.convert import encode

TIGHT = Limits(
    connections=120,
    uploads=20,
    calls_per_second=20,
    calls_at_once=60,
    strangers_per_second=20,
    strangers_at_once=60,
    header_seconds=1.0,
    idle_seconds=3.0,
    window_seconds=1.0,
    window_bytes=1000,
)


@pytest.fixture(scope="module")
def fort(tmp_path_factory):
    fortress = Fortress(tmp_path_factory.mktemp("tight"), TIGHT)
    yield fortress
    fortress.close()


@pytest.fixture
def other(fort):
    """Somebody who does nothing wrong."""
    node = next((person for person in fort.people if person.name == "patient"), None) or fort.node(
        "patient", "other"
    )
    node.federation = "other"
    return node


def served(fort, other):
    """The others are served, and soon."""
    begun = time.monotonic()
    for door in ("http", "grpc"):
        assert other.link(door).hello(Hello(examples=10, codecs=("float32",))).name == "patient"
    assert time.monotonic() - begun < 2


def ended(wire, seconds):
    """How long it takes until the other end closes."""
    begun = time.monotonic()
    wire.settimeout(seconds)
    try:
        while wire.recv(65536):
            pass
    except TimeoutError:
        raise AssertionError(f"still open after {seconds} s") from None
    except OSError:
        pass
    return time.monotonic() - begun


def test_heads_and_handshakes_that_never_end_are_ended(fort, other):
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", fort.http_port), 5)) for _ in range(10)
        ]
        silent += [
            stack.enter_context(socket.create_connection(("127.0.0.1", fort.grpc_port), 5)) for _ in range(10)
        ]
        half = [stack.enter_context(fort.wire()) for _ in range(10)]
        for wire in half:
            wire.sendall(b"GET /v1/livez HTTP/1.1\r\nHost: loc")
        served(fort, other)
        stop = time.monotonic() + 0.8
        while time.monotonic() < stop:
            for wire in half[:5]:
                wire.sendall(b"a")
            time.sleep(0.05)
        served(fort, other)
        for wire in [*silent, *half]:
            assert ended(wire, 5) < 4
    fort.alive()


def test_a_second_request_that_never_ends_is_ended_too(fort):
    with fort.wire() as wire:
        wire.sendall(http("GET", "/v1/livez") + b"GET /v1/li")
        assert answer_of(wire)[0] == 200
        assert ended(wire, 6) < 5


def test_bodies_that_trickle_are_ended(fort, other):
    before = fort.remembered()
    with fort.wire(other) as wire:
        wire.sendall(http("POST", "/v1/ask", b"", "Content-Type: application/json", "Content-Length: 2000"))
        for _ in range(10):
            wire.sendall(b" ")
            time.sleep(0.15)
        assert problem_of(answer_of(wire)) == "too_many"
    assert fort.remembered() == before
    served(fort, other)


def test_an_update_that_trickles_is_ended_and_counts_for_nothing(fort, other):
    node = fort.node("trickler", "other")
    node.task()
    manifest, body = node.parcel()
    before = fort.remembered()[0]
    with fort.wire(node) as wire:
        wire.sendall(head(manifest))
        for _ in range(12):
            wire.sendall(b"x" * 50)
            time.sleep(0.15)
        assert problem_of(answer_of(wire)) == "too_many"
    with node.channel() as channel:

        def pieces():
            for _ in range(100):
                yield b"x" * 50
                time.sleep(0.1)

        upload = channel.stream_unary("/haina.v1.Coordinator/Upload")
        metadata = [("haina-manifest-bin", manifest.model_dump_json().encode())]
        assert code_of(lambda: upload(pieces(), metadata=metadata, timeout=8)) == "too_many"
    assert fort.remembered()[0] == before
    served(fort, other)
    assert node.link("http").upload(manifest, io.BytesIO(body)).fate is Fate.ACCEPTED


def test_who_announces_many_updates_and_sends_none_keeps_nobody_out(fort, other):
    node = fort.node("hoarder", "other")
    node.task()
    manifest, _ = node.parcel()
    codes = []
    with ExitStack() as stack:
        wires = [stack.enter_context(fort.wire(node)) for _ in range(40)]
        for wire in wires:
            wire.sendall(head(manifest))
        time.sleep(0.3)
        # More than the coordinator's room for uploads has been asked for by one node; another one's update goes through at once.
        other.task()
        good, body = other.parcel()
        begun = time.monotonic()
        ack = other.link("http").upload(good, io.BytesIO(body))
        assert ack.fate in (Fate.ACCEPTED, Fate.DUPLICATE)
        assert time.monotonic() - begun < 3
        spooled = sum(incoming.bytes for incoming in fort.ground.spool._live.values())
        assert spooled <= manifest.bytes
        for wire in wires:
            codes.append(problem_of(answer_of(wire)))
    assert set(codes) <= {"too_many", "conflict"}
    assert codes.count("too_many") >= 32
    fort.alive()


def test_tiny_updates_without_end_are_held_up(fort, other):
    node = fort.node("hasty")
    node.task()
    time.sleep(1)
    manifest, body = node.parcel()
    link, fates = node.link("http"), []
    for _ in range(200):
        try:
            fates.append(link.upload(manifest, io.BytesIO(body)).fate)
        except Refusal as error:
            fates.append(error.code if error.retry > 0 else "for ever")
    assert fates[0] is Fate.ACCEPTED
    assert "too_many" in fates
    assert set(fates[1:]) == {Fate.DUPLICATE, "too_many"}
    rows = [row for row in fort.ground.store.contributions("trial", 1) if row.node == "hasty"]
    assert len(rows) == 1
    served(fort, other)
    # The log has not grown with it.
    lines = fort.ground.store.audit(0, 10_000)
    assert sum(line.subject == "hasty" for line in lines) < 10


def test_strangers_who_guess_tokens_are_held_up(fort, other):
    with fort.wire() as wire:
        codes = []
        for number in range(120):
            wire.sendall(http("POST", "/v1/enrol", b'{"token": "%043d", "csr": "x"}' % number))
            codes.append(problem_of(answer_of(wire)))
    assert set(codes) == {"malformed", "too_many"}
    served(fort, other)
    time.sleep(2)
    fort.alive()


def test_more_connections_than_there_is_room_for_are_ended(fort, other):
    time.sleep(0.5)
    with ExitStack() as stack:
        wires, refused = [], 0
        for _ in range(160):
            try:
                wires.append(stack.enter_context(fort.wire()))
                wires[-1].sendall(b"GET /v1/l")
            except OSError:
                refused += 1
        time.sleep(0.2)
        assert len(fort.core.ground.spool._live) == 0
    time.sleep(1.2)
    served(fort, other)
    fort.alive()


def test_many_streams_of_one_connection_keep_nobody_out(fort, other):
    node = fort.node("streamer")
    time.sleep(1)
    ask = encode(Ask(federation="trial", idle=False, settings_version=0))
    with node.channel() as channel:
        watch = channel.unary_stream("/haina.v1.Coordinator/Watch")
        streams = [watch(ask, timeout=20) for _ in range(200)]
        time.sleep(0.5)
        served(fort, other)
        for stream in streams:
            stream.cancel()
    with node.channel() as channel:
        upload = channel.stream_unary("/haina.v1.Coordinator/Upload")
        manifest, _ = node.parcel()
        metadata = [("haina-manifest-bin", manifest.model_dump_json().encode())]
        go = threading.Event()

        def never():
            go.wait(10)
            yield b""

        calls = [upload.future(never(), metadata=metadata, timeout=8) for _ in range(60)]
        time.sleep(0.3)
        served(fort, other)
        codes = {code_of(call.result) for call in calls}
        go.set()
    assert codes <= {"too_many", "conflict", "DEADLINE_EXCEEDED", "malformed"}
    fort.alive()


def test_a_node_that_waits_on_many_connections_keeps_nobody_out(fort, other):
    node = fort.node("waiter")
    body = Ask(federation="trial", wait=3, settings_version=0, idle=False).model_dump_json().encode()

    def wait(_):
        try:
            return fort.speak(http("POST", "/v1/ask", body), node)
        except (OSError, Unreachable):
            return None

    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(wait, number) for number in range(40)]
        time.sleep(0.5)
        served(fort, other)
        for answer in waiting:
            answer.result(10)
    fort.alive()


def test_who_resets_streams_quickly_keeps_nobody_out(fort, other):
    node = fort.node("resetter")
    with node.channel() as channel:
        hello = channel.unary_unary("/haina.v1.Coordinator/Hello")
        for _ in range(500):
            hello.future(encode(Hello(codecs=("float32",))), timeout=5).cancel()
        served(fort, other)
        assert "too_many" in {granted_or_code(hello) for _ in range(200)}
    fort.alive()


def granted_or_code(hello):
    try:
        hello(encode(Hello(codecs=("float32",))), timeout=5)
    except grpc.RpcError as error:
        return code_in(error)
    return None
