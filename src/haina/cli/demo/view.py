"""The view of the demo: a picture that follows it on a terminal, a line now and then in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from haina.cli.demo.files import Site
from haina.cli.talk import console, say
from haina.monitoring.history import shaped
from haina.monitoring.text import duration, known, percent, score
from haina.strategy.record import ClientRecord, RoundRecord, Verdict

#: Lines of the chart, and of the news.
_HIGH, _NEWS = 4, 6
_BLOCKS = " ▁▂▃▄▅▆▇█"
#: Least widths, so that the table stands still.
_COLUMNS = {"site": 6, "images": 6, "mostly": 7, "does": 18, "verdict": 11, "share": 5, "trust": 5, "": 5}
_NUMBERS = ("images", "share", "trust")
_STYLES = {
    Verdict.ADMITTED: "green",
    Verdict.QUARANTINED: "bold red",
    Verdict.ABSENT: "red",
    Verdict.FAILED: "red",
    Verdict.REFUSED: "red",
}


@dataclass
class Scene:
    """What there is to see.

    Args:
        rounds: of the whole federation.
        sites: who takes part.
        does: what each of them does, in a word or two.
        records: closed rounds, oldest first.
        news: what happened, oldest first.
        seconds: since the beginning.
    """

    rounds: int
    sites: Sequence[Site]
    does: dict[str, str]
    records: list[RoundRecord] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    seconds: float = 0.0


@contextmanager
def view(scene: Scene) -> Iterator[Callable[[], None]]:
    """A function that shows the scene as it stands."""
    if console.is_terminal:
        with Live(picture(scene), console=console, auto_refresh=False) as live:
            yield lambda: live.update(picture(scene), refresh=True)
        return
    told, every, shown = 0, max(1, scene.rounds // 8), 0

    def lines() -> None:
        nonlocal told, shown
        for words in scene.news[told:]:
            say(f"{scene.seconds:5.1f} s  {words}")
        told = len(scene.news)
        for record in scene.records[shown:]:
            if record.round % every == 0 or record.round == scene.rounds:
                say(f"{scene.seconds:5.1f} s  {line(record)}")
        shown = len(scene.records)

    yield lines


def line(record: RoundRecord) -> str:
    """A round in one line."""
    counted = f"{len(shaped(record))} of {len(record.clients)} sites count"
    return f"round {record.round}: accuracy {percent(known(record.metrics, 'accuracy'))}, {counted}"


def picture(scene: Scene) -> RenderableType:
    """The scene as a picture, 80 columns and 24 lines at least."""
    return Group(_bar(scene), _chart(scene), _sites(scene), *_told(scene))


def _bar(scene: Scene) -> Table:
    closed = len(scene.records)
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column()
    grid.add_column(ratio=1)
    grid.add_column(justify="right")
    grid.add_row(
        Text("Rounds", "bold"),
        ProgressBar(total=scene.rounds, completed=closed),
        f"{closed}/{scene.rounds}  {duration(scene.seconds)}",
    )
    return grid


def _chart(scene: Scene) -> Table:
    """Accuracy of each round, from 0 to 100%, as bars that grow from left to right while the federation goes on."""
    wide = max(1, min(3, (console.width - 18) // scene.rounds))
    values = [known(record.metrics, "accuracy") or 0.0 for record in scene.records]
    values = values[-max(1, (console.width - 18) // wide) :]
    grid = Table.grid(padding=(0, 1))
    for level in range(_HIGH - 1, -1, -1):
        fill = (min(8, max(0, round(value * _HIGH * 8) - 8 * level)) for value in values)
        text = {_HIGH - 1: "Accuracy", _HIGH - 2: percent(values[-1]) if values else ""}.get(level, "")
        scale = {_HIGH - 1: "100%", 0: "  0%"}.get(level, "")
        bars = "".join(_BLOCKS[eighths] * wide for eighths in fill)
        grid.add_row(Text(text.ljust(9), "bold"), Text(scale.rjust(4), "dim"), Text(bars, "cyan"))
    return grid


def _sites(scene: Scene) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for name, width in _COLUMNS.items():
        table.add_column(name, justify="right" if name in _NUMBERS else "left", min_width=width, no_wrap=True)
    clients = {client.client: client for client in scene.records[-1].clients} if scene.records else {}
    for site in scene.sites:
        client = clients.get(site.name)
        table.add_row(
            site.name,
            str(site.images),
            " ".join(map(str, site.digits)),
            scene.does[site.name],
            *_standing(client),
        )
    return table


def _standing(client: ClientRecord | None) -> Sequence[RenderableType]:
    if client is None:
        return ()
    share = client.share or 0.0
    return (
        Text(str(client.verdict), _STYLES.get(client.verdict, "yellow")),
        percent(client.share),
        score(known(client.evidence, "trust")),
        Text("■" * round(share * 20), "cyan"),
    )


def _told(scene: Scene) -> Iterator[Text]:
    for words in scene.news[-_NEWS:]:
        yield Text(f"· {words}", no_wrap=True, overflow="ellipsis")
