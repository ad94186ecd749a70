"""What both demos say when they are over: a run in words, its last round in words, and where the pictures are."""

from __future__ import annotations

from collections.abc import Collection

from haina.cli.talk import console, data
from haina.monitoring.explain import explain_round, explain_run
from haina.monitoring.page import write
from haina.simulation.rundir import RunDir


def told(folder: RunDir, hostile: Collection[str]) -> None:
    """Explain a run and draw it.

    Args:
        folder: of the run.
        hostile: clients known to attack.
    """
    records = folder.records()
    console.rule("[bold]What happened")
    console.print(explain_run(records), markup=False)
    console.rule(f"[bold]Who was weighed how in round {records[-1].round}, and why")
    console.print(explain_round(records), markup=False)
    with console.status("Drawing"):
        files = write(folder, hostile=hostile)
    console.rule("[bold]Pictures")
    for file in files:
        data(str(file))
