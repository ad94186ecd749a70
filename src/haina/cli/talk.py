"""How the command line talks: tables and progress on standard error, on a terminal only; data on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    #: Talk. Standard output is kept for data. Made when first used: a coordinator that writes a log does without rich.
    console: Console


@cache
def _console() -> Console:
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def __getattr__(name: str) -> Any:
    if name == "console":
        return _console()
    raise AttributeError(name)


def on_terminal() -> bool:
    """True where talk is seen at once by a person."""
    return sys.stderr.isatty()


def say(text: str) -> None:
    """Talk in plain words: a path or a command stays in one piece, to be copied."""
    _console().print(text, soft_wrap=True, markup=False)


def data(line: str) -> None:
    """Write a line of data; a reader (head, less) that has seen enough ends the command in peace."""
    try:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer must not break again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def json_line(value: Mapping[str, Any] | list[Any]) -> None:
    """Write one line of JSON."""
    data(json.dumps(value, separators=(",", ":"), allow_nan=False))


def shown(what: RenderableType) -> None:
    """Write a table that was asked for. Where nobody looks at a terminal, it is as wide as it needs to be."""
    from rich.console import Console

    output = Console(highlight=False)
    if not output.is_terminal:
        output.width = 400
    output.print(what)


def when(seconds: float | None) -> str:
    """A time of day on this machine's clock, from seconds since 1970."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"
