"""How the command line talks: tables and progress on standard error, on a terminal only; data on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console

#: Talk. Standard output is kept for data.
console = Console(stderr=True, highlight=False)


def data(line: str) -> None:
    """Write a line of data."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def json_line(value: Mapping[str, Any] | list[Any]) -> None:
    """Write one line of JSON."""
    data(json.dumps(value, separators=(",", ":"), allow_nan=False))
