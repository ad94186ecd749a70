"""`haina invite`: one file that lets one participant in, once."""

from __future__ import annotations

from pathlib import Path

from haina.cli.reach import Where
from haina.cli.talk import data, json_line, say
from haina.errors import RunError
from haina.wire import invitation
from haina.wire.messages import Invite, Role
from haina.wire.refusal import checked


def invite(
    where: Where,
    name: str,
    *,
    federation: str | None,
    group: str | None,
    role: str,
    hours: float,
    out: Path | None,
    replace: bool,
    as_json: bool,
) -> None:
    """Ask for an invitation and write it into a file."""
    wish = checked(
        Invite,
        {
            "name": name,
            "role": role,
            "federation": federation,
            "group": group,
            "hours": hours,
            "replace": replace,
        },
    )
    path = out or Path(f"{name}.invite")
    if path.exists():
        raise RunError(f"{path} is there already", remedy="Remove it, or name another file (--out)")
    with where.api() as api:
        made = api.invite(wish)
    invitation.write(path, made)
    if as_json:
        json_line({"file": str(path), **made.model_dump(mode="json", exclude={"token", "authority"})})
        return
    data(str(path))
    say(
        f"Send this file to {name} over a channel that nobody else reads: until it is used, at most until {made.expires}, "
        "it is a secret. It works once."
    )
    say(f"There: haina join {path.name}" + (" --data patients.csv" if wish.role is Role.NODE else ""))
    say(f"They can compare the authority's fingerprint with yours by telephone: {made.fingerprint}")
