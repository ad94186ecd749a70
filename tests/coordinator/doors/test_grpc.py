import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from doors import FEDERATION, credentials, house, manifest_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haina.coordinator.doors import grpc as door
from haina.coordinator.doors.limits import Limits
from haina.errors import Unreachable
from haina.node.link.grpc import GrpcLink
from haina.wire import tls
from haina.wire.messages import Ask, Event, Hello, Problem, Settings, Task
from haina.wire.v1 import haina_pb2
from haina.wire.v1.convert import encode

TASK = Task(federation=FEDERATION, round=7, version=3, model="a" * 64, bytes=12, learning_rate=0.1)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    with house(tmp_path_factory.mktemp("house"), Limits(calls_at_once=10**6)) as home:
        yield home


@pytest.fixture(scope="module")
def channel(shared):
    who = tls.grpc_channel_credentials(credentials(shared.authority, "alpha"))
    with grpc.secure_channel(f"localhost:{shared.grpc_port}", who) as channel:
        yield channel


def refused(call):
    """Status and problem of a call that must fail."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    metadata = dict(caught.value.trailing_metadata())
    return caught.value.code(), Problem.model_validate_json(metadata["haina-problem-bin"])


def unary(channel, method):
    return channel.unary_unary(f"/haina.v1.Coordinator/{method}")


def upload(channel, pieces, **metadata):
    call = channel.stream_unary("/haina.v1.Coordinator/Upload")
    return call(
        iter(pieces), metadata=[(key.replace("_", "-"), value) for key, value in metadata.items()], timeout=10
    )


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.sampled_from(["Hello", "Ask", "Received", "Fail", "Renew"]))
def test_no_bytes_bring_the_door_down(channel, data, method):
    answer = unary(channel, method).future(data, timeout=10)
    if answer.exception() is not None:
        problem = Problem.model_validate_json(dict(answer.trailing_metadata())["haina-problem-bin"])
        assert problem.code in ("malformed", "invalid", "not_found", "version")
        assert answer.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)
    welcome = unary(channel, "Hello")(encode(Hello()), timeout=10)
    assert haina_pb2.Welcome.FromString(welcome).name == "alpha"


def test_what_is_said_must_hold_together(channel):
    status, problem = refused(lambda: unary(channel, "Ask")(b""))
    assert (status, problem.code) == (grpc.StatusCode.INVALID_ARGUMENT, "invalid")
    assert "federation" in problem.what
    status, problem = refused(lambda: unary(channel, "Ask")(b"\xff\xff"))
    assert (status, problem.code) == (grpc.StatusCode.INVALID_ARGUMENT, "malformed")


@pytest.mark.parametrize(
    ("metadata", "code"),
    [
        ({}, "malformed"),
        ({"haina_manifest_bin": b"\xff"}, "malformed"),
        ({"haina_manifest_bin": b"{}"}, "invalid"),
        ({"haina_manifest_bin": b"[" * 20_000}, "malformed"),
        (
            {"haina_manifest_bin": manifest_of(b"abc").model_dump_json().encode(), "haina_offset": "-1"},
            "malformed",
        ),
        (
            {"haina_manifest_bin": manifest_of(b"abc").model_dump_json().encode(), "haina_offset": "x"},
            "malformed",
        ),
        ({"haina_manifest_bin": manifest_of(b"ab").model_dump_json().encode()}, "too_large"),
        ({"haina_manifest_bin": manifest_of(b"abcd").model_dump_json().encode()}, "malformed"),
    ],
)
def test_an_upload_that_does_not_fit_its_manifest_is_refused(channel, metadata, code):
    assert refused(lambda: upload(channel, [b"a", b"", b"bc"], **metadata))[1].code == code


def test_a_piece_that_is_too_large_is_refused_by_the_transport(shared, channel):
    data = bytes(5 << 20)
    manifest = manifest_of(data, round=30)
    with pytest.raises(grpc.RpcError) as caught:
        upload(channel, [data], haina_manifest_bin=manifest.model_dump_json().encode())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert unary(channel, "Hello")(encode(Hello()))


def test_who_shows_no_certificate_does_not_come_in(shared):
    root = grpc.ssl_channel_credentials(shared.authority.authority_pem.encode())
    link = GrpcLink(f"localhost:{shared.grpc_port}", root, timeout=3)
    with pytest.raises(Unreachable):
        link.hello(Hello())
    link.close()


def test_a_coordinator_of_another_authority_is_not_believed(shared, tmp_path):
    with house(tmp_path) as other:
        who = tls.grpc_channel_credentials(credentials(other.authority, "alpha"))
        link = GrpcLink(f"localhost:{shared.grpc_port}", who, timeout=3)
        with pytest.raises(Unreachable):
            link.hello(Hello())
        link.close()


def test_a_newer_node_and_an_older_one_are_understood(channel):
    # Field 99 is of a version to come.
    newer = encode(Hello(software="9", protocols=(1, 2))) + b"\x9a\x06\x03new"
    assert haina_pb2.Welcome.FromString(unary(channel, "Hello")(newer)).protocol == 1
    assert haina_pb2.Welcome.FromString(unary(channel, "Hello")(b"")).name == "alpha"


def test_settings_and_the_first_task_are_pushed(tmp_path):
    with house(tmp_path) as home:
        link = home.link("grpc")
        events, seen = [], threading.Event()

        def watch():
            for event in link.watch(Ask(federation=FEDERATION, settings_version=1)):
                events.append(event)
                seen.set()

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch)

            def told(**news):
                seen.clear()
                until = time.monotonic() + 10
                while not home.core.waiting:
                    assert time.monotonic() < until
                    time.sleep(0.01)
                home.run(home.core.tell(**news))
                assert seen.wait(10)
                return events[-1]

            assert told(settings=True) == Event(settings=Settings(version=2, values={"v": 2}))
            assert told(task=TASK).task == TASK
            # The same task is not told again, but settings still are.
            assert told(settings=True).settings.version == 3
            assert len(events) == 3
            home.run(home.grpc.close(0.1))
            with pytest.raises(Unreachable):
                watching.result(10)
        link.close()


def test_a_watch_ends_by_itself_and_without_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "WATCH", (0.3, 0.6))
    with house(tmp_path) as home:
        home.grpc._rng = random.Random(1)
        link = home.link("grpc")
        begun = time.monotonic()
        assert list(link.watch(Ask(federation=FEDERATION, settings_version=1))) == []
        assert 0.3 <= time.monotonic() - begun < 5
        assert home.core.waiting == 0
        link.close()


def test_a_watch_that_may_not_be_is_refused(shared):
    from haina.wire.refusal import Refusal

    link = shared.link("grpc")
    with pytest.raises(Refusal, match="no federation nobody"):
        list(link.watch(Ask(federation="nobody")))
    link.close()
