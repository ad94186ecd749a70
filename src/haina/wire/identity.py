"""Who is who: a machine's key, the certificate that speaks for it, and what the key signs.

A name is a URI among the certificate's subject alternative names (`haina:node:hospital-a`), so nothing that a host name or a common name can say
is mistaken for it. Key, certificate and authority lie in one file, replaced in one step: a kill leaves the old identity or the new one, never a key
beside a certificate of another key. Curve P-256 with SHA-256 (ECDSA, FIPS 186-5), which TLS 1.3, browsers and R's curl all speak.

The trap: `caller_of` reads a certificate and proves nothing. It is for certificates that the TLS layer has verified against the authority.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from haina.errors import TrustError
from haina.wire.messages import NAME, Enrolled, Manifest, Role
from haina.wire.secret import read_secret, write_secret

#: What the library raises on bytes that are no key, certificate or request. Extensions are read late, so they can fail late.
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
    # A warning on odd certificates, where warnings are errors.
    UserWarning,
)

_LATE = attrgetter("extensions", "not_valid_before_utc", "not_valid_after_utc")
_HOLDER = re.compile(rf"haina:({'|'.join(Role)}):({NAME.strip('^$')})")
_SHA256 = ec.ECDSA(hashes.SHA256())
_T = TypeVar("_T")


class Holder(NamedTuple):
    """Whose certificate it is: name, role, and the serial number (up to 159 bits, so more than a database's integer)."""

    name: str
    role: Role
    serial: int


# ------------------------------------------------------------------------------------------------ keys and certificates


def new_key() -> bytes:
    """A fresh P-256 private key: PEM, PKCS#8, not encrypted."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    """The key in PEM text.

    Raises:
        TrustError: no P-256 private key is there.
    """
    key = _read("private key", load_pem_private_key, pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustError("the private key is of another kind", allowed="keys on the curve P-256")
    return key


#: The same few certificates come with every call, and reading one takes longer than the rest of a small call.
_remembered = lru_cache(maxsize=2048)


@_remembered
def load_certificate(data: bytes | str) -> x509.Certificate:
    """The (first) certificate in PEM text, or the certificate of DER bytes.

    Raises:
        TrustError: it cannot be read.
    """
    raw = data.encode(errors="replace") if isinstance(data, str) else data
    load = x509.load_pem_x509_certificate if b"-----BEGIN" in raw else x509.load_der_x509_certificate

    def whole() -> x509.Certificate:
        certificate = load(raw)
        # The library reads these when they are first used; what is odd in them shall show here.
        certificate.public_key()
        _LATE(certificate)
        return certificate

    return _read("certificate", whole)


def request(key: bytes, name: str) -> str:
    """A certificate signing request (PEM); it proves that the sender holds the key. The name is for people only: the coordinator ignores it."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(common_name(name))
    return builder.sign(load_key(key), hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def common_name(text: str) -> x509.Name:
    """A distinguished name of one common name (at most 64 characters)."""
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])


def fingerprint(certificate: bytes | str) -> str:
    """SHA-256 of a certificate's DER bytes, in hexadecimal.

    Raises:
        TrustError: the certificate (PEM or DER) cannot be read.
    """
    return load_certificate(certificate).fingerprint(hashes.SHA256()).hex()


def holder_uri(name: str, role: Role) -> str:
    """How a certificate says whose it is: `haina:ROLE:NAME`; `caller_of` reads it back."""
    uri = f"haina:{role}:{name}"
    if not _HOLDER.fullmatch(uri):
        raise TrustError(f"{name!r} cannot be a name", allowed="1 to 63 letters, digits, - and _")
    return uri


def caller_of(certificate: bytes | str) -> Holder:
    """The holder that a verified certificate (DER or PEM) names.

    Raises:
        TrustError: it cannot be read, or does not name exactly one holder.
    """
    return _holder(load_certificate(certificate))


@_remembered
def _holder(certificate: x509.Certificate) -> Holder:
    def uris() -> list[str]:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return names.get_values_for_type(x509.UniformResourceIdentifier)

    matches = [_HOLDER.fullmatch(uri) for uri in _read("certificate", uris)]
    if len(matches) != 1 or matches[0] is None:
        raise TrustError(
            "the certificate does not say whose it is",
            allowed="one alternative name of the form haina:ROLE:NAME",
            remedy="Enrol with an invitation of this coordinator",
        )
    role, name = matches[0].groups()
    return Holder(name, Role(role), certificate.serial_number)


def _read(what: str, load: Callable[..., _T], *given: object) -> _T:
    try:
        return load(*given)
    except UNREADABLE as error:
        raise TrustError(f"the {what} cannot be read", remedy="It is damaged, or not in PEM form") from error


