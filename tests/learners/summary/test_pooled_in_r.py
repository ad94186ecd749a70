"""Summaries of four sites against R's of all rows together."""

import numpy as np
import pytest
from pooled_in_r import asked, off

from haina.errors import ConfigError, RunError

COLUMNS = ("x0", "x5", "stay", "yp")


def test_descriptions(in_r):
    found = asked("describe", COLUMNS).finding.to_json()
    for one in found["columns"]:
        theirs = in_r[f"describe/{one['name']}"]
        assert (one["n"], one["missing"]) == (theirs["n"][0], theirs["missing"][0])
        assert off([one["mean"]], theirs["mean"]) < 1e-13
        assert off([one["sd"]], theirs["sd"]) < 1e-13
        # Quantiles are the very values, so they differ by R's own rounding of a weighted mean at most.
        assert off(list(one["quantiles"].values()), theirs["quantiles"]) < 1e-14


def test_minimum_and_maximum_are_single_persons(in_r):
    ends = {"probabilities": (0.0, 1.0)}
    hidden = asked("quantiles", COLUMNS, **ends).finding
    assert all(one["quantiles"] == {"0": None, "1": None} for one in hidden.to_json()["columns"])
    assert "fewer than 5 values lie beyond it" in hidden.summary()
    for one in asked("quantiles", COLUMNS, min_cell=1, **ends).finding.to_json()["columns"]:
        assert list(one["quantiles"].values()) == in_r[f"describe/{one['name']}"]["range"].tolist()


def test_correlations(in_r):
    asked_of = asked("correlation", ["x0", "x1", "x5", "stay"])
    found = asked_of.finding.to_json()
    assert off(np.ravel(found["correlation"]), in_r["cor"]["value"]) < 1e-13
    assert off(np.ravel(found["covariance"]), in_r["cor"]["cov"]) < 1e-13
    assert found["n"] == 847
    assert asked_of.rounds == 2


def test_tables(in_r):
    assert asked("table", ["ward"]).finding.to_json()["counts"] == in_r["table"]["ward"].tolist()
    cross = asked("table", ["ward", "sex"]).finding.to_json()
    assert np.ravel(cross["counts"]).tolist() == in_r["table"]["cross"].tolist()
    assert cross["levels"] == [["a", "b", "c"], ["F", "M"]]


def test_histograms(in_r):
    found = asked("histogram", ["x0"], breaks=(-2.0, -1.0, 0.0, 0.5, 2.0), check="sum").finding.to_json()
    theirs = in_r["histogram"]
    assert found["counts"] == theirs["counts"].tolist()
    assert [found["below"], found["above"]] == [theirs["below"][0], theirs["above"][0]]


@pytest.mark.parametrize(("bins", "error"), [(100, 1e-3), (1000, 1e-4), (10_000, 1e-5)])
def test_areas_under_the_curve(in_r, bins, error):
    found = asked("auc", ["score"], ["yb"], outcome="yb", bins=bins, check="sum").finding.to_json()
    assert off([found["auc"]], in_r["auc"]["value"]) < error
    assert (found["cases"], found["controls"]) == (in_r["auc"]["cases"][0], in_r["auc"]["controls"][0])
    true, false = found["true_positive_rate"], found["false_positive_rate"]
    assert np.trapezoid(true, false) == pytest.approx(found["auc"], abs=0.01)


def test_a_site_keeps_small_cells_to_itself():
    with pytest.raises(RunError, match=r"fewer than 5 rows.*widen bins.*secure_aggregation"):
        asked("auc", ["score"], ["yb"], outcome="yb")
    with pytest.raises(RunError, match="fewer than 5 rows"):
        asked("histogram", ["x0"], bins=40)
    hidden = asked("histogram", ["x0"], bins=12, check="sum").finding
    assert None in hidden.to_json()["counts"]
    assert "use wider bins" in hidden.summary()


@pytest.mark.parametrize(
    ("kind", "columns", "settings", "words"),
    [
        ("describe", ["sex"], {}, "'sex' is a factor"),
        ("describe", ["x0"], {"probabilities": (1.5,)}, r"\[0, 1\]"),
        ("describe", ["x0"], {"min_cell": 0}, "integer >= 1"),
        ("table", ["x0"], {}, "'x0' is a number"),
        ("correlation", ["x0"], {}, "two numbers or more"),
        ("histogram", ["x0", "x1"], {}, "2 columns are named"),
        ("histogram", ["x0"], {"breaks": (1.0, 1.0)}, "numbers that rise"),
        ("auc", ["x0"], {"outcome": "x0", "bins": 1}, "2 to 100,000"),
        ("mode", ["x0"], {}, "describe"),
    ],
)
def test_questions_that_cannot_be_asked(kind, columns, settings, words):
    with pytest.raises(ConfigError, match=words):
        asked(kind, columns, **settings)
