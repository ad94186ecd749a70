import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.data.schema import Schema
from haina.data.table import Columns, agree_sites, agree_table
from haina.errors import DataError

COLUMNS = Columns(
    "died",
    features=("age", "sex", "lactate"),
    groups="ward",
    categorical={"sex": ("F", "M")},
    classes=("no", "yes"),
)
TABLE = Schema.table(COLUMNS, "float64")
ARRAYS = Schema((2, 3), classes=("cat", "dog"))
NAME = "Zhang Wei"


@pytest.fixture
def write(tmp_path):
    def write(content, name="rows.csv"):
        path = tmp_path / name
        if isinstance(content, dict):
            np.savez(path, **content)
        else:
            path.write_text(content, encoding="utf-8")
        return path

    return write


names = st.text(min_size=1, max_size=8)


@st.composite
def schemas(draw):
    classes = draw(st.none() | st.lists(names, min_size=2, max_size=4, unique=True))
    dtype = draw(st.sampled_from(["float32", "float64"]))
    features = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    if draw(st.booleans()):
        return Schema((len(features),), tuple(features), None if classes is None else tuple(classes), dtype)
    target = draw(names.filter(lambda name: name not in features))
    levels = st.lists(names, min_size=1, max_size=3, unique=True).map(tuple)
    columns = Columns(
        target,
        task="regression" if classes is None else "classification",
        features=tuple(features),
        categorical=draw(st.dictionaries(st.sampled_from(features), levels)),
        classes=tuple(classes or ()),
    )
    try:
        return Schema.table(columns, dtype)
    except DataError:  # "a" with level "b" and a column called "a=b"
        return Schema((3, 4), (), ("a", "b"), dtype)


@given(schemas())
def test_a_schema_survives_json(schema):
    assert Schema.from_json(schema.to_json()) == schema
    assert Schema.from_json(schema.to_json().encode()) == schema


@given(schemas(), st.data())
def test_whatever_is_no_schema_is_a_data_error(schema, data):
    text = schema.to_json()
    place = data.draw(st.integers(0, len(text) - 1))
    mutated = text[:place] + data.draw(st.text(max_size=3)) + text[place + data.draw(st.integers(0, 4)) :]
    for odd in (mutated, data.draw(st.text(max_size=30)), data.draw(st.binary(max_size=30))):
        with contextlib.suppress(DataError):
            Schema.from_json(odd)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[" * 100_000,
        '{"shape": []}',
        '{"shape": [0]}',
        '{"shape": ["3"]}',
        '{"shape": [3.5]}',
        '{"shape": [1000000, 1000000]}',
        '{"shape": [3], "features": ["a"]}',
        '{"shape": [2], "features": ["a", "a"]}',
        '{"shape": [2], "classes": ["a"]}',
        '{"shape": [2], "dtype": "float16"}',
        '{"shape": [1], "features": ["b"], "columns": {"target": "y", "task": "regression", "features": ["a"]}}',
        '{"shape": [1], "features": ["a"], "columns": {"target": "y", "features": ["a"]}}',
    ],
)
def test_contradictions_are_refused(text):
    with pytest.raises(DataError):
        Schema.from_json(text)


def test_the_columns_agreed_on_while_reading_are_the_schema(write):
    a = write("s,v,w,y\nF,1,x,no\nF,2,x,no\n", "a.csv")
    b = write("v,s,w,y\n3,M,x,yes\n", "b.csv")
    dataset, columns = agree_sites({"a": a, "b": b}, Columns("y", categorical={"s": (), "w": ()}))
    schema = Schema.of(dataset, columns, "float32")
    assert schema.columns.categorical == {"s": ("F", "M"), "w": ("x",)}
    assert (schema.features, schema.classes, schema.shape) == (
        ("s=F", "s=M", "v", "w=x"),
        ("no", "yes"),
        (4,),
    )
    # Each site alone, without the levels of the other, is encoded as they were together.
    together = dataset.in_float32()
    rows = [schema.read(path) for path in (a, b)]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in rows]), together.x)
    np.testing.assert_array_equal(np.concatenate([y for _, y in rows]), together.y)
    assert rows[0][0].dtype == np.float32


def test_the_natural_key_is_nobodys_business(write):
    dataset, columns = agree_table(write("a,g,y\n1,x,0\n2,z,1\n"), Columns("y", groups="g"))
    schema = Schema.of(dataset, columns, "float64")
    assert schema.columns.groups == ""
    x, y = schema.read(write("y,a\n1,0.1\n", "own.csv"))
    assert (x.tolist(), y.tolist(), x.dtype) == ([[0.1]], [1], np.float64)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (f"age,sex,lactate,died\n60,F,1.5,no\n{NAME},M,1,no\n", "'age' holds something else in 1 of 2 rows"),
        (
            f"age,sex,lactate,died\n60,{NAME},1.5,no\n61,{NAME},1,no\n",
            "'sex' holds something else in 2 of 2.*'F', 'M'",
        ),
        (
            f"age,sex,lactate,died\n60,F,1.5,{NAME}\n",
            "'died' holds something else in 1 of 1 rows.*'no', 'yes'",
        ),
        ("age,sex,lactate,died\n60,0.123,1.5,no\n61,1,1,no\n", "'sex' holds something else in 2 of 2"),
        (
            f"{NAME},F,1.5,no\n{NAME},M,1.5,no\n",
            "lacks 4 of the agreed columns: 'age', 'sex', 'lactate', 'died'",
        ),
        ("age,sex,lactate,died\n,F,1.5,no\n1,M,1,no\n", "values are missing .'age' in 1 of 2 rows"),
        ("age,sex,lactate,died\n", "no rows"),
    ],
)
def test_what_does_not_fit_is_counted_and_never_shown(write, content, words):
    with pytest.raises(DataError, match=words) as error:
        TABLE.read(write(content))
    assert NAME not in str(error.value)
    assert "0.123" not in str(error.value)


