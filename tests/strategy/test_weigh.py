import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import StrategyError
from haina.report import Report
from haina.strategy.factors.quality import LEAST_DROP
from haina.strategy.members import Members
from haina.strategy.parts import Needs, View
from haina.strategy.weigh import (
    Accuracy,
    Convergence,
    Disco,
    EffectiveSamples,
    Link,
    Participation,
    Samples,
    Staleness,
    StalenessHinge,
    Uniform,
    Weigh,
    cap_shares,
    effective_sample_size,
)
from haina.update import Cohort

VECTORS = {
    v["id"]: v
    for v in json.loads((Path(__file__).parents[1] / "vectors" / "aggregation.json").read_text())["vectors"]
}


def view(reports, members=None, round=1, **kwargs):
    clients = tuple(f"c{i}" for i in range(len(reports)))
    return View(round, clients, tuple(reports), members or Members.empty({}), **kwargs)


class Given:
    """A factor with given values."""

    needs, needs_judge, reads = Needs.COUNTS, False, ()

    def __init__(self, values, absolute=True):
        self.given, self.absolute = np.array(values, dtype=float), absolute

    def values(self, view):
        return self.given


class Quality(Given):
    def __init__(self, values):
        super().__init__(values, absolute=False)


def shares_of(*factors, n, **settings):
    return Weigh(tuple(factors), **settings).shares(view([Report(1)] * n))


# The request prints [0.77, -0.51] for this example; that is an arithmetic slip, and the exact mean is [0.76, -0.52].
def test_sample_shares_give_the_weighted_average_of_the_specification():
    shares, factors = Weigh().shares(view([Report(500), Report(300), Report(200)]))
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=1e-15)
    assert shares @ np.array([[0.8, -0.5], [0.6, -0.7], [0.9, -0.3]]) == pytest.approx(
        [0.76, -0.52], abs=1e-12
    )
    assert factors["samples"] == pytest.approx([500, 300, 200])


def test_accuracy_shares_match_the_vector():
    vector = VECTORS["accuracy_weights_floor0.1"]
    reports = [Report(1, accuracy=a) for a in vector["inputs"]["acc"]]
    shares, _ = Weigh((Accuracy(vector["settings"]["floor"]),)).shares(view(reports))
    assert shares == pytest.approx(vector["expected"], abs=1e-9)


def test_effective_sample_size_matches_the_vector_and_its_bounds():
    vector = VECTORS["kish_ess"]
    assert effective_sample_size(np.array(vector["inputs"]["w"])) == pytest.approx(
        vector["expected"], abs=1e-9
    )
    assert effective_sample_size(np.full(7, 3.0)) == pytest.approx(7)
    assert effective_sample_size(np.array([0.0, 5.0])) == 1
    assert effective_sample_size(np.zeros(3)) == 0


amounts = st.one_of(st.just(0.0), st.floats(1e-12, 1e12), st.floats(0.1, 1.0))


@given(st.lists(amounts, min_size=1, max_size=12), st.sampled_from([1.0, 1.5, 2.0, 5.0, None]))
def test_shares_sum_to_one_below_the_cap_and_in_the_order_of_the_weights(weights, cap):
    weights = np.array(weights)
    shares = cap_shares(weights, cap)
    if not weights.any():
        assert not shares.any()
        return
    positive = np.count_nonzero(weights)
    limit = 1.0 if cap is None else max(cap / len(weights), 1 / positive)
    assert shares.sum() == pytest.approx(1, abs=1e-12)
    assert shares.max() <= limit * (1 + 1e-12)
    assert not shares[weights == 0].any()
    assert (np.diff(shares[np.argsort(weights, kind="stable")]) >= -1e-15).all()
    # Below the cap shares keep their proportions.
    free = (weights > 0) & (shares < limit * (1 - 1e-9))
    if free.any():
        ratio = shares[free] / weights[free]
        assert ratio == pytest.approx(np.full(len(ratio), ratio[0]), rel=1e-9)


