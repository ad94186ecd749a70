"""Post: one HTTP request from a site to an R service, with limits of place, time and size.

A request carries rows, so it must not go astray, and its address is in the federation file, which the coordinator wrote. So a site asks its own
machine and no other, unless the site's owner lists services in the environment variable `HAINA_R_SERVICES`; then those, and no others. No redirect
is followed, no proxy asked, and an answer is read no further than it may be long.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from time import monotonic
from urllib.parse import urlsplit

from haina.errors import LearnerError
from haina.learners.r.answer import RError

#: Addresses that the owner of a site allows, with spaces between them: "https://r.example.org:8443 http://10.0.0.5:8000".
ALLOWED = "HAINA_R_SERVICES"
_PORTS = {"http": 80, "https": 443}
_PART = 1 << 20


@dataclass(frozen=True)
class Origin:
    """Where an address leads: scheme, host and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Origin:
        """Read an address.

        Raises:
            LearnerError: it is none, or holds a password or a fragment.
        """
        try:
            address = urlsplit(url)
            port = address.port or _PORTS.get(address.scheme, 0)
        except ValueError as error:
            raise _no_address(url) from error
        plain = url.isascii() and url.isprintable() and " " not in url
        if (
            not plain
            or address.scheme not in _PORTS
            or not address.hostname
            or "@" in address.netloc
            or address.fragment
        ):
            raise _no_address(url)
        return cls(address.scheme, address.hostname, port)


def post(url: str, pieces: list[bytes | memoryview], kind: str, *, timeout: float, most: int) -> bytes:
    """Send a request and read its answer.

    Args:
        url: where.
        pieces: the body.
        kind: its content type.
        timeout: seconds for all of it.
        most: bytes that the answer may have.

    Raises:
        RError: no connection, no answer in time, another status than 200, or a longer answer; each in words of its own.
        LearnerError: the owner of this machine does not allow this address.
    """
    origin, address = Origin.of(url), urlsplit(url)
    places, deadline = _places(origin, url), monotonic() + timeout
    connection = HTTPConnection(origin.host, origin.port, timeout=timeout)
    over, slow = threading.Event(), RError(f"its R service did not answer within {timeout:g} s")
    timer: threading.Timer | None = None
    try:
        # To the very addresses that were looked at: a name may mean another machine a moment later.
        sock = _connected(places, origin.port, timeout)
        connection.sock = sock = _wrapped(sock, origin)
        # Each wait for a byte has a limit of its own, so one clock for all of them closes the connection.
        timer = threading.Timer(max(0.0, deadline - monotonic()), _shut, (sock, over))
        timer.daemon = True
        timer.start()
        if isinstance(sock, ssl.SSLSocket):
            sock.do_handshake()
        connection.putrequest("POST", (address.path or "/") + (f"?{address.query}" if address.query else ""))
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", str(sum(memoryview(piece).nbytes for piece in pieces)))
        connection.endheaders()
        for piece in pieces:
            connection.send(piece)
        response = connection.getresponse()
        if response.status != 200:
            more = ", and redirects are not followed" if 300 <= response.status < 400 else ""
            raise RError(f"its R service answered HTTP {response.status}{more}")
        data = bytearray()
        while len(data) <= most and (part := response.read(_PART)):
            data += part
        if over.is_set():
            raise slow
        if len(data) > most:
            raise RError(f"its R service answered more than {most} bytes")
        if response.length:
            raise RError("its R service closed the connection in the middle of its answer")
        return bytes(data)
    except ssl.SSLCertVerificationError as error:
        raise RError("its R service has a certificate that this machine does not trust") from error
    except ConnectionRefusedError as error:
        raise RError("its R service is not running: nobody listens at its address") from error
    except (OSError, HTTPException) as error:
        if over.is_set() or isinstance(error, TimeoutError):
            raise slow from error
        raise RError(f"its R service closed the connection ({type(error).__name__})") from error
    finally:
        if timer is not None:
            timer.cancel()
        connection.close()


def _places(origin: Origin, url: str) -> list[str]:
    """The addresses of a host that this machine's owner allows.

    Raises:
        LearnerError: it is not allowed.
        RError: the host has no address.
    """
    listed = os.environ.get(ALLOWED, "").split()
    if listed and origin not in map(Origin.of, listed):
        raise _refused(url, f"{' or '.join(listed)}, as {ALLOWED} says")
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        if listed:
            raise RError("its R service has a host that is not known") from error
        raise _refused(url, _HERE) from error
    places = [str(entry[4][0]) for entry in found]
    if not listed and not all(ipaddress.ip_address(place).is_loopback for place in places):
        raise _refused(url, _HERE)
    return places


_HERE = "a service on this machine: http://localhost:PORT/..."


def _connected(places: list[str], port: int, timeout: float) -> socket.socket:
    """A connection to the first place that takes it: a service may listen on one family of addresses only."""
    for place in places[:-1]:
        with suppress(OSError):
            return socket.create_connection((place, port), timeout)
    return socket.create_connection((places[-1], port), timeout)


def _wrapped(sock: socket.socket, origin: Origin) -> socket.socket:
    if origin.scheme == "http":
        return sock
    context = ssl.create_default_context()
    return context.wrap_socket(sock, server_hostname=origin.host, do_handshake_on_connect=False)


def _shut(sock: socket.socket, over: threading.Event) -> None:
    over.set()
    with suppress(OSError):
        # Not the method of a TLS socket, which would take its state away from the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _no_address(url: str) -> LearnerError:
    return LearnerError(
        f"{url!r} is no address of a service",
        allowed='http or https, such as "http://localhost:8000/run_logistic_regression"',
    )


def _refused(url: str, allowed: str) -> LearnerError:
    return LearnerError(
        f"the federation file names the R service {url}, and this machine's owner does not allow it",
        allowed=allowed,
        remedy=f"If you trust it with your rows, start again with {ALLOWED} set to its address",
    )
