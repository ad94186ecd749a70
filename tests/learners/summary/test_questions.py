import json
import time
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from haina.errors import LearnerError, RoundError
from haina.federation.statistics import summary
from haina.learners.learner import Training, Work
from haina.learners.summary import Correlation, Distribution, Histogram, Roc, SummaryLearner, Table
from haina.learners.summary.ladder import gap, ladder
from haina.learners.summary.suppression import hidden_cells
from haina.learners.variables import Variables
from haina.shards import Shards
from haina.update import Failure

NUMBERS = Variables.of(("a", "b"), {})
FACTORS = Variables.of(("f", "g"), {"f": ("u", "v", "w"), "g": ("k", "l")})


def answered(question, *parts, limit=40):
    """Ask sites with rows `[n, encoded]` until it is answered; each answers alone and answers are added."""
    known, done, rounds = question.first(), False, 0
    while not done:
        sums = sum(question.answer(known, x, np.zeros(len(x))) for x in parts)
        known, done = question.learn(known, sums)
        rounds += 1
        assert rounds <= limit
    return known


def split(x, *sizes):
    return np.split(x, np.cumsum(sizes))


def off_type_7(found, x, probabilities):
    """Largest distance of quantiles `[c, q]` from R's type 7, each relative to the values that it lies between."""
    worst = 0.0
    for own, column in zip(found, x.T, strict=True):
        ranked = [Fraction(value) for value in sorted(column)]
        for value, p in zip(own, probabilities, strict=True):
            h = (len(ranked) - 1) * Fraction(str(p))
            low, high = ranked[int(h)], ranked[min(int(h) + 1, len(ranked) - 1)]
            away = abs(Fraction(value) - (low + (h - int(h)) * (high - low)))
            worst = max(worst, float(away / (max(abs(low), abs(high)) or 1)))
    return worst


@given(
    st.integers(0, 2**32), st.sampled_from(["normal", "whole", "wide", "constant", "zero", "tiny", "tiniest"])
)
def test_quantiles_are_the_pooled_ones(seed, kind):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(97, 2))
    x = {
        "normal": x,
        "whole": np.round(3 * x),
        "wide": x * np.exp(30 * x),
        "constant": 0 * x + 7.3,
        "zero": 0 * x,
        "tiny": 1e-140 * x,
        "tiniest": 1e-290 * x,
    }[kind]
    probabilities = (0.1, 0.25, 0.5, 0.913)
    question = Distribution(NUMBERS, ("a", "b"), probabilities, 1)
    found = question.quantiles(answered(question, *split(x, 30, 20), limit=11))
    # h = 96 p + 1 has an error of half a digit in its fraction; where it is whole, quantiles are the very values.
    assert off_type_7(found, x, probabilities) < 3e-14
    assert np.array_equal(found[:, 1:3], np.sort(x, axis=0)[[24, 48]].T)


def test_quantiles_beside_a_sentinel_are_exact():
    x = np.random.default_rng(0).uniform(1e-8, 2e-8, (406, 2))
    x[400:] = 999999999
    question = Distribution(NUMBERS, (), (0.05, 0.25, 0.5, 0.75, 0.95), 1)
    found = question.quantiles(answered(question, *split(x, 130, 201), limit=11))
    assert off_type_7(found, x, question.probabilities) < 1e-13
    assert (found > 1e-8).all()


def test_ten_rounds_settle_any_double():
    rng = np.random.default_rng(0)
    sought = rng.integers(0, 2**64, 500, dtype=np.uint64).view(np.float64)
    sought = np.append(sought[np.isfinite(sought)], [0.0, -0.0, 5e-324, -5e-324, 1.0])
    most = np.full(len(sought), np.finfo(np.float64).max)
    low, high = -most, most
    for _ in range(10):
        rungs = np.column_stack([low, ladder(low, high), high])
        assert (np.diff(rungs, axis=1) >= 0).all()
        step = (rungs < sought[:, None]).sum(axis=1)
        low, high = rungs[np.arange(len(sought)), step - 1], rungs[np.arange(len(sought)), step]
    assert np.array_equal(high, sought)
    assert (gap(low, high) == 1).all()


