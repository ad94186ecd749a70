"""The R package by itself: its own tests, and what it exports."""

import re
import subprocess

import pytest
from rlang import environment, require_r
from rsite import SOURCES

from haina import __version__

#: What the package can do more with, and checks itself with.
SUGGESTED = (
    "curl",
    "jsonlite",
    "openssl",
    "caret",
    "ggplot2",
    "glmnet",
    "knitr",
    "randomForest",
    "ranger",
    "rmarkdown",
    "shiny",
    "survival",
    "testthat",
)


@pytest.mark.slow
def test_r_has_nothing_to_say_against_it(tmp_path):
    """`R CMD check` of the package as it would be handed out: its code, its pages, its vignette, and its own tests, with all packages it suggests."""
    require_r(*SUGGESTED)
    env = environment()

    def run(*command):
        done = subprocess.run(
            ["R", "CMD", *command],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=580,
            check=False,
        )
        return done.stdout + done.stderr, done.returncode

    said, code = run("build", str(SOURCES))
    assert code == 0, said[-3000:]
    said, code = run("check", "--no-manual", f"haina_{__version__}.tar.gz")
    tests = (tmp_path / "haina.Rcheck/tests").glob("testthat.Rout*")
    told = "".join(path.read_text() for path in tests)
    assert code == 0, f"{said[-3000:]}\n{told[-6000:]}"
    assert "Status: OK" in said, said[-3000:]
    assert re.search(r"FAIL 0 \| WARN 0 \| SKIP 0 \| PASS [1-9]\d\d", told), told[-2000:]


def test_its_version_is_hainas():
    assert f"Version: {__version__}\n" in (SOURCES / "DESCRIPTION").read_text()


def test_what_is_exported_is_documented():
    exported = re.findall(r"^export\((\w+)\)", (SOURCES / "NAMESPACE").read_text(), re.MULTILINE)
    assert {"join", "train_glm", "train_glmnet", "train_caret", "laplace", "privacy_budget"} <= set(exported)
    written = "".join(path.read_text() for path in (SOURCES / "R").glob("*.R"))
    assert written.count("#' @export\n") >= len(exported)
    aliases = set(
        re.findall(r"\\alias\{(\w+)\}", "".join(path.read_text() for path in (SOURCES / "man").glob("*.Rd")))
    )
    assert set(exported) <= aliases


def test_every_name_is_defined_once():
    """A second definition in another file would replace the first without a word."""
    names = [
        name
        for path in (SOURCES / "R").glob("*.R")
        for name in re.findall(r"^([\w.]+) *<- ", path.read_text(), re.MULTILINE)
    ]
    assert not {name for name in names if names.count(name) > 1}


def test_nothing_of_a_network_is_evaluated():
    """No serialised R objects, no code out of texts."""
    for path in (SOURCES / "R").glob("*.R"):
        code = re.sub(r"#.*", "", path.read_text())
        found = re.findall(r"\b(readRDS|unserialize|eval|parse|source|attach|load)\(", code)
        assert not found, (path.name, found)
