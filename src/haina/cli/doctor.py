"""`haina doctor`: what this machine has, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from haina import __version__
from haina.cli.talk import console, json_line

#: Module -> (distribution, extra, what it is for).
_EXTRAS = {
    "jax": ("jax", "jax", "small networks, compiled"),
    "torch": ("torch", "torch", "any nn.Module"),
    "sklearn": ("scikit-learn", "sklearn", "forests, and data sets to try things on"),
    "pandas": ("pandas", "tables", "CSV and Parquet files"),
    "pyarrow": ("pyarrow", "tables", "Parquet files"),
    "formulaic": ("formulaic", "stats", "formulas, and haina stats"),
    "plotnine": ("plotnine", "plots", "pictures and report pages"),
    "cryptography": ("cryptography", "node", "real federations, and [privacy]"),
    "dp_accounting": (
        "dp-accounting",
        "privacy",
        "the tightest accountant of privacy, and haina budget plan",
    ),
    "opacus": ("opacus", "opacus", "differential privacy for single rows, in torch"),
    "tenseal": ("tenseal", "ckks", "sums under homomorphic encryption"),
    "onnx": ("onnx", "onnx", "forests for other programs"),
    "treelite": ("treelite", "treelite", "forests for other programs"),
}


def doctor(*, as_json: bool) -> None:
    """Look around and say what was found."""
    checks = [
        _check(
            "Python", sys.version_info >= (3, 11), platform.python_version(), "install Python 3.11 or newer"
        ),
        _check("Haina", True, __version__, ""),
        _check("processor", True, f"{os.cpu_count()} cores, {platform.machine()}", ""),
        _disk(),
    ]
    for module, (distribution, extra, purpose) in _EXTRAS.items():
        there = find_spec(module) is not None
        found = f"{_version(distribution)}: {purpose}" if there else f"not installed: {purpose}"
        checks.append(
            _check(
                distribution,
                there,
                found,
                f"HAINA_EXTRAS=demo,{extra} ./dev haina ..., or pip install '.[{extra}]' in a clone",
                needed=False,
            )
        )
    checks.append(_r())
    if as_json:
        json_line(checks)
    else:
        table = Table(header_style="bold")
        for name in ("", "what", "found", "remedy"):
            table.add_column(name, overflow="fold")
        for check in checks:
            mark = "[green]ok[/]" if check["ok"] else ("[red]no[/]" if check["needed"] else "[yellow]--[/]")
            table.add_row(mark, check["what"], check["found"], "" if check["ok"] else escape(check["remedy"]))
        console.print(table)
    if any(check["needed"] and not check["ok"] for check in checks):
        raise SystemExit(1)


def _check(what: str, ok: bool, found: str, remedy: str, *, needed: bool = True) -> dict[str, Any]:
    return {"what": what, "ok": ok, "found": found, "remedy": remedy, "needed": needed}


def _r() -> dict[str, Any]:
    """R and the one package that a training script cannot do without."""
    rscript, needs = shutil.which("Rscript"), "local training in R (rscript)"
    if rscript is None:
        return _check(
            "R", False, f"not installed: {needs}", "apt-get install r-base-core r-cran-jsonlite", needed=False
        )
    asked = (
        'cat(format(getRversion())); quit("no", as.integer(!requireNamespace("jsonlite", quietly = TRUE)))'
    )
    try:
        done = subprocess.run([rscript, "-e", asked], capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        return _check("R", False, "did not answer within 60 s", f"see what {rscript} does", needed=False)
    remedy = 'install.packages("jsonlite") in R'
    found = f"{done.stdout.strip()}: {needs}" if done.returncode == 0 else "there is no package jsonlite"
    return _check("R", done.returncode == 0, found, remedy, needed=False)


def _disk() -> dict[str, Any]:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return _check(
        "disk", free > 1, f"{free:.1f} GB free here", "make room: a run keeps its models and records"
    )


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown version"