def test_missing_rows_are_dropped_where_the_schema_says_so(write):
    schema = Schema.table(Columns("y", task="regression", features=("a",), missing="drop"), "float32")
    x, y = schema.read(write("y,a,b\n0.5,1,\n,2,u\n1.5,,u\n"))
    assert (x.tolist(), y.tolist()) == ([[1.0]], [0.5])


def test_parquet_is_read_as_csv_is(write, tmp_path):
    import pandas as pd

    path = write("age,sex,lactate,died\n60,F,1.5,no\n70,M,2.5,yes\n")
    pd.read_csv(path).to_parquet(tmp_path / "rows.parquet")
    for one, other in zip(TABLE.read(path), TABLE.read(tmp_path / "rows.parquet"), strict=True):
        np.testing.assert_array_equal(one, other)


X = np.arange(18, dtype=np.float64).reshape(3, 2, 3)


@pytest.mark.parametrize(
    ("y", "classes", "expected"),
    [
        (np.array([0, 1, 1]), None, [0, 1, 1]),
        (np.array(["dog", "cat", "dog"]), None, [1, 0, 1]),
        (np.array([0, 0, 1]), ["dog", "cat"], [1, 1, 0]),
    ],
)
def test_arrays_of_one_owner(write, y, classes, expected):
    more = {} if classes is None else {"classes": np.array(classes)}
    x, found = ARRAYS.read(write({"x": X, "y": y, **more}, "rows.npz"))
    assert found.tolist() == expected
    np.testing.assert_array_equal(x, X.astype(np.float32))
    assert (x.dtype, found.dtype) == (np.float32, np.int64)


def test_whole_numbers_are_names_where_classes_are_called_by_numbers(write):
    schema = Schema((2, 3), classes=("3", "5", "8"))
    assert schema.read(write({"x": X, "y": np.array([8, 3, 8])}, "rows.npz"))[1].tolist() == [2, 0, 2]


def test_values_may_be_whole_numbers(write):
    y = Schema((2, 3)).read(write({"x": X, "y": np.array([8, 3, 8])}, "rows.npz"))[1]
    assert (y.tolist(), y.dtype) == ([8.0, 3.0, 8.0], np.float64)


@pytest.mark.parametrize(
    ("schema", "arrays", "words"),
    [
        (ARRAYS, {"x": X[:, :1], "y": np.array([0, 1, 1])}, r"shape \[1, 3\].*numbers of shape \[2, 3\]"),
        (ARRAYS, {"x": X.astype(str), "y": np.array([0, 1, 1])}, "numbers of shape"),
        (ARRAYS, {"x": X, "y": np.array([0, 1, 77])}, "no class number. Allowed: integers from 0 to 1"),
        (ARRAYS, {"x": X, "y": np.array([0, 1, -1])}, "no class number"),
        (ARRAYS, {"x": X, "y": np.array([0.5, 1.0, 77.0])}, "targets are values"),
        (
            ARRAYS,
            {"x": X, "y": np.array([NAME, "cat", "cow"])},
            "another class in 2 of 3 rows. Allowed: 'cat', 'dog'",
        ),
        (
            ARRAYS,
            {"x": X, "y": np.array([0, 1, 1]), "classes": np.array(["cat", NAME])},
            "another class in 2 of 3",
        ),
        (ARRAYS, {"x": X + np.inf, "y": np.array([0, 1, 1])}, "not finite"),
        (ARRAYS, {"x": X * 1e300, "y": np.array([0, 1, 1])}, "not finite"),
        (ARRAYS, {"x": X[:0], "y": np.array([0])[:0]}, "no rows"),
        (ARRAYS, {"x": X}, "holds x"),
        (Schema((2, 3)), {"x": X, "y": np.array(["a", "b", "c"])}, "targets are not numbers"),
    ],
)
def test_arrays_that_do_not_fit(write, schema, arrays, words):
    path = write(arrays, "rows.npz")
    with pytest.raises(DataError, match=words) as error:
        schema.read(path)
    told = str(error.value).replace(str(path), "")
    assert NAME not in told
    assert "77" not in told


def test_a_bundled_set_is_one_owners_rows_as_well():
    iris = Schema((4,), classes=("versicolor", "setosa", "virginica"))
    x, y = iris.read("sklearn:iris")
    assert x.shape == (150, 4)
    assert y[0] == 1  # setosa, by the number of this federation
    with pytest.raises(DataError, match="another class in 50 of 150 rows"):
        Schema((4,), classes=("setosa", "versicolor")).read("sklearn:iris")
    with pytest.raises(DataError, match="holds classes"):
        Schema((4,)).read("sklearn:iris")
    with pytest.raises(DataError, match="is a table"):
        iris.read("rows.csv")


def test_json_says_nothing_of_rows(write):
    dataset, columns = agree_table(write("a,y\n61,0\n62,1\n"), Columns("y"))
    text = Schema.of(dataset, columns, "float32").to_json()
    assert "61" not in text
    assert json.loads(text)["columns"]["features"] == ["a"]
