import numpy as np
import pytest

from haina.data.dataset import Dataset, factorise, in_order, recode
from haina.errors import DataError

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_the_dtype_of_plain_targets_says_their_kind():
    values = Dataset.of(X, np.array([1.0, 2.0, 3.0, 4.0], np.float32))
    assert values.classes is None
    assert values.y.dtype == np.float64
    numbers = Dataset.of(X, np.array([7, 3, 10, 3]))
    assert numbers.classes == ("3", "7", "10")
    np.testing.assert_array_equal(numbers.y, [1, 0, 2, 0])
    words = Dataset.of(X, np.array(["ill", "well", "ill", "ill"], dtype=object))
    assert words.classes == ("ill", "well")
    flags = Dataset.of(X, np.array([True, False, True, True]))
    assert flags.classes == ("False", "True")
    np.testing.assert_array_equal(flags.y, [1, 0, 1, 1])


def test_class_names_may_be_given_for_codes_and_for_text():
    codes = Dataset.of(X, np.array([0, 1, 1, 0]), classes=["well", "ill", "unknown"])
    text = Dataset.of(X, np.array(["well", "ill", "ill", "well"]), classes=["well", "ill", "unknown"])
    np.testing.assert_array_equal(codes.y, text.y)
    assert codes.classes == text.classes == ("well", "ill", "unknown")


def test_whole_floats_are_the_same_levels_as_integers():
    assert factorise(np.array([1.0, 0.0, 1.0]))[0] == factorise(np.array([1, 0, 1]))[0] == ["0", "1"]
    with pytest.raises(DataError, match=r"0\.5 is not a class"):
        factorise(np.array([0.5, 1.0]))


def test_levels_are_ordered_by_size_then_by_text():
    assert in_order(["10", "9", "b", "-1", "a", "9"]) == ("-1", "9", "10", "a", "b")


def test_recode_names_what_is_not_agreed():
    with pytest.raises(DataError, match=r"colour holds 'blue'.*'red', 'green'"):
        recode(["blue", "red"], np.array([0, 1]), ("red", "green"), "colour")


def test_standardised_features_have_mean_zero_and_deviation_one_and_constants_vanish():
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (200, 3)).astype(np.float32)
    x[:, 1] = 4.0
    x = Dataset.of(x, rng.normal(size=200)).standardised().x
    np.testing.assert_allclose(x.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=0), [1, 0, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Dataset.of(X, np.zeros(4, int)), "one class only: 0"),
        (lambda: Dataset.of(X, np.zeros(3)), "shapes"),
        (lambda: Dataset.of(X[:0], np.zeros(0)), "no rows"),
        (
            lambda: Dataset.of(np.where(X == 4, np.nan, X), np.zeros(4)),
            "not finite in 1 of 4 rows, first in row 1",
        ),
        (lambda: Dataset.of(X.astype(float) * 1e38, np.zeros(4)).in_float32(), "in float32, up to 3.4e38"),
        (lambda: Dataset.of(X, np.array([0, np.inf, 0, 0])), "target is not finite"),
        (lambda: Dataset.of(X, np.array([0, 1, 2, 1]), classes=["a", "b"]), "from 0 to 2"),
        (lambda: Dataset.of(X, np.array([0, -1, 1, 1]), classes=["a", "b"]), "from -1 to 1"),
        (lambda: Dataset.of(X, np.zeros(4), features=["a", "b", "a"]), "twice: 'a'"),
        (lambda: Dataset.of(X, np.zeros(4), features=["a", "b"]), "2 feature names"),
        (lambda: Dataset.of(X, np.zeros(4), groups=np.array(["a"])), "shapes"),
        (lambda: Dataset.of(np.array([["a"], ["b"]]), np.zeros(2)), "numbers"),
        (lambda: Dataset(X.astype(int), np.zeros(4)), "float64"),
    ],
)
def test_what_cannot_be_rows_is_refused(make, words):
    with pytest.raises(DataError, match=words):
        make()
