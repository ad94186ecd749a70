import json
import stat
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from damage import damage, damaged
from deaths import deaths
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haina.coordinator.authority import CLIENT_LIFE, SKEW, Authority
from haina.errors import TrustError
from haina.wire.identity import (
    Credentials,
    caller_of,
    common_name,
    fingerprint,
    load_certificate,
    load_key,
    new_key,
    pending_key,
    request,
    sign,
    signed_bytes,
    verify,
)
from haina.wire.messages import Enrolled, Manifest, Role

NOW = time.time()
Harm = tuple[list[tuple[float, int]], float]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open(tmp_path_factory.mktemp("authority"), lambda: NOW)


def enrol(authority: Authority, name: str = "hospital-a", role: Role = Role.NODE) -> Credentials:
    key = new_key()
    certificate = authority.issue(request(key, name), name, role, NOW)
    answer = Enrolled(name=name, role=role, certificate=certificate, authority=authority.authority_pem)
    return Credentials.enrolled(key, answer)


@pytest.fixture(scope="module")
def signer(authority: Authority) -> Credentials:
    return enrol(authority, "hospital-a")


def der(credentials: Credentials) -> bytes:
    return load_certificate(credentials.certificate).public_bytes(Encoding.DER)


# ---------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("role", Role)
def test_a_certificate_says_whose_it_is(authority: Authority, role: Role) -> None:
    credentials = enrol(authority, "Klinik_7-b", role)
    holder = caller_of(der(credentials))
    assert holder == ("Klinik_7-b", role, credentials.serial)
    assert (credentials.name, credentials.role) == ("Klinik_7-b", role)
    assert caller_of(credentials.certificate) == holder


def certificate_with(names: list[x509.GeneralName] | None) -> bytes:
    key = load_key(new_key())
    moment = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(common_name("haina:node:hospital-a"))
        .issuer_name(common_name("x"))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(moment)
        .not_valid_after(moment + timedelta(1))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def uri(text: str) -> x509.GeneralName:
    return x509.UniformResourceIdentifier(text)


def test_a_well_formed_certificate_of_that_kind_is_read() -> None:
    assert caller_of(certificate_with([uri("haina:viewer:a"), x509.DNSName("b")])) == ("a", Role.VIEWER, 7)


@pytest.mark.parametrize(
    "names",
    [
        None,
        [x509.DNSName("haina:node:hospital-a")],
        [uri("haina:node:a"), uri("haina:operator:a")],
        [uri("haina:node:a"), uri("https://example.org")],
        [uri("haina:root:a")],
        [uri("haina:node:")],
        [uri("haina:node:../../etc")],
        [uri("haina:node:a\n")],
        [uri("haina:node:a:b")],
        [uri("HAINA:node:a")],
        [uri("haina:node:" + "a" * 64)],
        [uri("xhaina:node:a")],
    ],
)
def test_a_certificate_that_names_nobody_or_several_is_refused(names: list[x509.GeneralName] | None) -> None:
    with pytest.raises(TrustError):
        caller_of(certificate_with(names))


WHOLE = certificate_with([uri("haina:node:a")])


@given(damage)
@settings(max_examples=500)
def test_a_damaged_certificate_gives_a_typed_error_or_another_reading(harm: Harm) -> None:
    for read in (caller_of, fingerprint):
        with suppress(TrustError):
            read(damaged(WHOLE, harm))


@given(st.one_of(st.binary(max_size=200), st.text(max_size=200)))
def test_junk_is_no_certificate(junk: bytes | str) -> None:
    pem = f"-----BEGIN CERTIFICATE-----\n{junk!r}\n-----END CERTIFICATE-----\n"
    for text in (junk, pem):
        with pytest.raises(TrustError):
            fingerprint(text)
        with pytest.raises(TrustError):
            caller_of(text)


def test_a_fingerprint_is_of_the_certificate_however_it_is_written(authority: Authority) -> None:
    loaded = load_certificate(authority.authority_pem)
    assert fingerprint(authority.authority_pem) == fingerprint(loaded.public_bytes(Encoding.DER))
    assert fingerprint(authority.authority_pem) == loaded.fingerprint(hashes.SHA256()).hex()


