"""How the command line talks: tables and progress on standard error, on a terminal only; data on standard output."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

#: Talk. Standard output is kept for data.
console = Console(stderr=True, highlight=False)


def say(text: str) -> None:
    """Talk in plain words: a path or a command stays in one piece, to be copied."""
    console.print(text, soft_wrap=True, markup=False)


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
