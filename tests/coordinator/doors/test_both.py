import asyncio
import hashlib
import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from cut import relay
from doors import FEDERATION, credentials, house, manifest_of

from haina.coordinator.doors.limits import Limits
from haina.errors import Unreachable
from haina.node.link.grpc import GrpcLink
from haina.node.link.http import HttpLink
from haina.wire import identity, tls
from haina.wire.messages import Ask, Failed, Fate, Hello, Renew, Role, Sealed, SealedTask, Task
from haina.wire.refusal import Refusal

TASK = Task(
    federation=FEDERATION,
    round=7,
    version=3,
    model="a" * 64,
    bytes=12,
    learning_rate=0.1,
    clip_norm=0.0,
    steps=5,
    measure=("loss_after",),
)


def spooled(home, node="alpha", round=1):
    return (home.folder / f"{node}-{round}.part").read_bytes()


def test_hello_is_passed_on_whole(home, link):
    lists = {"protocols": (1, 2), "codecs": ("bf16", "float32"), "learners": ("jax",)}
    hello = Hello(software="9.9", federation=FEDERATION, examples=10**12, mode="periodic", **lists)
    welcome = link.hello(hello)
    assert home.core.greeted["alpha"] == hello
    assert (welcome.protocol, welcome.name, welcome.federation) == (1, "alpha", FEDERATION)
    # Whole numbers beyond 2^53 and floats arrive exactly.
    assert welcome.settings.values == {"big": 2**60 + 1, "share": 0.1}


def test_a_task_arrives_whole_while_the_caller_waits(home, link):
    ask = Ask(federation=FEDERATION, settings_version=1, wait=20)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(link.ask, ask)
        while not home.core.waiting:
            time.sleep(0.01)
        home.run(home.core.tell(task=TASK))
        event = answer.result(10)
    assert event.task == TASK
    assert event.settings is None
    # A zero that was said is not the default that would have been taken.
    assert event.task.clip_norm == 0.0
    assert event.task.control is None


def test_waiting_ends_with_nothing(link):
    begun = time.monotonic()
    event = link.ask(Ask(federation=FEDERATION, settings_version=1, wait=0.3))
    assert 0.3 <= time.monotonic() - begun < 5
    assert (event.task, event.settings) == (None, None)


def test_a_model_comes_down_whole_or_from_where_it_was_cut(home, link):
    data = os.urandom(2_500_000)
    sha256 = home.core.put(data)
    told = []
    to = io.BytesIO()
    assert link.download(FEDERATION, sha256, to, on_progress=told.append) == len(data)
    assert to.getvalue() == data
    assert told[-1] == len(data)
    assert told == sorted(told)
    to = io.BytesIO(data[:1_234_567])
    assert link.download(FEDERATION, sha256, to, 1_234_567) == len(data)
    assert to.getvalue() == data


def test_an_update_goes_up_once(home, link):
    data = os.urandom(2_500_000)
    manifest = manifest_of(data)
    assert link.received(FEDERATION, 1).bytes == 0
    told = []
    ack = link.upload(manifest, io.BytesIO(data), on_progress=told.append)
    assert (ack.fate, ack.settings_version) == (Fate.ACCEPTED, 1)
    assert told[-1] == len(data)
    assert spooled(home) == data
    assert home.core.updates["alpha", 1] == manifest
    received = link.received(FEDERATION, 1)
    assert (received.bytes, received.done, received.sha256) == (len(data), True, manifest.sha256)
    assert link.upload(manifest, io.BytesIO(data)).fate is Fate.DUPLICATE
    other = os.urandom(1000)
    with pytest.raises(Refusal, match="another update") as caught:
        link.upload(manifest_of(other), io.BytesIO(other))
    assert caught.value.code == "conflict"
    # The connection is good for more.
    assert link.received(FEDERATION, 1).done


def test_an_empty_update_is_an_update(link):
    assert link.upload(manifest_of(b""), io.BytesIO(b"")).fate is Fate.ACCEPTED


def test_bytes_of_another_hash_are_refused_by_the_core(home, link):
    data = os.urandom(5000)
    manifest = manifest_of(data).model_copy(update={"sha256": hashlib.sha256(b"x").hexdigest()})
    ack = link.upload(manifest, io.BytesIO(data))
    assert ack.fate is Fate.REFUSED
    assert "sha256" in ack.reason
    assert not home.core.updates


def test_a_failure_is_told(home, link):
    failed = Failed(federation=FEDERATION, round=4, reason="loss is NaN", where="learner.py:10 train")
    assert link.fail(failed).fate is Fate.ACCEPTED
    assert home.core.failures == [("alpha", failed)]


