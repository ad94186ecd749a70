import numpy as np
import pytest

from haina.errors import DataError, LearnerError
from haina.learners.variables import Variables

VARIABLES = Variables.of(("age", "sex", "bmi"), {"sex": ("F", "M")}, "died", ("no", "yes"))
X, Y = np.array([[30.0, 1, 0, 22], [40.0, 0, 1, 25]]), np.array([1, 0])


def test_columns_are_found_in_encoded_rows():
    assert VARIABLES.numbers("bmi", X, Y).tolist() == [22, 25]
    assert VARIABLES.indicators("sex", X, None).tolist() == [[1, 0], [0, 1]]
    assert VARIABLES.indicators("died", X, Y).tolist() == [[0, 1], [1, 0]]
    assert VARIABLES.binary("died", X, Y).tolist() == [1, 0]
    assert VARIABLES.binary("sex", X, Y).tolist() == [0, 1]
    assert (VARIABLES.features, VARIABLES.target) == (("age", "sex", "bmi"), "died")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: VARIABLES.numbers("sex", X, Y), "is a factor with the levels F, M"),
        (lambda: VARIABLES.indicators("age", X, Y), "is a number"),
        (lambda: VARIABLES["agee"], "Did you mean 'age'"),
        (lambda: Variables.of(("w",), {"w": ("a", "b", "c")}).binary("w", X, Y), "3 levels"),
    ],
)
def test_columns_of_another_kind(ask, words):
    with pytest.raises(LearnerError, match=words):
        ask()


def test_rows_without_targets():
    with pytest.raises(DataError, match="without targets"):
        VARIABLES.indicators("died", X, None)
