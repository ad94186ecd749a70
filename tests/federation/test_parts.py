import inspect
from dataclasses import dataclass
from typing import Literal

import pytest

from haina.data.partition import PARTITIONS
from haina.errors import ConfigError, StrategyError
from haina.federation.names import CLIPS, COMBINERS, FACTORS, SCHEDULES, SELECTORS, SERVERS
from haina.federation.parts import Place, build, did_you_mean, part, parts
from haina.simulation.attacks import ATTACKS
from haina.strategy.presets import PRESETS
from haina.strategy.robust import NNM, GeometricMedian, Krum, Median
from haina.strategy.schedule import Constant, Cosine, Warmup

PLACE = Place("federation.toml", "strategy.combine")
REGISTRIES = {
    "partition": PARTITIONS,
    "attack": ATTACKS,
    "preset": PRESETS,
    "combine": COMBINERS,
    "server": SERVERS,
    "weigh": FACTORS,
    "clip": CLIPS,
    "learning_rate": SCHEDULES,
    "select": SELECTORS,
}
EVERY = [(key, name) for key, registry in REGISTRIES.items() for name in registry]
#: Values for settings that have no default, and for first settings whose default is none.
SAMPLE = {
    "reference": "client-000",
    "radius": 1.5,
    "alpha": 0.25,
    "clients": 4,
    "labels_per_client": 2,
    "column": "consistency",
    "start": 0.05,
    "T_max": 50,
    "gamma": 0.5,
    "every": 10,
    "rounds": 3,
    "limit": 100.0,
    "candidates": 12,
    "quality": "accuracy",
    "rate": 0.05,
}


def refused(value, names=COMBINERS, place=PLACE):
    with pytest.raises(ConfigError) as error:
        part(value, names, place)
    assert str(error.value).startswith(f"federation.toml: {place.key}")
    return error.value


@pytest.mark.parametrize(("key", "name"), EVERY)
def test_every_part_is_written_in_three_ways_that_mean_the_same(key, name):
    registry = REGISTRIES[key]
    parameters = inspect.signature(registry[name]).parameters
    required = {n: SAMPLE[n] for n, p in parameters.items() if p.default is inspect.Parameter.empty}
    table = part({name: required}, registry, PLACE)
    if required:
        assert "must be given" in refused(name, registry).what
    else:
        assert part(name, registry, PLACE) == part({name: {}}, registry, PLACE) == table
    if not parameters:
        assert "without settings" in refused({name: 1}, registry).what
        return
    first, parameter = next(iter(parameters.items()))
    default = parameter.default
    value = SAMPLE[first] if default in (inspect.Parameter.empty, None) or first == "quality" else default
    rest = {n: v for n, v in required.items() if n != first}
    behind_the_name = part({name: value, **rest}, registry, PLACE)
    assert behind_the_name == part({name: {first: value, **rest}}, registry, PLACE)
    assert behind_the_name == part({name: {first: value}, **rest}, registry, PLACE)
    if first in required or default == value:
        assert behind_the_name == table


@pytest.mark.parametrize("key", REGISTRIES)
def test_no_setting_is_called_like_a_part_beside_it(key):
    # {name = ..., setting = ...} tells parts from settings by their names.
    registry = REGISTRIES[key]
    settings = {n for make in registry.values() for n in inspect.signature(make).parameters}
    assert not settings & set(registry)


def test_parts_within_parts():
    assert part({"nnm": 0.3, "then": "median"}, COMBINERS, PLACE) == NNM(0.3, Median())
    assert part({"nnm": {"then": {"krum": {"byzantine": 2}}}}, COMBINERS, PLACE) == NNM(0.2, Krum(2))
    assert part("nnm_geometric_median", COMBINERS, PLACE) == NNM(0.2, GeometricMedian())
    warm = {"warmup": 5, "then": {"cosine": 0.05, "T_max": 50, "eta_min": 1e-6}}
    assert part(warm, SCHEDULES, PLACE) == Warmup(5, Cosine(0.05, 50, 1e-6))


@pytest.mark.parametrize(
    ("value", "registry", "fitting"),
    [
        ({"nnm": {"then": "mean"}}, COMBINERS, "geometric_median"),
        ({"nnm": {"then": {"nova": "norm"}}}, COMBINERS, "krum"),
        ({"centred_clipping": {"start": "median"}}, COMBINERS, "geometric_median"),
        ({"effective_samples": "samples"}, FACTORS, "accuracy"),
    ],
)
def test_a_part_of_another_kind_does_not_fit(value, registry, fitting):
    error = refused(value, registry)
    assert "does not fit here" in error.what
    assert fitting in error.allowed
    assert "mean" not in error.allowed.split(", ")


