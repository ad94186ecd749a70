"""`haina models`: the versions that a federation has made; `fetch` brings one here, `rollback` goes back to one."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from haina.cli.reach import Where, counted, the_federation
from haina.cli.talk import data, json_line, say, shown, when
from haina.errors import ConfigError, RunError, Unreachable
from haina.monitoring.text import known, number, percent, plain
from haina.node.link.http import HttpLink
from haina.wire.messages import ModelInfo

if TYPE_CHECKING:
    from haina.node.link.api import Api


def models(where: Where, federation: str | None, *, as_json: bool) -> None:
    """List versions, oldest first."""
    with where.api() as api:
        found = api.models(the_federation(api, federation))
    if as_json:
        json_line([model.model_dump(mode="json") for model in found])
        return
    table = Table(header_style="bold")
    for name in ("version", "round", "parent", "accuracy", "loss"):
        table.add_column(name, justify="right")
    for name in ("made", "SHA-256", "note"):
        table.add_column(name, overflow="fold")
    for model in found:
        table.add_row(
            str(model.version),
            str(model.round),
            "" if model.parent is None else str(model.parent),
            percent(known(model.metrics, "accuracy")) if "accuracy" in model.metrics else "",
            number(known(model.metrics, "loss")) if "loss" in model.metrics else "",
            when(model.created),
            model.sha256,
            plain(model.note) if model.kept else f"bytes no longer kept. {plain(model.note)}".strip(),
            style=None if model.kept else "dim",
        )
    shown(table)


def fetch(where: Where, federation: str | None, version: int | None, out: Path, *, as_json: bool) -> None:
    """Bring the bytes of a version here, and check them."""
    if out.exists():
        raise RunError(f"{out} is there already", remedy="Remove it, or name another file (--out)")
    with where.api() as api:
        model = _version(api, the_federation(api, federation), version)
    draft = out.with_name(f".{out.name}.part")
    try:
        with where.reached(HttpLink) as link, draft.open("wb") as file:
            link.download(model.federation, model.sha256, file)
        with draft.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != model.sha256:
                raise Unreachable("the model came damaged", remedy="Fetch it again")
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    if as_json:
        json_line({"file": str(out), **model.model_dump(mode="json")})
    else:
        data(f"{model.sha256}  {out}")


def rollback(where: Where, words: Sequence[str], why: str, *, as_json: bool) -> None:
    """Make an earlier version the newest.

    Args:
        where: the coordinator.
        words: the federation, if it has to be named, and the version.
        why: for the audit log.
    """
    name, version = counted(words, "haina models rollback [FEDERATION] VERSION")
    with where.api() as api:
        new = api.rollback(the_federation(api, name), version, why)
    if as_json:
        json_line(new.model_dump(mode="json"))
    else:
        say(f"Version {new.version} of {new.federation} has the bytes of version {version}")


def _version(api: Api, federation: str, version: int | None) -> ModelInfo:
    found = {model.version: model for model in api.models(federation) if model.kept}
    if version is None and found:
        return found[max(found)]
    if version not in found:
        raise ConfigError(
            f"version {version} of {federation} is not kept", allowed=", ".join(map(str, found)) or "none"
        )
    return found[version]
