import hashlib
import io
import os
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from doors import FEDERATION, credentials, house, manifest_of

from haina.coordinator.contract import Blob
from haina.errors import ConfigError, HainaError, Unreachable
from haina.node.link.grpc import GrpcLink
from haina.node.link.http import Http, HttpLink, enrol
from haina.wire import identity
from haina.wire.messages import Ask, Fate, Hello, Invite, Role, SettingsChange
from haina.wire.refusal import Refusal


@pytest.fixture(params=["http", "grpc"])
def door(request):
    return request.param


def plain(door, port, **options):
    return (
        HttpLink(f"http://127.0.0.1:{port}", None, **options)
        if door == "http"
        else GrpcLink(f"127.0.0.1:{port}", None, **options)
    )


def test_nobody_there_is_unreachable(door):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    link = plain(door, port)
    with pytest.raises(Unreachable, match=r"did not answer") as caught:
        link.hello(Hello())
    assert "0x" not in str(caught.value)
    link.close()


def test_no_answer_in_time_is_unreachable(door):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = plain(door, listener.getsockname()[1], timeout=0.3)
        begun = time.monotonic()
        with pytest.raises(Unreachable):
            link.hello(Hello())
        assert time.monotonic() - begun < 5
        link.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\nsorry",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 500 X\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9\r\n",
    ],
)
def test_another_kind_of_server_is_unreachable(door, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            wire, _ = listener.accept()
            with wire:
                wire.recv(65536)
                wire.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        link = plain(door, listener.getsockname()[1], timeout=2)
        with pytest.raises(Unreachable):
            link.hello(Hello())
        link.close()
        thread.join(5)


def test_a_coordinator_of_another_authority_is_not_believed(home, tmp_path):
    with house(tmp_path) as other:
        link = HttpLink(f"https://localhost:{home.http_port}", other.context("alpha"), timeout=3)
        with pytest.raises(Unreachable, match=r"CERTIFICATE_VERIFY_FAILED"):
            link.hello(Hello())
        link.close()


def test_an_address_must_be_one():
    for address in ("localhost:1", "ftp://a", "https://"):
        with pytest.raises(ConfigError, match="not the address of a coordinator"):
            Http(address, None)
    with pytest.raises(ConfigError):
        Http("https://localhost:1", None)


def test_a_link_serves_several_threads(home, door):
    link = home.link(door, f"threads-{door}")
    data = [os.urandom(300_000) for _ in range(6)]
    acks = []

    def send(number):
        manifest = manifest_of(data[number], node=f"threads-{door}", round=number)
        acks.append(link.upload(manifest, io.BytesIO(data[number])))
        link.ask(Ask(federation=FEDERATION, settings_version=9, wait=0.05))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [ack.fate for ack in acks] == [Fate.ACCEPTED] * 6
    for number in range(6):
        assert (home.folder / f"threads-{door}-{number}.part").read_bytes() == data[number]
    link.close()


def test_a_file_that_shrinks_while_it_is_sent_is_said(home, door):
    link = home.link(door, "shrink")
    manifest = manifest_of(bytes(3_000_000), node="shrink", round=5)
    with pytest.raises(HainaError):
        link.upload(manifest, io.BytesIO(bytes(2_000_000)))
    link.close()


def test_a_newcomer_enrols_once(home):
    home.core.tokens["a-token-of-twenty-letters"] = "newcomer"
    api = home.api()
    invitation = api.invite(Invite(name="newcomer")).model_copy(
        update={"http": f"https://localhost:{home.http_port}"}
    )
    key = identity.new_key()
    answer = enrol(invitation, identity.request(key, "newcomer"))
    who = identity.Credentials.enrolled(key, answer)
    assert (who.name, who.role) == ("newcomer", Role.NODE)
    with pytest.raises(Refusal, match="token is unknown") as caught:
        enrol(invitation, identity.request(key, "newcomer"))
    assert caught.value.code == "forbidden"
    api.close()


def test_an_operator_reads_and_changes(home):
    api = home.api()
    node = home.link("http", "gamma")
    node.hello(Hello(software="1.2"))
    assert [info.software for info in api.nodes() if info.name == "gamma"] == ["1.2"]
    assert api.health()["ready"]
    assert api.federations()[0].metrics == {"loss": 0.5}
    assert api.command(FEDERATION, "pause", "lunch").state == "paused"
    assert api.command(FEDERATION, "pause", "lunch").reason == "lunch"
    assert [info.number for info in api.rounds(FEDERATION, 2)] == [0, 1]
    assert api.round(FEDERATION, 7).record == {"n": 2**60}
    assert [info.version for info in api.models(FEDERATION)] == [0, 1]
    assert api.rollback(FEDERATION, 1, "worse").note == "worse"
    assert api.settings("node:gamma")["values"] == {"scope": "node:gamma"}
    entry = api.configure(
        SettingsChange(scope="group:north", values={"share": 0.5, "note": None}, why="test")
    )
    assert (entry.values, entry.who) == ({"share": 0.5, "note": None}, "operator")
    assert api.settings_log(1)[0].why == "test"
    assert api.settings_rollback(1).version == 1
    assert api.audit()[0].detail == {"n": 2**60}
    with pytest.raises(Refusal) as caught:
        api.configure(SettingsChange(values={}, expect=10**6))
    assert caught.value.code == "version"
    assert api.revoke("gamma", "gone").state == "revoked"
    with pytest.raises(Refusal, match="revoked"):
        node.hello(Hello())
    node.close()
    api.close()


def test_a_node_is_no_operator(home):
    api = home.api("alpha", Role.NODE)
    with pytest.raises(Refusal) as caught:
        api.nodes()
    assert caught.value.code == "forbidden"
    api.close()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(home, door, tmp_path):
    # A process of its own sends and fetches 300 MB; its peak is measured against what it had before.
    size = 300_000_000
    path = tmp_path / "update"
    with path.open("wb") as file:
        file.truncate(size)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    home.core.blobs[sha256] = Blob(sha256, size, path)
    folder = tmp_path / "who"
    credentials(home.authority, f"big-{door}").save(folder)
    script = f"""
    from pathlib import Path
    from haina.node.link.{door} import {"HttpLink" if door == "http" else "GrpcLink"} as Link
    from haina.wire import tls
    from haina.wire.identity import Credentials
    from haina.wire.messages import Hello, Manifest
    who = Credentials.load(Path({str(folder)!r}))
    tls = {"tls.client_context(who.authority, who)" if door == "http" else "tls.grpc_channel_credentials(who)"}
    link = Link({f"https://localhost:{home.http_port}" if door == "http" else f"localhost:{home.grpc_port}"!r}, tls)
    link.hello(Hello())
    def peak():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    before = peak()
    manifest = Manifest(node=who.name, federation={FEDERATION!r}, round=1, version=1, sha256={sha256!r}, bytes={size}, report={{}})
    assert link.upload(manifest, open({str(path)!r}, "rb")).fate == "accepted"
    with open({str(tmp_path / "model")!r}, "wb") as to:
        assert link.download({FEDERATION!r}, {sha256!r}, to) == {size}
    print(before, peak())
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=120
    )
    assert out.returncode == 0, out.stderr
    before, peak = map(int, out.stdout.split())
    assert before < 80_000
    assert peak - before < 60_000
