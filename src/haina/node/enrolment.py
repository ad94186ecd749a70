"""Enrolment: from an invitation to an identity, once; and from there on without the invitation.

What lies in a participant's folder, whatever its role:

    identity.pem        key, certificate, authority (`haina.wire.identity.Credentials`)
    coordinator.json    where the coordinator is, and which invitation was used (the SHA-256 of its token)
    pending-key.pem     between the first call and the answer to it

Later starts need neither the token nor the file. An invitation that is not the one that was used is a new one (a node was shut out and asked
back): it makes a new identity in the same folder, for the same name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from haina.errors import RunError, TrustError
from haina.node.link.http import enrol
from haina.wire import invitation
from haina.wire.identity import Credentials, pending_key, request
from haina.wire.messages import Invitation
from haina.wire.secret import write_secret


@dataclass(frozen=True)
class Address:
    """Where a coordinator is.

    Args:
        http: `https://HOST:PORT`.
        grpc: `HOST:PORT`.
        invitation: SHA-256 of the token that was used; empty where there was none.
    """

    http: str
    grpc: str
    invitation: str = ""

    FILE = "coordinator.json"

    @classmethod
    def load(cls, folder: Path) -> Self:
        """The address in a folder.

        Raises:
            TrustError: there is none, or it cannot be read.
        """
        path = folder / cls.FILE
        try:
            said = json.loads(path.read_text(encoding="utf-8"))
            return cls(str(said["http"]), str(said["grpc"]), str(said.get("invitation", "")))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise TrustError(
                f"{path} does not say where the coordinator is",
                remedy="Ask the operator for a new invitation and join again",
            ) from error

    def save(self, folder: Path) -> None:
        """Write it, in one step."""
        write_secret(folder / self.FILE, json.dumps(asdict(self)).encode())


def folder_of(where: Path, state: Path | None = None) -> Path:
    """The folder of a participant: the one that is named; or `haina-node-NAME` beside `NAME.invite`, so that it is found when the invitation is gone.

    Args:
        where: an invitation, or the folder itself.
        state: a folder that was named on purpose.
    """
    return state or (where if where.is_dir() else where.parent / f"haina-node-{where.stem}")


def unused(where: Path, folder: Path, now: float) -> Invitation | None:
    """The invitation with which an identity has yet to be made; None where the folder's own is to be used.

    Args:
        where: the invitation, which need not be there any more; or the folder.
        folder: of this participant, which has it alone.
        now: seconds since 1970.

    Raises:
        TrustError: there is neither an identity nor a usable invitation.
        RunError: the folder is another participant's.
    """
    whole = (folder / Credentials.FILE).exists()
    if where.is_dir() or (whole and not where.exists()):
        if not whole:
            raise TrustError(f"{folder} holds no identity", remedy="Join with an invitation first")
        return None
    if whole:
        # One that was used may have expired since.
        known, name = invitation.read(where, 0.0), Credentials.load(folder).name
        if known.name != name:
            raise RunError(
                f"{folder} belongs to {name}, and the invitation is for {known.name}",
                remedy="Name another folder (--state)",
            )
        if _mark(known) == Address.load(folder).invitation:
            return None
    return invitation.read(where, now)


def use(invited: Invitation, folder: Path) -> None:
    """Make the folder's identity with an invitation. One that was stopped before the answer was written down asks again, with the same key.

    Raises:
        Refusal: the coordinator does not take it.
        Unreachable: no answer came; with the same invitation it may be tried again.
    """
    key = pending_key(folder)
    answer = enrol(invited, request(key, invited.name))
    # The identity last: with it, the folder is whole.
    Address(invited.http, invited.grpc, _mark(invited)).save(folder)
    Credentials.enrolled(key, answer).save(folder)


def _mark(invited: Invitation) -> str:
    return hashlib.sha256(invited.token.encode()).hexdigest()
