from pathlib import Path

import numpy as np
import pytest

from haina.errors import ConfigError
from haina.federation import Federation
from haina.learners.forest import ForestLearner
from haina.simulation.attacks import SignFlip
from haina.strategy.combine import Mean, Nova
from haina.strategy.local import Control, Local
from haina.strategy.robust import NNM, GeometricMedian
from haina.strategy.schedule import Constant, Cosine
from haina.strategy.select import PowerOfChoice
from haina.strategy.server import SGD, Adam
from haina.strategy.validate import FixedClip
from haina.strategy.weigh import Accuracy, Samples, Uniform, Weigh

MODEL = '[model]\nlearner = "jax"\nkind = "logistic"\n'
DATA = '[data]\nsource = "sklearn:iris"\npartition = {iid = 5}\n'


def federation(strategy="", train="", data=DATA, model=MODEL, simulation="", top="seed = 3\n"):
    sections = {"strategy": strategy, "train": train, "simulation": simulation}
    text = top + model + data + "".join(f"[{name}]\n{lines}\n" for name, lines in sections.items() if lines)
    return Federation.of(text, "my.toml")


def refused(make):
    with pytest.raises(ConfigError) as error:
        make()
    assert error.value.what.startswith("my.toml: ")
    return str(error.value)


class TestReading:
    def test_a_file_and_its_folder(self, tmp_path):
        path = tmp_path / "sea.toml"
        path.write_text('name = "海纳"\n' + MODEL + DATA, encoding="utf-8")
        read = Federation.read(path)
        assert (read.name, read.file, read.folder) == ("海纳", "sea.toml", tmp_path)
        assert read.text == path.read_text(encoding="utf-8")

    def test_no_file(self, tmp_path):
        (tmp_path / "file").write_text("")
        for path in (tmp_path / "federation.toml", tmp_path / "file" / "federation.toml"):
            with pytest.raises(ConfigError, match=f"there is no file {path}") as error:
                Federation.read(path)
            assert "haina new" in error.value.remedy

    @pytest.mark.parametrize("data", [b"\xff\xfe[model]", b'name = "M\xfcnchen"'])
    def test_not_utf_8(self, tmp_path, data):
        (tmp_path / "f.toml").write_bytes(data)
        with pytest.raises(ConfigError, match=r"f.toml cannot be read as text: 'utf-8' codec"):
            Federation.read(tmp_path / "f.toml")

    def test_a_folder(self, tmp_path):
        with pytest.raises(ConfigError, match="cannot be read as text"):
            Federation.read(tmp_path)


