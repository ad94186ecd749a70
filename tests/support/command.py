"""`haina` in this process, and as a process of its own."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from haina.cli import main

#: As `haina`, wherever the entry point was installed.
HAINA = [sys.executable, "-c", "from haina.cli import main; main()"]

IRIS = """\
name = "iris"
seed = 1
[model]
learner = "jax"
kind = "logistic"
[data]
source = "sklearn:iris"
partition = {iid = 4}
test = 30
[train]
rounds = 3
learning_rate = 0.05
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def haina(capsys, monkeypatch, *args):
    """Run a command in this process."""
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["haina", *(str(arg) for arg in args)])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code or 0
    said = capsys.readouterr()
    return Said(code, said.out, said.err)


def spawn(*args, **options):
    """Start a command as a process; end it by its own id."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([*HAINA, *(str(arg) for arg in args)], env=env, text=True, **streams)


def finished(process, timeout=120):
    out, err = process.communicate(timeout=timeout)
    return Said(process.returncode, out, err)


def written(folder, text=IRIS, name="federation.toml"):
    path = Path(folder) / name
    path.write_text(text)
    return path
