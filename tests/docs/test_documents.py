"""Every document is followed from top to bottom in a folder of its own.

A fence says what to do with it: "```toml federation.toml" or "```python task.py" writes the file, "```sh" is typed into a shell, "```python" is run.
Fences with any other word are shown only.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rlang import require_r
from rsite import library

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "README.zh-CN.md"])
FENCE = re.compile(r"^```(\w*)[ \t]*(\S*)[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Documents that need R, and the packages they use.
NEEDS_R = {"r.md": ["curl", "jsonlite", "openssl"], "r-from-python.md": ["jsonlite"]}
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


def commands(text):
    """`./dev haina X` in the documents is `haina X` here, where the environment is made already."""
    lines = [
        line.replace("../dev haina ", "haina ").replace("./dev haina ", "haina ")
        for line in text.splitlines()
    ]
    return "\n".join(line for line in lines if not line.startswith(("./dev", "git clone", "cd haina")))


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_stranger_can_follow_the_document(document, tmp_path):
    if document.name in NEEDS_R:
        require_r(*NEEDS_R[document.name])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "120",
    }
    if document.name == "r.md":
        environment["R_LIBS"] = str(library())
    for language, name, body in FENCE.findall(document.read_text(encoding="utf-8")):
        if name:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body, encoding="utf-8")
            continue
        if language == "sh":
            call = ["sh", "-euc", commands(body)]
        elif language == "python":
            call = [sys.executable, "-W", "error", "-c", body]
        else:
            continue
        done = subprocess.run(
            call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{body}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    prose = FENCE.sub("", document.read_text(encoding="utf-8"))
    for target in LINK.findall(prose):
        assert (document.parent / target).exists(), target


def test_the_table_of_strategies_names_every_preset():
    from haina.strategy.presets import PRESETS

    text = (ROOT / "docs/strategies.md").read_text(encoding="utf-8")
    assert not [name for name in PRESETS if f"`{name}`" not in text]


def test_the_reference_names_every_part():
    from haina.data.partition import PARTITIONS
    from haina.federation.learners import LEARNERS
    from haina.federation.names import CLIPS, COMBINERS, FACTORS, SCHEDULES, SELECTORS, SERVERS
    from haina.simulation.attacks import ATTACKS

    text = (ROOT / "docs/federation-file.md").read_text(encoding="utf-8")
    for registry in (LEARNERS, CLIPS, COMBINERS, FACTORS, SCHEDULES, SELECTORS, SERVERS, PARTITIONS, ATTACKS):
        assert not [name for name in registry if f"`{name}`" not in text]