class TestStrategy:
    def test_without_a_word_it_is_fedavg(self):
        strategy = federation().strategy
        assert (strategy.combine, strategy.server, strategy.weigh) == (Mean(), SGD(), Weigh())
        assert strategy.rate == Constant(0.1)

    def test_a_preset_with_parts_replaced(self):
        strategy = federation(
            'preset = {fedadam = {lr = 0.03, beta2 = 0.999, eps = 1e-8}}\nclip = {fixed = 1.0}\nselect = "power_of_choice"',
            train="learning_rate = {cosine = {start = 0.05, T_max = 50, eta_min = 1e-6}}\nproximal = 0.01",
        ).strategy
        assert strategy.server == Adam(0.03, 0.9, 0.999, 1e-8)
        assert strategy.clip == FixedClip(1.0)
        assert strategy.rate == Cosine(0.05, 50, 1e-6)
        assert strategy.local == Local(0.01)
        assert strategy.select == PowerOfChoice()
        assert strategy.weigh == Weigh()

    def test_the_parts_one_by_one(self):
        strategy = federation(
            'weigh = ["samples", {accuracy = {floor = 0.1}}]\nquality_clip = [0.25, 4.0]\ncap = 3.0\n'
            "combine = {nnm_geometric_median = {byzantine = 0.2}}\n"
            "server = {adam = {lr = 0.03, beta1 = 0.9, beta2 = 0.999, eps = 1e-8}}"
        ).strategy
        assert strategy.weigh == Weigh((Samples(), Accuracy(0.1)), (0.25, 4.0), 3.0)
        assert strategy.combine == NNM(0.2, GeometricMedian())
        assert strategy.server == Adam(0.03, 0.9, 0.999, 1e-8)

    def test_the_cap_alone_changes_the_cap_alone(self):
        assert federation('preset = "krum"\ncap = "none"').strategy.weigh == Weigh((Uniform(),), cap=None)

    def test_the_proximal_term_keeps_the_control_of_a_preset(self):
        assert federation('preset = "scaffold"', train="proximal = 0.1").strategy.local == Local(
            0.1, Control.SCAFFOLD
        )
        assert federation('preset = "fednova"', train="proximal = 0.1").strategy.combine == Nova("steps")

    @pytest.mark.parametrize(
        ("strategy", "train", "words"),
        [
            ('preset = "fedavgg"', "", ["strategy.preset: 'fedavgg'", "Did you mean 'fedavg'?"]),
            ('combine = "krumm"', "", ["strategy.combine: 'krumm'", "Did you mean 'krum'?"]),
            ('server = "adm"', "", ["strategy.server: 'adm'", "Did you mean 'adam'?"]),
            ("clip = {fixd = 1.0}", "", ["strategy.clip: {'fixd': 1.0}", "Did you mean 'fixed'?"]),
            ('select = "smples"', "", ["strategy.select: 'smples'", "Did you mean 'samples'?"]),
            (
                'weigh = ["samples", "acuracy"]',
                "",
                ["strategy.weigh.1: 'acuracy'", "Did you mean 'accuracy'?"],
            ),
            ("weigh = []", "", ["strategy.weigh: there is nothing to weigh by", 'Use "uniform"']),
            ("cap = 0.5", "", ["strategy.weigh: the cap of shares is 0.5", ">= 1"]),
            ("quality_clip = [2.0, 1.0]", "", ["strategy.weigh: qualities are clipped to (2.0, 1.0)"]),
            ("clip = {fixed = 0}", "", ["strategy.clip.fixed: max_norm is 0", "> 0"]),
            ('combine = "median"', "", ["strategy: Median counts every client once", 'weigh = ["uniform"]']),
            ("server = {feddyn = 0.1}", "", ["strategy: FedDyn is half on the server", 'preset = "feddyn"']),
            ('preset = "feddyn"', "proximal = 0.3", ["strategy: FedDyn has alpha 0.1", "Make them equal"]),
            ('preset = "feddyn"', "proximal = 0", ["FedDyn with proximal 0 has no regulariser"]),
            ('select = "similarity"', "", ["strategy: BySimilarity looks at 'consistency'", "Add trust"]),
            ("", 'learning_rate = "cosin"', ["train.learning_rate: 'cosin'", "Did you mean 'cosine'?"]),
            ("", "learning_rate = 0", ["train.learning_rate.constant: the learning rate start is 0", "> 0"]),
            ("", 'learning_rate = "cosine"', ["train.learning_rate.cosine: start, T_max must be given"]),
            ("", "learning_rate = {cosine = 0.1, T_max = 0}", ["train.learning_rate.cosine: T_max is 0"]),
        ],
    )
    def test_mistakes(self, strategy, train, words):
        message = refused(lambda: federation(strategy, train).strategy)
        for word in words:
            assert word in message


