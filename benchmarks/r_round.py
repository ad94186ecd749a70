"""A round of a million coefficients, seen from an R site and from the same site in Python: what does R cost?

    ./dev bench r_round
    python benchmarks/r_round.py --length 1000000 --rounds 12

One coordinator (`haina serve`, mutual TLS, real fsyncs) has two federations with `learner = "vector"` and one site each. A site fetches the model
(float64, 8 MB), adds 1 to every number, and uploads the increment (raw, 8 MB); nothing is trained. The Python site is the node's own session, link,
outbox and cache, with addition in the place of its training process, which would only be slower. Sites run one after the other. A round's time is
the coordinator's, from opening to closing; the first two warm up. The R package is installed into a temporary library first.

The table goes to stdout, and its last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median, quantiles

from haina.artifact import Array, load
from haina.federation.bench import Trained
from haina.node.link.http import HttpLink, enrol
from haina.node.session import Session
from haina.node.trainer import Trainer
from haina.report import Report
from haina.update import Update
from haina.wire import invitation
from haina.wire.codecs import CODECS
from haina.wire.identity import Credentials, new_key, request
from haina.wire.messages import Hello, Task, Welcome
from haina.wire.tls import client_context

ROOT = Path(__file__).resolve().parent.parent
HAINA = [sys.executable, "-c", "from haina.cli import main; main()"]
#: Milliseconds that an R site may add to a round.
BAR = 60.0
WARM = 2

FILE = """\
name = "{name}"
[model]
learner = "vector"
size = {length}
[data]
shape = [1]
task = "regression"
test = 0
[train]
rounds = {rounds}
[serve]
nodes = 1
codecs = ["raw"]
"""


class Adding:
    """A bench that adds 1, in this process."""

    def start(self) -> None:
        """Nothing to start."""

    def close(self) -> None:
        """Nothing to end."""

    def examples(self) -> int:
        """One row."""
        return 1

    def train(self, task: Task, client: str, model: Path, **_: object) -> Trained:
        """Trained minus received, as a person's function would have it."""
        (received,) = load(model.read_bytes())[0].values()
        trained: Array = received + 1.0
        memory: Mapping[str, Array] = {}
        return Trained(Update(client, trained - received, Report(1)), memory)


class Here:
    """What a trainer asks of a process: it may have threads."""

    threads = None


def python_site(folder: Path, name: str) -> None:
    """Take part until the federation ends."""
    invited, key = invitation.read(folder / f"{name}.invite", 0.0), new_key()
    credentials = Credentials.enrolled(key, enrol(invited, request(key, invited.name)))

    def connect(link: HttpLink | None) -> HttpLink:
        return link or HttpLink(invited.http, client_context(credentials.authority, credentials))

    def opened(_: Welcome) -> Trainer:
        bench = Adding()
        bench.child = Here()  # type: ignore[attr-defined]
        return Trainer(bench, credentials)  # type: ignore[arg-type]

    hello = Hello(codecs=tuple(CODECS))
    Session(connect, folder / name, hello, opened, random.Random(1), tell=lambda _: None).run()  # type: ignore[arg-type]


def r_site(folder: Path, name: str, library: Path) -> None:
    """The same in R."""
    code = (
        f'library(haina); ended <- join("{name}.invite", structure(function(params, config) list(params = params + 1, n = 1), '
        "examples = 1), tell = function(line) NULL)"
    )
    environment = {**os.environ, "R_LIBS": str(library), "TZ": "UTC"}
    subprocess.run(["Rscript", "--vanilla", "-e", code], cwd=folder, env=environment, check=True)


def times(store: Path, federation: str) -> list[float]:
    """Milliseconds of each round after the first ones."""
    with sqlite3.connect(store) as connection:
        found = connection.execute(
            "SELECT (closed - opened) * 1000 FROM round WHERE federation = ? AND state = 'closed' ORDER BY number",
            (federation,),
        ).fetchall()
    return [milliseconds for (milliseconds,) in found][WARM:]


def main() -> None:
    """Measure, and say what it means."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--length", type=int, default=1_000_000)
    arguments.add_argument("--rounds", type=int, default=14)
    asked = arguments.parse_args()
    if shutil.which("Rscript") is None:
        raise SystemExit(
            "R is needed here (Debian: apt-get install r-base-core r-cran-curl r-cran-jsonlite r-cran-openssl)"
        )
    folder = Path(tempfile.mkdtemp(prefix="haina-r-round-"))
    server = None
    try:
        library = folder / "library"
        library.mkdir()
        install = [
            "R",
            "CMD",
            "INSTALL",
            "--no-docs",
            "--no-test-load",
            f"--library={library}",
            str(ROOT / "r" / "haina"),
        ]
        subprocess.run(install, check=True, capture_output=True, env={**os.environ, "TZ": "UTC"})
        # In turn, so that neither has the quieter half of the machine's time.
        names = ["python-1", "r-1", "python-2", "r-2"]
        for name in names:
            (folder / f"{name}.toml").write_text(
                FILE.format(name=name, length=asked.length, rounds=asked.rounds)
            )
        files = [f"{name}.toml" for name in names]
        served = [*HAINA, "serve", *files, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--json"]
        environment = {**os.environ, "HAINA_STATE": str(folder / "state")}
        server = subprocess.Popen(
            served, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert server.stdout is not None
        assert server.stdout.readline()
        for name in names:
            invite = [*HAINA, "invite", name, "--federation", name]
            subprocess.run(invite, cwd=folder, env=environment, check=True, capture_output=True)
            if name.startswith("r-"):
                r_site(folder, name, library)
            else:
                python_site(folder, name)
        store = folder / "state" / "coordinator.sqlite"
        found = {
            kind: [t for name in names if name.startswith(kind) for t in times(store, name)]
            for kind in ("python", "r")
        }
    finally:
        if server is not None:
            server.terminate()
            server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"{asked.length:,} coefficients as float64, down and up, milliseconds a round ({platform.processor() or platform.machine()})\n"
    )
    print(f"{'site':8}{'rounds':>8}{'median':>10}{'quarters':>18}")
    for kind, values in found.items():
        low, _, high = quantiles(values, n=4)
        print(f"{kind:8}{len(values):8}{median(values):10.1f}{f'{low:.1f} to {high:.1f}':>18}")
    extra = median(found["r"]) - median(found["python"])
    print(f"\nR adds {extra:.1f} ms a round; the bar is {BAR:g} ms: {'kept' if extra <= BAR else 'NOT kept'}")
    print(
        json.dumps(
            {
                "length": asked.length,
                "python": median(found["python"]),
                "r": median(found["r"]),
                "extra": extra,
                "kept": extra <= BAR,
            }
        )
    )


if __name__ == "__main__":
    main()
