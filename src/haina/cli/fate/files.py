"""The files of `haina fate`: an export, and models in both directions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from haina.artifact import sha256
from haina.cli.talk import data, json_line, say
from haina.errors import ConfigError, DataError, RunError
from haina.interop.fate.convert import Kind, from_bytes, to_bytes
from haina.interop.fate.dag import dag
from haina.interop.fate.dsl import conf, dsl
from haina.interop.fate.job import HomoLr, Job, RTask, Site, Table
from haina.interop.fate.model import HomoLrModel, read_json, write_json
from haina.interop.fate.protobuf import LONGEST, read_message, write_message
from haina.interop.fate.recipe import federation
from haina.interop.fate.table import Written, upload_v1, upload_v2
from haina.interop.fate.table import export as write_table


@dataclass(frozen=True)
class Plan:
    """Whose rows, and where they go; see `haina fate export --help`."""

    files: Sequence[Path]
    out: Path
    label: str
    id: str | None
    features: tuple[str, ...]
    guest: int
    hosts: tuple[int, ...]
    arbiter: int | None
    namespace: str
    on_server: str | None
    site: str | None = None

    def sites(self) -> dict[str, Site]:
        """Sites by name: `guest`, then `host`, or `host_1`, `host_2` ... where there are several. The first have files here.

        Raises:
            ConfigError: more files than sites.
        """
        numbers = self.hosts or tuple(range(self.guest - 1, self.guest - len(self.files), -1))
        if len(self.files) > 1 + len(numbers):
            raise ConfigError(
                f"there are {len(self.files)} files, and {1 + len(numbers)} sites",
                allowed="one --host for each file after the first",
            )
        names = [
            "guest",
            *(["host"] if len(numbers) == 1 else [f"host_{i + 1}" for i in range(len(numbers))]),
        ]
        return {
            name: Site(party, Table(self.namespace, name))
            for name, party in zip(names, (self.guest, *numbers), strict=True)
        }


def export(
    plan: Plan,
    training: Mapping[str, Any],
    *,
    evaluate: bool,
    dataio: bool,
    r: tuple[str, float, str] | None,
    as_json: bool,
) -> None:
    """Write what FATE needs into a folder: tables and how to take them up; and the job with `federation.toml`, unless this is one site's part."""
    settings, task = HomoLr(**training), None if r is None else RTask(*r)
    sites = plan.sites() if plan.site is None else {}
    tables = {name: Table(plan.namespace, name) for name in ([*sites] or [str(plan.site)])[: len(plan.files)]}
    if len(tables) < len(plan.files):
        raise ConfigError(f"{len(plan.files)} files are given for --site {plan.site}", allowed="one")
    if len(sites) > len(tables) and settings.batch_size is None:
        raise ConfigError(
            f"the rows of {len(sites) - len(tables)} sites are elsewhere, so that nobody knows how many all rows are",
            allowed="--batch-size, for a full batch at least the rows of the largest site",
        )
    plan.out.mkdir(parents=True, exist_ok=True)
    columns, rows = _tables(plan, list(tables))
    home = (plan.on_server or str(plan.out.resolve())).rstrip("/")
    written: dict[str, Any] = {"columns.json": list(columns)}
    for name, table in tables.items():
        written[f"upload-1-{name}.json"] = upload_v1(f"{home}/{name}.csv", table)
        written[f"upload-2-{name}.json"] = upload_v2(f"{home}/{name}.csv", table)
    if sites:
        guest, *hosts = sites.values()
        arbiter = plan.arbiter or (hosts[0].party if hosts else guest.party)
        plain = Job(guest, hosts, arbiter, settings, max(rows.values()), evaluate)
        written["dag.json"] = dag(replace(plain, r=task))
        written["dsl.json"], written["conf.json"] = dsl(plain, dataio=dataio), conf(plain, dataio=dataio)
        if len(sites) == len(tables):
            features = [f"x{i}" for i in range(len(columns))]
            files = {name: f"{name}.csv" for name in sites}
            text = federation(settings, files, features, plain.batch)
            (plan.out / "federation.toml").write_text(text, encoding="utf-8")
    for name, document in written.items():
        (plan.out / name).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if as_json:
        json_line({"folder": str(plan.out), "rows": rows, "columns": list(columns)})
        return
    ours = ["federation.toml"] if len(sites) == len(tables) else []
    for name in sorted([*written, *(f"{name}.csv" for name in tables), *ours]):
        data(str(plan.out / name))
    say(f"FATE 2.x takes tables up: haina fate upload {plan.out}/upload-2-*.json")
    if sites:
        say(f"and runs the job: haina fate submit {plan.out}/dag.json")
    if ours:
        say(f"The same in Haina: haina run {plan.out}/federation.toml")
    if task is not None:
        say("The R task is in the job of 2.x only; FATE needs its component at each site (docs/fate.md)")


