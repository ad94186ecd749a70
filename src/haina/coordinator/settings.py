"""Dynamic settings as they stand: an append-only log of changes, replayed.

A change says which keys of one scope get which values; None takes a scope's own value away. What holds at a version is the log up to there, without
the changes that have expired by the time of its newest entry. So a version means the same for ever and on every replica, an override that ends gives
back whatever is beneath it then, and a roll-back is one entry that says "go on from version N".

The trap: the end of an override changes what holds, and nodes ask by version. `expire` appends an entry that changes nothing but the version and the
time; until then the override stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Protocol

from haina.coordinator.static import StaticSettings
from haina.coordinator.store.rows import Conflict, SettingRow
from haina.errors import ConfigError, HainaError
from haina.wire.messages import Settings, SettingsChange, SettingsEntry
from haina.wire.refusal import Refusal
from haina.wire.settings import GLOBAL_ONLY, check, effective, schema

#: The scope of a roll-back, which concerns all scopes.
ALL = "all"
#: Who appends the end of an override.
_ITSELF = "haina"
_WHOLE = 1 << 31
_SCOPE = re.compile(r"global|(group|node):[A-Za-z0-9][A-Za-z0-9_-]{0,62}")

Own = Mapping[str, Mapping[str, Any]]


class Log(Protocol):
    """Where changes are written (`haina.coordinator.store.Store`)."""

    def append_setting(
        self,
        scope: str,
        values: Mapping[str, Any],
        *,
        expect: int | None,
        who: str,
        why: str = "",
        expires: float | None = None,
    ) -> SettingRow | Conflict:
        """Append one change, under the next version; `Conflict` where the scope has changed since version `expect`."""

    def settings_log(self, last: int) -> list[SettingRow]:
        """The last changes, oldest first."""


def replay(rows: Sequence[SettingRow], when: float) -> Own:
    """Own values of each scope after all changes but those that have expired by `when`.

    Args:
        rows: the log from its beginning; versions 1, 2, 3.
        when: seconds since 1970.
    """
    past: list[Own] = [{}]
    for row in rows:
        own = past[-1]
        if row.scope == ALL:
            own = past[row.values["version"]]
        elif row.expires is None or row.expires > when:
            values = {**own.get(row.scope, {}), **row.values}
            own = {**own, row.scope: {key: value for key, value in values.items() if value is not None}}
        past.append(own)
    return past[-1]


@dataclass(frozen=True)
class _Standing:
    """The log, and what follows from it."""

    rows: Sequence[SettingRow]
    when: float
    own: Own
    told: dict[tuple[str | None, str | None], Settings] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: Sequence[SettingRow]) -> _Standing:
        when = max((row.when for row in rows), default=0.0)
        return cls(rows, when, replay(rows, when))

    @property
    def version(self) -> int:
        return len(self.rows)


class SettingsService:
    """Dynamic settings over a log. Every read is of one immutable standing, so calls may come from any thread.

    Args:
        log: where changes are written.
        clock: seconds since 1970.

    Raises:
        HainaError: the log cannot be read.
    """

    def __init__(self, log: Log, clock: Callable[[], float]) -> None:
        self._log, self._clock = log, clock
        self._stale = False
        self._lock = Lock()
        self._standing = self._read()

    # ------------------------------------------------------------------------------------------ reading

    def effective(self, node: str | None = None, group: str | None = None) -> Settings:
        """A value for every key, for one node: its own, its group's, the global one, the default. Cheap: does not wait for the log.

        After `forget` the log is read once; where that fails, what was known still holds.
        """
        if self._stale:
            self._stale = False
            try:
                self._refresh()
            except HainaError:
                self._stale = True
        standing = self._standing
        if (node, group) not in standing.told:
            scopes = ["global", *([f"group:{group}"] if group else []), *([f"node:{node}"] if node else [])]
            values = effective(*(standing.own.get(scope, {}) for scope in scopes))
            standing.told[node, group] = Settings(version=standing.version, values=values)
        return standing.told[node, group]

    def of_rounds(self) -> dict[str, Any]:
        """Settings of rounds and models; None where the federation file is to be followed."""
        values = self.effective().values
        return {key: values[key] for key in GLOBAL_ONLY}

    def shown(self, scope: str, group: str | None = None) -> dict[str, Any]:
        """What an operator sees of a scope: `{"version", "values", "own", "schema"}`.

        Args:
            scope: `global`, `group:NAME` or `node:NAME`.
            group: of a node.
        """
        _check_scope(scope)
        self._refresh()
        kind, _, name = scope.partition(":")
        node, group = (name if kind == "node" else None), (name if kind == "group" else group)
        settings = self.effective(node, group)
        own = dict(self._standing.own.get(scope, {}))
        return {"version": settings.version, "values": settings.values, "own": own, "schema": schema()}

    def log(self, last: int) -> list[SettingsEntry]:
        """The last changes, oldest first, each with what its keys were before it."""
        rows = self._refresh().rows
        return [_entry(rows[:place], rows[place]) for place in range(max(0, len(rows) - last), len(rows))]

    def forget(self) -> None:
        """Somebody has changed settings: read the log again when next asked."""
        self._stale = True

    # ------------------------------------------------------------------------------------------ changing

    def change(self, change: SettingsChange, who: str) -> SettingsEntry:
        """Change settings of one scope; with `dry_run` only say what would change.

        Raises:
            Refusal: static: the key is read at start only; invalid: an unknown key, a value out of bounds, a setting of rounds in a scope
                other than global; version: settings have changed since the version expected.
        """
        _check_scope(change.scope)
        values = _checked(change)
        standing = self._refresh()
        if change.expect not in (None, standing.version):
            raise _moved(change.expect, standing.version)
        now = self._clock()
        expires = None if change.hours is None else now + change.hours * 3600
        if change.dry_run:
            row = SettingRow(standing.version + 1, change.scope, values, who, now, change.why, expires)
            return _entry(standing.rows, row)
        return self._append(change.scope, values, change.expect, who, change.why, expires)

    def rollback(self, version: int, who: str, why: str = "") -> SettingsEntry:
        """Go on from an old version, in all scopes: a new version with the old content. Overrides that have expired since stay ended.

        Raises:
            Refusal: not_found: there is no such version.
        """
        newest = self._refresh().version
        if not 0 <= version <= newest:
            raise Refusal(
                "not_found", f"there is no version {version} of the settings", allowed=f"0 to {newest}"
            )
        return self._append(ALL, {"version": version}, None, who, why, None)

    @property
    def next_expiry(self) -> float | None:
        """When `expire` will have something to do, in seconds since 1970; None for never, as far as is known."""
        ends = [row.expires for row in self._standing.rows if row.expires is not None]
        return min((end for end in ends if end > self._standing.when), default=None)

    def expire(self) -> SettingsEntry | None:
        """Let overrides end whose time has come. Returns the entry that says so, if there was any; of several replicas, one appends it."""
        due = self.next_expiry
        if due is None or self._clock() < due:
            return None
        standing = self._refresh()
        ended = [row for row in standing.rows if standing.when < (row.expires or 0) <= self._clock()]
        if not ended:
            return None
        versions = ", ".join(str(row.version) for row in ended)
        why = f"version {versions} has come to its end"
        with suppress(Refusal):
            return self._append(ended[-1].scope, {}, standing.version, _ITSELF, why, None)
        return None

    # ------------------------------------------------------------------------------------------ the log

    def _append(
        self,
        scope: str,
        values: Mapping[str, Any],
        expect: int | None,
        who: str,
        why: str,
        expires: float | None,
    ) -> SettingsEntry:
        row = self._log.append_setting(scope, values, expect=expect, who=who, why=why, expires=expires)
        rows = self._refresh().rows
        if isinstance(row, Conflict):
            raise _moved(expect, len(rows))
        return _entry(rows[: row.version - 1], row)

    def _refresh(self) -> _Standing:
        standing = self._read()
        with self._lock:
            # Another thread may have begun later and come back earlier.
            if standing.version >= self._standing.version:
                self._standing = standing
        return standing

    def _read(self) -> _Standing:
        return _Standing.of(self._log.settings_log(_WHOLE))


def _entry(earlier: Sequence[SettingRow], row: SettingRow) -> SettingsEntry:
    """A change as people see it, with what its keys were just before it."""
    if row.scope == ALL:
        before: dict[str, Any] = {"version": row.version - 1}
    else:
        own = replay(earlier, row.when).get(row.scope, {})
        before = {key: own.get(key) for key in row.values}
    return SettingsEntry(**vars(row), before=before)


def _check_scope(scope: str) -> None:
    if not _SCOPE.fullmatch(scope):
        raise Refusal("invalid", f"the scope is {scope!r}", allowed="global, group:NAME, node:NAME")


def _checked(change: SettingsChange) -> dict[str, Any]:
    if not change.values:
        raise Refusal("invalid", "the change names no setting", allowed="at least one key and its value")
    for key in change.values:
        if key in StaticSettings.model_fields:
            raise Refusal(
                "static",
                f"{key} is static",
                remedy="Change it in the file, the environment or the command line of the coordinator, and restart it",
            )
        if key in GLOBAL_ONLY and change.scope != "global":
            raise Refusal(
                "invalid",
                f"{key} holds for whole rounds, and the scope is {change.scope}",
                allowed="the scope global",
            )
    try:
        return check(change.values)
    except ConfigError as error:
        raise Refusal("invalid", error.what, allowed=error.allowed, remedy=error.remedy) from error


def _moved(expected: int | None, version: int) -> Refusal:
    return Refusal(
        "version",
        f"version {expected} of the settings was expected, and version {version} is in force",
        allowed=str(version),
        remedy="Look at the settings again, then repeat the change if it is still wanted",
    )
