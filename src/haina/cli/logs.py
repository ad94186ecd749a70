"""`haina logs`: the audit log, who did what and what happened; `--follow` goes on with it as it grows, also over a restart of the coordinator."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

from haina.cli.reach import Where
from haina.cli.talk import data, json_line, say, when
from haina.errors import Unreachable
from haina.monitoring.text import plain
from haina.node.backoff import delays
from haina.wire.messages import AuditEntry

if TYPE_CHECKING:
    from haina.node.link.api import Api

#: Entries asked for at once when some were missed.
_MOST = 10_000


def logs(where: Where, last: int, federation: str | None, *, follow: bool, as_json: bool) -> None:
    """Print the newest entries, and those to come."""
    with where.api() as api:
        entries = api.audit(last)
        if not follow:
            chosen = [entry for entry in entries if _concerns(entry, federation)]
            if as_json:
                json_line([entry.model_dump(mode="json") for entry in chosen])
            else:
                for entry in chosen:
                    data(_line(entry))
            return
        for entry in _endless(api, entries):
            if _concerns(entry, federation):
                if as_json:
                    json_line(entry.model_dump(mode="json"))
                else:
                    data(_line(entry))


def _endless(api: Api, entries: list[AuditEntry]) -> Iterator[AuditEntry]:
    """These entries and all that follow. One that is missing before the next (written while nobody listened) is fetched."""
    yield from entries
    newest = entries[-1].id if entries else 0
    waits = delays(Random())  # noqa: S311 -- jitter, not a secret
    while True:
        try:
            for entry in api.follow():
                between = api.audit(min(entry.id - newest, _MOST)) if entry.id > newest + 1 else [entry]
                for missed in between:
                    if missed.id > newest:
                        yield missed
                        newest = missed.id
                waits = delays(Random())  # noqa: S311
        except Unreachable as error:
            wait = next(waits)
            say(f"{error} Trying again in {wait:.1f} s.")
            time.sleep(wait)


def _concerns(entry: AuditEntry, federation: str | None) -> bool:
    return federation is None or federation in (entry.subject, entry.detail.get("federation"))


def _line(entry: AuditEntry) -> str:
    detail = " ".join(
        f"{plain(name, 40)}={plain(value if isinstance(value, str) else json.dumps(value), 200)}"
        for name, value in entry.detail.items()
        if value not in ("", None)
    )
    return f"{when(entry.when)}  {plain(entry.who, 63)}  {plain(entry.action, 40)}  {plain(entry.subject, 63)}  {detail}".rstrip()
