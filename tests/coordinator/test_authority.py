import base64
import os
import random
import secrets
import shutil
import stat
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from damage import damage, damaged
from deaths import deaths
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.coordinator.authority import (
    DAY,
    MAX_REQUEST,
    SKEW,
    Authority,
    new_token,
    requested_key,
    token_hash,
    token_matches,
)
from haina.coordinator.contract import Refusal
from haina.errors import ConfigError, HainaError, TrustError
from haina.wire.identity import caller_of, common_name, load_certificate, load_key, new_key, request
from haina.wire.messages import Role

NOW = 1_800_000_000.0
Harm = tuple[list[tuple[float, int]], float]


def start(folder: Path, *names: str, now: float = NOW) -> Authority:
    return Authority.open(folder, lambda: now, names)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return start(tmp_path_factory.mktemp("authority"))


def moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


# ---------------------------------------------------------------------------------------------- the authority itself


def test_the_authority_may_sign_leaves_and_nothing_else(tmp_path: Path) -> None:
    authority = start(tmp_path / "kept")
    certificate = load_certificate(authority.authority_pem)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (
        True,
        True,
        False,
    )
    assert certificate.not_valid_before_utc == moment(NOW - SKEW)
    assert certificate.not_valid_after_utc == moment(NOW + 3650 * DAY)
    assert stat.S_IMODE((tmp_path / "kept" / Authority.FILE).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [Authority.FILE]


def test_the_same_folder_is_the_same_authority_also_for_a_replica(tmp_path: Path) -> None:
    one = start(tmp_path / "a")
    before = (tmp_path / "a" / Authority.FILE).read_bytes()
    again = start(tmp_path / "a", "fl.example.org", now=NOW + 400 * DAY)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    replica = start(tmp_path / "b")
    assert one.fingerprint == again.fingerprint == replica.fingerprint
    assert one.fingerprint != start(tmp_path / "c").fingerprint
    assert (tmp_path / "a" / Authority.FILE).read_bytes() == before
    key = new_key()
    store = Store([load_certificate(one.authority_pem)])
    verifier = PolicyBuilder().store(store).time(moment(NOW)).build_client_verifier()
    for each in (one, again, replica):
        verifier.verify(load_certificate(each.issue(request(key, "n"), "n", Role.NODE, NOW)), [])


def test_a_first_start_that_was_killed_anywhere_is_completed_by_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    finished = []
    for _ in deaths(lambda: start(folder)):
        made = (folder / Authority.FILE).read_bytes() if (folder / Authority.FILE).exists() else None
        assert start(folder).fingerprint == start(folder).fingerprint
        finished.append(made is not None)
        if made is not None:
            assert (folder / Authority.FILE).read_bytes() == made
        assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
        shutil.rmtree(folder)
    assert finished == sorted(finished)
    assert set(finished) == {False, True}


def test_a_later_start_writes_nothing_so_a_read_only_volume_will_do(tmp_path: Path) -> None:
    start(tmp_path)
    assert list(deaths(lambda: start(tmp_path))) == []


def test_a_failing_disk_is_a_typed_error_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    for operation in ("mkdir", "open", "fsync", "link"):
        folder = tmp_path / operation
        with monkeypatch.context() as broken:
            broken.setattr(os, operation, fail)
            with pytest.raises(TrustError, match="No space left"):
                start(folder)
        assert not folder.exists() or not list(folder.iterdir())
        start(folder)


FIRST_START = """
import sys, time
from pathlib import Path
from haina.coordinator.authority import Authority
print("ready", flush=True)
sys.stdin.readline()
for folder in sorted(Path(sys.argv[1]).iterdir()):
    print(Authority.open(folder, time.time).fingerprint)
"""


def test_processes_that_start_at_once_agree_on_one_authority(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"{number:02}").mkdir()
    command = [sys.executable, "-c", FIRST_START, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    seen = [racer.communicate(timeout=60)[0].split() for racer in racers]
    assert len(set(seen[0])) == 30
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize("text", [b"", b"\x00" * 100, b"-----BEGIN CERTIFICATE-----\n"])
def test_a_damaged_authority_is_never_made_anew(text: bytes, tmp_path: Path) -> None:
    (tmp_path / Authority.FILE).write_bytes(text)
    (tmp_path / Authority.FILE).chmod(0o600)
    with pytest.raises(TrustError, match="Restore it from a copy"):
        start(tmp_path)
    assert (tmp_path / Authority.FILE).read_bytes() == text


def test_a_key_of_one_authority_with_the_certificate_of_another_is_damage(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    start(one), start(two)
    key, rest = (one / Authority.FILE).read_text().split("-----BEGIN CERTIFICATE-----")
    other = (two / Authority.FILE).read_text().split("-----BEGIN CERTIFICATE-----")[1]
    (one / Authority.FILE).write_text(key + "-----BEGIN CERTIFICATE-----" + other)
    with pytest.raises(TrustError, match="damaged"):
        start(one)
    (one / Authority.FILE).write_text(key + "-----BEGIN CERTIFICATE-----" + rest)
    start(one)


def test_a_client_certificate_is_no_authority(authority: Authority, tmp_path: Path) -> None:
    key = new_key()
    certificate = authority.issue(request(key, "a"), "a", Role.NODE, NOW)
    (tmp_path / Authority.FILE).write_bytes(key + certificate.encode())
    (tmp_path / Authority.FILE).chmod(0o600)
    with pytest.raises(TrustError, match="damaged"):
        start(tmp_path)


def test_an_authority_that_everyone_can_read_or_that_has_expired_is_refused(tmp_path: Path) -> None:
    start(tmp_path)
    with pytest.raises(TrustError, match="expired on 2037"):
        start(tmp_path, now=NOW + 3650 * DAY)
    (tmp_path / Authority.FILE).chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        start(tmp_path)


# ---------------------------------------------------------------------------------------------- the server


def test_the_servers_certificate_names_what_nodes_may_call(tmp_path: Path) -> None:
    authority = start(tmp_path, "fl.example.org", "10.0.0.5", "2001:db8::7", "localhost", "my_host")
    certificate = load_certificate(authority.server().certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fl.example.org", "localhost", "my_host"]
    addresses = [ip_address(text) for text in ("10.0.0.5", "2001:db8::7", "127.0.0.1", "::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses
    assert len(list(names)) == 7
    assert purposes(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert certificate.not_valid_after_utc == moment(NOW + 90 * DAY)
    with pytest.raises(TrustError):
        caller_of(authority.server().certificate)


def purposes(certificate: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


NOT_CALLED = """
*.example.org fl.example.org:8443 https://x a..b -a a. büro.de 0.0.0.0 :: [::1]
"""


@pytest.mark.parametrize("name", ["", "a b", "a\n", "a" * 64, ".".join("a" * 130), *NOT_CALLED.split()])
def test_a_name_that_cannot_be_called_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        start(tmp_path, name)


def test_the_servers_certificate_renews_itself_at_two_thirds(tmp_path: Path) -> None:
    now = [NOW]
    authority = Authority.open(tmp_path, lambda: now[0])
    first = authority.server()
    now[0] = NOW + 59.9 * DAY
    assert authority.server() is first
    now[0] = NOW + 60 * DAY
    second = authority.server()
    assert (second.serial, second.key) != (first.serial, first.key)
    assert second.expires == NOW + 150 * DAY
    assert authority.server() is second


# ---------------------------------------------------------------------------------------------- issuing


def test_an_issued_certificate_is_valid_for_its_time_and_purpose(authority: Authority) -> None:
    key = new_key()
    certificate = load_certificate(authority.issue(request(key, "a"), "hospital-a", Role.NODE, NOW))
    store = Store([load_certificate(authority.authority_pem)])

    def verified(now: float) -> bool:
        try:
            PolicyBuilder().store(store).time(moment(now)).build_client_verifier().verify(certificate, [])
        except VerificationError:
            return False
        return True

    assert verified(NOW - SKEW)
    assert verified(NOW + 30 * DAY)
    assert not verified(NOW - SKEW - 1)
    assert not verified(NOW + 30 * DAY + 1)
    assert certificate.public_key() == load_key(key).public_key()
    assert caller_of(certificate.public_bytes(Encoding.DER))[:2] == ("hospital-a", Role.NODE)
    as_server = (
        PolicyBuilder().store(store).time(moment(NOW)).build_server_verifier(x509.DNSName("hospital-a"))
    )
    with pytest.raises(VerificationError):
        as_server.verify(certificate, [])


def test_the_request_gives_its_key_and_nothing_else(authority: Authority) -> None:
    key = new_key()
    hostile = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(
            x509.Name([*common_name("root"), x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "o")])
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=5), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("haina:operator:root"), x509.DNSName("localhost")]
            ),
            critical=True,
        )
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=True)
        .add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical=True
        )
        .add_attribute(x509.oid.AttributeOID.CHALLENGE_PASSWORD, b"x")
        .sign(load_key(key), hashes.SHA512())
        .public_bytes(Encoding.PEM)
        .decode()
    )
    plain, odd = (
        load_certificate(authority.issue(csr, "a", Role.NODE, NOW)) for csr in (request(key, "a"), hostile)
    )
    assert list(odd.extensions) == list(plain.extensions)
    assert (odd.subject, odd.issuer, odd.public_key()) == (plain.subject, plain.issuer, plain.public_key())
    assert (odd.not_valid_before_utc, odd.not_valid_after_utc) == (
        plain.not_valid_before_utc,
        plain.not_valid_after_utc,
    )
    kinds = [type(extension.value) for extension in odd.extensions]
    assert kinds == [
        x509.SubjectKeyIdentifier,
        x509.BasicConstraints,
        x509.KeyUsage,
        x509.ExtendedKeyUsage,
        x509.SubjectAlternativeName,
        x509.AuthorityKeyIdentifier,
    ]
    assert not odd.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert purposes(odd) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert caller_of(odd.public_bytes(Encoding.DER))[:2] == ("a", Role.NODE)


def test_serial_numbers_are_random_positive_and_fit_twenty_octets(authority: Authority) -> None:
    csr = request(new_key(), "a")
    serials = [load_certificate(authority.issue(csr, "a", Role.NODE, NOW)).serial_number for _ in range(200)]
    assert len(set(serials)) == 200
    assert all(0 < serial < 2**159 for serial in serials)
    assert max(serials) > 2**150


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "secp256k1", "Ed25519", "RSA"],
)
def test_a_key_of_another_kind_is_refused(key: rsa.RSAPrivateKey, authority: Authority) -> None:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateSigningRequestBuilder().subject_name(common_name("a"))
    csr = builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()
    with pytest.raises(Refusal, match="another kind") as caught:
        authority.issue(csr, "a", Role.NODE, NOW)
    assert caught.value.code == "invalid"


