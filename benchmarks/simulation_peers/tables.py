"""Tables: from what was watched to rows, bars, a table and a page. Plain arithmetic, no clocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

#: (workload, peer) -> times less CPU a round that an engine of ours must take.
LESS = {
    ("w1", "flower"): 27.0,
    ("w1", "pfl"): 18.0,
    ("w2", "flower"): 3.8,
    ("w2", "pfl"): 2.4,
    ("w3", "flower"): 1.4,
    ("w3", "pfl"): 1.0,
}
#: (workload, limit) -> times its CPU a round that ours may take. The loop in C is an aim.
NEAR = {
    ("w1", "torch, central"): 1.2,
    ("w1", "native C loop"): 2.0,
    ("w2", "FLOP floor"): 1.3,
    ("w3", "FLOP floor"): 1.15,
}
#: 10 of a million registered clients against Flower's 10 of a hundred thousand; and how much more a million may cost than a thousand.
SWEEP, LEVEL = 100.0, 1.25
#: Rounds a second of two workers over one; seconds to the end of the first round; MB that 90 rounds may add; largest difference of a weight.
WORKERS, FIRST, GROWTH, DIFFERENCE = 1.7, 10.0, 20.0, 1e-5
#: Rounds after which resident memory is compared.
GROWTH_ROUNDS = (10, 100)


@dataclass(frozen=True)
class Row:
    """One engine on one workload, over all repeats: one value a repeat.

    Args:
        workload: "w1", or "w0-1000" with its number of registered clients.
        engine: "haina", "flower", ...
        cpu: CPU seconds a round, mean of the measured rounds.
        wall: seconds a round, likewise.
        first: seconds from the start of the process to the end of its first round.
        peak: MB.
        difference: largest absolute difference of a weight from the plain torch loop's, or None where it was not compared.
        failed: why a run has no figures.
    """

    workload: str
    engine: str
    cpu: Sequence[float] = ()
    wall: Sequence[float] = ()
    first: Sequence[float] = ()
    peak: Sequence[float] = ()
    difference: float | None = None
    failed: str = ""

    def json(self) -> dict[str, Any]:
        numbers = {name: summary(getattr(self, name)) for name in ("cpu", "wall", "first", "peak")}
        return {
            "workload": self.workload,
            "engine": self.engine,
            "repeats": len(self.cpu),
            **numbers,
            "difference": self.difference,
            "failed": self.failed,
        }


def summary(values: Sequence[float]) -> dict[str, float] | None:
    """Median and spread; None of nothing."""
    return {"median": median(values), "min": min(values), "max": max(values)} if values else None


def row_of(workload: str, engine: str, runs: Iterable[Mapping[str, Any]]) -> Row:
    """Put the repeats of one engine together.

    Args:
        workload: its name.
        engine: its name.
        runs: one mapping a repeat: `cpu` and `wall` of all rounds (the first warms up and is dropped), `first`, `peak`, `difference`; or `failed`.
    """
    done = [run for run in runs if not run.get("failed")]
    failed = [str(run["failed"]) for run in runs if run.get("failed")]
    differences = [run["difference"] for run in done if run.get("difference") is not None]
    return Row(
        workload,
        engine,
        *([_mean(run[name][1:]) for run in done] for name in ("cpu", "wall")),
        *([float(run[name]) for run in done] for name in ("first", "peak")),
        max(differences, default=None),
        failed[0] if failed else "",
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def bars(rows: Iterable[Row], growth: float | None = None) -> dict[str, dict[str, Any]]:
    """Which of the bars hold: name -> {value, bar, holds}. A bar whose figures were not all measured is not there.

    Args:
        rows: what was measured.
        growth: MB by which the process grew between the rounds of `GROWTH_ROUNDS` of w1.
    """
    rows = list(rows)
    by = {(row.workload, row.engine): row for row in rows}
    found: dict[str, dict[str, Any]] = {}

    def bar(name: str, value: float | None, limit: float, *, least: bool) -> None:
        if value is not None:
            holds = value >= limit if least else value <= limit
            found[name] = {"value": value, "bar": limit, "holds": holds}

    for (workload, peer), times in LESS.items():
        value = ratio(figure(rows, workload, peer), figure(rows, workload, "haina"))
        bar(f"{workload}: times less CPU than {peer}", value, times, least=True)
    for (workload, limit), times in NEAR.items():
        value = ratio(figure(rows, workload, "haina"), figure(rows, workload, limit))
        bar(f"{workload}: CPU over that of {limit}", value, times, least=False)
    value = ratio(figure(rows, "w0-100000", "flower"), figure(rows, "w0-1000000", "haina"))
    bar(
        "w0: times less CPU, a million registered, than flower with a hundred thousand",
        value,
        SWEEP,
        least=True,
    )
    value = ratio(figure(rows, "w0-1000000", "haina"), figure(rows, "w0-1000", "haina"))
    bar("w0: CPU with a million registered over that with a thousand", value, LEVEL, least=False)
    for workload in ("w2", "w3"):
        value = ratio(
            figure(rows, workload, "haina", "wall"), figure(rows, workload, "haina, 2 workers", "wall")
        )
        bar(f"{workload}: rounds a second, two workers over one", value, WORKERS, least=True)
    for workload in ("w1", "w2", "w3"):
        bar(
            f"{workload}: seconds to the end of the first round",
            figure(rows, workload, "haina", "first"),
            FIRST,
            least=False,
        )
    bar("w1: MB grown from round 10 to round 100", growth, GROWTH, least=False)
    for workload in ("w1", "w2"):
        row = by.get((workload, "haina"))
        bar(
            f"{workload}: largest difference of a weight",
            row.difference if row is not None else None,
            DIFFERENCE,
            least=False,
        )
    return found


def ratio(above: float | None, below: float | None) -> float | None:
    """above / below, where both are known."""
    return above / below if above is not None and below else None


def figure(rows: Iterable[Row], workload: str, engine: str, field: str = "cpu") -> float | None:
    """The median of one figure of one row; None where it was not measured."""
    for row in rows:
        if (row.workload, row.engine) == (workload, engine) and getattr(row, field):
            return median(getattr(row, field))
    return None


#: Titles and widths of the columns.
_COLUMNS = (
    ("workload", 12),
    ("engine", 18),
    ("CPU s a round", 26),
    ("wall s a round", 26),
    ("first s", 8),
    ("peak MB", 8),
    ("difference", 11),
)


def cells(row: Row) -> list[str]:
    """A row of the table, as text."""
    if not row.cpu:
        return [row.workload, row.engine, f"failed: {row.failed}", "", "", "", ""]
    difference = "" if row.difference is None else f"{row.difference:.0e}"
    first, peak = f"{median(row.first):.1f}", f"{median(row.peak):.0f}"
    if row.engine in ("FLOP floor", "own products"):
        first = peak = ""
    return [row.workload, row.engine, spread(row.cpu), spread(row.wall), first, peak, difference]


def spread(values: Sequence[float]) -> str:
    """Median, and the range where there is one."""
    middle = f"{median(values):.3g}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.3g}-{max(values):.3g})"


def table(rows: Iterable[Row]) -> str:
    """The table for a terminal."""
    lines = [[title for title, _ in _COLUMNS], *(cells(row) for row in rows)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, (_, width) in zip(line, _COLUMNS, strict=True)).rstrip()
        for line in lines
    )


def verdicts(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The bars, one a line."""
    return "\n".join(
        f"{'holds' if each['holds'] else 'FAILS':6} {name}: {each['value']:.3g} (bar {each['bar']:g})"
        for name, each in found.items()
    )


