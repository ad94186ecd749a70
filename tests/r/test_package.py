"""The R package by itself: its own tests, and what it exports."""

import re
import subprocess

import pytest
from rsite import SOURCES, needs_r

from haina import __version__


@pytest.mark.slow
def test_its_own_tests_pass():
    env = needs_r("testthat")
    code = f'testthat::test_dir("{SOURCES}/tests/testthat", package = "haina", load_package = "installed", reporter = "check", stop_on_failure = T)'
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", code],
        env=env,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-6000:]}\n{done.stderr[-3000:]}"
    assert re.search(r"FAIL 0 .* PASS [1-9]\d\d", done.stdout), done.stdout[-500:]


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
