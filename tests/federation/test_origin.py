import shutil

import numpy as np
import pytest

from haina.data.schema import Schema
from haina.data.table import Columns
from haina.errors import ConfigError, DataError
from haina.federation import Federation

MODEL = '[model]\nlearner = "jax"\nkind = "mlp"\nhidden = [4]\n'
TABLE = """\
[data]
target = "died"
features = ["age", "sex"]
classes = ["no", "yes"]
categorical = {sex = ["F", "M"]}
"""
ROWS = "age,sex,died,ward\n" + "".join(
    f"{40 + i},{'FM'[i % 2]},{('no', 'yes')[i % 3 == 0]},w{i % 4}\n" for i in range(60)
)


def of(data, folder=".", model=MODEL, rest="", schema=None):
    return Federation.of("seed = 3\n" + model + data + rest, "my.toml", folder, schema)


def refused(make):
    with pytest.raises(ConfigError) as error:
        make()
    assert error.value.what.startswith("my.toml: ")
    return error.value


class TestSchema:
    def test_the_keys_of_a_table_are_enough(self):
        schema = of(TABLE).schema
        assert (schema.shape, schema.features, schema.classes) == (
            (3,),
            ("age", "sex=F", "sex=M"),
            ("no", "yes"),
        )
        assert schema.dtype == "float32"
        glm = of(TABLE, model='[model]\nlearner = "glm"\nfamily = "binomial"\n')
        assert glm.schema.dtype == "float64"
        assert glm.learner.design.names == ("(Intercept)", "age", "sex=M")

    def test_the_keys_of_arrays_are_enough(self):
        schema = of('[data]\nshape = [3]\nclasses = ["a", "b"]\n').schema
        assert (schema.shape, schema.features, schema.classes) == ((3,), ("x0", "x1", "x2"), ("a", "b"))
        images = of('[data]\nshape = [1, 8, 8]\ntask = "regression"\n').schema
        assert (images.shape, images.features, images.classes) == ((1, 8, 8), (), None)

    @pytest.mark.parametrize("source", ['source = "rows.csv"', 'sites = {a = "rows.csv", b = "rows.csv"}'])
    def test_rows_that_can_be_read_say_the_rest(self, tmp_path, source):
        (tmp_path / "rows.csv").write_text(ROWS)
        read = of(
            f'[data]\n{source}\ntarget = "died"\ngroups = "ward"\ncategorical = {{sex = []}}\n', tmp_path
        )
        columns = Columns(
            "died", features=("age", "sex"), categorical={"sex": ("F", "M")}, classes=("no", "yes")
        )
        assert read.schema == Schema.table(columns, "float32")
        assert of(TABLE).schema == read.schema

    def test_a_partition_is_of_no_concern(self):
        assert of('[data]\nsource = "sklearn:digits"\n').schema.shape == (64,)

    @pytest.mark.parametrize(
        ("data", "missing", "lines"),
        [
            (
                "",
                "shape (or target), classes",
                ["shape = [64]", 'target = "died"', 'classes = ["no", "yes"]'],
            ),
            ('source = "gone.npz"', "shape (or target), classes", ["shape = [64]"]),
            (
                'source = "gone.csv"',
                "target, features, classes",
                ['target = "died"', 'features = ["age", "sex"]'],
            ),
            ('sites = {a = "gone.csv"}\ntarget = "y"', "features, classes", ['features = ["age", "sex"]']),
            (
                'target = "y"\nfeatures = ["s"]\ntask = "regression"\ncategorical = {s = []}',
                "categorical.s",
                ["categorical = {s = ["],
            ),
            ("shape = [3]", "classes", ["classes = ["]),
        ],
    )
    def test_what_is_missing_is_named_with_the_lines_to_write(self, data, missing, lines):
        error = refused(lambda: of(f"[data]\n{data}\n").schema)
        assert error.what.startswith(f"my.toml: data: {missing} missing")
        for line in lines:
            assert line in error.remedy

    def test_shape_and_target_do_not_go_together(self):
        assert "Leave one out" in str(refused(lambda: of('[data]\nshape = [3]\ntarget = "y"\n').schema))

    def test_words_and_rows_that_differ_are_refused(self):
        data = '[data]\nsource = "sklearn:iris"\npartition = {iid = 3}\nshape = [%s]\nclasses = ["a", "b", "c"]\n'
        for shape in (5, 4):
            error = refused(lambda shape=shape: of(data % shape).data)
            assert "the rows have shape [4] and 3 classes" in error.what

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ('target = "y"\nfeatures = ["a", "a"]\nclasses = ["n", "j"]', "appear twice"),
            ('target = "y"\nfeatures = ["a"]\nclasses = ["n"]', "there are 1 classes"),
            ('target = "y"\nfeatures = ["y"]\nclasses = ["n", "j"]', "a feature as well"),
            ('shape = [3]\nfeatures = ["a"]\nclasses = ["n", "j"]', "1 feature names"),
        ],
    )
    def test_keys_that_contradict_each_other(self, data, words):
        assert words in refused(lambda: of(f"[data]\n{data}\n").schema).what


