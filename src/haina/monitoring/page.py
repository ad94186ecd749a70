"""Page: a run on one self-contained HTML sheet, `haina report RUN`.

Header, explanation, pictures, every client of the last round, every round. No JavaScript, nothing fetched from elsewhere; light and dark by the
reader's preference, printable, and as wide as a phone. Client names and reasons of failures are written by others: every text is escaped, and a
content security policy forbids scripts should one ever slip through.
"""

from __future__ import annotations

import base64
import importlib.util
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from haina.monitoring.explain import explain_round, explain_run
from haina.monitoring.glossary import MEANING
from haina.monitoring.history import best, pick
from haina.monitoring.style import STYLE
from haina.monitoring.summary import summary
from haina.monitoring.table import COLUMNS, round_row
from haina.monitoring.text import NONE, called, duration, known, number, percent, plain, plural, score
from haina.simulation.rundir import RunDir, replace_file
from haina.strategy.record import ClientRecord, RoundRecord, Verdict

#: Rows of the table of clients; a longer one is cut, the conspicuous first.
CLIENTS = 1000

#: Columns of the table of clients: heading and what it means.
_CLIENT_COLUMNS = (
    "client",
    "verdict",
    "share",
    "prior",
    "factors",
    "trust",
    "consistency",
    "deviation",
    "reason",
)

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write(
    run: RunDir, folder: Path | None = None, hostile: Collection[str] = (), *, threshold: float = 0.9
) -> list[Path]:
    """Write the page of a run, and its pictures as PNG for slides, and say where each is.

    Without the extra `plots` there are no pictures, and the page says so.

    Args:
        run: what to tell of.
        folder: where to write; `report` in the run's own folder if not given.
        hostile: clients known to attack (simulations know), marked in the picture of trust.
        threshold: the red dashed line in the picture of accuracy.

    Raises:
        RunError: the folder holds no run, or no round has closed yet.
    """
    records = run.records()
    pick(records)
    folder = run.path / "report" if folder is None else folder
    folder.mkdir(parents=True, exist_ok=True)
    drawn: dict[str, bytes] | None = None
    files = [folder / "report.html"]
    if importlib.util.find_spec("plotnine") is not None:
        from haina.monitoring import plots

        pictures = plots.pictures(records, hostile, threshold=threshold)
        drawn = {name: plots.draw(picture, "svg") for name, picture in pictures.items()}
        for name, picture in pictures.items():
            files.append(folder / f"{name}.png")
            plots.save(picture, files[-1])
    settings = tomllib.loads(run.federation())
    name, seed = str(settings.get("name", "federation")), settings.get("seed", 0)
    replace_file(files[0], page(records, name=name, seed=seed, pictures=drawn).encode())
    return files


def page(
    records: Sequence[RoundRecord], *, name: str, seed: int, pictures: Mapping[str, bytes] | None = None
) -> str:
    """The page as text.

    Args:
        records: the rounds of a run, oldest first; at least one.
        name: of the federation.
        seed: of the run.
        pictures: name -> SVG; None where they could not be drawn.

    Raises:
        RunError: no round has closed yet.
    """
    last = pick(records)
    title = plain(name, 80)
    return sheet(
        f"{title}: report",
        f"<header><h1>{escape(title)}</h1>{_facts(records, seed)}</header>",
        [
            ("What happened", _told(explain_run(records))),
            (f"Round {last.round} explained", _told(explain_round(records))),
            ("Pictures", _figures(pictures)),
            (f"Clients in round {last.round}", _clients(last)),
            ("Rounds", table("Every round", COLUMNS, (round_row(r).cells() for r in records))),
            ("Words", _words()),
        ],
    )


def sheet(title: str, header: str, sections: Iterable[tuple[str, str]]) -> str:
    """A self-contained page.

    Args:
        title: plain text.
        header: HTML.
        sections: each a title, plain text, and a body, HTML.
    """
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="color-scheme" content="light dark">\n<title>{escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join([header, *(_section(name, body) for name, body in sections)])
        + "\n</main>\n</body>\n</html>\n"
    )


