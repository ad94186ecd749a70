import shutil
from dataclasses import replace

import numpy as np
import pytest

from haina.data import folder
from haina.data.schema import Schema
from haina.data.sources import load
from haina.data.table import Columns
from haina.errors import ConfigError, DataError, RunError
from haina.federation import Federation
from haina.federation.bench import Bench
from haina.federation.runner import play
from haina.shards import Shards
from haina.simulation.rundir import RunDir

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


class TestFolder:
    CLIENTS = '[data]\nsource = "clients/"\n'

    @pytest.fixture
    def clients(self, tmp_path):
        """Thirty clients with the rows of digits, a test set and names; and the folder of the federation."""
        digits = load("sklearn:digits").in_float32()
        folder.write(
            tmp_path / "clients",
            digits.x[:1500],
            digits.y[:1500],
            [50] * 30,
            names=[f"phone {k}" for k in range(30)],
            test=(digits.x[1500:], digits.y[1500:]),
        )
        return tmp_path

    def test_clients_are_taken_as_they_lie(self, clients):
        for source in ('"clients/"', '"clients"', f'"{clients}/clients"'):
            fed = of(f"[data]\nsource = {source}\n", clients)
            assert (fed.schema.shape, fed.schema.classes) == ((64,), tuple("0123456789"))
            assert fed.schema.features[:2] == ("x0", "x1")
            assert fed.data.clients.sizes.tolist() == [50] * 30
            assert fed.data.name(29) == "phone 29"
            assert (fed.has_rows("test"), fed.has_rows("held")) == (True, False)
            assert len(fed.origin.aside("test")[1]) == 297
            assert fed.origin.aside("held")[0].shape == (0, 64)
        glm = '[model]\nlearner = "glm"\nfamily = "binomial"\n'
        assert "10 classes" in str(refused(lambda: of(self.CLIENTS, clients, glm).learner))

    def test_keys_of_arrays_may_name_what_the_folder_cannot(self, clients):
        named = f"shape = [64]\nfeatures = {[f'p{j}' for j in range(64)]}\nclasses = {list('0123456789')}\n"
        fed = of(self.CLIENTS + named, clients)
        assert fed.schema.features[63] == "p63"
        assert len(fed.data) == 30
        error = refused(lambda: of(self.CLIENTS + named.replace("'9'", "'nine'"), clients).data)
        assert "the rows have shape [64] and 10 classes" in error.what

    @pytest.mark.parametrize(
        "setting",
        [
            "partition = {iid = 3}",
            "test = 0.2",
            "test = 0",
            "held = 5",
            "standardise = true",
            'groups = "ward"',
            'missing = "drop"',
            'classes = ["a", "b"]',
            'features = ["a"]',
            "categorical = {sex = []}",
        ],
    )
    def test_nothing_is_divided_or_set_aside(self, clients, setting):
        error = refused(lambda: of(f"{self.CLIENTS}{setting}\n", clients).data)
        assert error.what.startswith(
            f"my.toml: data.{setting.split()[0]}: has no meaning where source is a folder"
        )
        assert "test_x.npy" in error.remedy

    def test_what_is_wrong_with_a_folder_names_file_and_section(self, clients):
        (clients / "clients" / "offsets.npy").unlink()
        error = refused(lambda: of(self.CLIENTS, clients).data)
        assert error.what.startswith("my.toml: data: ")
        assert "offsets.npy is not there" in error.what
        gone = of('[data]\nsource = "gone/"\n', clients)
        assert "shape (or target), classes missing" in refused(lambda: gone.schema).what
        assert "gone/x.npy is not there" in refused(lambda: gone.data).what

    def test_a_coordinator_finds_its_rows_there(self, clients):
        fed = of(self.CLIENTS, clients)
        with Bench(fed) as bench:
            assert bench.examples("test") == 297
            assert bench.schema() == fed.schema
            metrics = bench.evaluate(fed.learner.initial(3))
        assert metrics.examples == 297

    @pytest.mark.slow
    def test_a_run_is_that_of_the_same_clients_in_memory_and_goes_on_only_with_them(self, clients, tmp_path):
        rest = "[train]\nrounds = 3\nclients_per_round = 6\nbatch_size = 10\nlearning_rate = 0.5\n"
        logistic = '[model]\nlearner = "jax"\nkind = "logistic"\n'
        fed = of(self.CLIENTS, clients, logistic, rest)
        plain = replace(
            fed.data,
            clients=Shards(
                tuple(fed.data.clients.clients),
                *map(np.array, (fed.data.clients.x, fed.data.clients.y, fed.data.clients.offsets)),
            ),
            files=(),
            maps=(),
        )
        models = {}
        for name, workers in (("one", 1), ("two", 2)):
            records = list(play(fed, RunDir(tmp_path / name), workers=workers))
            models[name] = [record.model for record in records]
            assert records[-1].metrics["accuracy"] > 0.5
        vars(fed.origin)["data"] = plain
        models["memory"] = [record.model for record in play(fed, RunDir(tmp_path / "memory"))]
        assert models["one"] == models["two"] == models["memory"]
        y = np.load(clients / "clients" / "y.npy")
        y[0] = (y[0] + 1) % 10
        np.save(clients / "other.npy", y)
        (clients / "other.npy").replace(clients / "clients" / "y.npy")
        with pytest.raises(RunError, match="the data are not those"):
            list(play(of(self.CLIENTS, clients, logistic, rest), RunDir(tmp_path / "one"), resume=True))