class TestWithoutRows:
    @pytest.mark.parametrize("learner", ["jax", "torch", "glm", "forest"])
    def test_all_but_the_rows_is_made_without_them(self, tmp_path, learner):
        (tmp_path / "rows.csv").write_text(ROWS)
        model = f'[model]\nlearner = "{learner}"\n' + ('family = "binomial"\n' if learner == "glm" else "")
        data = '[data]\nsource = "rows.csv"\ntarget = "died"\ngroups = "ward"\ncategorical = {sex = []}\n'
        here = of(data, tmp_path, model)
        schema, first = here.schema, here.learner.initial(3)
        described = here.learner.describe()
        shutil.rmtree(tmp_path)
        gone = of(data, tmp_path, model, schema=schema)
        assert gone.schema is schema
        assert gone.learner.initial(3).tobytes() == first.tobytes()
        assert gone.learner.describe() == described
        assert gone.strategy.combine == here.strategy.combine
        assert gone.training == here.training
        with pytest.raises(ConfigError, match="is not there"):
            gone.data  # noqa: B018
        assert len(gone.origin.aside("test")[1]) == 0
        assert gone.origin.aside("held")[0].shape == (0, 3)


class TestSite:
    def test_one_owners_rows_are_those_of_the_simulation(self, tmp_path):
        for k in range(2):
            lines = ROWS.splitlines()
            (tmp_path / f"{k}.csv").write_text("\n".join([lines[0], *lines[1 + 30 * k : 31 + 30 * k]]))
        data = '[data]\nsites = {a = "0.csv", b = "1.csv"}\ntarget = "died"\nfeatures = ["age", "sex"]\n'
        fed = of(data + "categorical = {sex = []}\ntest = 0\n", tmp_path)
        for name, path in (("a", "0.csv"), ("b", "1.csv")):
            x, y = fed.site(tmp_path / path)
            shards = fed.data.shards([name])
            np.testing.assert_array_equal(x, shards.of(0)[0])
            np.testing.assert_array_equal(y, shards.of(0)[1])
            assert x.dtype == shards.x.dtype

    def test_pooled_means_are_nobodys(self):
        error = refused(lambda: of(TABLE + "standardise = true\n").site("a.csv"))
        assert "my.toml: data.standardise" in error.what

    def test_what_does_not_fit_is_a_data_error(self, tmp_path):
        (tmp_path / "own.csv").write_text("age,sex,died\nLi Hua,F,no\n")
        with pytest.raises(DataError, match="'age' holds something else in 1 of 1 rows") as error:
            of(TABLE).site(tmp_path / "own.csv")
        assert "Li Hua" not in str(error.value)


class TestAside:
    def test_files_of_the_coordinator(self, tmp_path):
        (tmp_path / "test.csv").write_text("age,sex,died\n60,F,no\n")
        np.savez(tmp_path / "held.npz", x=np.ones((4, 3)), y=np.array([0, 1, 1, 0]))
        fed = of(TABLE, tmp_path, rest='[serve]\ntest = "test.csv"\nheld = "held.npz"\n')
        assert fed.origin.aside("test")[0].tolist() == [[60, 1, 0]]
        assert fed.origin.aside("held")[1].tolist() == [0, 1, 1, 0]
        assert fed.has_rows("test")
        assert fed.has_rows("held")
        (tmp_path / "test.csv").unlink()
        assert "my.toml: serve.test: " in refused(lambda: fed.origin.aside("test")).what

    def test_rows_as_a_simulation_sets_them_aside(self):
        fed = of('[data]\nsource = "sklearn:iris"\npartition = {iid = 3}\ntest = 20\nheld = 9\n')
        for name, rows in (("test", 20), ("held", 9)):
            assert fed.has_rows(name)
            np.testing.assert_array_equal(fed.origin.aside(name)[0], getattr(fed.data, name)[0])
            assert len(fed.origin.aside(name)[1]) == rows
        assert not of(TABLE).has_rows("test")