@dataclass(frozen=True)
class Credentials:
    """A private key, the certificate that speaks for it, and the authority that issued it (all PEM). What does not hold together cannot be made.

    Raises:
        TrustError: something cannot be read, the key is not the certificate's, or the authority did not issue it.
    """

    key: bytes = field(repr=False)
    certificate: bytes
    authority: bytes

    FILE = "identity.pem"
    PENDING = "pending-key.pem"

    def __post_init__(self) -> None:
        if load_key(self.key).public_key() != self._leaf.public_key():
            raise TrustError("the key and the certificate do not belong together")
        authority = load_certificate(self.authority)
        try:
            self._leaf.verify_directly_issued_by(authority)
            # Its own signature proves nothing of trust; it finds damage.
            authority.verify_directly_issued_by(authority)
        except (InvalidSignature, *UNREADABLE) as error:
            raise TrustError("the certificate was not issued by the authority beside it") from error

    @classmethod
    def enrolled(cls, key: bytes, answer: Enrolled) -> Credentials:
        """What the coordinator's answer makes of the key whose request was sent."""
        return cls(key, answer.certificate.encode(), answer.authority.encode())

    @cached_property
    def _leaf(self) -> x509.Certificate:
        return load_certificate(self.certificate)

    @cached_property
    def _named(self) -> Holder:
        return _holder(self._leaf)

    @property
    def name(self) -> str:
        """The holder's name."""
        return self._named.name

    @property
    def role(self) -> Role:
        """What the holder may do."""
        return self._named.role

    @property
    def serial(self) -> int:
        """The certificate's serial number."""
        return self._leaf.serial_number

    @cached_property
    def expires(self) -> float:
        """The last moment of the certificate, in seconds since 1970."""
        return self._leaf.not_valid_after_utc.timestamp()

    @cached_property
    def _renewal(self) -> float:
        begins = self._leaf.not_valid_before_utc.timestamp()
        return begins + (self.expires - begins) * 2 / 3

    def due(self, now: float) -> bool:
        """Two thirds of the certificate's life are over: time for the next one."""
        return now >= self._renewal

    def save(self, folder: Path) -> None:
        """Make this the folder's identity, in one step. The pending key is forgotten: it is in here now."""
        write_secret(folder / self.FILE, self.key + self.certificate + self.authority)
        (folder / self.PENDING).unlink(missing_ok=True)

    @classmethod
    def load(cls, folder: Path) -> Credentials:
        """The folder's identity.

        Raises:
            TrustError: there is none, it is damaged, or others can read it.
        """
        text = read_secret(folder / cls.FILE, remedy="Take part with an invitation first (haina join)")
        certificates = _read("identity", x509.load_pem_x509_certificates, text)
        if len(certificates) != 2:
            raise TrustError(
                f"{folder / cls.FILE} is damaged", remedy="Ask for a new invitation and join again"
            )
        own, authority = (certificate.public_bytes(Encoding.PEM) for certificate in certificates)
        return cls(pem_of(load_key(text)), own, authority)


def pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as `new_key` writes it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def pending_key(folder: Path) -> bytes:
    """The key for which a certificate is being asked: kept before the first call, so that a newcomer killed between the coordinator's
    answer and `save` asks again with the same key, and its one-time token can be honoured again for that key alone.
    """
    path = folder / Credentials.PENDING
    write_secret(path, new_key(), keep=True)
    return read_secret(path)


# ------------------------------------------------------------------------------------------------ signatures


def signed_bytes(manifest: Manifest) -> bytes:
    """What a manifest's signature covers: every field but the signature itself.

    A prefix that no other signature of ours begins with, then one JSON array in a fixed order: node, federation, round, version, sha256, bytes,
    codec, length, report (which holds the weight, `examples`). JSON in its most compact ASCII form with sorted keys quotes every string, so no two
    manifests share their bytes; a whole float is written as an integer, because 3.0 may become 3 on its way through another language.
    """
    fields = [getattr(manifest, name) for name in _SIGNED]
    return _PREFIX + json.dumps(_plain(fields), sort_keys=True, separators=(",", ":")).encode()


_PREFIX = b"haina manifest 1\n"
_SIGNED = ("node", "federation", "round", "version", "sha256", "bytes", "codec", "length", "report")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def sign(key: bytes, manifest: Manifest) -> Manifest:
    """The manifest with the signature of a key (PEM): base64 of ECDSA (P-256, SHA-256, DER) over `signed_bytes`."""
    signature = load_key(key).sign(signed_bytes(manifest), _SHA256)
    return manifest.model_copy(update={"signature": base64.b64encode(signature).decode()})


def verify(certificate: bytes | str, manifest: Manifest) -> bool:
    """Whether the certificate's holder is the manifest's node and has signed it as it stands. False, never an error, for what cannot be read."""
    try:
        loaded = load_certificate(certificate)
        public = loaded.public_key()
        if _holder(loaded).name != manifest.node or not isinstance(public, ec.EllipticCurvePublicKey):
            return False
        public.verify(base64.b64decode(manifest.signature, validate=True), signed_bytes(manifest), _SHA256)
    except (TrustError, InvalidSignature, RecursionError, *UNREADABLE):
        return False
    return True
