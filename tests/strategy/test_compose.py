import itertools
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from rounds import play, updates_of

from haina.errors import StrategyError
from haina.strategy.combine import Collect, Mean, Nova, QFair, Sum
from haina.strategy.local import Control, Local
from haina.strategy.parts import Assessment
from haina.strategy.record import Outcome
from haina.strategy.robust import (
    ARC,
    CAF,
    MDA,
    NNM,
    Bulyan,
    CentredClipping,
    GeometricMedian,
    Krum,
    Median,
    MoNNA,
    MultiKrum,
    TrimmedMean,
)
from haina.strategy.select import BySimilarity
from haina.strategy.server import SGD, Adagrad, Adam, FedDyn, FedExP, Merge, Scaffold, Yogi
from haina.strategy.server.newton import Newton
from haina.strategy.strategy import Strategy
from haina.strategy.validate import FixedClip
from haina.strategy.weigh import Accuracy, Samples, Uniform, Weigh

EQUAL = Weigh((Uniform(),))


@dataclass(frozen=True)
class Believer:
    columns: ClassVar = {"consistency": float("nan")}
    needs_judge: bool = field(default=False)

    def init(self):
        return {}

    def assess(self, view, prior, cap, state, combine):
        return Assessment(np.ones(len(prior)), view.members, state)


def newton():
    return Newton("gaussian", True, ("(Intercept)", "x"))


def merge():
    return Merge(lambda documents: b"".join(documents))


CONTRADICTIONS = {
    "sums for an optimiser": (
        {"combine": Sum(), "weigh": EQUAL},
        "Sum makes a payload to be summed, and the server step SGD expects one to be averaged",
        "Sum goes with Newton",
    ),
    "means for Newton": (
        {"server": newton()},
        "Mean makes a payload to be averaged, and the server step Newton expects one to be summed",
        "every other combiner with a server optimiser",
    ),
    "documents for Newton": (
        {"combine": Collect(), "server": newton(), "weigh": EQUAL},
        "Collect makes a payload to be collected, and the server step Newton expects one to be summed",
        "Collect with Merge",
    ),
    "clipped sums": (
        {"combine": Sum(), "server": newton(), "weigh": EQUAL, "clip": FixedClip(1.0)},
        "a summed payload is not an increment",
        "Leave out trust and clip",
    ),
    "trusted documents": (
        {"combine": Collect(), "server": merge(), "weigh": EQUAL, "trust": Believer()},
        "a collected payload is not an increment",
        "Leave out trust and clip",
    ),
    "weighed sums": (
        {"combine": Sum(), "server": newton()},
        "a summed payload counts every client once",
        'weigh = ["uniform"]',
    ),
    "weighed median": (
        {"combine": Median()},
        "Median counts every client once, so the weights Samples would be ignored",
        "geometric_median",
    ),
    "weighed Krum": (
        {"combine": Krum(), "weigh": Weigh((Samples(), Accuracy()))},
        "the weights Samples, Accuracy would be ignored",
        "geometric_median",
    ),
    "weighed mixing over a median": (
        {"combine": NNM(0.2, Median())},
        "NNM counts every client once",
        'weigh = ["uniform"]',
    ),
    "SCAFFOLD over a median": (
        {
            "combine": Median(),
            "server": Scaffold(),
            "weigh": EQUAL,
            "local": Local(control=Control.SCAFFOLD),
        },
        "Scaffold needs to know each client's share, and Median works coordinate by coordinate",
        "geometric_median",
    ),
    "SCAFFOLD on the server only": (
        {"server": Scaffold()},
        "Scaffold is half on the server and half on the client",
        'preset = "scaffold"',
    ),
    "SCAFFOLD on the client only": (
        {"local": Local(control=Control.SCAFFOLD)},
        "Scaffold is half on the server",
        'preset = "scaffold"',
    ),
    "FedDyn on the server only": (
        {"server": FedDyn(0.1), "local": Local(0.1)},
        "FedDyn is half on the server",
        'preset = "feddyn"',
    ),
    "FedDyn on the client only": (
        {"local": Local(0.1, Control.FEDDYN)},
        "FedDyn is half on the server",
        'preset = "feddyn"',
    ),
    "two alphas": (
        {"server": FedDyn(0.1), "local": Local(0.2, Control.FEDDYN)},
        "FedDyn has alpha 0.1 on the server and 0.2 on the client",
        "Make them equal",
    ),
    "FedNova with SCAFFOLD": (
        {"combine": Nova(), "server": Scaffold(), "local": Local(control=Control.SCAFFOLD)},
        "FedNova normalises plain local steps",
        "Use one of the two",
    ),
    "FedNova with FedDyn": (
        {"combine": Nova(), "server": FedDyn(0.1), "local": Local(0.1, Control.FEDDYN)},
        "FedNova normalises plain local steps",
        "Use one of the two",
    ),
    "q-FedAvg under attack": (
        {"combine": QFair(), "trust": Believer()},
        "attackers report high losses",
        "Use trust with a mean or a robust rule",
    ),
    "trust with a clip beside it": (
        {"clip": FixedClip(1.0), "trust": Believer()},
        "trust shortens updates itself",
        "Leave out clip",
    ),
    "similarity that nobody measures": (
        {"select": BySimilarity()},
        "BySimilarity looks at 'consistency', which no step remembers",
        "Add trust",
    ),
    "a misspelt column": (
        {"select": BySimilarity("konsistency"), "trust": Believer()},
        "BySimilarity looks at 'konsistency'",
        "Add trust",
    ),
}


