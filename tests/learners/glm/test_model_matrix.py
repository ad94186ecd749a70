import numpy as np
import pytest

from haina.errors import DataError, LearnerError
from haina.learners.glm import Formula, GlmLearner, ModelMatrix
from haina.learners.variables import Variables

VARIABLES = Variables.of(("x", "sex", "ward"), {"sex": ("F", "M"), "ward": ("a", "b", "c")}, "y", None)


def rows(*cells):
    """x, sex, ward -> encoded rows."""
    levels = [one.levels or () for one in VARIABLES.each[1:3]]
    return np.array(
        [
            [x, *(float(sex == level) for level in levels[0]), *(float(ward == level) for level in levels[1])]
            for x, sex, ward in cells
        ]
    )


def design(formula):
    return ModelMatrix(Formula.parse(formula, VARIABLES.names), VARIABLES)


def test_an_interaction_runs_through_its_first_factor_first():
    matrix = design("y ~ sex * ward")
    assert matrix.names == ("(Intercept)", "sexM", "wardb", "wardc", "sexM:wardb", "sexM:wardc")
    assert matrix.matrix(rows((1, "M", "c"), (2, "F", "b"))).tolist() == [
        [1, 1, 0, 1, 0, 1],
        [1, 0, 1, 0, 0, 0],
    ]


def test_a_site_without_a_level_makes_the_same_columns():
    matrix = design("y ~ x:ward - 1")
    assert matrix.names == ("x:warda", "x:wardb", "x:wardc")
    assert matrix.matrix(rows((3, "M", "a"), (5, "F", "b"))).tolist() == [[3, 0, 0], [0, 5, 0]]


def test_arithmetic_is_computed():
    matrix = design("y ~ I((x + 1)^2 / 2) + I(-x^2) + log1p(x)")
    assert matrix.matrix(rows((3, "M", "a")))[0] == pytest.approx([1, 8, -9, np.log(4)])


def test_what_is_not_finite_is_counted_and_not_shown():
    with pytest.raises(DataError, match=r"log\(x\) is not a number in 2 of 3 rows") as caught:
        design("y ~ log(x)").matrix(rows((-7.25, "M", "a"), (0, "F", "a"), (1, "F", "a")))
    assert "7.25" not in str(caught.value)


def test_outcomes():
    x, y = rows((1, "M", "a"), (2, "F", "b")), np.array([4.0, 9.0])
    assert design("sqrt(y) ~ x").outcome(x, y).tolist() == [2, 3]
    assert design("sex ~ x").outcome(x, y).tolist() == [1, 0]
    with pytest.raises(LearnerError, match="3 levels"):
        design("ward ~ x").outcome(x, y)


@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("y ~ log(sex)", "computes with 'sex', a factor"),
        ("y ~ factor(x)", "categorical"),
        ("y ~ age", r"no column 'age'"),
        ("y ~ y", "explains itself"),
        ("log(y) ~ log(y)", "explains itself"),
        ("x ~ x", "explains itself"),
        ("y ~ wrad", "Did you mean 'ward'"),
        ("y ~ 0", "no coefficients"),
    ],
)
def test_designs_that_cannot_be(formula, words):
    with pytest.raises(LearnerError, match=words):
        design(formula)


def test_a_learner_tells_what_another_language_needs():
    said = GlmLearner("binomial", design("y ~ sex * x")).describe()
    assert said["formula"] == "y ~ sex * x"
    assert said["coefficients"] == ["(Intercept)", "sexM", "x", "sexM:x"]
    assert said["levels"] == {"sex": ["F", "M"]}


def test_regressions_refuse_what_is_of_survival():
    with pytest.raises(LearnerError, match="for survival"):
        GlmLearner("gaussian", design("Surv(x, y) ~ sex"))
    with pytest.raises(LearnerError, match="not offered for the binomial"):
        GlmLearner("binomial", design("y ~ sex + offset(x)"))


def test_predictions_add_the_offset():
    learner = GlmLearner("poisson", design("y ~ sex + offset(log(x))"))
    assert learner.predict(np.array([0.5, 1.0]), rows((4, "M", "a"), (2, "F", "a"))) == pytest.approx(
        [4 * np.exp(1.5), 2 * np.exp(0.5)]
    )
