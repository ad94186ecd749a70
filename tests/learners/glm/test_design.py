import numpy as np
import pytest

from haina.errors import DataError
from haina.learners.glm import Design, Term


def cells(*columns):
    x = np.empty((len(columns[0]), len(columns)), dtype=object)
    for j, column in enumerate(columns):
        x[:, j] = column
    return x


def test_levels_are_agreed_as_a_sorted_union_and_coded_by_treatment():
    design = Design((Term("age"), Term("ward", levels=())))
    here, there = cells([1.0, 2.0], ["b", "a"]), cells([3.0], ["c"])
    assert design.levels(here) == {"ward": ["a", "b"]}
    agreed = design.agreed([design.levels(there), design.levels(here)])
    assert agreed == design.agreed([design.levels(here), design.levels(there)])
    assert agreed.names == ("(Intercept)", "age", "wardb", "wardc")
    assert agreed.matrix(here).tolist() == [[1, 1, 1, 0], [1, 2, 0, 0]]
    assert agreed.matrix(there).tolist() == [[1, 3, 0, 1]]


def test_numbers_can_name_levels_and_sort_as_numbers():
    design = Design((Term("grade", levels=()),))
    agreed = design.agreed([{"grade": [10.0, 9.0]}, design.levels(np.array([[2.0], [10.0]], np.float32))])
    assert agreed.names == ("(Intercept)", "grade9", "grade10")


def test_without_an_intercept_the_first_factor_keeps_all_levels():
    design = Design((Term("a", levels=("x", "y")), Term("b", levels=("u", "v"))), intercept=False)
    assert design.names == ("ax", "ay", "bv")
    assert design.matrix(cells(["x", "y"], ["v", "u"])).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_the_first_of_a_one_hot_group_is_left_out():
    design = Design.named(["age", "ward=a", "ward=b", "sex=f", "sex=m"])
    assert design.names == ("(Intercept)", "age", "ward=b", "sex=m")
    assert design.matrix(np.array([[30.0, 1, 0, 0, 1]])).tolist() == [[1, 30, 0, 1]]


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (cells([1.0], ["d"]), "level 'd'"),
        (cells([np.nan], ["a"]), "column 'age' is nan in row 0"),
        (cells(["old"], ["a"]), "holds text"),
        (cells([1.0], [None]), "'ward' is missing in row 0"),
        (np.zeros((3, 5)), "shape"),
    ],
)
def test_cells_that_cannot_be_used(x, words):
    design = Design((Term("age"), Term("ward", levels=("a", "b"))))
    with pytest.raises(DataError, match=words):
        design.matrix(x)


def test_levels_that_were_never_agreed():
    with pytest.raises(DataError, match="not agreed"):
        _ = Design((Term("ward", levels=()),)).names


def test_levels_of_an_unknown_factor():
    with pytest.raises(DataError, match="no column"):
        Design((Term("ward", levels=()),)).agreed([{"bed": ["a"]}])