# ---------------------------------------------------------------------------------------------- credentials


def test_credentials_renew_at_two_thirds_of_their_life(authority: Authority) -> None:
    credentials = enrol(authority)
    begins = int(NOW - SKEW)
    assert credentials.expires == int(NOW + CLIENT_LIFE)
    edge = begins + (credentials.expires - begins) * 2 / 3
    assert not credentials.due(edge - 1)
    assert credentials.due(edge)


def test_credentials_that_do_not_hold_together_cannot_be_made(authority: Authority, tmp_path: Path) -> None:
    one, two = enrol(authority), enrol(authority)
    with pytest.raises(TrustError, match="belong together"):
        Credentials(one.key, two.certificate, one.authority)
    other = Authority.open(tmp_path, lambda: NOW)
    with pytest.raises(TrustError, match="not issued by the authority"):
        Credentials(one.key, one.certificate, other.authority_pem.encode())


def test_an_authority_whose_own_signature_is_broken_is_damage(signer: Credentials) -> None:
    whole = load_certificate(signer.authority)
    broken = bytearray(whole.public_bytes(Encoding.DER))
    broken[-1] ^= 1
    pem = x509.load_der_x509_certificate(bytes(broken)).public_bytes(Encoding.PEM)
    with pytest.raises(TrustError, match="not issued by the authority"):
        Credentials(signer.key, signer.certificate, pem)


def test_a_key_of_another_kind_is_refused() -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(TrustError, match="P-256"):
        request(pem, "a")


def test_a_key_is_not_shown(authority: Authority) -> None:
    credentials = enrol(authority)
    secret = credentials.key.splitlines()[1].decode()
    assert secret not in repr(credentials)
    assert "PRIVATE" not in repr(credentials)


