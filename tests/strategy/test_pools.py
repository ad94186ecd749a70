"""Rounds of which only sums are seen."""

from dataclasses import replace

import numpy as np
import pytest

from haina.errors import RoundError, StrategyError
from haina.report import Report
from haina.strategy.combine import Nova, Sum
from haina.strategy.factors import Accuracy, Participation, Samples, Uniform
from haina.strategy.local import Control, Local
from haina.strategy.parts import Cover, Seen
from haina.strategy.presets import PRESETS
from haina.strategy.record import Outcome, Verdict
from haina.strategy.robust import GeometricMedian
from haina.strategy.schedule import OnPlateau
from haina.strategy.select import Poisson, PowerOfChoice, Roster
from haina.strategy.server import FedExP, Newton, Scaffold
from haina.strategy.strategy import SPENT, Strategy
from haina.strategy.trust import Trust
from haina.strategy.validate import AdaptiveClip, FixedClip, MedianClip
from haina.strategy.weigh import Weigh
from haina.update import Failure, Pool, Update

D = 6


def pool(names, vector, weight=None, **more):
    return Pool(tuple(sorted(names)), np.asarray(vector, float), float(weight or len(names)), **more)


def played(strategy, pools, *, roster=(), state=None, model=None, failures=(), judge=None):
    model = np.zeros(D, np.float32) if model is None else model
    state = strategy.init(model) if state is None else state
    names = [name for one in pools for name in one.clients] + list(roster)
    opened = strategy.open(state, model, dict.fromkeys(names), dimension=D, judge=judge)
    for one in pools:
        opened.add_pool(one)
    for failure in failures:
        opened.fail(failure)
    return opened.close()


def test_one_sum_is_the_step():
    mean = np.arange(D) / 10
    strategy = Strategy(seen=Seen.SUM)
    closed = played(strategy, [pool(["a", "b", "c"], mean)], roster=["d"], failures=[Failure("d", "no rows")])
    np.testing.assert_allclose(closed.model, mean, rtol=1e-6)
    by_name = {client.client: client for client in closed.record.clients}
    assert [by_name[name].share for name in "abc"] == pytest.approx([1 / 3] * 3)
    assert by_name["a"].norm is None
    assert by_name["a"].report == {"examples": 1.0, "steps": 1, "staleness": 0}
    assert by_name["d"].verdict is Verdict.FAILED
    assert closed.state.members.get("delivered", ["a", "d"]).tolist() == [1.0, 0.0]


def test_nothing_is_said_of_shares_where_clients_weigh_themselves():
    closed = played(Strategy(seen=Seen.SUM), [pool("abc", np.ones(D), 2.5, equal=False)])
    assert [client.share for client in closed.record.clients] == [None] * 3


def test_groups_weigh_what_their_members_do():
    strategy = Strategy(seen=Seen.GROUPS)
    one, other = pool(["a", "b"], np.ones(D), 30), pool(["c", "d"], -np.ones(D), 10)
    np.testing.assert_allclose(played(strategy, [one, other]).model, np.full(D, 0.5), rtol=1e-6)
    np.testing.assert_array_equal(played(strategy, [other, one]).model, played(strategy, [one, other]).model)


def test_a_robust_rule_compares_groups():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=D)
    groups = [pool([f"{g}{k}" for k in "abc"], truth + 0.05 * rng.normal(size=D)) for g in range(7)]
    groups.append(pool(["x", "y", "z"], -50 * truth))
    strategy = Strategy(seen=Seen.GROUPS, combine=GeometricMedian())
    assert np.linalg.norm(played(strategy, groups).model - truth) < 0.1 * np.linalg.norm(truth)
    assert np.linalg.norm(played(Strategy(seen=Seen.GROUPS), groups).model - truth) > np.linalg.norm(truth)


