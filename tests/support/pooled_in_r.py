"""What R says of four sites whose rows lie in one table: stored with the tests, and asked of R anew where R is there.

`tests/learners/r_results/make.R` makes both. The table has four unlike sites; the stored answers are compared without R.
"""

import functools
import json
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
from rlang import environment, require_r

from haina.cli.analysis import Tables, analyse
from haina.learners.glm import Formula

FOLDER = Path(__file__).parent.parent / "learners" / "r_results"
TABLE = FOLDER / "sites.csv"


class Answers(dict):
    """Case -> field -> numbers `[n]`, or names."""

    @classmethod
    def read(cls, path):
        def numbers(field, values):
            if field == "names":
                return values
            return np.array([np.nan if v in ("NA", "NaN") else float.fromhex(v) for v in values])

        said = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls({case: {f: numbers(f, v) for f, v in answer.items()} for case, answer in said.items()})


@functools.cache
def stored():
    return Answers.read(FOLDER / "results.json")


def live(folder):
    """R's answers of now; the test is skipped, or fails where R is required, without R or its packages."""
    rscript = require_r("glmnet", "survival")
    out = Path(folder) / "results.json"
    command = [rscript, "--vanilla", str(FOLDER / "make.R"), str(TABLE), str(out)]
    subprocess.run(command, check=True, timeout=300, env=environment(), capture_output=True)
    return Answers.read(out)


@functools.cache
def sites():
    """Site -> its table."""
    table = pd.read_csv(TABLE)
    return {name: rows.drop(columns="site").reset_index(drop=True) for name, rows in table.groupby("site")}


def fitted(learner, formula, **settings):
    """An analysis of all four sites by a formula."""
    tables = Tables(sites())
    parsed = Formula.parse(formula, tables.columns)
    tables = Tables(sites(), frozenset(parsed.declared))
    return analyse(tables, learner, parsed.columns, {**settings, "formula": formula})


def asked(kind, columns, also=(), *, complete=False, **settings):
    """A summary of all four sites."""
    given = {"kind": kind, "columns": list(columns), **settings}
    return analyse(Tables(sites()), "summary", [*columns, *also], given, complete=complete)


def off(ours, theirs):
    """Largest difference, in units of the number where it is above 1."""
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    assert ours.shape == theirs.shape
    return float(np.max(np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))))
