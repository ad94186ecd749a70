import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import LearnerError, RoundError
from haina.learners.learner import Training, Work
from haina.learners.summary import Correlation, Distribution, Histogram, Roc, SummaryLearner, Table
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
        assert rounds < limit
    return known


def split(x, *sizes):
    return np.split(x, np.cumsum(sizes))


@given(st.integers(0, 2**32), st.sampled_from(["normal", "whole", "wide", "constant", "tiny"]))
def test_quantiles_are_the_pooled_ones(seed, kind):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(97, 2))
    x = {
        "normal": x,
        "whole": np.round(3 * x),
        "wide": x * np.exp(30 * x),
        "constant": 0 * x + 7.3,
        "tiny": 1e-140 * x,
    }[kind]
    probabilities = (0.1, 0.25, 0.5, 0.913)
    question = Distribution(NUMBERS, ("a", "b"), probabilities, 1)
    found = question.quantiles(answered(question, *split(x, 30, 20)))
    pooled = np.quantile(x, probabilities, axis=0).T
    assert np.max(np.abs(found - pooled)) <= 1e-15 * np.abs(x).max() + 1e-320


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


def test_no_rows_are_no_answer():
    for question in (Distribution(NUMBERS), Correlation(NUMBERS), Table(FACTORS, ("f",))):
        with pytest.raises(RoundError):
            question.learn(question.first(), np.zeros(question.size))


@given(st.lists(st.integers(0, 12), min_size=12, max_size=12), st.integers(2, 6))
def test_no_hidden_cell_follows_from_what_is_shown(counts, min_cell):
    table = np.array(counts, float).reshape(3, 4)
    hidden = hidden_cells(table, min_cell)
    assert not ((table > 0) & (table < min_cell) & ~hidden).any()
    for cells, veil in [*zip(table, hidden, strict=True), *zip(table.T, hidden.T, strict=True)]:
        if veil.any() and not veil.all():
            # With the line's total, the hidden cells are known together only, and together they are not few.
            assert veil.sum() >= 2
            assert cells[veil].sum() >= min_cell
    if not ((table > 0) & (table < min_cell)).any():
        assert not hidden.any()


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