@pytest.mark.parametrize("seed", range(3))
def test_trust_finds_attackers_by_the_groups_that_they_were_in(seed):
    rng = np.random.default_rng(seed)
    truth, clients = rng.normal(size=200) / 14, [f"c{k:02}" for k in range(40)]
    hostile = set(clients[:4])
    strategy = Strategy(
        seen=Seen.GROUPS, trust=Trust("peers", hostile=0.4), clip=None, weigh=Weigh((Uniform(),))
    )
    model = np.zeros(200, np.float32)
    state, hurt = strategy.init(model), []
    for _ in range(25):
        order = rng.permutation(clients)
        vectors = {
            name: -truth * 3 if name in hostile else truth + rng.normal(size=200) / 7 for name in clients
        }
        pools = [pool(part, np.mean([vectors[name] for name in part], axis=0)) for part in np.split(order, 8)]
        opened = strategy.open(state, model, dict.fromkeys(clients), dimension=200)
        for one in pools:
            opened.add_pool(one)
        closed = opened.close()
        state = closed.state
        hurt.append(float(closed.model @ truth / (np.linalg.norm(closed.model) * np.linalg.norm(truth))))
    trust = state.members.get("trust", clients)
    assert trust[4:].mean() > trust[:4].mean() + 0.1
    higher = (trust[4:, None] > trust[None, :4]).mean()
    assert higher > 0.9, higher
    assert min(hurt) > 0.5, hurt


def test_a_group_counts_for_what_it_shows_now_times_the_trust_in_those_within():
    rng = np.random.default_rng(1)
    truth, clients = rng.normal(size=200) / 14, [f"c{k:02}" for k in range(40)]
    across = rng.normal(size=200) / 14
    across -= truth * (truth @ across) / (truth @ truth)
    strategy = Strategy(
        seen=Seen.GROUPS, trust=Trust("peers", hostile=0.4), clip=None, weigh=Weigh((Uniform(),))
    )
    state = strategy.init(np.zeros(200, np.float32))

    def shares(state, odd, number, sign=-3, aside=0.0):
        """Each group's part in a round: groups as they stand in the list, one of which may show something odd."""
        groups = np.split(np.array(clients), 8)
        opened = strategy.open(state, np.zeros(200, np.float32), dict.fromkeys(clients), dimension=200)
        noise = np.random.default_rng(number)
        for k, part in enumerate(groups):
            shown = sign * truth + aside * across if k == odd else truth
            opened.add_pool(pool(part, shown + noise.normal(size=200) / 30))
        closed = opened.close()
        told = {client.client: client.share for client in closed.record.clients}
        return closed.state, np.array([sum(told[name] for name in part) for part in groups])

    for number in range(15):
        state, part = shares(state, 0, number)
        assert part[0] == pytest.approx(0.0, abs=1e-9)
    # Those of the first group now show what all show, and are not trusted for it at once.
    _, part = shares(state, None, 20)
    assert part[0] < 0.5 * part[1:].min()
    # And a good name does not help whoever turns round.
    _, part = shares(state, 3, 21)
    assert part[3] == pytest.approx(0.0, abs=1e-9)
    assert part[4] > 0.1
    # Nor does it help much whoever has something else in mind.
    _, part = shares(state, 3, 22, sign=0.4, aside=0.9)
    assert 0 < part[3] < 0.6 * part[4]


def test_sums_and_updates_are_not_mixed_up():
    hidden = Strategy(seen=Seen.SUM)
    opened = hidden.open(hidden.init(np.zeros(D)), np.zeros(D), dict.fromkeys("abc"), dimension=D)
    with pytest.raises(RoundError, match="in the clear"):
        opened.add(Update("a", np.ones(D, np.float32), Report(1)))
    opened.add_pool(pool("ab", np.ones(D)))
    with pytest.raises(RoundError, match="'b' was heard already"):
        opened.add_pool(pool("bc", np.ones(D)))
    with pytest.raises(RoundError, match="not invited"):
        opened.add_pool(pool("cx", np.ones(D)))
    for bad in (np.ones(D + 1), np.full(D, np.nan)):
        with pytest.raises(RoundError):
            opened.add_pool(pool("c", bad))
    open_round = Strategy().open(Strategy().init(np.zeros(D)), np.zeros(D), {"a": Report(1)}, dimension=D)
    with pytest.raises(RoundError, match="one by one"):
        open_round.add_pool(pool("a", np.ones(D)))
    with pytest.raises(RoundError, match="compares vectors"):
        opened.partial()