def test_moments_keep_their_digits_far_from_zero():
    rng = np.random.default_rng(5)
    x = np.column_stack([1e9 + rng.normal(size=200), rng.normal(size=200)])
    question = Distribution(NUMBERS, (), (), 1)
    one, _ = question.found(answered(question, *split(x, 80, 50)))["columns"]
    assert one["mean"] == pytest.approx(x[:, 0].mean(), rel=1e-15)
    assert one["sd"] == pytest.approx(np.std(x[:, 0] - 1e9, ddof=1), rel=1e-12)


def test_missing_values_are_counted_where_they_are():
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:15, 0] = np.nan
    question = Distribution(NUMBERS, (), (0.5,), 5)
    first, second = question.found(answered(question, *split(x, 30)))["columns"]
    assert (first["n"], first["missing"], second["missing"]) == (45, 15, 0)
    assert first["mean"] == pytest.approx(np.nanmean(x[:, 0]), rel=1e-14)
    assert first["quantiles"]["0.5"] == np.nanmedian(x[:, 0])


@pytest.mark.parametrize(("n", "told"), [(20, [None, None]), (200, [True, True])])
def test_a_quantile_needs_rows_beyond_it(n, told):
    x = np.random.default_rng(0).normal(size=(n, 2))
    question = Distribution(NUMBERS, ("a",), (0.05, 0.95))
    (one,) = question.found(answered(question, *split(x, n // 2)))["columns"]
    assert [value is not None or None for value in one["quantiles"].values()] == told


@pytest.mark.parametrize(
    "question",
    [
        Distribution(NUMBERS),
        Correlation(NUMBERS),
        Histogram(NUMBERS, "a", check="sum", min_cell=1),
        Roc(NUMBERS, "b", "a", check="sum"),
    ],
    ids=lambda question: question.kind,
)
def test_rows_that_go_between_two_rounds_start_the_question_again(question):
    rng = np.random.default_rng(1)
    x = np.column_stack([rng.normal(50, 1, 90), rng.integers(0, 2, 90)])
    whole, part = x, x[:60]
    known, _ = question.learn(question.first(), question.answer(question.first(), whole, np.zeros(90)))
    known, done = question.learn(known, question.answer(known, part, np.zeros(60)))
    assert not done
    assert np.array_equal(known, question.first())
    alone, together = (answered(question, *parts) for parts in ((part,), split(part, 25)))
    assert alone[1:] == pytest.approx(together[1:], rel=1e-12)


def test_a_summary_whose_rounds_ran_out_does_not_speak_of_a_fit():
    made = summary(SimpleNamespace(columns=None, features=("a", "b"), classes=None), Path())("quantiles")
    said = made.tell(SimpleNamespace(finished=False, round=4))
    assert "NOT answered after 4 rounds" in said
    assert "11 rounds" in said


def test_no_rows_are_no_answer():
    for question in (Distribution(NUMBERS), Correlation(NUMBERS), Table(FACTORS, ("f",))):
        with pytest.raises(RoundError):
            question.learn(question.first(), np.zeros(question.size))


def free_tables(hidden):
    """`[hidden cells, r]` orthonormal tables that are zero where cells are shown and in all totals; r = 0 where all cells follow."""
    places, equations = np.argwhere(hidden), []
    for axis in range(hidden.ndim):
        lines = [tuple(np.delete(place, axis)) for place in places]
        equations += [[float(own == line) for own in lines] for line in set(lines)]
    _, singular, right = np.linalg.svd(np.array(equations))
    return right[(singular > 1e-9).sum() :].T


@st.composite
def sparse_tables(draw):
    shape = draw(st.sampled_from([(4, 4), (3, 6), (6, 6), (5, 2), (3, 3, 3), (2, 4, 3), (4, 3, 2)]))
    rng, share = (
        np.random.default_rng(draw(st.integers(0, 2**32))),
        draw(st.sampled_from([0.1, 0.25, 0.5, 1])),
    )
    return np.where(rng.random(shape) < share, rng.integers(0, 9, shape), 200).astype(float)


#: Two cycles of small cells, joined by the 3 alone.
JOINED = np.array(
    [[4.0, 4, 3, 200], [4, 4, 200, 200], [200, 200, 4, 4], [200, 200, 4, 4]],
)


@settings(max_examples=300)
@given(sparse_tables(), st.integers(2, 6))
@example(JOINED, 5)
def test_no_hidden_cell_follows_from_what_is_shown(table, min_cell):
    hidden = hidden_cells(table, min_cell)
    few = (table > 0) & (table < min_cell)
    assert not (few & ~hidden).any()
    assert hidden.any() == few.any()
    if not hidden.any():
        return
    free, held = free_tables(hidden), table[hidden]
    assert ((free**2).sum(axis=1) > 1e-9).all()
    # Nor a sum of two below min_cell, unless it would follow with all cells hidden too.
    all_hidden = free_tables(np.ones(table.shape, bool))[hidden.ravel()]
    for i, j in combinations(range(len(held)), 2):
        if 0 < held[i] + held[j] < min_cell and ((free[i] + free[j]) ** 2).sum() < 1e-9:
            assert ((all_hidden[i] + all_hidden[j]) ** 2).sum() < 1e-9


def test_lines_hold_enough_hidden_rows_or_hide_all():
    table = np.random.default_rng(2).integers(0, 40, (6, 8)).astype(float)
    hidden = hidden_cells(table, 5)
    for cells, veil in [*zip(table, hidden, strict=True), *zip(table.T, hidden.T, strict=True)]:
        assert not veil.any() or veil.all() or (veil.sum() >= 2 and cells[veil].sum() >= 5)


def test_a_pair_with_a_small_sum_does_not_follow():
    # A cycle of six in which 1 + 2, in no common line, is the difference of totals.
    table = np.full((5, 5), 200.0)
    table[[0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 0]] = 1, 9, 9, 2, 9, 9
    hidden = hidden_cells(table, 5)
    assert hidden[:3, :3].sum() > 6
    cells = np.flatnonzero(hidden).tolist()
    one, other = free_tables(hidden)[[cells.index(0), cells.index(7)]]
    assert ((one + other) ** 2).sum() > 1e-6


@pytest.mark.parametrize("shape", [(100, 100), (2, 5000), (21, 21, 22)])
def test_tables_of_ten_thousand_cells_are_quick(shape):
    rng = np.random.default_rng(1)
    table = np.where(rng.random(shape) < 0.01, rng.integers(1, 5, shape), rng.integers(50, 500, shape))
    started = time.process_time()
    hidden = hidden_cells(table.astype(float), 5)
    # It takes a tenth of a second.
    assert time.process_time() - started < 10
    assert hidden[table < 5].all()
    assert not hidden.all()


def test_suppression_by_example():
    assert hidden_cells(np.array([20.0, 3, 9, 0]), 5).tolist() == [False, True, True, False]
    assert hidden_cells(np.array([20.0, 3, 2, 0]), 5).tolist() == [False, True, True, False]
    assert hidden_cells(np.array([20.0, 1, 2, 0]), 5).tolist() == [True, True, True, False]
    assert not hidden_cells(np.array([20.0, 3]), 1).any()
    cross = hidden_cells(np.array([[30.0, 2, 9], [8, 25, 7], [40, 6, 50]]), 5)
    # The 2 takes the 9 with it; each then needs another in its column, and these another in their rows.
    assert cross.tolist() == [[False, True, True], [True, False, True], [True, True, False]]


def factor_rows(counts):
    """Rows of f by g with the given counts."""
    return np.array(
        [
            [*(float(i == k) for k in range(3)), *(float(j == k) for k in range(2))]
            for i, row in enumerate(counts)
            for j, count in enumerate(row)
            for _ in range(count)
        ]
    )


def test_what_is_hidden_is_not_in_the_model():
    question = Table(FACTORS, ("f", "g"), check="sum")
    known = answered(
        question, factor_rows([[30, 2], [8, 25], [40, 6]]), factor_rows([[1, 0], [1, 1], [0, 0]])
    )
    assert question.found(known)["counts"] == [[None, None], [9, 26], [None, None]]
    assert sorted(set(known.tolist())) == [-1, 1, 9, 26, 114]
    assert "merge levels" in question.summary(known)


def test_tables_and_histograms_count_what_is_missing_apart():
    rows = factor_rows([[30, 20], [8, 25], [40, 6]])
    rows[:7, 3:] = 0
    question = Table(FACTORS, ("f", "g"))
    known = answered(question, rows)
    found = question.found(known)
    assert (found["n"], found["missing"], np.sum(found["counts"])) == (122, 7, 122)
    assert "rows: 122    missing: 7" in question.summary(known)
    x = np.random.default_rng(0).normal(size=(60, 2))
    x[:15, 0] = np.nan
    for breaks in ((), (-9.0, 9.0)):
        histogram = Histogram(NUMBERS, "a", breaks, bins=3, min_cell=1)
        known = answered(histogram, *split(x, 30))
        found = histogram.found(known)
        assert (found["n"], found["missing"]) == (45, 15)
        assert found["below"] + sum(found["counts"]) + found["above"] == 45
        assert "45 rows    missing: 15" in histogram.summary(known)


def test_a_site_says_why_it_keeps_its_table():
    learner = SummaryLearner(Table(FACTORS, ("f",)))
    x = factor_rows([[30, 2], [2, 0], [10, 10]])
    shards = Shards(("site", "tiny"), x, np.zeros(len(x)), np.array([[0, len(x)], [0, 4]]))
    result, tiny = learner.train(Work(learner.initial(0), 1, shards, Training(), 0.1))
    assert isinstance(result, Failure)
    assert "fewer than 5 rows" in result.reason
    assert 'check = "sum"' in result.reason
    assert "fewer than 10 rows" in tiny.reason


def test_a_column_with_few_values_is_kept():
    learner = SummaryLearner(Distribution(NUMBERS))
    x = np.full((40, 2), np.nan)
    x[:, 0], x[:3, 1] = 1.0, 5.0
    shards = Shards(("site",), x, np.zeros(40), np.array([[0, 40]]))
    (result,) = learner.train(Work(learner.initial(0), 1, shards, Training(), 0.1))
    assert "column 'b' has fewer than 10 values" in result.reason


def test_an_area_in_closed_form():
    # Scores 0 .. 99 of which the upper half are cases: perfect; and of which every second is: nearly nothing.
    variables = Variables.of(("score", "case"), {})
    score = np.arange(100.0)
    for case, area in ((score >= 50, 1.0), (score % 2 == 1, 0.51)):
        question = Roc(variables, "case", "score", bins=5000, check="sum")
        known = answered(question, *split(np.column_stack([score, case]), 37))
        assert question.found(known)["auc"] == pytest.approx(area, abs=1e-12)


def test_summaries_predict_nothing():
    learner = SummaryLearner(Distribution(NUMBERS))
    with pytest.raises(LearnerError, match="test = 0"):
        learner.evaluate(learner.initial(0), np.zeros((1, 2)), np.zeros(1))
    with pytest.raises(LearnerError):
        learner.predict(learner.initial(0), np.zeros((1, 2)))
    with pytest.raises(LearnerError, match="for this question"):
        list(
            learner.train(
                Work(
                    np.zeros(3),
                    1,
                    Shards((), np.zeros((0, 2)), np.zeros(0), np.zeros((0, 2), int)),
                    Training(),
                    0.1,
                )
            )
        )
    assert np.array_equal(learner.from_bytes(learner.to_bytes(learner.initial(0))), learner.initial(0))


def test_a_site_in_another_language_is_told_all_that_it_needs():
    variables = Variables.of(("a", "f"), {"f": ("u", "v")}, "y", ("no", "yes"))

    def said(question):
        described = SummaryLearner(question).describe()
        assert json.loads(json.dumps(described)) == described
        assert (described.pop("kind"), described.pop("asks")) == ("summary", question.kind)
        return described

    cells = {"min_cell": 3, "check": "sum"}
    assert said(Distribution(variables, (), (0.5,))) == {
        "columns": ["a"],
        "probabilities": [0.5],
        "rungs": 127,
    }
    assert said(Correlation(NUMBERS)) == {"columns": ["a", "b"]}
    assert said(Table(variables, ("y", "f"), 3, "sum")) == {
        "columns": ["y", "f"],
        "levels": {"y": ["no", "yes"], "f": ["u", "v"]},
        **cells,
    }
    assert said(Histogram(variables, "a", (), 12, 3, "sum")) == {"columns": ["a"], "edges": 13, **cells}
    assert said(Histogram(variables, "a", (0.0, 1.0), 12, 3, "sum"))["edges"] == 2
    assert said(Roc(variables, "f", "a", 50, 3, "sum")) == {
        "columns": ["a"],
        "outcome": "f",
        "levels": {"f": ["u", "v"]},
        "bins": 50,
        **cells,
    }