class TestModel:
    @pytest.mark.parametrize(
        ("model", "words"),
        [
            ('learner = "jx"', ["model.learner: 'jx' is not known", "cox, forest, glm, jax", "'jax'?"]),
            (
                'learner = "jax"\nhiden = [3]',
                ["model: there is no setting 'hiden'", "Did you mean 'hidden'?"],
            ),
            ('learner = "jax"\nhidden = "3"', ["model.hidden: '3' does not fit"]),
            ('learner = "jax"\nhidden = [0]', ["model: ", "integers >= 1"]),
            ('learner = "jax"\nkind = "rnn"', ["model.kind: 'rnn' does not fit", "'logistic', 'mlp', 'cnn'"]),
            (
                'learner = "jax"\nlocal = ["haed.*"]',
                ["model: pattern 'haed.*' matches no tensor", "output.weight"],
            ),
            ('learner = "jax"\nbuild = "task"', ["model: build is 'task'", "MODULE:FUNCTION"]),
            ('learner = "jax"\nbuild = "../task:f"', ["model: build is '../task:f'", "MODULE:FUNCTION"]),
            (
                'learner = "jax"\nbuild = "nowhere:f"',
                ["model: build names 'nowhere:f'", "no file nowhere.py"],
            ),
            ('learner = "forest"\ntrees = 0', ["model: ", "0"]),
            (
                'learner = "forest"\nmax_features = "cube"',
                ["model.max_features: 'cube' does not fit", "sqrt"],
            ),
        ],
    )
    def test_mistakes(self, model, words):
        message = refused(lambda: federation(model=f"[model]\n{model}\n").learner)
        for word in words:
            assert word in message

    def test_sizes_come_from_the_data(self):
        learner = federation(model='[model]\nlearner = "jax"\nkind = "mlp"\nhidden = [5]\n').learner
        assert learner.describe()["tensors"] == {
            "hidden1.weight": [5, 4],
            "hidden1.bias": [5],
            "output.weight": [3, 5],
            "output.bias": [3],
        }

    def test_a_model_of_ones_own(self, tmp_path):
        (tmp_path / "task.py").write_text(
            "import jax\n"
            "def build_model():\n"
            "    return (lambda key: {'w': jax.numpy.zeros((4, 3))}), (lambda p, x: x @ p['w'])\n"
            "def wrong():\n"
            "    return 3\n"
            "number = 3\n"
        )

        def learner(reference):
            text = MODEL.replace('kind = "logistic"', f'build = "{reference}"') + DATA
            return Federation.of(text, "my.toml", tmp_path).learner

        assert learner("task:build_model").initial(0).shape == (12,)
        assert "task.py has no function 'build'" in refused(lambda: learner("task:build"))
        assert "task.py has no function 'number'" in refused(lambda: learner("task:number"))
        assert "task:wrong gave int" in refused(lambda: learner("task:wrong"))

    def test_an_exact_learner_brings_its_strategy_and_takes_no_other(self):
        model = '[model]\nlearner = "forest"\ntrees = 3\n'
        forest = federation(model=model)
        assert isinstance(forest.learner, ForestLearner)
        assert forest.strategy.name == "forest"
        for lines, key in (
            ('preset = "krum"', "preset"),
            ('weigh = ["uniform"]', "weigh"),
            ("cap = 2.0", "cap"),
        ):
            message = refused(lambda lines=lines: federation(lines, model=model).strategy)
            assert f"strategy.{key}: the learner 'forest' brings its own strategy" in message
            assert "Leave [strategy] out" in message


