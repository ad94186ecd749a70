import csv
import math
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rlang import environment, require_r

from haina.errors import ConfigError, DataError
from haina.interop.fate.job import Table
from haina.interop.fate.table import export, upload_v1, upload_v2


def written(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=2, max_size=6))
def test_every_double_survives(tmp_path_factory, numbers):
    folder = tmp_path_factory.mktemp("exact")
    header = ",".join(f"c{i}" for i in range(len(numbers)))
    source = written(folder / "rows.csv", f"y,{header}", "1," + ",".join(map(repr, numbers)))
    export(source, folder / "out.csv", "y")
    with (folder / "out.csv").open() as file:
        (_, row) = csv.reader(file)
    back = [float(cell) for cell in row[2:]]
    assert [cell.hex() for cell in back] == [number.hex() for number in numbers]


def test_columns_are_called_by_number_and_keep_their_order(tmp_path):
    source = written(tmp_path / "rows.csv", "age,who,died,stay", "61.5,a7,1,3", "70.25,b9,0.0,4.5")
    made = export(source, tmp_path / "out.csv", "died", id="who")
    assert (tmp_path / "out.csv").read_bytes() == b"id,y,x0,x1\na7,1,61.5,3\nb9,0,70.25,4.5\n"
    assert (made.rows, made.columns) == (2, ("age", "stay"))
    made = export(source, tmp_path / "out.csv", "died", features=["stay", "age"], first=10)
    assert (tmp_path / "out.csv").read_bytes() == b"id,y,x0,x1\n10,1,3,61.5\n11,0,4.5,70.25\n"


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        (["y,a,b"], {}, "no rows"),
        ([""], {}, "empty"),
        (["y,a,a", "1,2,3"], {}, "a"),
        (["y,a,b", "2,1,1"], {}, "neither 0 nor 1 in data row 1"),
        (["y,a,b", "1,1,1", "0,,1"], {}, "'a' holds no finite number in data row 2"),
        (["y,a,b", "1,inf,1"], {}, "finite"),
        (["y,a,b", "1,1,1,1"], {}, "4 fields"),
        (["y,a,b", "1,red,1"], {}, "finite number"),
        (["y,a,b", '1,"1,5",1'], {}, "finite number"),
        (["y,a,b,k", '1,1,1,"p,q"'], {"id": "k"}, "identifier in data row 1"),
        (["y,a", "1,2"], {}, "at least two"),
        (["y,a,b", "1,2,3"], {"features": ["a", "c"]}, "no column 'c'"),
        (["y,a,b", "1,2,3"], {"features": ["a", "y"]}, "too"),
        (["y,a,b", "1,2,3"], {"id": "nr"}, "no column 'nr'"),
    ],
)
def test_what_fate_would_misread_is_refused_and_leaves_no_file(tmp_path, lines, options, words):
    source = written(tmp_path / "rows.csv", *lines)
    with pytest.raises(DataError) as refused:
        export(source, tmp_path / "out.csv", "y", **options)
    assert words in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_no_cell_is_shown(tmp_path):
    source = written(tmp_path / "rows.csv", "y,a,b", "1,1,Jane Roe")
    with pytest.raises(DataError) as refused:
        export(source, tmp_path / "out.csv", "y")
    assert "Jane" not in str(refused.value)


def test_the_r_package_writes_the_same_bytes(tmp_path, pytestconfig):
    rscript = require_r()
    folder = pytestconfig.rootpath / "r" / "haina" / "R"
    numbers = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 1e17, 123456.0, math.pi, -2.5e-7, 1e5]
    source = written(
        tmp_path / "rows.csv",
        "who,a,b,died",
        *(f"p{i},{number!r},{i},{i % 2}" for i, number in enumerate(numbers)),
    )
    export(source, tmp_path / "python.csv", "died", id="who")
    code = f"""
    source("{folder}/errors.R"); source("{folder}/fate.R")
    a <- c({", ".join(map(float.hex, numbers))})
    rows <- data.frame(who = paste0("p", seq_along(a) - 1), a = a, b = seq_along(a) - 1, died = (seq_along(a) - 1) %% 2)
    stopifnot(identical(fate_export(rows, "{tmp_path}/r.csv", label = "died", id = "who"), c("a", "b")))
    rows$ward <- factor(rep(c("u", "v", "w"), length.out = nrow(rows)))
    names <- fate_export(rows, "{tmp_path}/factor.csv", label = "died", id = "who")
    stopifnot(identical(names, c("a", "b", "wardv", "wardw")))
    words <- tryCatch(fate_export(rows, "{tmp_path}/bad.csv", label = "b"), error = conditionMessage)
    stopifnot(grepl("not all 0 and 1", words), !file.exists("{tmp_path}/bad.csv"))
    """
    done = subprocess.run(
        [rscript, "--vanilla", "-e", code],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "r.csv").read_bytes() == (tmp_path / "python.csv").read_bytes()
    rows = (tmp_path / "factor.csv").read_text().splitlines()
    assert rows[0] == "id,y,x0,x1,x2,x3"
    assert [row.split(",")[4:] for row in rows[1:4]] == [["0", "0"], ["1", "0"], ["0", "1"]]


def test_upload_configurations():
    table = Table("clinic", "guest")
    assert upload_v1("/data/guest.csv", table) == {
        "file": "/data/guest.csv",
        "table_name": "guest",
        "namespace": "clinic",
        "head": 1,
        "partition": 4,
    }
    assert "work_mode" not in upload_v1("f", table)
    made = upload_v2("/data/guest.csv", table, partitions=2)
    assert set(made) == {"file", "head", "partitions", "extend_sid", "meta", "namespace", "name"}
    assert set(made["meta"]) == {"delimiter", "dtype", "label_type", "label_name", "match_id_name"}


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b"])
def test_names_that_fate_cannot_keep_are_refused(name):
    with pytest.raises(ConfigError, match="letters"):
        Table("haina", name)
