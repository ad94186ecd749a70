"""Connections that know who is at the other end: TLS 1.3, and nobody trusted but the federation's own authority.

A server takes a function that gives its credentials as they stand now, and asks it at every handshake: a certificate that is re-issued is in use
at once, and nothing has to be restarted. A key goes to OpenSSL through a pipe, because Python's `ssl` reads keys from files only and a key should not
lie in one more of them.

The trap: in TLS 1.3 a client has finished its handshake before the server has looked at its certificate. A refused client learns of it at its first
read.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from haina.errors import TrustError
from haina.wire.identity import Credentials

if TYPE_CHECKING:
    import grpc


def server_context(current: Callable[[], Credentials]) -> ssl.SSLContext:
    """The HTTP door's side. A client may come without a certificate, because a newcomer has none yet; one that is shown must be the authority's.

    Args:
        current: the server's credentials as they stand now (`Authority.server`); called at each handshake.
    """
    latest = current()
    listening = newest = _server(latest)

    def refresh(
        connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: ssl.SSLContext
    ) -> None:
        nonlocal latest, newest
        shown = current()
        if shown is not latest:
            latest, newest = shown, _server(shown)
        connection.context = newest

    # Called for every handshake, also where the client names no server.
    listening.sni_callback = refresh
    return listening


def client_context(authority: bytes | str, credentials: Credentials | None = None) -> ssl.SSLContext:
    """A caller's side: trusts the servers of this authority alone, under the host name that is called, and no authority of the system.

    Args:
        authority: the authority's certificate, PEM (of the invitation, or of the credentials).
        credentials: who calls; None for a newcomer.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, authority)
    if credentials is not None:
        _present(context, credentials)
    return context


def _server(credentials: Credentials) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_SERVER, credentials.authority)
    context.verify_mode = ssl.CERT_OPTIONAL
    # No tickets: a resumed session would not look at its certificate's dates again.
    context.num_tickets = 0
    _present(context, credentials)
    return context


def _context(protocol: ssl._SSLMethod, authority: bytes | str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(cadata=authority if isinstance(authority, str) else authority.decode())
    except (ssl.SSLError, ValueError) as error:
        raise TrustError("the authority's certificate cannot be read", allowed="PEM text") from error
    return context


def _present(context: ssl.SSLContext, credentials: Credentials) -> None:
    with _pipe(credentials.certificate) as certificate, _pipe(credentials.key) as key:
        context.load_cert_chain(certificate, key)


@contextmanager
def _pipe(data: bytes) -> Iterator[str]:
    """A path that reads as these bytes, once. A certificate or key fits the smallest pipe (4096 bytes)."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        try:
            written = os.write(writer, data)
        finally:
            os.close(writer)
        if written < len(data):
            raise TrustError(f"a certificate of {len(data)} bytes is too long")
        yield f"/dev/fd/{reader}"
    finally:
        os.close(reader)


def grpc_server_credentials(current: Callable[[], Credentials]) -> grpc.ServerCredentials:
    """The gRPC door's side: a client certificate of the authority is required. gRPC chooses between TLS 1.3 and 1.2 itself and offers no setting.

    Args:
        current: as for `server_context`.
    """
    import grpc

    def configuration(credentials: Credentials) -> grpc.ServerCertificateConfiguration:
        pair = (credentials.key, credentials.certificate)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=credentials.authority)

    latest = current()

    def refresh() -> grpc.ServerCertificateConfiguration | None:
        nonlocal latest
        shown = current()
        if shown is latest:
            return None
        latest = shown
        return configuration(shown)

    # gRPC takes None for "no change", which the stubs do not know.
    fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", refresh)
    return grpc.dynamic_ssl_server_credentials(
        configuration(latest), fetcher, require_client_authentication=True
    )


def grpc_channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    """A gRPC caller's side, pinned to its authority like `client_context`."""
    import grpc

    return grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
