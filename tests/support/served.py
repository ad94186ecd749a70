"""A real federation on loopback: `haina serve` and `haina join` as processes, ended by their own ids."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from command import Said, spawn

from haina.cli import main

GLM = """\
name = "readmission"
[model]
learner = "glm"
family = "binomial"
[data]
target = "readmitted"
features = ["age", "stay"]
classes = ["no", "yes"]
test = 0
[train]
rounds = {rounds}
[serve]
nodes = {nodes}
"""


def hospital(path, rows, seed):
    """A table of made-up patients."""
    rng = np.random.default_rng(seed)
    age, stay = rng.normal(64, 12, rows), rng.gamma(2.0, 3.0, rows)
    risk = 1 / (1 + np.exp(4.5 - 0.04 * age - 0.1 * stay))
    answer = np.where(rng.random(rows) < risk, "yes", "no")
    lines = [f"{a!r},{s!r},{y}" for a, s, y in zip(age.tolist(), stay.tolist(), answer, strict=True)]
    path.write_text("\n".join(["age,stay,readmitted", *lines]) + "\n")
    return path


class Served:
    """A folder with a coordinator in it, and sites beside it."""

    def __init__(self, folder, text=None, rounds=25, nodes=2, **options):
        self.folder = Path(folder)
        (self.folder / "federation.toml").write_text(text or GLM.format(rounds=rounds, nodes=nodes))
        self.options = {
            "cwd": self.folder,
            "env": {"HAINA_STATE": str(self.folder / "state"), "COLUMNS": "200"},
        }
        self.children = []
        self.start(**options)

    def start(self, http="127.0.0.1:0", grpc="127.0.0.1:0", args=()):
        log = (self.folder / "serve.log").open("ab")
        self.server = spawn(
            "serve", "federation.toml", "--http", http, "--grpc", grpc, "--json", *args,
            **{**self.options, "stderr": log},
        )  # fmt: skip
        log.close()
        self.children.append(self.server)
        line = self.server.stdout.readline()
        assert line, self.log
        self.ready = json.loads(line)

    @property
    def log(self):
        return (self.folder / "serve.log").read_text()

    def haina(self, *args, code=0):
        """What an operator's command says; its JSON where that was asked for."""
        said = here(*args, cwd=self.folder, env=self.options["env"])
        assert said.code == code, said
        assert "Traceback" not in said.err
        return json.loads(said.out.splitlines()[-1]) if "--json" in args and code == 0 else said

    def join(self, *args, **options):
        process = spawn("join", *args, **{**self.options, **options})
        self.children.append(process)
        return process

    def invited(self, *names, **tables):
        for name in names:
            self.haina("invite", name)
            hospital(
                self.folder / f"{name}.csv", **{"rows": 150, "seed": len(name) + ord(name[-1]), **tables}
            )

    def until(self, holds, seconds=30.0):
        end = time.monotonic() + seconds
        while not (found := holds()):
            assert time.monotonic() < end, self.log
            time.sleep(0.05)
        return found

    def close(self):
        for process in self.children:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate(timeout=30)


def here(*args, cwd, env):
    """A command in this process, which is quicker; for those that answer and end."""
    out, err, before = io.StringIO(), io.StringIO(), dict(os.environ)
    argv, sys.argv = sys.argv, ["haina", *(str(arg) for arg in args)]
    os.environ.update(env)
    code = 0
    try:
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = argv
        os.environ.clear()
        os.environ.update(before)
    return Said(code, out.getvalue(), err.getvalue())


def resident_mb(pid):
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6


def children_of(pid):
    found = subprocess.run(
        ["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(word) for word in found.stdout.split()]