def _facts(records: Sequence[RoundRecord], seed: int) -> str:
    told = summary(records)
    facts = {"rounds": str(told["rounds"]), "seed": str(seed)}
    if told["accuracy"] is not None:
        facts["final accuracy"] = percent(told["accuracy"])
        facts["best accuracy"] = f"{percent(told['best_accuracy'])} in round {told['best_round']}"
    elif top := best(records):
        facts["final loss"] = number(told["loss"])
        facts["lowest loss"] = f"{number(top[1])} in round {top[0]}"
    facts["time"] = duration(told["seconds"])
    facts["SHA-256 of the model"] = told["model_sha256"] or NONE
    return f"<dl>{''.join(f'<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>' for k, v in facts.items())}</dl>"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>\n{body}</section>"


def _told(text: str) -> str:
    """Lines of an explanation: those that are indented become a list under the line before. The glossary has a place of its own."""
    out, listed = [], False
    for line in text.split("\n"):
        if line.startswith("Words: "):
            continue
        if line.startswith("  ") != listed:
            listed = not listed
            out.append("<ul>" if listed else "</ul>")
        out.append(f"<li>{escape(line.strip())}</li>" if listed else f"<p>{escape(line)}</p>")
    return "\n".join([*out, *(["</ul>"] if listed else [])])


def _figures(pictures: Mapping[str, bytes] | None) -> str:
    if pictures is None:
        return "<p>Not drawn: install the extra with <code>pip install 'haina[plots]'</code> and report again.</p>"
    if not pictures:
        return "<p>Nothing to draw: no round was evaluated, and the combining rule has no shares.</p>"
    # An image from a data: address keeps each picture's identifiers, and whatever it might hold, to itself.
    return "\n".join(
        f'<figure><img alt="{escape(_ALT.get(name, name))}" width="1600" height="900" '
        f'src="data:image/svg+xml;base64,{base64.b64encode(svg).decode()}"></figure>'
        for name, svg in pictures.items()
    )


_ALT = {
    "accuracy": "Accuracy of the shared model over rounds",
    "loss": "Loss of the shared model over rounds",
    "shares": "Share of each client in each round",
    "trust": "Trust of each client over rounds",
}

#: The conspicuous first.
_ORDER = (
    Verdict.QUARANTINED,
    Verdict.REFUSED,
    Verdict.FAILED,
    Verdict.DAMPED,
    Verdict.PROBATION,
    Verdict.CLIPPED,
    Verdict.ADMITTED,
    Verdict.PASSED_OVER,
    Verdict.ABSENT,
)


def _clients(record: RoundRecord) -> str:
    ordered = sorted(record.clients, key=lambda c: (_ORDER.index(c.verdict), -(c.share or 0.0), c.client))
    caption = f"{plural(len(ordered), 'client')}, the conspicuous first"
    if len(ordered) > CLIENTS:
        caption += f"; {CLIENTS} shown"
    return table(
        caption, _CLIENT_COLUMNS, (_cells(client) for client in ordered[:CLIENTS]), text=(0, 1, 4, 8)
    )


def _cells(client: ClientRecord) -> tuple[str, ...]:
    named = {name: "gate" if name == "trust" else plain(name, 40) for name in client.factors}
    factors = (f"{named[name]} {number(known(client.factors, name))}" for name in client.factors)
    scores = (score(known(client.evidence, name)) for name in ("trust", "consistency", "deviation"))
    return (
        called(client.client),
        str(client.verdict),
        percent(client.share),
        percent(client.prior),
        ", ".join(factors),
        *scores,
        plain(client.reason),
    )


def table(
    caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]], text: Collection[int] = ()
) -> str:
    """A table as HTML; the columns numbered in `text` hold words, the others numbers."""

    def row(cells: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' scope=col' if tag == 'th' else ''}{' class=words' if i in text else ''}>{escape(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )

    body = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{row(columns, 'th')}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _words() -> str:
    items = (
        f"<div><dt>{escape(word)}</dt><dd>{escape(meaning)}</dd></div>" for word, meaning in MEANING.items()
    )
    return f'<dl class="words">{"".join(items)}</dl>'