def test_a_request_for_somebody_elses_key_is_refused(authority: Authority) -> None:
    mine, theirs = (x509.load_pem_x509_csr(request(new_key(), "a").encode()) for _ in range(2))
    body, stolen = (csr.public_bytes(Encoding.DER) for csr in (mine, theirs))
    point = mine.public_key().public_numbers().x.to_bytes(32, "big")  # type: ignore[union-attr]
    other = theirs.public_key().public_numbers()  # type: ignore[union-attr]
    y = mine.public_key().public_numbers().y.to_bytes(32, "big")  # type: ignore[union-attr]
    forged = body.replace(point, other.x.to_bytes(32, "big")).replace(y, other.y.to_bytes(32, "big"))
    assert forged not in (body, stolen)
    pem = x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM).decode()
    with pytest.raises(Refusal, match="not signed by the key"):
        authority.issue(pem, "a", Role.NODE, NOW)


def test_a_request_without_end_is_refused_before_it_is_read(authority: Authority) -> None:
    with pytest.raises(Refusal, match="at most 10000"):
        authority.issue("x" * (MAX_REQUEST + 1), "a", Role.NODE, NOW)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "a:b", "-a", "a" * 64, "a\n", "é"])
def test_a_name_that_is_none_is_never_certified(name: str, authority: Authority) -> None:
    with pytest.raises(TrustError):
        authority.issue(request(new_key(), "a"), name, Role.NODE, NOW)