@given(st.lists(st.floats(1e-6, 1e6), min_size=2, max_size=9), st.floats(1.0, 3.0))
def test_water_filling_equals_a_search_over_every_set_of_held_clients(weights, cap):
    weights, n = np.array(weights), len(weights)
    limit = min(1.0, cap / n)
    for held in range(n + 1):
        top = np.argsort(-weights, kind="stable")[:held]
        expected = np.full(n, limit)
        rest = np.setdiff1d(np.arange(n), top)
        if len(rest):
            expected[rest] = weights[rest] / weights[rest].sum() * (1 - limit * held)
        if (expected <= limit + 1e-12).all() and (expected >= -1e-12).all():
            break
    assert cap_shares(weights, cap) == pytest.approx(expected, abs=1e-9)


def test_the_cap_is_two_over_k_and_does_nothing_to_two_clients():
    shares, _ = Weigh().shares(view([Report(1e12), *[Report(100)] * 9]))
    assert shares == pytest.approx([0.2, *[0.8 / 9] * 9])
    pair, _ = Weigh().shares(view([Report(900), Report(100)]))
    assert pair == pytest.approx([0.9, 0.1])
    free, _ = Weigh(cap=None).shares(view([Report(910), *[Report(10)] * 9]))
    assert free[0] == pytest.approx(0.91)


wild = st.one_of(
    st.floats(0.01, 100), st.sampled_from([math.nan, math.inf, -math.inf, -1.0, 0.0, 1e308, 5e-324])
)


@given(st.data(), st.integers(1, 8))
def test_no_value_breaks_the_shares_and_impossible_ones_never_win(data, n):
    values = [data.draw(st.lists(wild, min_size=n, max_size=n)) for _ in range(3)]
    base, amount, quality = map(np.array, values)
    shares, factors = shares_of(Given(base), type("Amount", (Given,), {})(amount), Quality(quality), n=n)
    assert np.isfinite(shares).all()
    assert (shares >= 0).all()
    assert shares.sum() == pytest.approx(1, abs=1e-12) or not shares.any()
    for impossible in (base < 0, np.isinf(base), amount < 0, np.isinf(amount)):
        assert not shares[impossible].any()
    ratios = factors["quality"]
    assert ((ratios >= 0.5) & (ratios <= 2)).all()
    assert (ratios[np.isnan(quality)] == 1).all()
    impossible = (quality < 0) | np.isinf(quality)
    assert (ratios[impossible] <= 1).all()


@given(st.lists(st.tuples(st.floats(0.1, 1e3), st.floats(0.1, 1e3)), min_size=2, max_size=8), st.randoms())
def test_shares_follow_a_permutation_of_the_clients(pairs, random):
    order = list(range(len(pairs)))
    random.shuffle(order)
    base, quality = np.array(pairs).T
    shares, _ = shares_of(Given(base), Quality(quality), n=len(pairs))
    turned, _ = shares_of(Given(base[order]), Quality(quality[order]), n=len(pairs))
    assert turned == pytest.approx(shares[order], abs=1e-12)


def test_a_quality_is_a_clipped_ratio_to_the_median_and_silence_is_neutral():
    shares, factors = shares_of(Given([1] * 5), Quality([1, 2, 3, 30, math.nan]), n=5, cap=None)
    assert factors["quality"] == pytest.approx([0.5, 0.8, 1.2, 2, 1])
    assert shares == pytest.approx(np.array([0.5, 0.8, 1.2, 2, 1]) / 5.5)


def test_a_base_that_is_not_reported_counts_as_the_median_or_one():
    shares, _ = shares_of(Given([1, 3, math.nan]), n=3)
    assert shares == pytest.approx([1 / 6, 1 / 2, 1 / 3])
    silent, _ = shares_of(Given([math.nan] * 3), n=3)
    assert silent == pytest.approx([1 / 3] * 3)


def test_one_infinite_claim_does_not_move_the_median_of_the_others():
    _, factors = shares_of(Given([1] * 4), Quality([1, 2, 3, math.inf]), n=4)
    assert factors["quality"] == pytest.approx([0.5, 1, 1.5, 0.5])