def test_a_message_of_a_secure_sum_goes_in_and_its_next_step_comes_out(home, link):
    sealed = Sealed(federation=FEDERATION, round=4, stage="share", data="AAEC")
    declined = Sealed(federation=FEDERATION, round=4, stage="consent", reason="changed: another set")
    assert link.seal(sealed).fate is Fate.ACCEPTED
    assert link.seal(declined).fate is Fate.ACCEPTED
    assert home.core.sealed == [("alpha", sealed), ("alpha", declined)]
    step = SealedTask(
        federation=FEDERATION,
        round=4,
        stage="unmask",
        group=2,
        seconds=1.5,
        data="AAEC" * 400_000,
        uploaders=("a", "b"),
    )
    home.core.step = step
    assert link.ask(Ask(federation=FEDERATION, settings_version=1, wait=5)).sealed == step


def test_budgets_and_charges_are_told_to_operators(home):
    with closing(home.api()) as api:
        (budget,) = api.budgets()
        assert (budget.owner, budget.composition, budget.parts) == ("alpha", "zcdp", ("wards",))
        assert [charge.owner for charge in api.charges()] == ["alpha", "alpha"]
        assert [charge.owner for charge in api.charges("beta", last=1)] == ["beta"]


def test_a_certificate_is_renewed(home, link):
    key = identity.new_key()
    answer = link.renew(Renew(csr=identity.request(key, "whatever")))
    assert (answer.name, answer.role) == ("alpha", Role.NODE)
    assert identity.Credentials.enrolled(key, answer).name == "alpha"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda link: link.ask(Ask(federation="nobody", wait=0)), "not_found"),
        (lambda link: link.hello(Hello(protocols=(99,))), "version"),
        (lambda link: link.download(FEDERATION, "0" * 64, io.BytesIO()), "not_found"),
        (lambda link: link.upload(manifest_of(b"x", node="beta"), io.BytesIO(b"x")), "forbidden"),
        (lambda link: link.upload(manifest_of(b"xyz"), io.BytesIO(b"xyz"), 2), "conflict"),
        (lambda link: link.renew(Renew(csr="nonsense")), "malformed"),
    ],
)
def test_both_doors_refuse_in_the_same_words(home, call, code):
    said = []
    for door in ("http", "grpc"):
        link = home.link(door)
        with pytest.raises(Refusal) as caught:
            call(link)
        said.append((caught.value.code, caught.value.what, caught.value.allowed, caught.value.remedy))
        link.close()
    assert said[0] == said[1]
    assert said[0][0] == code


def test_an_operator_is_no_node(home, door):
    link = home.link(door, "boss", Role.OPERATOR)
    with pytest.raises(Refusal, match="boss is no node") as caught:
        link.hello(Hello())
    assert caught.value.code == "forbidden"
    link.close()


def test_a_revoked_node_is_shut_out_at_its_next_call(home, link):
    link.hello(Hello())
    home.core.revoked.add("alpha")
    with pytest.raises(Refusal, match="revoked") as caught:
        link.hello(Hello())
    assert caught.value.code == "unauthenticated"


def test_a_bug_shows_nothing_of_the_inside(link, caplog):
    with pytest.raises(Refusal) as caught:
        link.ask(Ask(federation="broken", wait=0))
    assert caught.value.code == "internal"
    assert "secret" not in str(caught.value)
    # The number in the answer finds the traceback in the log.
    number = caught.value.what.split()[-1]
    record = next(record for record in caplog.records if number in record.getMessage())
    assert "secret of the inside" in str(record.exc_info[1])


def cut_link(home, door, port):
    if door == "http":
        return HttpLink(f"https://localhost:{port}", home.context("alpha"), timeout=10)
    who = tls.grpc_channel_credentials(credentials(home.authority, "alpha"))
    return GrpcLink(f"localhost:{port}", who, timeout=10)


def test_an_upload_that_is_cut_goes_on_byte_for_byte(home, door):
    data = os.urandom(3_000_000)
    manifest = manifest_of(data)
    with relay(home.http_port if door == "http" else home.grpc_port) as wire:
        wire.up = 1_700_000
        link = cut_link(home, door, wire.port)
        with pytest.raises(Unreachable):
            link.upload(manifest, io.BytesIO(data))
        link.close()
    link = home.link(door)
    until = time.monotonic() + 10
    while not home.core.closed and time.monotonic() < until:
        time.sleep(0.01)
    here = link.received(FEDERATION, 1)
    assert not here.done
    assert 0 < here.bytes < 1_700_000
    sent = []
    assert link.upload(manifest, io.BytesIO(data), here.bytes, on_progress=sent.append).fate is Fate.ACCEPTED
    assert sent[0] > here.bytes
    assert spooled(home) == data
    link.close()


def test_a_download_that_is_cut_goes_on_byte_for_byte(home, door):
    data = os.urandom(3_000_000)
    sha256 = home.core.put(data)
    to = io.BytesIO()
    with relay(home.http_port if door == "http" else home.grpc_port) as wire:
        wire.down = 1_700_000
        link = cut_link(home, door, wire.port)
        with pytest.raises(Unreachable):
            link.download(FEDERATION, sha256, to)
        link.close()
    here = to.tell()
    assert here < 1_700_000
    link = home.link(door)
    link.download(FEDERATION, sha256, to, here)
    assert to.getvalue() == data
    link.close()