CSR = request(new_key(), "a")
DER = x509.load_pem_x509_csr(CSR.encode()).public_bytes(Encoding.DER)


@given(harm=damage)
@settings(max_examples=500)
def test_a_damaged_request_is_a_refusal_or_still_gives_the_invited_name(
    harm: Harm, authority: Authority
) -> None:
    text = base64.encodebytes(damaged(DER, harm)).decode()
    for csr in (
        damaged(CSR.encode(), harm).decode("latin-1"),
        f"-----BEGIN CERTIFICATE REQUEST-----\n{text}-----END CERTIFICATE REQUEST-----\n",
    ):
        with suppress(Refusal):
            assert caller_of(authority.issue(csr, "b", Role.VIEWER, NOW))[:2] == ("b", Role.VIEWER)


@given(junk=st.one_of(st.text(max_size=300), st.characters(codec=None)))
def test_junk_is_a_refusal(junk: str, authority: Authority) -> None:
    for text in (junk, f"-----BEGIN CERTIFICATE REQUEST-----\n{junk}\n-----END CERTIFICATE REQUEST-----"):
        with pytest.raises(Refusal) as caught:
            authority.issue(text, "a", Role.NODE, NOW)
        assert caught.value.code == "malformed"


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    start(tmp_path)
    end = NOW + 3650 * DAY
    authority = start(tmp_path, now=end - DAY)
    assert authority.server().expires == end
    certificate = load_certificate(authority.issue(CSR, "a", Role.NODE, end - DAY))
    assert certificate.not_valid_after_utc == moment(end)
    with pytest.raises(HainaError, match="expired"):
        authority.issue(CSR, "a", Role.NODE, end)


def test_a_request_is_known_by_its_key_however_often_it_is_made() -> None:
    key = new_key()
    one, two, other = request(key, "a"), request(key, "b"), request(new_key(), "a")
    assert one != two
    assert requested_key(one) == requested_key(two) != requested_key(other)


# ---------------------------------------------------------------------------------------------- tokens


def test_a_token_has_256_bits_and_is_known_by_its_hash() -> None:
    token, kept = new_token()
    assert len(token) == 43
    assert kept == token_hash(token)
    assert token not in kept
    assert token_matches(token, kept)
    assert not token_matches(token[:-1], kept)
    assert not token_matches(token, token)
    assert new_token()[0] != token


def test_tokens_come_from_the_source_that_is_given() -> None:
    class Seeded:
        def __init__(self) -> None:
            self.source = random.Random(1)

        def token_urlsafe(self, nbytes: int | None = None, /) -> str:
            return self.source.randbytes(nbytes or 0).hex()

    assert new_token(Seeded()) == new_token(Seeded())


@given(st.text(st.characters(codec=None), max_size=50))
def test_any_text_can_be_compared_with_a_hash(text: str) -> None:
    assert not token_matches(text, token_hash(secrets.token_urlsafe(32)))
