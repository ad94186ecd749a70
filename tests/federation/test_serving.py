import numpy as np
import pytest

from haina.errors import ConfigError
from haina.federation import Federation
from haina.federation.schema import parse
from haina.report import Report
from haina.strategy.factors import Samples, Staleness, StalenessHinge, Uniform
from haina.strategy.parts import View

TABLE = '[data]\ntarget = "y"\nfeatures = ["a"]\nclasses = ["no", "yes"]\n'
JAX = '[model]\nlearner = "jax"\n'
GLM = '[model]\nlearner = "glm"\nfamily = "binomial"\n'


def of(serve="", train="", strategy="", model=JAX, data=TABLE, top=""):
    sections = {"serve": serve, "train": train, "strategy": strategy}
    text = top + model + data + "".join(f"[{name}]\n{lines}\n" for name, lines in sections.items() if lines)
    return Federation.of(text, "my.toml")


def test_a_file_without_a_word_is_served_with_defaults():
    serve = of().serve
    assert (serve.nodes, serve.quorum, serve.deadline, serve.every) == (2, 1.0, 600.0, None)
    assert (serve.mode, serve.max_staleness, serve.keep_models) == ("rounds", 0, 20)
    assert of().codecs == ("float32",)
    assert isinstance(serve.quorum, float)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ('"30s"', 30),
        ('"5m"', 300),
        ('"2h"', 7200),
        ('"1d"', 86400),
        ('"1.5 m"', 90),
        ("45", 45),
        ("0.5", 0.5),
    ],
)
def test_time_spans(text, seconds):
    for key in ("deadline", "every", "away"):
        assert getattr(of(f"{key} = {text}").serve, key) == seconds


@pytest.mark.parametrize(
    "text", ['"30"', '"5 minutes"', '""', "0", "-3", "true", '"-5m"', '"400d"', '"5m5s"', "nan", "[5]"]
)
@pytest.mark.parametrize("key", ["deadline", "deadline_min", "every"])
def test_what_is_no_time_span(key, text):
    with pytest.raises(ConfigError, match=rf"my.toml: serve.{key}: .* does not fit") as error:
        of(f"{key} = {text}")
    assert '"30s", "5m"' in error.value.allowed


def test_a_whole_number_is_a_count_and_a_fraction_a_share():
    assert isinstance(of("quorum = 2").serve.quorum, int)
    assert of("quorum = 0.5").serve.quorum == 0.5
    assert parse(JAX + TABLE + "[serve]\nquorum = 1.0\n", "f").serve.quorum == 1.0
    for bad in ("0", "0.0", "1.5", "-1"):
        with pytest.raises(ConfigError, match=r"serve.quorum"):
            of(f"quorum = {bad}")


class TestLate:
    def test_late_updates_weigh_less(self):
        strategy = of("max_staleness = 3").strategy
        assert strategy.weigh.factors == (Samples(), Staleness(0.5))
        reports = (Report(10), Report(10, staleness=3))
        view = View(1, ("a", "b"), reports, strategy.init(np.zeros(2)).members)
        shares, _ = strategy.weigh.shares(view)
        np.testing.assert_allclose(shares, [2 / 3, 1 / 3])

    @pytest.mark.parametrize(
        ("discount", "factor"),
        [
            ("1.0", Staleness(1.0)),
            ('"staleness"', Staleness()),
            ('"staleness_hinge"', StalenessHinge()),
            ("{staleness_hinge = {slope = 2.0, grace = 1.0}}", StalenessHinge(2.0, 1.0)),
        ],
    )
    def test_how_much_less(self, discount, factor):
        assert of(f"max_staleness = 3\ndiscount = {discount}").strategy.weigh.factors[-1] == factor
        with pytest.raises(ConfigError, match=r"serve.discount: .*samples.* is not known"):
            of('max_staleness = 3\ndiscount = "samples"').strategy  # noqa: B018

    def test_a_strategy_that_weighs_by_age_keeps_its_own(self):
        strategy = of("max_staleness = 3", strategy='weigh = ["uniform", {staleness = 2.0}]').strategy
        assert strategy.weigh.factors == (Uniform(), Staleness(2.0))

    def test_without_late_updates_nothing_is_added(self):
        assert of().strategy.weigh.factors == (Samples(),)

    def test_buffered_lets_late_updates_in(self):
        fed = of('mode = "buffered"\nbuffer = 4')
        assert fed.serve.max_staleness == 20
        assert fed.strategy.weigh.factors == (Samples(), Staleness(0.5))
        assert of('mode = "buffered"\nbuffer = 4\nmax_staleness = 7').serve.max_staleness == 7