def test_a_caller_that_goes_away_stops_waiting(home, door):
    with relay(home.http_port if door == "http" else home.grpc_port) as wire:
        link = cut_link(home, door, wire.port)
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(link.ask, Ask(federation=FEDERATION, settings_version=1, wait=60))
            while not home.core.waiting:
                time.sleep(0.01)
            wire.close()
            with pytest.raises(Unreachable):
                answer.result(20)
        link.close()
    until = time.monotonic() + 5
    while home.core.waiting and time.monotonic() < until:
        time.sleep(0.01)
    assert home.core.waiting == 0


def test_who_calls_too_often_is_told_when_to_come_back(tmp_path, door):
    now = [0.0]
    with house(tmp_path, Limits(calls_per_second=0.5, calls_at_once=3), clock=lambda: now[0]) as home:
        link, other = home.link(door), home.link(door, "beta")
        for _ in range(3):
            link.received(FEDERATION, 1)
        with pytest.raises(Refusal) as caught:
            link.received(FEDERATION, 1)
        assert caught.value.code == "too_many"
        assert caught.value.retry == pytest.approx(2.0)
        # Others are not held up by it.
        other.received(FEDERATION, 1)
        now[0] += 2.0
        link.received(FEDERATION, 1)
        link.close()
        other.close()


def test_uploads_beyond_the_room_are_told_to_come_back(tmp_path, door):
    with house(tmp_path, Limits(upload_bytes=3_000_000)) as home:
        first, second = home.link(door), home.link(door, "beta")
        data = os.urandom(2_000_000)
        begun, go_on = threading.Event(), threading.Event()

        class Slow(io.BytesIO):
            def read(self, size=-1):
                if self.tell() > 0:
                    begun.set()
                    go_on.wait(20)
                return super().read(size)

        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(first.upload, manifest_of(data), Slow(data), 0)
            assert begun.wait(10)
            while not home.core.spooling:
                time.sleep(0.01)
            with pytest.raises(Refusal) as caught:
                second.upload(manifest_of(data, node="beta"), io.BytesIO(data))
            assert caught.value.code == "too_many"
            assert caught.value.retry > 0
            go_on.set()
            assert slow.result(20).fate is Fate.ACCEPTED
        assert second.upload(manifest_of(data, node="beta"), io.BytesIO(data)).fate is Fate.ACCEPTED
        huge = manifest_of(data, node="beta", round=2).model_copy(update={"bytes": 4_000_000})
        with pytest.raises(Refusal) as caught:
            second.upload(huge, io.BytesIO(bytes(4_000_000)))
        assert caught.value.code == "too_large"
        first.close()
        second.close()


def test_a_body_that_trickles_is_ended_and_what_came_is_kept(tmp_path, door):
    with house(tmp_path, Limits(header_seconds=1, window_seconds=0.5, window_bytes=100_000)) as home:
        link = home.link(door, timeout=10)
        data = os.urandom(400_000)
        with pytest.raises((Refusal, Unreachable)) as caught:
            link.upload(manifest_of(data), io.BytesIO(data), rate=20_000)
        if isinstance(caught.value, Refusal):
            assert caught.value.code == "too_many"
            assert "in 0.5 seconds" in caught.value.what
        assert home.core.closed == 1
        here = link.received(FEDERATION, 1)
        assert 0 < here.bytes < 200_000
        # At full pace it goes on.
        assert link.upload(manifest_of(data), io.BytesIO(data), here.bytes).fate is Fate.ACCEPTED
        assert spooled(home) == data
        link.close()


@pytest.mark.slow
def test_a_thousand_wait_at_once(home):
    # One loop on each side: the doors', and that of a client which speaks HTTP by itself.
    body = Ask(federation=FEDERATION, settings_version=1, wait=50).model_dump_json().encode()
    head = f"POST /v1/ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    async def wait(context, gate):
        async with gate:
            reader, writer = await asyncio.open_connection("localhost", home.http_port, ssl=context)
        writer.write(head.encode() + body)
        status = await reader.readline()
        while line := (await reader.readline()).strip():
            length = int(line.split(b":")[1]) if line.lower().startswith(b"content-length") else 0
            if length:
                size = length
        answer = await reader.readexactly(size)
        writer.close()
        await writer.wait_closed()
        return status, answer, time.monotonic()

    async def all_of_them():
        gate = asyncio.Semaphore(50)
        contexts = [home.context(f"node-{i}") for i in range(10)]
        waits = [asyncio.create_task(wait(contexts[i % 10], gate)) for i in range(1000)]
        while home.core.waiting < 1000:
            await asyncio.sleep(0.05)
        told = time.monotonic()
        await asyncio.to_thread(home.run, home.core.tell(task=TASK))
        return told, await asyncio.gather(*waits)

    told, answers = asyncio.run(all_of_them())
    assert all(
        status.startswith(b"HTTP/1.1 200") and TASK.model in answer.decode() for status, answer, _ in answers
    )
    assert max(when for *_, when in answers) - told < 10
