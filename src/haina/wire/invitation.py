"""The `.invite` file: everything a newcomer needs to know its coordinator and to be known by it.

JSON of the `Invitation` message, with the version of the format under `haina_invitation`. The file is a secret until it is used: whoever brings its
one-time token first gets the certificate. Error messages never repeat the token.

The trap: the fingerprint is compared with the authority in the same file, which finds damage but no forger. A forger is found by a person who
compares the fingerprint with the coordinator's own, over another channel.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from haina.errors import TrustError
from haina.wire.identity import fingerprint
from haina.wire.messages import Invitation
from haina.wire.secret import MAX_FILE, write_secret

#: Grows when an older reader could not make sense of the file.
FORMAT = 1
_MARK = "haina_invitation"
_AGAIN = "Ask the operator for a new one (haina invite)"


def write(path: Path, invitation: Invitation) -> None:
    """Write an invitation for its owner alone (0600), in one step."""
    content = {_MARK: FORMAT, **invitation.model_dump(mode="json")}
    write_secret(path, (json.dumps(content, indent=1) + "\n").encode())


def read(path: Path, now: float) -> Invitation:
    """The invitation in a file.

    Args:
        path: the file.
        now: seconds since 1970, to tell whether it is still good.

    Raises:
        TrustError: the file is missing, no invitation, of a newer format, damaged, or expired.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise TrustError(f"the invitation {path} cannot be read ({error.strerror})", remedy=_AGAIN) from error
    version, content = _content(path, data)
    if version > FORMAT:
        raise TrustError(
            f"{path} is an invitation of format {version}",
            allowed=f"formats up to {FORMAT}",
            remedy="It comes from a newer Haina; install that version here",
        )
    try:
        invitation = Invitation.model_validate(content)
        until = datetime.fromisoformat(invitation.expires)
    except ValidationError as error:
        # Not the error's own words, which repeat the values, and one of them is the token.
        wrong = ", ".join(sorted({str(fault["loc"][0]) for fault in error.errors() if fault["loc"]}))
        raise TrustError(f"the invitation {path} is damaged (in: {wrong})", remedy=_AGAIN) from None
    except ValueError:
        raise TrustError(f"the invitation {path} is damaged (in: expires)", remedy=_AGAIN) from None
    if fingerprint(invitation.authority) != invitation.fingerprint:
        raise TrustError(
            f"the authority in {path} does not have the fingerprint beside it",
            remedy=f"The file was damaged or changed on its way: do not use it. {_AGAIN}",
        )
    if until.tzinfo is None or until.timestamp() <= now:
        raise TrustError(f"the invitation {path} expired at {invitation.expires}", remedy=_AGAIN)
    return invitation


def _content(path: Path, data: bytes) -> tuple[int, dict[str, object]]:
    """The format's version, and the rest of the file."""
    try:
        content = json.loads(data) if len(data) <= MAX_FILE else None
    except (ValueError, RecursionError):
        content = None
    version = content.pop(_MARK, None) if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise TrustError(
            f"{path} is not an invitation", remedy=f"Name the .invite file that you were given. {_AGAIN}"
        )
    assert isinstance(content, dict)
    return version, content