def import_model(file: Path, out: Path, kind: str, columns: Path | None, *, as_json: bool) -> None:
    """A model of FATE into a model of Haina."""
    raw, names = _read(file), _names(columns)
    # Neither a tag of that message nor anything else of 1.x begins with a brace.
    model = read_json(raw) if raw.lstrip()[:1] in (b"{", b"[") else read_message(raw)
    if names and _plain(model):
        model = model.named(names)
    made = to_bytes(model, cast(Kind, kind))
    _write(out, made)
    digest = sha256(made)
    if as_json:
        coefficients = dict(zip(model.names, model.weights, strict=True))
        json_line(
            {"file": str(out), "sha256": digest, "intercept": model.intercept, "coefficients": coefficients}
        )
        return
    for name, value in [("(Intercept)", model.intercept), *zip(model.names, model.weights, strict=True)]:
        say(f"{name:24} {value:.17g}")
    data(f"{digest}  {out}")


def export_model(file: Path, out: Path, version: int, columns: Path | None, *, as_json: bool) -> None:
    """A model of Haina into a model of FATE."""
    model = from_bytes(_read(file), _names(columns))
    made = write_message(model) if version == 1 else write_json(model).encode()
    _write(out, made)
    if as_json:
        json_line({"file": str(out), "bytes": len(made), "features": len(model.weights)})
    else:
        data(str(out))


def _plain(model: HomoLrModel) -> bool:
    """True where features are called x0, x1, ..., as in tables that were written here; a model of 1.x may have names of its own."""
    return model.names == tuple(f"x{i}" for i in range(len(model.names)))


def _tables(plan: Plan, names: Sequence[str]) -> tuple[tuple[str, ...], dict[str, int]]:
    """Write the tables: the columns, which are the guest's, and how many rows each site has."""
    written: dict[str, Written] = {}
    features, first = plan.features, 0
    for name, file in zip(names, plan.files, strict=True):
        target = plan.out / f"{name}.csv"
        written[name] = write_table(file, target, plan.label, id=plan.id, features=features, first=first)
        features, first = written[name].columns, first + written[name].rows
    return features, {name: one.rows for name, one in written.items()}


def _names(columns: Path | None) -> tuple[str, ...]:
    if columns is None:
        return ()
    try:
        names = json.loads(_read(columns))
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{columns} holds no list of names", allowed="the columns.json of an export")
    return tuple(names)


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise ConfigError(f"{file} is not there", allowed="a readable file", remedy="Check the path")
    if file.stat().st_size > LONGEST:
        raise ConfigError(f"{file} has {file.stat().st_size} bytes", allowed=f"at most {LONGEST}")
    return file.read_bytes()


def _write(file: Path, content: bytes) -> None:
    if file.exists():
        raise RunError(f"{file} is there already", remedy="Remove it, or name another file (--out)")
    file.write_bytes(content)


def document(file: Path) -> dict[str, Any]:
    """A JSON object in a file.

    Raises:
        ConfigError: it is none.
    """
    try:
        read = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{file} is not JSON",
            allowed="what `haina fate export` writes",
            remedy="YAML of FATE's own client: write it again as JSON",
        ) from error
    if not isinstance(read, dict):
        raise ConfigError(f"{file} holds no JSON object", allowed="a job or an upload configuration of FATE")
    return cast("dict[str, Any]", read)


def version_of(files: Sequence[Path]) -> Literal[1, 2]:
    """The version of FATE that files are for: 2 for a DAG, 1 for a DSL and its conf.

    Raises:
        ConfigError: another number of files.
    """
    if len(files) not in (1, 2):
        raise ConfigError(f"{len(files)} files are given", allowed="a DAG (2.x), or a DSL and its conf (1.x)")
    return 2 if len(files) == 1 else 1
