"""`haina config`: settings that may change while everything runs, in three scopes, with a log and a way back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from haina.cli.reach import Where
from haina.cli.talk import data, json_line, say, shown, when
from haina.errors import ConfigError
from haina.monitoring.text import plain
from haina.wire.messages import SettingsChange, SettingsEntry
from haina.wire.refusal import checked


def get(where: Where, scope: str, *, as_json: bool) -> None:
    """Show the settings of a scope as they hold, and which of them are its own."""
    with where.api() as api:
        found = api.settings(scope)
    if as_json:
        json_line(found)
        return
    table = Table(title=f"{scope}, version {found['version']}", title_justify="left", header_style="bold")
    for name in ("setting", "value", "said here", "meaning"):
        table.add_column(name, overflow="fold")
    about = found["schema"].get("properties", {})
    for key, value in sorted(found["values"].items()):
        meaning = about.get(key, {}).get("description", "")
        table.add_row(key, json.dumps(value), "yes" if key in found["own"] else "", meaning)
    shown(table)


def change(
    where: Where,
    pairs: Sequence[str],
    scope: str,
    *,
    expect: int | None,
    why: str,
    hours: float | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Change settings of a scope."""
    values = dict(_pair(pair) for pair in pairs)
    if len(values) < len(pairs):
        raise ConfigError("a setting is given twice", allowed="each once")
    wish = checked(
        SettingsChange,
        {"scope": scope, "values": values, "expect": expect, "why": why, "hours": hours, "dry_run": dry_run},
    )
    with where.api() as api:
        entry = api.configure(wish)
    if as_json:
        json_line(entry.model_dump(mode="json"))
        return
    data(_line(entry))
    if dry_run:
        say("Nothing was changed (--dry-run)")


def log(where: Where, last: int, *, as_json: bool) -> None:
    """Who changed what, when and why."""
    with where.api() as api:
        entries = api.settings_log(last)
    if as_json:
        json_line([entry.model_dump(mode="json") for entry in entries])
    else:
        for entry in entries:
            data(_line(entry))


def rollback(where: Where, version: int, why: str, *, as_json: bool) -> None:
    """Go on from an old version."""
    with where.api() as api:
        entry = api.settings_rollback(version, why)
    if as_json:
        json_line(entry.model_dump(mode="json"))
    else:
        say(f"Settings are again as at version {version}; this is version {entry.version}")


def schema(where: Where, *, as_json: bool) -> None:
    """What can be set, as a JSON schema."""
    with where.api() as api:
        found = api.settings("global")["schema"]
    if as_json:
        json_line(found)
    else:
        data(json.dumps(found, indent=2))


def scope_of(node: str | None, group: str | None) -> str:
    """The scope that two options say.

    Raises:
        ConfigError: both are given.
    """
    if node is not None and group is not None:
        raise ConfigError(
            "--node and --group exclude each other", allowed="one of them, or none for all nodes"
        )
    return f"node:{node}" if node is not None else f"group:{group}" if group is not None else "global"


def _pair(text: str) -> tuple[str, Any]:
    """`KEY=VALUE`: a number, true, false, or words; `KEY=` or null takes the scope's own value away."""
    key, mark, value = text.partition("=")
    if not key or not mark:
        raise ConfigError(f"{text!r} sets nothing", allowed="KEY=VALUE, such as report_interval=30s")
    try:
        return key, json.loads(value) if value else None
    except ValueError:
        return key, value


def _line(entry: SettingsEntry) -> str:
    changes = ", ".join(
        f"{plain(key, 40)} {json.dumps(entry.before.get(key))} -> {json.dumps(value)}"
        for key, value in entry.values.items()
    )
    until = "" if entry.expires is None else f", until {when(entry.expires)}"
    why = f": {plain(entry.why)}" if entry.why else ""
    return (
        f"{entry.version}  {when(entry.when)}  {plain(entry.who, 63)}  {entry.scope}  {changes}{until}{why}"
    )
