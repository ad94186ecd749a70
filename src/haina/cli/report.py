"""`haina report`: pictures and a page that explain a run."""

from __future__ import annotations

from pathlib import Path

from haina.cli.talk import console, data, json_line
from haina.errors import HainaError
from haina.federation import Federation
from haina.monitoring.page import write
from haina.simulation.rundir import RunDir


def report(folder: Path, out: Path | None, threshold: float, *, as_json: bool) -> None:
    """Write the page and its pictures, and print where they are."""
    run = RunDir(folder)
    with console.status("Drawing"):
        files = write(run, out, _hostile(run), threshold=threshold)
    if as_json:
        json_line([str(file) for file in files])
        return
    for file in files:
        data(str(file))


def _hostile(run: RunDir) -> frozenset[str]:
    """The attackers of a simulation; nobody when its data cannot be read any more."""
    try:
        return Federation.of(run.federation()).simulation().hostile
    except HainaError:
        return frozenset()