#: The part of the page that `page` writes stands between these.
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def page(text: str, result: Mapping[str, Any]) -> str:
    """The text of a page with its results replaced.

    Args:
        text: the page, with the two marks in it.
        result: the JSON object that a run prints.

    Raises:
        ValueError: the marks are not there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("the page has no place for results")
    machine, settings = result["machine"], result["settings"]
    load = result["load"]
    words = [
        f"Measured on {result['date']}: {machine['processor']}, {machine['cores']} cores, {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}. {settings['repeats']} repeats of {settings['rounds']} measured rounds; "
        f"load before a run {load['min']:.1f} to {load['max']:.1f}.",
        "Versions: "
        + ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
        + ".",
    ]
    head = "| workload | engine | CPU s a round | wall s a round | first round, s | peak MB | difference |\n|---|---|---|---|---|---|---|"
    lines = [f"| {' | '.join(_markdown(each))} |" for each in result["rows"]]
    held = ["| bar | measured | wanted | |", "|---|---|---|---|"]
    for name, each in result["bars"].items():
        verdict = "holds" if each["holds"] else "**fails**"
        held.append(f"| {name} | {each['value']:.3g} | {each['bar']:g} | {verdict} |")
    body = "\n\n".join([*words, "\n".join([head, *lines]), "\n".join(held)])
    return f"{before}{begin}\n{body}\n{end}{after}"


def _markdown(row: Mapping[str, Any]) -> list[str]:
    numbers = [row[name] and list(row[name].values()) for name in ("cpu", "wall", "first", "peak")]
    if numbers[0] is None:
        return cells(Row(row["workload"], row["engine"], failed=row["failed"]))
    # A summary has the median and both ends, which is all that a cell shows of any number of repeats.
    if row["repeats"] == 1:
        numbers = [values[:1] for values in numbers]
    return cells(Row(row["workload"], row["engine"], *numbers, row["difference"]))
