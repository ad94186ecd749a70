"""`haina runs`: what simulations have learnt, and by which bytes it is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from haina.artifact import sha256
from haina.cli.run import profile_table
from haina.cli.talk import console, data, json_line, shown
from haina.errors import RunError
from haina.monitoring.profile import Profile
from haina.simulation.rundir import RunDir


def runs(path: Path, *, as_json: bool) -> None:
    """List the newest and the best model of each run."""
    found = [entry for folder in _runs(path) for entry in _models(folder)]
    if as_json:
        json_line(found)
        return
    table = Table(header_style="bold")
    for name in ("run", "model", "round", "accuracy", "loss", "SHA-256"):
        table.add_column(name, overflow="fold")
    for entry in found:
        numbers = ["" if entry[name] is None else f"{entry[name]:.4f}" for name in ("accuracy", "loss")]
        table.add_row(entry["run"], entry["model"], str(entry["round"]), *numbers, entry["sha256"][:16])
    console.print(table)
    for entry in found:
        data(f"{entry['sha256']}  {entry['path']}")


def profiles(path: Path, *, as_json: bool) -> None:
    """Say where the time of each run went."""
    found = {folder.name: RunDir(folder).records() for folder in _runs(path)}
    told = {name: Profile.of(records) for name, records in found.items() if records}
    if as_json:
        json_line({name: profile.to_json() for name, profile in told.items()})
        return
    for name, profile in told.items():
        table = profile_table(profile)
        table.title = f"{name}: {table.title}"
        shown(table)


def _runs(path: Path) -> list[Path]:
    folders = (
        [path]
        if (path / "federation.toml").exists()
        else sorted(p.parent for p in path.glob("*/rounds.jsonl"))
    )
    if not folders:
        raise RunError(f"there are no runs in {path}", remedy="Start one with: haina run federation.toml")
    return folders


def _models(path: Path) -> list[dict[str, Any]]:
    folder = RunDir(path)
    rounds = {record.model: record for record in folder.records()}
    found = []
    for name in ("model", "best"):
        try:
            digest = sha256(folder.model(name))
        except RunError:
            continue
        record = rounds.get(digest)
        metrics = {} if record is None else record.metrics
        found.append(
            {
                "run": path.name,
                "model": "newest" if name == "model" else name,
                "round": None if record is None else record.round,
                "accuracy": metrics.get("accuracy"),
                "loss": metrics.get("loss"),
                "sha256": digest,
                "path": str(path / f"{name}.safetensors"),
            }
        )
    return found