BUFFERED = 'mode = "buffered"\nbuffer = 4'
CONTRADICTIONS = {
    "buffered without a buffer": ({"serve": 'mode = "buffered"'}, "serve.buffer: is missing", "buffer = 10"),
    "a buffer in rounds": ({"serve": "buffer = 4"}, "serve.buffer: has no meaning in rounds", "buffered"),
    "a quorum of a buffer": (
        {"serve": BUFFERED + "\nquorum = 2"},
        "serve.quorum: has no meaning in buffered",
        "",
    ),
    "a schedule of a buffer": (
        {"serve": BUFFERED + '\nevery = "5m"'},
        "serve.every: has no meaning in buffered",
        "",
    ),
    "a buffer that refuses": (
        {"serve": BUFFERED + "\nmax_staleness = 0"},
        "serve.max_staleness: is 0, and in buffered",
        "Write 1 or more",
    ),
    "a discount of nothing": (
        {"serve": "discount = 0.3"},
        "serve.discount: is of late updates",
        "max_staleness = 5",
    ),
    "two discounts": (
        {"serve": "max_staleness = 2\ndiscount = 0.3", "strategy": 'weigh = ["samples", "staleness"]'},
        "serve.discount: would count age twice",
        "Leave one of the two out",
    ),
    "late sums": (
        {"serve": "max_staleness = 1", "model": GLM},
        "serve.max_staleness: the learner 'glm' is exact: what clients send is summed",
        "Leave out max_staleness",
    ),
    "buffered sums": (
        {"serve": BUFFERED, "model": GLM},
        "serve.max_staleness: the learner 'glm' is exact",
        "",
    ),
    "late trees": (
        {"serve": "max_staleness = 1", "model": '[model]\nlearner = "forest"\n'},
        "serve.max_staleness: the learner 'forest' is exact: what clients send is collected",
        "",
    ),
    "a late vote": (
        {"serve": "max_staleness = 1", "strategy": 'preset = "krum"'},
        "serve.max_staleness: late updates weigh less, and Krum counts every client once",
        "geometric_median",
    ),
    "rounded sums": (
        {"serve": 'codecs = ["bf16"]', "model": GLM},
        "serve.codecs: the learner 'glm' is exact",
        "raw",
    ),
    "a raw average": ({"serve": 'codecs = ["raw"]'}, "serve.codecs: raw is for exact statistics", "float32"),
    "a codec twice": ({"serve": 'codecs = ["bf16", "bf16"]'}, "serve.codecs: names a codec twice", ""),
    "bounds of nothing": (
        {"serve": 'deadline_min = "5s"'},
        "serve.deadline_min: bounds an adaptive",
        "adaptive",
    ),
    "bounds that cross": (
        {"serve": 'deadline = "adaptive"\ndeadline_min = "2h"'},
        "serve.deadline_min: is 7200 s, above deadline_max",
        "",
    ),
    "more than all": (
        {"serve": "over_selection = 1.5"},
        "serve.over_selection: invites more than",
        "clients_per_round",
    ),
    "a quorum above the nodes": (
        {"serve": "quorum = 3"},
        "serve.quorum: is 3 updates, and 2 are all",
        "at most 2",
    ),
    "a quorum above the invited": (
        {"serve": "quorum = 5\nover_selection = 1.3\nnodes = 9", "train": "clients_per_round = 3"},
        "serve.quorum: is 5 updates, and 4 are all",
        "at most 4",
    ),
}


@pytest.mark.parametrize(("parts", "words", "remedy"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_what_cannot_hold_together_is_refused_with_the_way_out(parts, words, remedy):
    for look in ("strategy", "serve"):
        with pytest.raises(ConfigError) as error:
            getattr(of(**parts), look)
        assert error.value.what.startswith(f"my.toml: {words}")
        assert remedy in error.value.remedy


def test_exact_statistics_go_as_they_are():
    assert of(model=GLM).codecs == ("raw",)
    assert of('codecs = ["bf16", "int8"]').codecs == ("bf16", "int8")


def test_what_holds_in_simulations_only_is_refused_when_served():
    for fed, words in (
        (of(data=TABLE + "standardise = true\n"), "my.toml: data.standardise: takes means over all rows"),
        (of(top='name = "海纳"\n'), "my.toml: name: '海纳' cannot become part of an address"),
        (
            of(strategy='preset = "trusted"'),
            "my.toml: data.held: strategy 'trusted' judges updates on samples",
        ),
    ):
        assert fed.strategy is not None
        with pytest.raises(ConfigError) as error:
            fed.serve  # noqa: B018
        assert error.value.what.startswith(words)
    assert of('held = "held.csv"', strategy='preset = "trusted"').serve.held == "held.csv"
