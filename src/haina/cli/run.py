"""`haina run`: a live table and a bar while it goes, one summary at the end."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from haina.cli.talk import console, data, json_line, say
from haina.errors import ConfigError, RunError
from haina.federation import Federation
from haina.federation.runner import play
from haina.monitoring.summary import summary
from haina.monitoring.table import COLUMNS, round_row
from haina.simulation.rundir import RunDir
from haina.strategy.record import Outcome, RoundRecord

#: Rounds in view on a terminal.
_WINDOW = 12


def run(
    file: Path,
    out: Path | None,
    *,
    resume: bool,
    overwrite: bool,
    workers: int | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Run a federation file to its end."""
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", allowed="one of them")
    federation = Federation.read(file)
    folder = RunDir(out or Path("runs") / federation.name)
    if resume:
        federation.check_same(Federation.of(folder.federation(), file.name, file.parent))
    federation.simulation()  # What is wrong with the file is said before a folder is made.
    with folder.alone():
        if overwrite:
            folder.clear()
        result = follow(federation, folder, workers=workers, resume=resume, quiet=quiet)
    if as_json:
        json_line(result)
    else:
        if folder.result():
            data(folder.result())
        accuracy = "" if result["accuracy"] is None else f"accuracy {result['accuracy']:.4f}  "
        data(
            f"{accuracy}loss {result['loss']:.4f}  model {result['model_sha256']}"
            if result["loss"] is not None
            else f"model {result['model_sha256']}"
        )
        if result["rounds"] and result["kept"] == result["rounds"]:
            raise RunError(
                f"no round of {result['rounds']} could make a model: {folder.records()[-1].reason}",
                remedy=f"Why, client by client: haina report {folder.path}",
            )
        if not quiet:
            say(f"The run is in {folder.path}. See why: haina report {folder.path}")


def follow(
    federation: Federation,
    folder: RunDir,
    *,
    workers: int | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Play a federation with a live view, and summarise it.

    Returns:
        rounds, accuracy, loss, model_sha256, seconds, peak_memory_mb, and more for people.
    """
    start = perf_counter()
    rounds = federation.settings.train.rounds
    try:
        with _view(rounds, quiet=quiet) as show:
            for record in play(federation, folder, workers=workers, resume=resume):
                show(record)
    except KeyboardInterrupt:
        file = federation.folder / federation.file
        say(f"\nStopped between rounds. Go on with: haina run {file} --resume --out {folder.path}")
        raise
    result = {
        **summary(folder.records()),
        "seconds": round(perf_counter() - start, 3),
        "peak_memory_mb": peak_memory_mb(),
    }
    folder.summarise(result)
    return result


@contextmanager
def _view(rounds: int, *, quiet: bool) -> Iterator[Any]:
    """A function to show a record with: a live table on a terminal, a line now and then in a log."""
    if quiet:
        yield lambda record: None
        return
    if not console.is_terminal:
        every = max(1, rounds // 10)

        def line(record: RoundRecord) -> None:
            if record.round % every == 0 or record.round == rounds or record.outcome is Outcome.KEPT:
                cells = zip(COLUMNS, round_row(record).cells(), strict=True)
                console.print("  ".join(f"{name} {cell}" for name, cell in cells if cell), soft_wrap=True)

        yield line
        return
    progress = Progress(
        TextColumn("[bold]Rounds"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        expand=True,
    )
    task = progress.add_task("rounds", total=rounds)
    recent: list[RoundRecord] = []
    with Live(progress, console=console, refresh_per_second=8) as live:

        def show(record: RoundRecord) -> None:
            recent.append(record)
            del recent[:-_WINDOW]
            progress.update(task, completed=record.round)
            live.update(Group(round_table(recent), progress))

        yield show


def round_table(records: list[RoundRecord]) -> Table:
    """The last rounds as a table for a terminal."""
    table = Table(expand=True, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for record in records:
        table.add_row(*round_row(record).cells(), style="yellow" if record.outcome is Outcome.KEPT else None)
    return table


def peak_memory_mb() -> float:
    """Largest resident memory so far of this process, or of one of its workers if that is larger, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return round(max(own, workers) * unit / 1e6, 1)
