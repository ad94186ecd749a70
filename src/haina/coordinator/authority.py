"""The federation's own certificate authority: made at the first start, it says who is a node, a viewer or an operator, and who the coordinator.

Kept is one file, `authority.pem`: key and certificate. It appears whole or not at all, and of two processes that start at once one wins and both use
what it made; replicas share a copy (it may lie on a read-only volume). The server's certificate is not kept: nodes trust the authority, so every
start makes a new one, and so does a long life when two thirds of it are over.

The trap: whoever reads `authority.pem` is the federation. Lost, every node must be invited again; so none is made where a damaged one lies.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from haina.coordinator.contract import Refusal
from haina.errors import ConfigError, TrustError
from haina.wire.identity import (
    UNREADABLE,
    Credentials,
    common_name,
    fingerprint,
    holder_uri,
    load_certificate,
    load_key,
    new_key,
    pem_of,
)
from haina.wire.messages import Role
from haina.wire.secret import read_secret, write_secret

DAY = 86_400.0
#: Lives of certificates, in seconds.
AUTHORITY_LIFE, SERVER_LIFE, CLIENT_LIFE = 3650 * DAY, 90 * DAY, 30 * DAY
#: Certificates begin so much earlier, for machines whose clocks are behind.
SKEW = 300.0
#: A request for a P-256 key is about 400 characters.
MAX_REQUEST = 10_000

_ALWAYS = ("localhost", "127.0.0.1", "::1")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")


class Authority:
    """A certificate authority, open for business (`Authority.open`)."""

    FILE = "authority.pem"

    def __init__(
        self, key: bytes, certificate: bytes, clock: Callable[[], float], names: Iterable[str]
    ) -> None:
        self._key = load_key(key)
        self._certificate = load_certificate(certificate)
        self._pem = self._certificate.public_bytes(Encoding.PEM)
        self._clock = clock
        self._names = _alternatives(names)
        self._server = self._issue_server()

    @classmethod
    def open(cls, folder: Path, clock: Callable[[], float], names: Iterable[str] = ()) -> Authority:
        """The authority of a folder; made where there is none.

        Args:
            folder: where `authority.pem` is, or shall be.
            clock: seconds since 1970.
            names: host names and IP addresses under which nodes call the coordinator; this machine's own (`localhost`) are always added.

        Raises:
            TrustError: the file is damaged, readable by everyone, or the authority has expired.
            ConfigError: a name is not one that can be called.
        """
        path = folder / cls.FILE
        if not path.exists():
            write_secret(path, _new_authority(clock()), keep=True)
        text = read_secret(path)
        try:
            key, certificate = load_key(text), load_certificate(text)
            constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
            whole = constraints.ca and key.public_key() == certificate.public_key()
        except (TrustError, *UNREADABLE):
            whole = False
        if not whole:
            raise TrustError(
                f"{path} is damaged",
                remedy="Restore it from a copy. Without it, every node must be invited again",
            )
        if certificate.not_valid_after_utc.timestamp() <= clock():
            raise TrustError(
                f"the authority in {path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}",
                remedy="Move the file away, start again, and invite every node again",
            )
        return cls(pem_of(key), certificate.public_bytes(Encoding.PEM), clock, names)

    @property
    def authority_pem(self) -> str:
        """The authority's certificate."""
        return self._pem.decode()

    @property
    def fingerprint(self) -> str:
        """Its SHA-256, which an invitation carries and a person can compare."""
        return fingerprint(self._pem)

    def server(self) -> Credentials:
        """The coordinator's own key and certificate, renewed when two thirds of their life are over. The same object as long as they are the same."""
        if self._server.due(self._clock()):
            self._server = self._issue_server()
        return self._server

    def issue(self, csr_pem: str, name: str, role: Role, now: float) -> str:
        """A client certificate of 30 days for the name and the role of the invitation. The request gives its key and nothing else.

        Args:
            csr_pem: the request; who sent it must hold its key.
            name: of the invitation, or of the certificate that is renewed.
            role: likewise.
            now: seconds since 1970.

        Returns:
            The certificate, PEM.

        Raises:
            Refusal: the request cannot be read, is not signed by its key, or has a key of another kind.
        """
        holder = x509.UniformResourceIdentifier(holder_uri(name, role))
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._sign(_key_of(csr_pem), name, [holder], purpose, now, CLIENT_LIFE).decode()

    def _issue_server(self) -> Credentials:
        key = new_key()
        public = load_key(key).public_key()
        purpose = ExtendedKeyUsageOID.SERVER_AUTH
        certificate = self._sign(
            public, "Haina coordinator", self._names, purpose, self._clock(), SERVER_LIFE
        )
        return Credentials(key, certificate, self._pem)

    def _sign(
        self,
        public: ec.EllipticCurvePublicKey,
        name: str,
        alternatives: list[x509.GeneralName],
        purpose: x509.ObjectIdentifier,
        now: float,
        life: float,
    ) -> bytes:
        end = min(now + life, self._certificate.not_valid_after_utc.timestamp())
        if end <= now:
            raise Refusal("unavailable", "the coordinator's authority has expired")
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = (
            _certificate(public, name, self._certificate.subject, now, end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(issuer, critical=False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _new_authority(now: float) -> bytes:
    pem = new_key()
    key = load_key(pem)
    # A name of its own, so that two authorities are told apart in any list.
    name = common_name(f"Haina authority {secrets.token_hex(4)}")
    builder = (
        _certificate(key.public_key(), name, name, now, now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(certificates=True), critical=True)
    )
    return pem + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _certificate(
    public: ec.EllipticCurvePublicKey, subject: str | x509.Name, issuer: x509.Name, now: float, end: float
) -> x509.CertificateBuilder:
    """What every certificate of ours begins with. Serial numbers are random, 159 bits (RFC 5280 allows 20 octets)."""
    return (
        x509.CertificateBuilder()
        .subject_name(common_name(subject) if isinstance(subject, str) else subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(int(now - SKEW), UTC))
        .not_valid_after(datetime.fromtimestamp(int(end), UTC))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(*, certificates: bool) -> x509.KeyUsage:
    """An authority signs certificates; everyone else signs handshakes."""
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(names: Iterable[str]) -> list[x509.GeneralName]:
    """Host names and addresses as alternative names, each once, in the order given."""
    out: list[x509.GeneralName] = []
    for name in dict.fromkeys([*names, *_ALWAYS]):
        try:
            address = ip_address(name)
        except ValueError:
            if len(name) > 253 or not _HOST.fullmatch(name):
                raise ConfigError(
                    f"{name!r} is not a host name or an IP address",
                    allowed="such as fl.example.org or 10.0.0.5, without port and without *",
                    remedy="Write an international name in its xn-- form",
                ) from None
            out.append(x509.DNSName(name))
        else:
            if address.is_unspecified:
                raise ConfigError(f"{name} is where a server listens, not an address that a node can call")
            out.append(x509.IPAddress(address))
    return out


def _key_of(csr_pem: str) -> ec.EllipticCurvePublicKey:
    """The key of a request that proves to hold it."""
    if len(csr_pem) > MAX_REQUEST:
        raise Refusal(
            "malformed",
            f"the certificate request has {len(csr_pem)} characters",
            allowed=f"at most {MAX_REQUEST}",
        )
    try:
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        public = csr.public_key()
        # The kind first: checking a signature costs what the key's sender chose.
        ours = isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)
        proven = ours and csr.is_signature_valid
    except UNREADABLE as error:
        raise Refusal(
            "malformed", "the certificate request cannot be read", allowed="PKCS#10 in PEM form"
        ) from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not ours:
        raise Refusal("invalid", "the key is of another kind", allowed="keys on the curve P-256")
    if not proven:
        raise Refusal("invalid", "the certificate request is not signed by the key that it brings")
    return public


def requested_key(csr_pem: str) -> str:
    """SHA-256 (hexadecimal) of the public key of a request: a used token may be honoured again for the key that used it, whose answer was lost.

    Raises:
        Refusal: as `Authority.issue`.
    """
    public = _key_of(csr_pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


# ------------------------------------------------------------------------------------------------ one-time tokens


class Rng(Protocol):
    """Where tokens come from: the module `secrets`, or a seeded one in a test."""

    def token_urlsafe(self, nbytes: int | None = None, /) -> str:
        """`nbytes` random bytes in URL-safe base64."""


def new_token(rng: Rng = secrets) -> tuple[str, str]:
    """A one-time token of 256 bits, and the hash of it that is all the coordinator keeps."""
    token = rng.token_urlsafe(32)
    return token, token_hash(token)


def token_hash(token: str) -> str:
    """SHA-256 of a token, in hexadecimal. A token is random, so no salt and no slow hash is needed."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def token_matches(token: str, kept: str) -> bool:
    """Whether a token is the one whose hash was kept, in constant time."""
    return hmac.compare_digest(token_hash(token), kept)