def test_lists_of_parts():
    made = parts(["samples", {"accuracy": 0.2}, {"staleness": {"exponent": 1.0}}], FACTORS, PLACE)
    assert [type(factor).__name__ for factor in made] == ["Samples", "Accuracy", "Staleness"]
    assert made[1].floor == 0.2
    assert parts("uniform", FACTORS, PLACE) == parts(["uniform"], FACTORS, PLACE)
    assert parts({"samples": 9.0}, FACTORS, PLACE)[0].limit == 9.0
    assert parts([], FACTORS, PLACE) == ()
    with pytest.raises(
        ConfigError, match=r"strategy.combine.1: 'acuracy' is not known.*Did you mean 'accuracy'\?"
    ):
        parts(["samples", "acuracy"], FACTORS, PLACE)
    with pytest.raises(ConfigError, match="3 is not a list"):
        parts(3, FACTORS, PLACE)


@pytest.mark.parametrize(
    ("value", "key", "what", "allowed", "remedy"),
    [
        ("krumm", "", "'krumm' is not known", "krum, mda", "Did you mean 'krum'?"),
        ({"krumm": 2}, "", "{'krumm': 2} names 0 parts", "krum, mda", "Did you mean 'krum'?"),
        ({}, "", "{} names 0 parts", "krum, mda", ""),
        ({"krum": 1, "median": {}}, "", "names 2 parts", "krum, mda", ""),
        (3, "", "3 is not a part", "krum, mda", ""),
        (["krum"], "", "['krum'] is not a part", "krum, mda", ""),
        (
            {"krum": {"byzantin": 1}},
            ".krum",
            "no setting 'byzantin'",
            "byzantine",
            "Did you mean 'byzantine'?",
        ),
        ({"median": {"x": 1}}, ".median", "no setting 'x'", "no settings at all", ""),
        ({"clip_norm": {}}, ".clip_norm", "radius must be given", "radius, then", ""),
        ({"krum": "many"}, ".krum.byzantine", "'many' does not fit", "float | int", "number"),
        ({"krum": "0.2"}, ".krum.byzantine", "'0.2' does not fit", "float | int", "number"),
        ({"krum": True}, ".krum.byzantine", "True does not fit", "float | int", "number"),
        ({"krum": [1]}, ".krum.byzantine", "[1] does not fit", "float | int", "number"),
        ({"krum": 0.7}, ".krum", "byzantine is 0.7", "[0, 0.5)", "cannot outvote"),
        ({"krum": 0.2, "byzantine": 0.3}, ".krum", "byzantine is given twice", "each setting once", ""),
        ({"krum": {"left_out": 1.5}}, ".krum.left_out", "1.5 does not fit", "int", "integer"),
        ({"nova": "loud"}, ".nova.effective_steps", "'loud' does not fit", "'norm', 'steps'", ""),
        ({"nnm": {"then": {"krum": {"x": 1}}}}, ".nnm.then.krum", "no setting 'x'", "byzantine", ""),
    ],
)
def test_mistakes_are_named_with_place_value_and_what_is_allowed(value, key, what, allowed, remedy):
    error = refused(value)
    assert error.what.startswith(f"federation.toml: strategy.combine{key}: ")
    assert what in error.what
    assert allowed in error.allowed
    assert remedy in error.remedy


def test_numbers_keep_their_kind():
    # A fraction and a number of clients are different things.
    assert part({"krum": 2}, COMBINERS, PLACE).byzantine == 2
    assert isinstance(part({"krum": 2}, COMBINERS, PLACE).byzantine, int)
    assert isinstance(part({"krum": 0.2}, COMBINERS, PLACE).byzantine, float)
    # A whole number is a number.
    assert part({"constant": 1}, SCHEDULES, PLACE) == Constant(1.0)


@dataclass(frozen=True)
class Sample:
    size: int
    names: tuple[str, ...] = ()
    mode: Literal["a", "b"] = "a"

    def __post_init__(self):
        if self.size == 13:
            raise StrategyError("13 is unlucky", allowed="others", remedy="Take 12")


def test_any_dataclass_or_function_is_a_part():
    place = Place("f.toml", "x")
    assert build(Sample, {"size": 2, "names": ["p", "q"], "mode": "b"}, place) == Sample(2, ("p", "q"), "b")

    def make(size: int, *, names: tuple[str, ...] = ("z",)) -> Sample:
        return Sample(size, names)

    assert build(make, {"size": 2}, place) == Sample(2, ("z",))
    with pytest.raises(ConfigError, match=r"f.toml: x: 13 is unlucky. Allowed: others. Take 12\."):
        build(Sample, {"size": 13}, place)
    with pytest.raises(ConfigError, match=r"f.toml: x.names: \['p', 1\] does not fit"):
        build(Sample, {"size": 1, "names": ["p", 1]}, place)


def test_suggestions_are_made_for_near_misses_only():
    assert did_you_mean("fedavgg", ["fedavg", "krum"]) == "Did you mean 'fedavg'?"
    assert did_you_mean("xyz", ["fedavg", "krum"]) == ""