def test_an_identity_is_saved_for_its_owner_alone(authority: Authority, tmp_path: Path) -> None:
    credentials = enrol(authority)
    folder = tmp_path / "new" / "node"
    credentials.save(folder)
    assert Credentials.load(folder) == credentials
    assert [path.name for path in folder.iterdir()] == [Credentials.FILE]
    assert stat.S_IMODE((folder / Credentials.FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / Credentials.FILE).chmod(0o604)
    with pytest.raises(TrustError, match="chmod 600"):
        Credentials.load(folder)


def test_a_missing_identity_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="haina join"):
        Credentials.load(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(harm=damage)
def test_a_damaged_identity_is_never_another(harm: Harm, signer: Credentials, tmp_path: Path) -> None:
    signer.save(tmp_path)
    path = tmp_path / Credentials.FILE
    path.write_bytes(damaged(path.read_bytes(), harm))
    # A changed line end is no damage.
    with suppress(TrustError):
        assert Credentials.load(tmp_path) == signer


def test_a_kill_during_renewal_leaves_the_old_identity_or_the_new(
    authority: Authority, tmp_path: Path
) -> None:
    old, new = enrol(authority), enrol(authority)
    old.save(tmp_path)
    seen = []
    for _ in deaths(lambda: new.save(tmp_path)):
        seen.append(Credentials.load(tmp_path))
        assert seen[-1] in (old, new)
        old.save(tmp_path)
    assert Credentials.load(tmp_path) == old or seen
    assert old in seen
    assert new in seen
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_a_newcomer_asks_again_with_the_same_key_until_it_has_an_answer(
    authority: Authority, tmp_path: Path
) -> None:
    keys = {pending_key(tmp_path) for _ in deaths(lambda: pending_key(tmp_path))}
    assert len(keys) == 1
    key = keys.pop()
    certificate = authority.issue(request(key, "a"), "a", Role.NODE, NOW)
    Credentials(key, certificate.encode(), authority.authority_pem.encode()).save(tmp_path)
    assert Credentials.load(tmp_path).key == key
    assert pending_key(tmp_path) != key


# ---------------------------------------------------------------------------------------------- signatures

numbers = st.one_of(
    st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none()
)
values = st.recursive(
    st.one_of(numbers, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,9}", fullmatch=True)
counts = st.integers(0, 2**63 - 1)
fields = {
    "node": names,
    "federation": names,
    "round": counts,
    "version": counts,
    "sha256": st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    "bytes": counts,
    "codec": st.sampled_from(["float32", "bf16", "int8", "topk", "raw"]),
    "length": counts,
    "report": st.dictionaries(st.text(max_size=8), values, max_size=4),
}
manifests = st.builds(Manifest, **fields)


@given(manifest=manifests)
def test_what_was_signed_is_proven_also_after_its_way_over_the_wire(
    manifest: Manifest, signer: Credentials
) -> None:
    signed = sign(signer.key, manifest.model_copy(update={"node": "hospital-a"}))
    assert verify(der(signer), signed)
    assert verify(der(signer), Manifest.model_validate_json(signed.model_dump_json()))


@given(manifest=manifests, field=st.sampled_from(sorted(fields)), data=st.data())
@settings(max_examples=300)
def test_any_changed_field_breaks_the_signature(
    manifest: Manifest, field: str, data: st.DataObject, signer: Credentials
) -> None:
    signed = sign(signer.key, manifest.model_copy(update={"node": "hospital-a"}))
    value = data.draw(fields[field].filter(lambda other: other != getattr(signed, field)))
    assert not verify(der(signer), signed.model_copy(update={field: value}))


def test_every_field_of_a_manifest_is_covered() -> None:
    assert set(Manifest.model_fields) == {*fields, "signature"}


@given(one=manifests, two=manifests)
def test_no_two_manifests_share_their_bytes(one: Manifest, two: Manifest) -> None:
    assert (one == two) or signed_bytes(one) != signed_bytes(two)


def test_the_weight_cannot_be_moved_into_another_field() -> None:
    base = {"node": "n", "federation": "f", "round": 1, "version": 11, "sha256": "0" * 64, "bytes": 1}
    texts = {
        signed_bytes(Manifest(**{**base, **change, "report": report}))
        for change in ({}, {"round": 11, "version": 1}, {"node": "nf", "federation": "f"})
        for report in (
            {"examples": 1},
            {"examples": "1"},
            {"examples": True},
            {"examples": [1]},
            {"a": {"examples": 1}},
        )
    }
    assert len(texts) == 15


def test_the_signed_bytes_are_what_the_documentation_says() -> None:
    manifest = Manifest(
        node="n", federation="f", round=3, version=2, sha256="0" * 64, bytes=8, codec="bf16", length=4,
        report={"steps": 5.0, "examples": 0.5, "extra": {"é": 1}}, signature="ignored",
    )  # fmt: skip
    expected = 'haina manifest 1\n["n","f",3,2,"' + "0" * 64
    expected += '",8,"bf16",4,{"examples":0.5,"extra":{"\\u00e9":1},"steps":5}]'
    assert signed_bytes(manifest) == expected.encode()
    assert json.loads(expected.split("\n")[1])[0] == "n"


def test_only_the_node_itself_can_sign_for_it(authority: Authority, signer: Credentials) -> None:
    other = enrol(authority, "hospital-b")
    manifest = Manifest(
        node="hospital-a", federation="f", round=1, version=1, sha256="0" * 64, bytes=1, report={}
    )
    assert verify(der(signer), sign(signer.key, manifest))
    assert not verify(der(signer), sign(other.key, manifest))
    assert not verify(der(other), sign(other.key, manifest))


@given(signature=st.text(max_size=200), junk=st.binary(max_size=50))
def test_a_signature_that_is_none_is_false_and_never_an_error(
    signature: str, junk: bytes, signer: Credentials
) -> None:
    manifest = Manifest(
        node="hospital-a",
        federation="f",
        round=1,
        version=1,
        sha256="0" * 64,
        bytes=1,
        report={},
        signature=signature,
    )
    assert not verify(der(signer), manifest)
    assert not verify(junk, sign(signer.key, manifest))


def test_a_report_nested_beyond_reason_is_false_and_never_an_error(signer: Credentials) -> None:
    deep: dict[str, object] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    manifest = Manifest(
        node="hospital-a", federation="f", round=1, version=1, sha256="0" * 64, bytes=1, report={}
    )
    assert not verify(der(signer), manifest.model_copy(update={"report": deep, "signature": "AAAA"}))
