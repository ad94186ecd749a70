import asyncio
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from haina.coordinator.authority import DAY, Authority
from haina.errors import TrustError
from haina.wire.identity import Credentials, caller_of, new_key, request
from haina.wire.messages import Role
from haina.wire.tls import client_context, grpc_channel_credentials, grpc_server_credentials, server_context

NOW = time.time()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trust")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Authority:
    return Authority.open(folder / "ours", time.time)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Authority:
    return Authority.open(folder / "theirs", time.time)


def member(authority: Authority, name: str = "hospital-a", now: float = NOW) -> Credentials:
    key = new_key()
    certificate = authority.issue(request(key, name), name, Role.NODE, now)
    return Credentials(key, certificate.encode(), authority.authority_pem.encode())


# ---------------------------------------------------------------------------------------------- HTTP's side


@dataclass
class Listener:
    """A server that says one word to whom it has taken in, and notes whose certificate it saw."""

    port: int
    seen: list[bytes | str | None] = field(default_factory=list)
    done: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))


@contextmanager
def listening(context: ssl.SSLContext, host: str = "127.0.0.1") -> Iterator[Listener]:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        listener = Listener(server.getsockname()[1])

        def serve() -> None:
            while True:
                try:
                    raw, _ = server.accept()
                except OSError:
                    return
                raw.settimeout(5)
                with raw:
                    try:
                        with context.wrap_socket(raw, server_side=True) as connection:
                            connection.sendall(b"welcome")
                            listener.seen.append(connection.getpeercert(binary_form=True))
                    except OSError as error:
                        listener.seen.append(str(error))
                listener.done.release()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@dataclass(frozen=True)
class Met:
    """What a client saw: the server's certificate, the version, the protocol, and the words."""

    certificate: bytes
    version: str | None
    protocol: str | None
    words: bytes