@pytest.mark.parametrize(("settings", "what", "remedy"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_contradiction_is_refused_with_the_way_out(settings, what, remedy):
    with pytest.raises(StrategyError) as error:
        Strategy(**settings)
    assert what in error.value.what
    assert remedy in error.value.remedy
    assert str(error.value).endswith(".")


def test_the_ways_out_lead_out():
    assert Strategy(combine=Sum(), server=newton(), weigh=EQUAL)
    assert Strategy(combine=Collect(), server=merge(), weigh=EQUAL)
    assert Strategy(combine=Median(), weigh=EQUAL)
    assert Strategy(combine=GeometricMedian(), weigh=Weigh((Samples(), Accuracy())))
    assert Strategy(combine=NNM(), server=Scaffold(), local=Local(control=Control.SCAFFOLD))
    assert Strategy(server=FedDyn(0.2), local=Local(0.2, Control.FEDDYN))
    assert Strategy(select=BySimilarity(), trust=Believer())
    assert Strategy(select=BySimilarity("delivered"))


COMBINERS = [
    Mean(),
    Nova(),
    QFair(),
    Krum(),
    MultiKrum(),
    Bulyan(),
    Median(),
    TrimmedMean(),
    GeometricMedian(),
    CentredClipping(),
    CAF(),
    MDA(),
    MoNNA(reference="client-0"),
    NNM(),
    ARC(0.2, Median()),
]
SERVERS = [SGD(), SGD(0.5, 0.9), Adagrad(), Adam(), Yogi(), FedExP(), Scaffold(), FedDyn(0.1)]
WEIGHTS = [Weigh(), EQUAL, Weigh((Samples(), Accuracy()))]
CLIPS = [None, FixedClip(1.0)]
TRUSTS = [None, Believer()]


def test_every_composition_either_steps_or_is_refused_when_it_is_made():
    local = {
        Scaffold: Local(control=Control.SCAFFOLD),
        FedDyn: Local(0.1, Control.FEDDYN),
    }
    updates, model = updates_of(6, n=9), np.zeros(5, np.float32)
    made = refused = tried = 0
    for combine, server, weigh, clip, trust in itertools.product(COMBINERS, SERVERS, WEIGHTS, CLIPS, TRUSTS):
        tried += 1
        try:
            strategy = Strategy(clip, trust, weigh, combine, server, local.get(type(server), Local()))
        except StrategyError as error:
            refused += bool(error.remedy)
            continue
        made += 1
        closed = play(strategy, updates, model)
        assert closed.record.outcome is Outcome.STEPPED, (strategy, closed.record.reason)
        assert np.isfinite(closed.model).all()
    assert made > 700
    assert refused > 200
    assert made + refused == tried
