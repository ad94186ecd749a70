import numpy as np
import pandas as pd
import pytest

from haina.data.table import Columns, read_sites, read_table
from haina.errors import DataError

CSV = """age,sex,ward,lactate,died
60,F,north,1.5,no
71,M,south,2.5,yes
55,F,north,0.5,no
"""
CATEGORICAL = {"sex": ("F", "M")}
MEANING = Columns("died", groups="ward", categorical=CATEGORICAL)


@pytest.fixture
def write(tmp_path):
    def write(content, name="rows.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_table_becomes_features_classes_and_groups(write):
    data = read_table(write(CSV), MEANING)
    assert data.features == ("age", "sex=F", "sex=M", "lactate")
    np.testing.assert_array_equal(data.x, np.float32([[60, 1, 0, 1.5], [71, 0, 1, 2.5], [55, 1, 0, 0.5]]))
    assert data.classes == ("no", "yes")
    np.testing.assert_array_equal(data.y, [0, 1, 0])
    assert data.groups.tolist() == ["north", "south", "north"]
    assert (data.key, data.dropped) == ("ward", 0)


def test_parquet_gives_the_same_rows(write, tmp_path):
    path = write(CSV)
    pd.read_csv(path).to_parquet(tmp_path / "rows.parquet")
    csv, parquet = read_table(path, MEANING), read_table(tmp_path / "rows.parquet", MEANING)
    np.testing.assert_array_equal(csv.x, parquet.x)
    np.testing.assert_array_equal(csv.y, parquet.y)
    assert csv.features == parquet.features


def test_features_may_be_listed_and_come_in_that_order(write):
    data = read_table(write(CSV), Columns("died", features=("lactate", "age")))
    assert data.features == ("lactate", "age")
    np.testing.assert_array_equal(data.x[0], np.float32([1.5, 60]))


def test_a_regression_target_of_whole_numbers_stays_numbers(write):
    data = read_table(write(CSV), Columns("age", task="regression", features=("lactate",)))
    assert data.classes is None
    np.testing.assert_array_equal(data.y, [60.0, 71.0, 55.0])


def test_a_gap_does_not_change_the_names_of_classes(write):
    data = read_table(write("a,y\n1,0\n2,1\n3,\n4,1\n"), Columns("y", missing="drop"))
    assert data.classes == ("0", "1")
    np.testing.assert_array_equal(data.y, [0, 1, 1])
    assert data.dropped == 1


def test_only_the_columns_in_use_must_be_complete(write):
    data = read_table(write("a,b,y\n1,,u\n2,,v\n"), Columns("y", features=("a",)))
    assert len(data) == 2


def test_a_byte_order_mark_and_quoted_names_are_read_as_text(write):
    data = read_table(write(b'\xef\xbb\xbf"a, in mm",y\n1,u\n2,v\n'), Columns("y"))
    assert data.features == ("a, in mm",)


def test_row_names_without_a_name_are_harmless_when_features_are_listed(write):
    path = write('"",a,y\n1,5,u\n2,6,v\n')
    np.testing.assert_array_equal(read_table(path, Columns("y", features=("a",))).x, [[5], [6]])
    with pytest.raises(DataError, match="column 1 has no name"):
        read_table(path, Columns("y"))


@pytest.mark.parametrize(
    ("content", "columns", "words"),
    [
        (b"", Columns("y"), "is empty"),
        ("a,y\n", Columns("y"), "no rows"),
        ("a,y\n1,u\n2,v\n", Columns("z"), r"no column 'z'. Allowed: a, y"),
        ("a,y\n1,u\n2,v\n", Columns("y", features=("b",)), r"no column 'b'"),
        ("a,y\n1,u\n2,v\n", Columns("y", groups="g"), r"no column 'g'"),
        ("a,a,y\n1,2,u\n3,4,v\n", Columns("y"), r"twice: 'a'"),
        ("a,y\n\xe9,u\n".encode("latin-1"), Columns("y"), "not UTF-8"),
        ("\xe9,y\n1,u\n".encode("latin-1"), Columns("y"), "not UTF-8"),
        ("a,y\n1,5,u\n2,6,v\n", Columns("y"), "3 fields, the header 2"),
        ("a,y\n" + "9" * 200_000 + ",u\n", Columns("y"), "cannot be read: field larger"),
        ("a,g,y\n1,0.5,u\n2,1,v\n", Columns("y", groups="g"), "column 'g': 0.5 is not"),
        ("a,y\n0,5,u\n1,6,v\n", Columns("y"), "3 fields, the header 2"),
        ("a,y\n1,u\n2,3,v\n", Columns("y"), "cannot be read"),
        ("a,y\n,u\n,v\n", Columns("y", missing="drop"), r"'a' is missing in all 2 rows"),
        ("a,b,y\n1,,u\n2,3,v\n,4,u\n", Columns("y"), r"'a' in 1, 'b' in 1 of 3 rows"),
        ("a,b,y\n1,,u\n,3,v\n", Columns("y", missing="drop"), "every row misses a value"),
        ("a,y\n1,u\n2,u\n", Columns("y"), "one class only: u"),
        ("a,y\n1,0.5\n2,1\n", Columns("y"), r"'y': 0.5 is not a class.*task = 'regression'"),
        ("a,y\n1,u\nx,v\n", Columns("y"), r"'a' is not numeric.*data row 2.*categorical"),
        ("a,y\n1,u\n2,v\n", Columns("y", task="regression"), r"'y' is not numeric"),
        ("a,y\ninf,u\n2,v\n", Columns("y"), "infinite"),
        ("s,y\nF,u\nX,v\n", Columns("y", categorical={"s": ("F", "M")}), r"'s' holds 'X'. Allowed: 'F', 'M'"),
        ("s,y\nF,u\nM,v\n", Columns("y", classes=("u", "w"), categorical={"s": ()}), r"target 'y' holds 'v'"),
        ("a,y\n1,u\n2,v\n", Columns("y", categorical={"s": ()}), "'s' is no feature"),
        ("y\nu\nv\n", Columns("y"), "no column is left"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(write, content, columns, words):
    with pytest.raises(DataError, match=words):
        read_table(write(content), columns)


def test_a_missing_file_and_a_directory_are_refused(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match="is not there"):
            read_table(path, Columns("y"))


def test_a_file_that_is_no_parquet_is_refused(write):
    with pytest.raises(DataError, match="cannot be read"):
        read_table(write("a,y\n1,u\n", "rows.parquet"), Columns("y"))


@pytest.mark.parametrize("settings", [{"task": "guess"}, {"missing": "ignore"}, {"features": ("y",)}])
def test_impossible_meanings_are_refused(settings):
    with pytest.raises(DataError):
        Columns("y", **settings)


def test_sites_agree_on_levels_and_classes_that_no_site_has_alone(write):
    a = write("s,v,y\nF,1,no\nF,2,no\n", "a.csv")
    b = write("v,s,y\n3,M,yes\n", "b.csv")
    data = read_sites({"a": a, "b": b}, Columns("y", categorical={"s": ()}))
    assert data.features == ("s=F", "s=M", "v")
    np.testing.assert_array_equal(data.x, [[1, 0, 1], [1, 0, 2], [0, 1, 3]])
    np.testing.assert_array_equal(data.y, [0, 0, 1])
    assert data.groups.tolist() == ["a", "a", "b"]
    assert data.key == "site"


def test_a_fault_of_one_site_names_the_site(write):
    good = write("v,y\n1,no\n2,yes\n", "good.csv")
    for name, content, words in (
        ("gap", "v,y\n,no\n2,yes\n", "clinic-b: values are missing"),
        ("text", "v,y\nx,no\n2,yes\n", "clinic-b: column 'v' is not numeric"),
        ("less", "y\nno\nyes\n", "clinic-b has no column 'v'"),
        ("more", "v,w,y\n1,1,no\n2,2,yes\n", "clinic-b has columns that clinic-a lacks: w"),
    ):
        with pytest.raises(DataError, match=words):
            read_sites({"clinic-a": good, "clinic-b": write(content, f"{name}.csv")}, Columns("y"))
    with pytest.raises(DataError, match="no sites"):
        read_sites({}, Columns("y"))