def call(
    context: ssl.SSLContext, listener: Listener, name: str = "localhost", host: str = "127.0.0.1"
) -> Met:
    with (
        socket.create_connection((host, listener.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname=name) as connection,
    ):
        certificate = connection.getpeercert(binary_form=True) or b""
        version, protocol = connection.version(), connection.selected_alpn_protocol()
        words = connection.recv(100)
    assert listener.done.acquire(timeout=5)
    return Met(certificate, version, protocol, words)


def test_a_members_certificate_is_seen_by_the_server(ours: Authority) -> None:
    credentials = member(ours)
    with listening(server_context(ours.server)) as listener:
        met = call(client_context(ours.authority_pem, credentials), listener)
    assert (met.version, met.protocol, met.words) == ("TLSv1.3", "http/1.1", b"welcome")
    assert isinstance(listener.seen[0], bytes)
    assert caller_of(listener.seen[0]) == ("hospital-a", Role.NODE, credentials.serial)


def test_a_newcomer_is_let_in_and_has_no_certificate(ours: Authority) -> None:
    with listening(server_context(ours.server)) as listener:
        assert call(client_context(ours.authority_pem.encode()), listener).words == b"welcome"
    assert listener.seen == [None]


@pytest.mark.parametrize(
    ("name", "host"), [("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "::1")]
)
def test_the_server_is_known_by_each_of_its_names(name: str, host: str, ours: Authority) -> None:
    with listening(server_context(ours.server), host) as listener:
        assert call(client_context(ours.authority_pem), listener, name, host).words == b"welcome"


def refused(context: ssl.SSLContext, listener: Listener, name: str = "localhost") -> str:
    with pytest.raises(OSError) as caught:
        call(context, listener, name)
    assert listener.done.acquire(timeout=5)
    assert b"welcome" not in listener.seen
    return str(caught.value)


def test_a_certificate_of_another_authority_is_refused(ours: Authority, theirs: Authority) -> None:
    with listening(server_context(ours.server)) as listener:
        refused(client_context(ours.authority_pem, member(theirs)), listener)
    assert "CERTIFICATE_VERIFY_FAILED" in str(listener.seen[0])


@pytest.mark.parametrize(("age", "reason"), [(31 * DAY, "expired"), (-DAY, "not yet valid")])
def test_a_certificate_out_of_its_time_is_refused(age: float, reason: str, ours: Authority) -> None:
    with listening(server_context(ours.server)) as listener:
        refused(client_context(ours.authority_pem, member(ours, now=NOW - age)), listener)
    assert reason in str(listener.seen[0])


def test_the_servers_own_certificate_opens_no_door(ours: Authority) -> None:
    with listening(server_context(ours.server)) as listener:
        refused(client_context(ours.authority_pem, ours.server()), listener)
    assert "purpose" in str(listener.seen[0])


def test_a_server_of_another_authority_is_refused(ours: Authority, theirs: Authority) -> None:
    with listening(server_context(theirs.server)) as listener:
        assert "CERTIFICATE_VERIFY_FAILED" in refused(
            client_context(ours.authority_pem, member(ours)), listener
        )


def test_a_node_cannot_play_the_server(ours: Authority) -> None:
    node = member(ours, "localhost")
    with listening(server_context(lambda: node)) as listener:
        assert "CERTIFICATE_VERIFY_FAILED" in refused(client_context(ours.authority_pem), listener)


def test_a_server_under_another_name_is_refused(ours: Authority) -> None:
    with listening(server_context(ours.server)) as listener:
        reason = refused(client_context(ours.authority_pem, member(ours)), listener, "fl.example.org")
        assert "Hostname mismatch" in reason
        reason = refused(client_context(ours.authority_pem, member(ours)), listener, "127.0.0.2")
        assert "IP address mismatch" in reason


def test_a_server_whose_certificate_has_expired_is_refused(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, lambda: NOW - 91 * DAY)
    with listening(server_context(authority.server)) as listener:
        assert "expired" in refused(client_context(authority.authority_pem), listener)


def test_an_older_tls_is_refused(ours: Authority) -> None:
    old = client_context(ours.authority_pem)
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with listening(server_context(ours.server)) as listener:
        refused(old, listener)
    assert "UNSUPPORTED_PROTOCOL" in str(listener.seen[0])


def test_the_systems_authorities_are_not_trusted(
    ours: Authority, monkeypatch: pytest.MonkeyPatch, theirs: Authority, tmp_path: Path
) -> None:
    system = tmp_path / "system.pem"
    system.write_text(theirs.authority_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(system))
    # The file is honoured by whoever trusts the system.
    assert len(ssl.create_default_context().get_ca_certs()) == 1
    assert len(client_context(ours.authority_pem).get_ca_certs()) == 1
    with listening(server_context(theirs.server)) as listener:
        refused(client_context(ours.authority_pem), listener)


def test_no_session_is_resumed_so_that_every_connection_proves_itself(ours: Authority) -> None:
    context = client_context(ours.authority_pem, member(ours))
    with (
        listening(server_context(ours.server)) as listener,
        socket.create_connection(("127.0.0.1", listener.port), timeout=5) as raw,
        context.wrap_socket(raw, server_hostname="localhost") as connection,
    ):
        assert connection.recv(100) == b"welcome"
        assert connection.session is None or not connection.session.has_ticket


def ageing(folder: Path) -> tuple[Authority, list[float]]:
    """An authority that started 70 days ago, and its clock: a server's certificate lives 90 days and is due after 60."""
    clock = [NOW - 70 * DAY]
    return Authority.open(folder, lambda: clock[0]), clock


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_re_issued_certificate_is_in_use_at_the_next_handshake(name: str, tmp_path: Path) -> None:
    authority, clock = ageing(tmp_path)
    credentials = member(authority)
    context = client_context(authority.authority_pem, credentials)
    with listening(server_context(authority.server)) as listener:
        old, same = (call(context, listener, name).certificate for _ in range(2))
        clock[0] = NOW
        new, again = (call(context, listener, name).certificate for _ in range(2))
    assert old == same != new == again
    assert [caller_of(seen).serial for seen in listener.seen if isinstance(seen, bytes)] == [
        credentials.serial
    ] * 4


def test_an_event_loop_serves_the_same(tmp_path: Path) -> None:
    authority, clock = ageing(tmp_path)
    credentials = member(authority)
    seen = []

    async def welcome(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        writer.close()

    async def main() -> list[bytes]:
        server = await asyncio.start_server(welcome, "127.0.0.1", 0, ssl=server_context(authority.server))
        port = server.sockets[0].getsockname()[1]
        shown = []
        for clock[0] in (NOW - 70 * DAY, NOW):
            context = client_context(authority.authority_pem, credentials)
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            shown.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        server.close()
        return shown

    old, new = asyncio.run(asyncio.wait_for(main(), 20))
    assert old != new
    assert [caller_of(certificate).name for certificate in seen] == ["hospital-a"] * 2


def test_contexts_leave_no_pipe_open(ours: Authority) -> None:
    credentials = member(ours)
    before = len(list(Path("/dev/fd").iterdir()))
    contexts = [client_context(ours.authority_pem, credentials) for _ in range(20)]
    assert len(list(Path("/dev/fd").iterdir())) == before
    assert len(contexts) == 20


@pytest.mark.parametrize(
    "authority", ["", "no PEM", b"\xff", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_an_authority_that_cannot_be_read_is_a_typed_error(authority: str | bytes) -> None:
    with pytest.raises(TrustError, match="authority"):
        client_context(authority)


def test_grpc_is_not_loaded_by_who_does_not_speak_it() -> None:
    code = "import sys, haina.wire.tls, haina.wire.invitation, haina.coordinator.authority; print('grpc' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"


# ---------------------------------------------------------------------------------------------- gRPC's side


@asynccontextmanager
async def grpc_listening(authority: Authority) -> AsyncIterator[tuple[int, list[str]]]:
    seen: list[str] = []

    async def who(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        seen.append(caller_of(context.auth_context()["x509_pem_cert"][0]).name)
        return b"welcome"

    server = grpc.aio.server()
    handlers = {"Who": grpc.unary_unary_rpc_method_handler(who)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    port = server.add_secure_port("127.0.0.1:0", grpc_server_credentials(authority.server))
    await server.start()
    try:
        yield port, seen
    finally:
        await server.stop(0)


async def grpc_call(port: int, credentials: grpc.ChannelCredentials, host: str = "127.0.0.1") -> bytes:
    # A pool of its own: channels of one process share connections.
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.secure_channel(f"{host}:{port}", credentials, options) as channel:
        return await channel.unary_unary("/t.T/Who")(b"", timeout=5)


async def grpc_refused(port: int, credentials: grpc.ChannelCredentials, host: str = "127.0.0.1") -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await grpc_call(port, credentials, host)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    return caught.value.details() or ""


def test_grpc_takes_members_in_and_nobody_else(ours: Authority, theirs: Authority) -> None:
    async def main() -> list[str]:
        async with grpc_listening(ours) as (port, seen):
            for host in ("127.0.0.1", "localhost"):
                assert await grpc_call(port, grpc_channel_credentials(member(ours)), host) == b"welcome"
            pinned = ours.authority_pem.encode()
            await grpc_refused(port, grpc.ssl_channel_credentials(pinned))
            for stranger in (member(theirs), member(ours, now=NOW - 31 * DAY), ours.server()):
                pair = (stranger.key, stranger.certificate)
                await grpc_refused(port, grpc.ssl_channel_credentials(pinned, *pair))
            # Their member looks for their server and finds ours.
            assert "CERTIFICATE_VERIFY_FAILED" in await grpc_refused(
                port, grpc_channel_credentials(member(theirs))
            )
            return seen

    assert asyncio.run(asyncio.wait_for(main(), 30)) == ["hospital-a"] * 2


def test_grpc_knows_its_server_by_name(ours: Authority, tmp_path: Path) -> None:
    async def main() -> None:
        async with grpc_listening(ours) as (port, seen):
            options = [("grpc.ssl_target_name_override", "fl.example.org")]
            credentials = grpc_channel_credentials(member(ours))
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/t.T/Who")(b"", timeout=5)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert seen == []

    asyncio.run(asyncio.wait_for(main(), 20))


def test_grpc_uses_a_re_issued_certificate_at_the_next_handshake(tmp_path: Path) -> None:
    # The first is out of its time already, so that only the second can be accepted.
    clock = [NOW - 100 * DAY]
    authority = Authority.open(tmp_path, lambda: clock[0])

    async def main() -> None:
        async with grpc_listening(authority) as (port, _):
            credentials = grpc_channel_credentials(member(authority))
            await grpc_refused(port, credentials)
            clock[0] = NOW
            assert await grpc_call(port, credentials) == b"welcome"

    asyncio.run(asyncio.wait_for(main(), 20))
