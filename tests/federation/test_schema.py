import pytest

from haina.errors import ConfigError
from haina.federation.schema import FederationFile, parse

BASE = {
    "model": 'learner = "jax"',
    "data": 'source = "sklearn:digits"',
}


def text_of(top="", **sections):
    body = "\n".join(f"[{name}]\n{lines}" for name, lines in {**BASE, **sections}.items())
    return f"{top}\n{body}\n"


def test_a_small_file_has_defaults():
    file = parse(text_of(), "f.toml")
    assert (file.name, file.seed) == ("federation", 0)
    assert (file.train.rounds, file.train.learning_rate, file.train.batch_size) == (10, 0.1, 32)
    assert file.strategy.preset is None
    assert file.simulation.workers == 1


def test_a_full_file():
    file = parse(
        text_of(
            'name = "Kliniken 2-b"\nseed = 9',
            model='learner = "torch"\nbuild = "task:build_model"\nhidden = [3, 4]',
            data='sites = {a = "a.csv", b = "b.csv"}\ntarget = "died"\ntest = 400\nheld = 0.1\ncategorical = {sex = ["f", "m"]}',
            train='rounds = 50\nlearning_rate = {cosine = {start = 0.05, T_max = 50, eta_min = 1e-6}}\nmeasure = ["accuracy"]',
            strategy='preset = "fedadam"\nweigh = ["samples", {accuracy = {floor = 0.1}}]\nquality_clip = [0.25, 4]\ncap = "none"',
            simulation='attack = "sign_flip"\nstragglers = 0.5\nworkers = 2',
        ),
        "f.toml",
    )
    assert file.name == "Kliniken 2-b"
    assert file.model.model_extra == {"build": "task:build_model", "hidden": [3, 4]}
    assert (file.data.test, file.data.held) == (400, 0.1)
    assert isinstance(file.data.test, int)
    assert file.train.learning_rate == {"cosine": {"start": 0.05, "T_max": 50, "eta_min": 1e-6}}
    assert file.strategy.weigh == ["samples", {"accuracy": {"floor": 0.1}}]
    assert file.strategy.quality_clip == (0.25, 4.0)
    assert file.strategy.cap == "none"


def test_a_whole_number_is_a_learning_rate():
    rate = parse(text_of(train="learning_rate = 1"), "f.toml").train.learning_rate
    assert isinstance(rate, float)


MISTAKES = {
    "no table at all": ("", "model: is missing", "", ""),
    "no data": ('[model]\nlearner = "jax"', "data: is missing", "name, seed, model, data", ""),
    "no learner": (text_of(model="x = 1"), "model.learner: is missing", "", ""),
    "unknown section": (text_of(trian="rounds = 3"), "trian: there is no such key", "train", "'train'"),
    "unknown key": (text_of(train="round = 3"), "train.round: there is no such key", "rounds", "'rounds'"),
    "unknown key, no near one": (text_of(train="xyz = 3"), "train.xyz: there is no such key", "rounds", ""),
    "unknown key of a section that may be left out": (
        text_of(privacy="nois = 3"),
        "privacy.nois: there is no such key",
        "noise, ",
        "'noise'",
    ),
    "a key in the wrong place": (text_of("rounds = 3"), "rounds: there is no such key", "train", ""),
    "a section that is no table": (text_of("train = 3"), "train: 3 does not fit", "a table", ""),
    "a word for a number": (
        text_of(train='rounds = "ten"'),
        "train.rounds: 'ten' does not fit",
        "integer",
        "",
    ),
    "a number in quotes": (text_of(train='rounds = "10"'), "train.rounds: '10' does not fit", "integer", ""),
    "true for a number": (text_of(train="rounds = true"), "train.rounds: True does not fit", "integer", ""),
    "a fraction of a round": (text_of(train="rounds = 2.5"), "train.rounds: 2.5 does not fit", "integer", ""),
    "a date": (
        text_of(train="rounds = 2024-01-01"),
        "train.rounds: '2024-01-01' does not fit",
        "integer",
        "",
    ),
    "a number for a word": (text_of(data="source = 3"), "data.source: 3 does not fit", "string", ""),
    "a word for yes": (
        text_of(data='standardise = "yes"'),
        "data.standardise: 'yes' does not fit",
        "boolean",
        "",
    ),
    "too few rounds": (
        text_of(train="rounds = 0"),
        "train.rounds: 0 does not fit",
        "greater than or equal to 1",
        "",
    ),
    "too much momentum": (
        text_of(train="momentum = 1.0"),
        "train.momentum: 1.0 does not fit",
        "less than 1",
        "",
    ),
    "a clip of nothing": (
        text_of(train="clip_norm = 0"),
        "train.clip_norm: 0 does not fit",
        "greater than 0",
        "",
    ),
    "endless decay": (
        text_of(train="weight_decay = inf"),
        "train.weight_decay: inf does not fit",
        "finite",
        "",
    ),
    "no number": (
        text_of(train="learning_rate = nan"),
        "train.learning_rate: nan does not fit",
        "finite",
        "",
    ),
    "unknown measure": (
        text_of(train='measure = ["loss"]'),
        "train.measure.0: 'loss' does not fit",
        "'loss_after'",
        "",
    ),
    "unknown task": (
        text_of(data='task = "cluster"'),
        "data.task: 'cluster' does not fit",
        "'regression'",
        "",
    ),
    "list within a list": (text_of(data="classes = [1]"), "data.classes.0: 1 does not fit", "string", ""),
    "half a pair": (text_of(strategy="quality_clip = [0.5]"), "strategy.quality_clip.1: is missing", "", ""),
    "a cap in words": (text_of(strategy='cap = "nine"'), "strategy.cap: 'nine' does not fit", "number", ""),
    "everybody drops out": (
        text_of(simulation="dropout = 1.0"),
        "simulation.dropout: 1.0",
        "less than 1",
        "",
    ),
    "too many workers": (
        text_of(simulation="workers = 3000"),
        "simulation.workers: 3000",
        "less than or equal to 1024",
        "",
    ),
    "a name that is a path": (text_of('name = "a/b"'), "name: 'a/b' does not fit", "pattern", ""),
    "a name that hides": (text_of('name = ".run"'), "name: '.run' does not fit", "pattern", ""),
    "no name": (text_of('name = ""'), "name: '' does not fit", "at least 1 character", ""),
    "a negative seed": (text_of("seed = -1"), "seed: -1 does not fit", "greater than or equal to 0", ""),
    "a seed of 70 bits": (text_of(f"seed = {2**70}"), f"seed: {2**70} does not fit", "", ""),
}


@pytest.mark.parametrize(("text", "what", "allowed", "remedy"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_is_named_with_file_key_value_and_what_is_allowed(text, what, allowed, remedy):
    with pytest.raises(ConfigError) as error:
        parse(text, "my.toml")
    assert error.value.what.startswith(f"my.toml: {what}")
    assert allowed in error.value.allowed
    assert remedy in error.value.remedy
    assert "pydantic" not in str(error.value)
    assert "Input should" not in str(error.value)


@pytest.mark.parametrize("text", ["[model", "x =", "a = 1\na = 2", "\ufeff[model]", "[data]\n[data]\n"])
def test_what_is_no_toml_is_said_with_the_line(text):
    with pytest.raises(ConfigError, match=r"my.toml is not TOML: .*(line \d+|end of document)"):
        parse(text, "my.toml")


def test_a_file_cannot_be_changed_after_it_was_checked():
    file = parse(text_of(), "f.toml")
    assert isinstance(file, FederationFile)
    with pytest.raises(ValueError, match="frozen"):
        file.seed = 3
