import json
import os
import resource
import subprocess
import sys

import pytest
from command import HAINA, Said, finished, haina, spawn

from haina import __version__

COMMANDS = [
    *("demo", "new", "run", "report", "runs", "doctor", "serve", "join", "invite", "status", "logs"),
    *("nodes", "rounds", "models", "config", "federation"),
]


def cpu_seconds(command):
    """The best of several: what the command itself costs, on a machine that is busy with other things."""
    best = float("inf")
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def test_importing_haina_is_light():
    assert cpu_seconds([sys.executable, "-c", "import haina"]) <= 0.3


def test_help_is_quick():
    assert cpu_seconds([*HAINA, "--help"]) <= 0.5


HEAVY = ["jax", "torch", "sklearn", "pandas", "plotnine", "matplotlib", "scipy", "pyarrow"]


@pytest.mark.parametrize("module", ["haina", "haina.cli.app", "haina.federation", "haina.strategy.presets"])
def test_heavy_libraries_wait_until_they_are_needed(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"


def test_help_names_every_command(capsys, monkeypatch):
    said = haina(capsys, monkeypatch, "--help")
    assert said.code == 0
    for command in COMMANDS:
        assert command in said.out
        inner = haina(capsys, monkeypatch, command, "-h")
        assert inner.code == 0
        assert "Usage" in inner.out


def test_the_version(capsys, monkeypatch):
    assert haina(capsys, monkeypatch, "--version") == Said(0, __version__ + "\n", "")


def test_a_noun_alone_lists(capsys, monkeypatch, tmp_path):
    for noun in ("nodes", "rounds", "models"):
        said = haina(capsys, monkeypatch, noun, "--state", tmp_path)
        assert (said.code, said.out) == (3, "")
    verbs = {
        "nodes": "revoke",
        "rounds": "show",
        "models": "fetch",
        "config": "rollback",
        "federation": "pause",
    }
    for noun, verb in verbs.items():
        assert verb in haina(capsys, monkeypatch, noun, "-h").out
        assert "--credentials" in haina(capsys, monkeypatch, noun, verb, "-h").out


@pytest.mark.parametrize(
    "args",
    [
        ["rnu"],
        ["run", "--round", "3"],
        ["run", "a.toml", "b.toml"],
        ["run", "--workers", "0"],
        ["report"],
        ["serve"],
        ["join"],
        ["config", "put"],
    ],
)
def test_wrong_usage_is_2_and_talks_on_standard_error(args, capsys, monkeypatch):
    said = haina(capsys, monkeypatch, *args)
    assert said.code == 2
    assert said.out == ""
    assert said.err


def test_doctor_looks_around(capsys, monkeypatch):
    said = haina(capsys, monkeypatch, "doctor", "--json")
    assert said.code == 0
    assert said.err == ""
    assert said.out.count("\n") == 1
    checks = {check["what"]: check for check in json.loads(said.out)}
    assert {"Python", "Haina", "processor", "disk", "jax", "torch", "scikit-learn", "plotnine"} <= set(checks)
    assert checks["Python"]["ok"]
    assert checks["Haina"]["found"] == __version__
    assert (
        checks["jax"]["remedy"] == "HAINA_EXTRAS=demo,jax ./dev haina ..., or pip install '.[jax]' in a clone"
    )
    talk = haina(capsys, monkeypatch, "doctor")
    assert talk.out == ""
    for what in checks:
        assert what in talk.err


def test_doctor_says_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr("haina.cli.doctor.find_spec", lambda module: None)
    said = haina(capsys, monkeypatch, "doctor", "--json")
    # Extras are a choice: a machine without them is a sound one.
    assert said.code == 0
    checks = {check["what"]: check for check in json.loads(said.out)}
    assert not checks["torch"]["ok"]
    assert checks["torch"]["found"].startswith("not installed")
    monkeypatch.setattr(sys, "version_info", (3, 10))
    assert haina(capsys, monkeypatch, "doctor", "--json").code == 1


def test_a_reader_that_has_seen_enough_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    process = spawn("doctor", "--json", stdout=writing)
    os.close(writing)
    said = finished(process)
    assert said.code == 0
    assert "Traceback" not in said.err
