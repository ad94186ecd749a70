import json
import stat
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from damage import damage, damaged
from deaths import deaths
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haina.coordinator.authority import Authority, new_token
from haina.errors import TrustError
from haina.wire import invitation
from haina.wire.messages import Invitation, Role

NOW = 1_800_000_000.0
Harm = tuple[list[tuple[float, int]], float]


def at(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


@pytest.fixture(scope="module")
def invited(tmp_path_factory: pytest.TempPathFactory) -> Invitation:
    authority = Authority.open(tmp_path_factory.mktemp("authority"), lambda: NOW)
    return Invitation(
        name="hospital-a",
        role=Role.NODE,
        federation="mortality",
        http="https://fl.example.org:8443",
        grpc="fl.example.org:8444",
        authority=authority.authority_pem,
        fingerprint=authority.fingerprint,
        token=new_token()[0],
        expires=at(NOW + 3600),
    )


def test_an_invitation_comes_back_as_it_was_written(invited: Invitation, tmp_path: Path) -> None:
    path = tmp_path / "hospital-a.invite"
    invitation.write(path, invited)
    assert invitation.read(path, NOW) == invited
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["haina_invitation"] == 1


def refusal(path: Path, now: float = NOW) -> str:
    with pytest.raises(TrustError) as caught:
        invitation.read(path, now)
    return str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "nowhere.invite cannot be read (No such file" in refusal(tmp_path / "nowhere.invite")


MARKED = [b'{"haina_invitation": %s}' % version for version in (b"true", b"0", b'"1"', b"1.0", b"null")]
LONG = b'{"haina_invitation": 1, "name": "' + b"a" * 70_000 + b'"}'


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"1", b"\xff\xfe", b"[" * 60_000, LONG, *MARKED])
def test_what_is_no_invitation_is_called_so(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x.invite"
    path.write_bytes(content)
    assert "is not an invitation" in refusal(path)


def changed(tmp_path: Path, invited: Invitation, **changes: object) -> Path:
    path = tmp_path / "x.invite"
    invitation.write(path, invited)
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return path


def test_an_expired_one_says_since_when(invited: Invitation, tmp_path: Path) -> None:
    path = changed(tmp_path, invited)
    assert invitation.read(path, NOW + 3599) == invited
    assert f"expired at {invited.expires}" in refusal(path, NOW + 3600)


def test_a_newer_format_asks_for_a_newer_version(invited: Invitation, tmp_path: Path) -> None:
    assert "format 2" in refusal(changed(tmp_path, invited, haina_invitation=2, name=["unlike", "today's"]))


def test_fields_added_later_are_ignored(invited: Invitation, tmp_path: Path) -> None:
    assert invitation.read(changed(tmp_path, invited, colour="green"), NOW) == invited


def test_an_authority_without_its_fingerprint_is_not_used(invited: Invitation, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", lambda: NOW)
    assert "fingerprint" in refusal(changed(tmp_path, invited, authority=other.authority_pem))
    assert "fingerprint" in refusal(changed(tmp_path, invited, fingerprint="0" * 64))
    assert "certificate cannot be read" in refusal(changed(tmp_path, invited, authority="no PEM"))


@pytest.mark.parametrize("field", list(Invitation.model_fields))
def test_a_field_that_is_missing_or_odd_is_named_and_the_token_is_not(
    field: str, invited: Invitation, tmp_path: Path
) -> None:
    for value in (..., ["odd"], {"odd": 1}):
        try:
            invitation.read(changed(tmp_path, invited, **{field: value}), NOW)
        except TrustError as error:
            text = repr((str(error), error.__cause__, error.__suppress_context__ or error.__context__))
            assert f"(in: {field})" in text
            assert invited.token not in text
        else:
            pytest.fail("was read")


@pytest.mark.parametrize("expires", ["soon", "", "2030-01-01T00:00:00", "99999-01-01T00:00:00Z"])
def test_a_moment_that_is_none_does_not_last_for_ever(
    expires: str, invited: Invitation, tmp_path: Path
) -> None:
    assert "expire" in refusal(changed(tmp_path, invited, expires=expires))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(harm=damage)
def test_damage_is_a_typed_error(harm: Harm, invited: Invitation, tmp_path: Path) -> None:
    path = tmp_path / "x.invite"
    invitation.write(path, invited)
    path.write_bytes(damaged(path.read_bytes(), harm))
    with suppress(TrustError):
        read = invitation.read(path, NOW)
        # The part by which the coordinator is known is as it was, or damage was in its spelling only.
        assert read.fingerprint == invited.fingerprint


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(junk=st.binary(max_size=300))
def test_junk_is_a_typed_error(junk: bytes, tmp_path: Path) -> None:
    path = tmp_path / "junk.invite"
    path.write_bytes(junk)
    assert "is not an invitation" in refusal(path)


def test_a_kill_leaves_no_half_of_an_invitation(invited: Invitation, tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.invite"
    for _ in deaths(lambda: invitation.write(path, invited)):
        assert not path.exists() or invitation.read(path, NOW) == invited
        path.unlink(missing_ok=True)


def test_a_place_that_cannot_be_written_is_a_typed_error(invited: Invitation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrustError, match="cannot be written"):
        invitation.write(tmp_path / "file" / "x.invite", invited)