class TestData:
    @pytest.mark.parametrize(
        ("data", "words"),
        [
            ("", ["data: names no data", "either source or sites"]),
            ('source = "a.csv"\nsites = {a = "a.csv"}', ["data: names no data, or names them twice"]),
            ('source = "sklearn:iriss"', ["data: ", "'iriss'", "iris"]),
            ('source = "a.xlsx"', ["data: 'a.xlsx' is no source of data", ".csv"]),
            ('source = "a.csv"', ["data.target: is missing", "column to predict"]),
            ('source = "nowhere.csv"\ntarget = "y"', ["data: nowhere.csv is not there"]),
            ('sites = {a = "nowhere.csv"}\ntarget = "y"', ["data: ", "nowhere.csv"]),
            ('source = "sklearn:iris"', ["data.partition: is missing", "{iid = 10}"]),
            ('source = "sklearn:iris"\npartition = "iid"', ["data.partition.iid: clients must be given"]),
            ('source = "sklearn:iris"\npartition = {idd = 3}', ["data.partition: ", "Did you mean 'iid'?"]),
            ('source = "sklearn:iris"\npartition = {iid = 0}', ["data.partition.iid: clients is 0", ">= 1"]),
            ('source = "sklearn:iris"\npartition = {iid = 900}', ["data: ", "900 clients"]),
            ('source = "sklearn:iris"\npartition = {iid = 3}\ntest = 1.0', ["data: test is 1.0", "[0, 1)"]),
            ('source = "sklearn:iris"\npartition = {iid = 3}\nheld = 150', ["data: held is 150 rows of 150"]),
        ],
    )
    def test_mistakes(self, data, words):
        message = refused(lambda: federation(data=f"[data]\n{data}\n").data)
        for word in words:
            assert word in message

    def test_the_seed_divides_the_data(self):
        one, same, other = (federation(top=f"seed = {seed}\n").data for seed in (3, 3, 4))
        np.testing.assert_array_equal(one.clients.x, same.clients.x)
        assert (one.clients.x != other.clients.x).any()
        assert len(one) == 5

    def test_paths_start_at_the_folder_of_the_file(self, tmp_path):
        (tmp_path / "rows.csv").write_text(
            "y,x,site\n" + "".join(f"{i % 2},{i},{i % 3}\n" for i in range(60))
        )
        data = '[data]\nsource = "rows.csv"\ntarget = "y"\ngroups = "site"\n'
        read = Federation.of(MODEL + data, "f.toml", tmp_path).data
        assert read.clients.clients == ("0", "1", "2")
        assert Path("rows.csv").exists() is False


class TestSimulation:
    def test_every_setting_arrives(self):
        sim = federation(
            'preset = "fednova"',
            train="rounds = 7\nclients_per_round = 3\nepochs = 4\nsteps = 5\nbatch_size = 6\nmomentum = 0.5\n"
            'weight_decay = 0.01\nclip_norm = 2.0\nevaluate_every = 2\nmeasure = ["accuracy"]',
            simulation="attack = {sign_flip = {scale = 3.0, fraction = 0.4, start = 2}}\ndropout = 0.1\nstragglers = 0.2",
        ).simulation()
        assert (sim.rounds, sim.cohort, sim.seed, sim.evaluate_every) == (7, 3, 3, 2)
        training = sim.training
        assert (training.epochs, training.steps, training.batch_size) == (4, 5, 6)
        assert (training.momentum, training.weight_decay, training.clip_norm) == (0.5, 0.01, 2.0)
        assert training.measure == {"accuracy"}
        assert sim.attack == SignFlip(3.0, fraction=0.4, start=2)
        assert (sim.dropout.probability, sim.stragglers.fraction) == (0.1, 0.2)
        assert isinstance(sim.strategy.combine, Nova)

    @pytest.mark.parametrize(
        ("simulation", "words"),
        [
            ('attack = "sign_flp"', ["simulation.attack: 'sign_flp'", "Did you mean 'sign_flip'?"]),
            ("attack = {sign_flip = {fraction = 2.0}}", ["simulation.attack.sign_flip: fraction", "(0, 1)"]),
            ("attack = {sleeper = {start = 0}}", ["simulation.attack.sleeper: start", ">= 1"]),
        ],
    )
    def test_mistakes(self, simulation, words):
        message = refused(lambda: federation(simulation=simulation).simulation())
        for word in words:
            assert word in message

    def test_a_judge_needs_samples(self):
        weigh = 'weigh = ["samples", {accuracy = {checked = true}}]'
        message = refused(lambda: federation(weigh).simulation())
        assert "data.held: strategy" in message
        assert "held = 50" in message
        assert federation(weigh, data=DATA + "held = 10\n").simulation().strategy.needs_judge
