"""`haina federation`: start, pause or stop one; what it found."""

from __future__ import annotations

from typing import Literal

from haina.cli.reach import Where, the_federation
from haina.cli.talk import data, json_line, say
from haina.errors import RunError


def command(
    where: Where, name: str | None, order: Literal["start", "pause", "stop"], why: str, *, as_json: bool
) -> None:
    """Tell a federation what to do."""
    with where.api() as api:
        told = api.command(the_federation(api, name), order, why)
    if as_json:
        json_line(told.model_dump(mode="json"))
    else:
        say(f"{told.name} is {told.state}, {told.closed} of {told.rounds} rounds closed")


def result(where: Where, name: str | None, *, as_json: bool) -> None:
    """Write what an exact learner found."""
    with where.api() as api:
        name = the_federation(api, name)
        (told,) = (federation for federation in api.federations() if federation.name == name)
    if as_json:
        json_line({"federation": name, "state": told.state, "result": told.result})
    elif told.result:
        data(told.result)
    else:
        raise RunError(
            f"{name} is {told.state} and has said nothing",
            allowed="a finished federation of an exact learner (glm)",
            remedy=f"See how it stands: haina rounds {name}",
        )
