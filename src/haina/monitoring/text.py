"""Numbers and names as a reader wants them: few digits, units, and nothing that could disturb a terminal.

Client names and reasons of failures are written by others, so every one of them goes through `plain` before it is shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

#: Shown where a number is missing.
NONE = "–"


def plain(text: object, limit: int = 160) -> str:
    """One line of printable characters, at most `limit` long; control characters (terminal escapes, line breaks) become �."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def called(client: str) -> str:
    """A client's name, printable and at most 40 characters long."""
    return plain(client, 40)


def known(values: Mapping[str, Any], name: str) -> float | None:
    """A finite number of a record by its name, or None; records read from a file hold None for what was not finite."""
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def number(value: float | None) -> str:
    """Three significant digits, thousands separated: -0.83, 24.1, 12,345."""
    if value is None:
        return NONE
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"


def score(value: float | None) -> str:
    """Two decimals, for scores of a fixed scale such as trust and cosine: 0.31, -0.83."""
    return NONE if value is None else f"{value + 0.0:.2f}"


def percent(part: float | None) -> str:
    """A part of 1 with one decimal: 3.1%; nought is 0%, and what rounds to nought but is not is <0.1%."""
    if part is None:
        return NONE
    if part == 0:
        return "0%"
    return "<0.1%" if 0 < part < 0.0005 else f"{part:.1%}"


def duration(seconds: float | None) -> str:
    """0.12 s, 3.4 s, 3 min 20 s, 2 h 5 min."""
    if seconds is None:
        return NONE
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, noun: str) -> str:
    """1 client, 2 clients."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def listing(items: Sequence[str], limit: int) -> str:
    """a, b and 3 more."""
    shown, more = items[:limit], len(items) - limit
    if more > 0:
        return f"{', '.join(shown)} and {more} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