def test_a_round_without_a_sum_keeps_the_model():
    closed = played(Strategy(seen=Seen.SUM), [], roster=["a"])
    assert closed.record.outcome is Outcome.KEPT


def test_the_limit_follows_what_is_known_of_it():
    strategy = Strategy(seen=Seen.SUM, cover=Cover.CLIENT, clip=AdaptiveClip(start=2.0))
    state = strategy.init(np.zeros(D))
    assert strategy.instructions(state).limit == 2.0
    closed = played(strategy, [pool("ab", np.ones(D), unclipped=1.0)], state=state)
    assert strategy.instructions(closed.state).limit == pytest.approx(2.0 * np.exp(-0.2 * 0.5))
    closed = played(strategy, [pool("ab", np.ones(D))], state=state)
    assert strategy.instructions(closed.state).limit == 2.0
    assert closed.state.members.get(SPENT, ["a"])[0] == 1.0


class Shift:
    """A release that can be told from the aggregate, and says what it was asked."""

    expected = None

    def __init__(self):
        self.asked = []

    def cover(self, vector, influence):
        self.asked.append(influence)
        return vector + 100.0

    def cover_share(self, share, count):
        return share


@pytest.mark.parametrize("weigh", [Weigh((Uniform(),)), Weigh((Samples(),), cap=None)])
def test_the_server_covers_the_aggregate_for_the_largest_share(weigh):
    strategy = Strategy(cover=Cover.SERVER, clip=FixedClip(1.0), weigh=weigh)
    updates = {"a": 1.0, "b": 3.0}
    roster = {name: Report(count) for name, count in updates.items()}
    state, release = strategy.init(np.zeros(D, np.float32)), Shift()
    with pytest.raises(RoundError, match="covered by noise"):
        strategy.open(state, np.zeros(D, np.float32), roster)
    opened = strategy.open(state, np.zeros(D, np.float32), roster, release=release)
    for name, count in updates.items():
        opened.add(Update(name, np.full(D, 5.0, np.float32), Report(count)))
    closed = opened.close()
    assert release.asked == pytest.approx([0.5 if isinstance(weigh.factors[0], Uniform) else 0.75])
    np.testing.assert_allclose(closed.model, 100 + 1 / np.sqrt(D), rtol=1e-5)


def test_poisson_sampling_divides_by_what_was_to_be_expected():
    strategy = Strategy(
        cover=Cover.SERVER, clip=FixedClip(10.0), weigh=Weigh((Uniform(),)), select=Poisson(0.5)
    )
    state, release = strategy.init(np.zeros(D, np.float32)), Shift()
    opened = strategy.open(
        state, np.zeros(D, np.float32), {n: Report(1) for n in "abc"}, registered=8, release=release
    )
    for name in "abc":
        opened.add(Update(name, np.ones(D, np.float32), Report(1)))
    np.testing.assert_allclose(opened.close().model, 100 + 3 / 4, rtol=1e-6)
    assert release.asked == pytest.approx([1 / 4])


def test_poisson_draws_by_the_binomial_law():
    population, rng = Roster([f"c{k}" for k in range(200)], [1] * 200), np.random.default_rng(3)
    members = Strategy().init(np.zeros(1)).members
    counts = [len(set(Poisson(0.05).choose(population, 1, members, rng))) for _ in range(400)]
    assert np.mean(counts) == pytest.approx(10, abs=0.5)
    assert np.var(counts) == pytest.approx(9.5, rel=0.25)
    assert "c3" not in Poisson(1.0).choose(population, 1, members, rng, exclude={"c3"})
    with pytest.raises(StrategyError, match="rate"):
        Poisson(0.0)


