"""`haina run`: a live table and a bar while it goes, one summary at the end, and where the time went if that is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

from haina.cli.talk import console, data, json_line, say, shown
from haina.errors import ConfigError, HainaError, LearnerError, RunError
from haina.federation import Federation
from haina.federation.answers import where
from haina.federation.runner import play
from haina.monitoring.profile import COLUMNS as PROFILE
from haina.monitoring.profile import Profile
from haina.monitoring.summary import summary
from haina.monitoring.table import COLUMNS, round_row
from haina.monitoring.text import duration, known, number, plural
from haina.simulation.rundir import RunDir
from haina.strategy.record import Outcome, RoundRecord

#: Rounds in view on a terminal.
_WINDOW = 12
#: Rounds that the pace is taken from.
_LATELY = 20
#: Places in the code that are told of an error.
_PLACES = 8


@dataclass(frozen=True)
class How:
    """What trains a run, where the command line says otherwise than the file.

    Args:
        engine: `local` or `ray`.
        workers: how many processes.
        executor: `auto`, `jax` or `torch`.
    """

    engine: str | None = None
    workers: int | None = None
    executor: str | None = None


def run(
    file: Path,
    out: Path | None,
    *,
    resume: bool,
    overwrite: bool,
    how: How,
    quiet: bool,
    profiled: bool,
    as_json: bool,
) -> None:
    """Run a federation file to its end."""
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other", allowed="one of them")
    federation = Federation.read(file)
    folder = RunDir(out or Path("runs") / federation.name)
    kept = folder.executor() if resume else None
    # What a run was started on goes before what `auto` would be here and now.
    asked = kept if kept is not None and how.executor in (None, "auto") else how.executor
    federation = _on(federation, asked)
    if resume:
        federation.check_same(_on(Federation.of(folder.federation(), file.name, file.parent), kept))
    with _spoken():
        federation = federation.settled()
        federation.simulation()  # What is wrong with the file is said before a folder is made.
    with folder.alone():
        if overwrite:
            folder.clear()
        result = follow(federation, folder, how, resume=resume, quiet=quiet)
    profile = Profile.of(folder.records()) if profiled and result["rounds"] else None
    if as_json:
        json_line(result if profile is None else {**result, "profile": profile.to_json()})
    else:
        if folder.result():
            data(folder.result())
        accuracy = "" if result["accuracy"] is None else f"accuracy {result['accuracy']:.4f}  "
        data(
            f"{accuracy}loss {result['loss']:.4f}  model {result['model_sha256']}"
            if result["loss"] is not None
            else f"model {result['model_sha256']}"
        )
        if profile is not None:
            shown(profile_table(profile))
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
    how: How | None = None,
    *,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Play a federation with a live view, and summarise it.

    Returns:
        rounds, accuracy, loss, model_sha256, seconds, peak_memory_mb, and more for people.
    """
    start, how = perf_counter(), how or How()
    rounds = federation.settings.train.rounds
    try:
        with _view(rounds, quiet=quiet) as show, _spoken():
            for record in play(federation, folder, workers=how.workers, engine=how.engine, resume=resume):
                show(record)
    except KeyboardInterrupt:
        file = federation.folder / federation.file
        say(f"\nStopped between rounds. Go on with: haina run {file} --resume --out {folder.path}")
        raise
    records = folder.records()
    memory = (known(record.cost, "peak_memory_mb") for record in records)
    result = {
        **summary(records),
        "seconds": round(perf_counter() - start, 3),
        "peak_memory_mb": max((mb for mb in memory if mb is not None), default=None),
    }
    folder.summarise(result)
    return result


def _on(federation: Federation, executor: str | None) -> Federation:
    return federation if executor is None else federation.on(executor)


@contextmanager
def _spoken() -> Iterator[None]:
    """What a framework or a user's own model throws, in one sentence, and where."""
    try:
        yield
    except (HainaError, OSError, MemoryError):
        raise
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        places = "\n".join(f"  {line}" for line in where(error).splitlines()[-_PLACES:])
        raise LearnerError(
            f"training stopped with {type(error).__name__}: {said}", remedy=f"It happened in\n{places}"
        ) from error


@contextmanager
def _view(rounds: int, *, quiet: bool) -> Iterator[Callable[[RoundRecord], None]]:
    """A function to show a record with: a live table on a terminal, a line now and then in a log."""
    if quiet:
        yield lambda record: None
        return
    if not console.is_terminal:
        every = max(1, rounds // 10)
        pace = _Pace(rounds)

        def line(record: RoundRecord) -> None:
            pace.see(record)
            if record.round % every == 0 or record.round == rounds or record.outcome is Outcome.KEPT:
                cells = zip(COLUMNS, round_row(record).cells(), strict=True)
                said = [*(f"{name} {cell}" for name, cell in cells if cell), *pace.words(record)]
                console.print("  ".join(said), soft_wrap=True)

        yield line
        return
    progress = Progress(
        TextColumn("[bold]Rounds"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TimeElapsedColumn(),
        console=console,
        expand=True,
    )
    task = progress.add_task("rounds", total=rounds, pace="")
    recent, pace = deque[RoundRecord](maxlen=_WINDOW), _Pace(rounds)

    def view() -> RenderableType:
        # Drawn when the terminal is refreshed, and not with every one of a thousand quick rounds.
        return Group(round_table(list(recent)), progress) if recent else progress

    with Live(get_renderable=view, console=console, refresh_per_second=8):

        def show(record: RoundRecord) -> None:
            recent.append(record)
            pace.see(record)
            progress.update(task, completed=record.round, pace="  ".join(pace.words(record)))

        yield show


class _Pace:
    """How fast rounds have come lately, by the clock."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._seen = deque[float](maxlen=_LATELY + 1)

    def see(self, record: RoundRecord) -> None:
        """A round has closed just now."""
        self._seen.append(perf_counter())

    def words(self, record: RoundRecord) -> list[str]:
        """Rounds a second, and the time that is left after this one; nothing before the second round."""
        since = self._seen[-1] - self._seen[0]
        if not since:
            return []
        rate = (len(self._seen) - 1) / since
        left = (self._rounds - record.round) / rate
        return [f"{number(rate)} rounds/s", *([f"{duration(left)} left"] if left else [])]


def round_table(records: list[RoundRecord]) -> Table:
    """The last rounds as a table for a terminal."""
    table = Table(expand=True, header_style="bold")
    for name in COLUMNS:
        table.add_column(name, justify="right")
    for record in records:
        table.add_row(*round_row(record).cells(), style="yellow" if record.outcome is Outcome.KEPT else None)
    return table


def profile_table(profile: Profile) -> Table:
    """Where the time of a run's rounds went."""
    memory = "" if profile.memory is None else f", {number(profile.memory)} MB of memory at most"
    table = Table(
        title=f"{plural(profile.rounds, 'round')}{memory}", header_style="bold", title_justify="left"
    )
    for name in PROFILE:
        table.add_column(name, justify="right" if name else "left")
    for row in profile.rows():
        table.add_row(*row)
    return table
