"""`haina report`: pictures and a page that explain a run."""

from __future__ import annotations

from pathlib import Path

from haina.cli.talk import console, data, json_line
from haina.monitoring.page import write
from haina.simulation.rundir import RunDir


def report(folder: Path, out: Path | None, threshold: float, *, as_json: bool) -> None:
    """Write the page and its pictures, and print where they are."""
    with console.status("Drawing"):
        files = write(RunDir(folder), out or folder / "report", threshold)
    if as_json:
        json_line([str(file) for file in files])
        return
    for file in files:
        data(str(file))