@pytest.mark.parametrize(
    ("change", "what", "way"),
    [
        ({"trust": Trust()}, "shows one sum", "group = 10"),
        ({"combine": GeometricMedian()}, "shows one sum", "group = 10"),
        ({"weigh": Weigh((Samples(), Accuracy()))}, "accuracy", "samples"),
        ({"weigh": Weigh((Samples(), Participation()))}, "inside a secure sum", "samples"),
        ({"combine": Nova()}, "nothing to divide", "mean"),
        ({"server": FedExP()}, "hides", "sgd"),
        ({"rate": OnPlateau(0.1)}, "loss_before", "do not look at losses"),
        ({"select": PowerOfChoice()}, "loss_before", "do not look at losses"),
    ],
)
def test_what_is_hidden_cannot_be_looked_at(change, what, way):
    with pytest.raises(StrategyError) as refused:
        replace(Strategy(seen=Seen.SUM), **change)
    assert what in str(refused.value)
    assert way in refused.value.remedy


@pytest.mark.parametrize(
    ("change", "what", "way"),
    [
        ({"trust": Trust(), "clip": None}, "more than its bounded share", "local"),
        ({"server": FedExP()}, "does not cover", "sgd"),
        (
            {"server": Scaffold(), "local": Local(control=Control.SCAFFOLD), "weigh": Weigh((Uniform(),))},
            "does not cover",
            "sgd",
        ),
        ({"combine": GeometricMedian()}, "more than its bounded share", "local"),
        ({"clip": MedianClip()}, "more than its bounded share", "local"),
        ({"clip": None}, "up to a limit", "clip = 1.0"),
        ({"select": Poisson(0.1), "weigh": Weigh((Samples(),))}, "Poisson", "uniform"),
        (
            {"combine": Sum(), "server": Newton(), "clip": None},
            "no bounded increment",
            "haina.privacy.output",
        ),
    ],
)
def test_what_noise_cannot_cover_is_refused(change, what, way):
    base = Strategy(cover=Cover.SERVER, clip=FixedClip(1.0), weigh=Weigh((Uniform(),)))
    with pytest.raises(StrategyError) as refused:
        replace(base, **change)
    assert what in str(refused.value)
    assert way in refused.value.remedy


@pytest.mark.parametrize("name", ["krum", "geometric_median", "robust", "nnm", "fedadam"])
def test_local_noise_goes_with_any_rule_and_is_not_clipped_away(name):
    strategy = replace(PRESETS[name](), cover=Cover.CLIENT, clip=FixedClip(1.0))
    updates = [Update(f"c{k}", np.full(D, 30.0 + k, np.float32), Report(5)) for k in range(9)]
    opened = strategy.open(strategy.init(np.zeros(D)), np.zeros(D), {u.client: u.report for u in updates})
    for update in updates:
        opened.add(update)
    closed = opened.close()
    assert closed.record.outcome is Outcome.STEPPED
    if name in ("krum", "geometric_median", "nnm"):
        assert 29 < closed.model.mean() < 40


def test_what_the_server_covers_does_not_stand_bare_in_its_records():
    strategy = Strategy(cover=Cover.SERVER, clip=AdaptiveClip(), weigh=Weigh((Uniform(),)))
    model = np.zeros(D, np.float32)
    opened = strategy.open(
        strategy.init(model), model, {"a": Report(3), "b": Report(5)}, dimension=D, release=Shift()
    )
    opened.add(Update("a", np.full(D, 9, np.float32), Report(3, extra={"unclipped": 0.0})))
    opened.add(Update("b", np.full(D, 0.1, np.float32), Report(5, extra={"unclipped": 1.0})))
    for client in opened.close().record.clients:
        assert client.verdict is Verdict.ADMITTED
        assert (client.norm, client.clip) == (None, 1.0)
        assert set(client.report) <= {"examples", "steps", "normalizer", "staleness"}