def test_an_empty_cohort_has_no_shares():
    shares, factors = Weigh((Samples(), Accuracy(), Disco())).shares(view([]))
    assert shares.shape == (0,)
    assert set(factors) == {"samples", "accuracy", "disco"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Weigh(()),
        lambda: Weigh((Samples(), Samples(limit=5))),
        lambda: Weigh(clip=(1.5, 2)),
        lambda: Weigh(clip=(0, 2)),
        lambda: Weigh(cap=0.5),
        lambda: Weigh(cap=math.nan),
        lambda: Samples(limit=0),
        lambda: Accuracy(floor=0),
        lambda: Participation("often"),
        lambda: Disco(a=-1),
        lambda: Staleness(-1),
        lambda: StalenessHinge(slope=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(StrategyError):
        make()


def test_samples_are_limited():
    assert Samples(limit=100).values(view([Report(50), Report(1e9)])) == pytest.approx([50, 100])
    assert Uniform().values(view([Report(50), Report(1e9)])) == pytest.approx([1, 1])


class Root:
    """A judge for whom accuracy is the first coordinate."""

    def accuracies(self, increments):
        return increments[:, 0]


def test_checked_accuracy_asks_the_judge_and_not_the_client():
    rows = [np.array([0.9, 0.0]), np.array([0.02, 0.0]), np.array([0.8, 0.0])]
    reports = tuple(Report(1, accuracy=1.0) for _ in rows)
    cohort = Cohort(("c0", "c1", "c2"), reports, rows, scale=np.array([1.0, 1.0, 0.5]))
    factor = Accuracy(checked=True)
    assert factor.values(view(reports, cohort=cohort, judge=Root())) == pytest.approx([0.9, 0.1, 0.4])
    assert (factor.needs, factor.needs_judge, factor.reads) == (Needs.VECTORS, True, ())
    assert (Accuracy().needs, Accuracy().needs_judge, Accuracy().reads) == (
        Needs.REPORTS,
        False,
        ("accuracy",),
    )
    with pytest.raises(StrategyError, match="samples held by the server"):
        factor.values(view(reports, cohort=cohort))
    with pytest.raises(StrategyError, match="vectors of the cohort"):
        factor.values(view(reports, judge=Root()))


def test_convergence_is_loss_drop_per_second_and_never_negative():
    reports = [
        Report(1, loss_before=2.0, loss_after=1.0, seconds=4.0),
        Report(1, loss_before=1.0, loss_after=2.0, seconds=4.0),
        Report(1, loss_before=1.0, loss_after=0.5),
        Report(1, loss_before=1.0, loss_after=0.5, seconds=0.0),
    ]
    assert Convergence().values(view(reports)) == pytest.approx(
        [0.25, LEAST_DROP, math.nan, math.nan], nan_ok=True
    )


def test_link_and_participation_come_from_the_members_table():
    members = Members.empty({}).put(["c0", "c1"], invited=[8, 8], delivered=[8, 2])
    seen = view([Report(1)] * 3, members, round=9)
    assert Link().values(seen) == pytest.approx([0.9, 0.3, 0.5])
    propensity = np.array([10, 4, 2]) / 11
    assert Participation().values(seen) == pytest.approx(1 / propensity)
    assert Participation("reward").values(seen) == pytest.approx(propensity)
    assert Participation().absolute
    assert not Participation("reward").absolute


def test_inverse_propensity_undoes_uneven_participation():
    # Sixty clients hold x_k and turn up with probability pi_k, the less the larger x_k; the mean over all of them is 3.
    rng = np.random.default_rng(0)
    pi, x = np.repeat([0.9, 0.6, 0.3], 20), np.repeat([1.0, 2.0, 6.0], 20)
    names = [f"c{i}" for i in range(60)]
    delivered, members = np.zeros(60), Members.empty({})
    means = {mode: [] for mode in ("inverse", "reward")}
    for number in range(1, 401):
        here = np.flatnonzero(rng.random(60) < pi)
        seen = View(number, tuple(names[i] for i in here), (Report(1),) * len(here), members)
        for mode, seen_means in means.items():
            shares, _ = Weigh((Uniform(), Participation(mode)), cap=None).shares(seen)
            seen_means.append(shares @ x[here])
        delivered[here] += 1
        members = members.put(names, delivered=delivered)
    assert np.mean(means["inverse"][100:]) == pytest.approx(3.0, abs=0.06)
    assert np.mean(means["reward"][100:]) < 2


def test_effective_samples_reward_quality_and_even_labels():
    reports = [
        Report(100, accuracy=1.0, label_counts=(25, 25, 25, 25)),
        Report(100, accuracy=1.0, label_counts=(100, 0, 0, 0)),
        Report(100, accuracy=0.5, label_counts=(50, 50, 0, 0)),
        Report(100, accuracy=1.0),
    ]
    assert EffectiveSamples().values(view(reports)) == pytest.approx([100, 25, 25, math.nan], nan_ok=True)
    assert set(EffectiveSamples().reads) == {"examples", "label_counts", "accuracy"}
    silent = [Report(10, label_counts=(5, 5)), Report(10, label_counts=(10, 0))]
    assert EffectiveSamples().values(view(silent)) == pytest.approx([10, 5])


def test_label_histograms_that_cannot_be_used_count_as_unreported():
    reports = [
        Report(10, label_counts=(5, 5)),
        Report(10, label_counts=(4, 6)),
        Report(10, label_counts=(1,) * 50),
        Report(10, label_counts=(0, 0)),
        Report(10, label_counts=(-1, 3)),
    ]
    for factor in (EffectiveSamples(), Disco()):
        assert np.isnan(factor.values(view(reports))).tolist() == [False, False, True, True, True]


def test_disco_is_the_published_form_in_units_of_the_mean_size():
    reports = [
        Report(500, label_counts=(5, 5)),
        Report(300, label_counts=(10, 0)),
        Report(200, label_counts=(0, 10)),
    ]
    n, d = np.array([500, 300, 200]), np.array([0, math.sqrt(0.5), math.sqrt(0.5)])
    expected = np.maximum(n / n.sum() - 0.5 * d / 3 + 0.1 / 3, 0)
    shares, _ = Weigh((Disco(),), cap=None).shares(view(reports))
    assert shares == pytest.approx(expected / expected.sum())
    assert Disco(a=2, b=0).values(view(reports))[2] == 0


def test_one_enormous_claim_cannot_push_the_others_out_of_disco():
    liar = Report(1e12, label_counts=(5, 5))
    honest = [Report(100 + i, label_counts=(8, 2)) for i in range(29)]
    shares, _ = Weigh((Disco(),)).shares(view([liar, *honest]))
    assert shares[0] == pytest.approx(2 / 30)
    assert (shares[1:] > 0.02).all()


def test_staleness_in_both_forms():
    reports = [Report(1, staleness=age) for age in (0, 3, 4, 8)]
    assert Staleness(0.5).values(view(reports)) == pytest.approx([1, 1 / 2, 1 / math.sqrt(5), 1 / 3])
    assert StalenessHinge(slope=10, grace=4).values(view(reports)) == pytest.approx([1, 1, 1, 1 / 41])


def test_every_factor_says_what_it_reads_in_fields_of_the_report():
    known = set(Report.__dataclass_fields__)
    factors = [Uniform(), Samples(), Accuracy(), Convergence(), Link(), Participation(), EffectiveSamples()]
    for factor in [*factors, Disco(), Staleness(), StalenessHinge()]:
        assert set(factor.reads) <= known
        assert factor.values(view([Report(5), Report(6)])).shape == (2,)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_equal_weights_give_equal_shares_whatever_the_order(order):
    weights = np.array([7.0, 7.0, 1.0])[list(order)]
    shares = cap_shares(weights, 1.2)
    assert len(set(shares[weights == 7])) == 1
    assert sorted(shares) == pytest.approx([0.2, 0.4, 0.4])
