import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from haina.data import folder
from haina.data.names import Numbered
from haina.errors import StrategyError
from haina.strategy.members import Members
from haina.strategy.select import ByParticipation, BySamples, BySimilarity, PowerOfChoice, Roster, Uniform

SELECTORS = [
    Uniform(),
    BySamples(),
    BySimilarity(),
    ByParticipation(),
    ByParticipation("frequent"),
    PowerOfChoice(),
]
NOBODY = Members.empty({"consistency": 0.5})


def roster(n, sizes=None):
    return Roster([f"c{i}" for i in range(n)], sizes or [10] * n)


class Counting:
    """A population without lists, which counts how often it is read."""

    def __init__(self, n):
        self.n, self.reads, self.cumulative = n, 0, np.arange(1, n + 1) * 5

    def __len__(self):
        return self.n

    def name(self, index):
        self.reads += 1
        return f"client-{index}"

    def examples(self, index):
        return 5


def frequencies(selector, population, k, members=NOBODY, draws=6000, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    counts = Counter()
    for _ in range(draws):
        counts.update(selector.choose(population, k, members, rng, **kwargs))
    return np.array([counts[population.name(i)] for i in range(len(population))])


def successive(weights, k):
    """Probability of each set of k when clients are taken one after another in proportion to weight."""
    out = Counter()
    for order in itertools.permutations(range(len(weights)), k):
        left, probability = sum(weights), 1.0
        for i in order:
            probability *= weights[i] / left
            left -= weights[i]
        out[frozenset(order)] += probability
    return out


@given(
    st.sampled_from(SELECTORS),
    st.integers(1, 40),
    st.data(),
    st.integers(0, 2**32),
)
def test_choices_are_distinct_allowed_and_repeatable(selector, n, data, seed):
    population = roster(n)
    names = [population.name(i) for i in range(n)]
    exclude = data.draw(st.sets(st.sampled_from([*names, "stranger"]), max_size=n))
    free = n - len(exclude & set(names))
    k = data.draw(st.integers(1, n))
    members = NOBODY.put(names[: n // 2], consistency=0.01, delivered=3, last_loss=1.0)
    if k > free:
        with pytest.raises(StrategyError, match=f"only {free} of {n}"):
            selector.choose(population, k, members, np.random.default_rng(seed), exclude)
        return
    chosen = selector.choose(population, k, members, np.random.default_rng(seed), exclude)
    assert len(set(chosen)) == len(chosen) == k
    assert set(chosen) <= set(names) - exclude
    assert chosen == selector.choose(population, k, members, np.random.default_rng(seed), exclude)


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
@pytest.mark.parametrize("k", [0, -1, 6])
def test_impossible_numbers_of_clients_are_refused(selector, k):
    with pytest.raises(StrategyError, match=f"{k} clients are to be invited of 5"):
        selector.choose(roster(5), k, NOBODY, np.random.default_rng(0))


def test_uniform_is_uniform():
    counts = frequencies(Uniform(), roster(50), 5)
    assert counts.sum() == 30000
    assert chisquare(counts).pvalue > 1e-3


def test_uniform_is_uniform_over_sets_when_most_are_wanted():
    rng, population, counts = np.random.default_rng(1), roster(5), Counter()
    for _ in range(5000):
        counts[frozenset(Uniform().choose(population, 3, NOBODY, rng))] += 1
    assert len(counts) == 10
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("n", [4, 9])
def test_by_samples_is_successive_sampling_on_both_of_its_paths(n):
    # With 4 clients the population is read at once; with 9, two are first searched by drawing.
    sizes = [50, 20, 20, 10, 5, 5, 5, 5, 5][:n]
    rng, population, counts, draws = np.random.default_rng(2), roster(n, sizes), Counter(), 8000
    for _ in range(draws):
        counts[frozenset(int(c[1:]) for c in BySamples().choose(population, 2, NOBODY, rng))] += 1
    law = successive(sizes, 2)
    assert chisquare([counts[s] for s in law], [draws * p for p in law.values()]).pvalue > 1e-3


def test_clients_without_examples_are_not_chosen_by_samples():
    population = roster(30, [0] * 15 + [1] * 15)
    assert frequencies(BySamples(), population, 4, draws=200)[:15].sum() == 0
    with pytest.raises(StrategyError, match="only 15 of 30"):
        BySamples().choose(population, 16, NOBODY, np.random.default_rng(0))
    with pytest.raises(StrategyError, match="only 0 of 30"):
        BySamples().choose(roster(30, [0] * 30), 1, NOBODY, np.random.default_rng(0))


def test_one_giant_does_not_stop_the_search():
    population = roster(1000, [10**15, *[1] * 999])
    chosen = BySamples().choose(population, 10, NOBODY, np.random.default_rng(0))
    assert len(chosen) == 10
    assert "c0" in chosen


def test_low_similarity_is_sampled_less_and_never_starved():
    values = np.array([0.9, 0.9, 0.5, 0.2, 0.0, np.nan])
    population = roster(6)
    members = NOBODY.put([f"c{i}" for i in range(6)], consistency=values)
    accepted = np.array([0.9, 0.9, 0.5, 0.2, 0.1, 1.0])
    counts = frequencies(BySimilarity(), population, 1, members)
    assert chisquare(counts, 6000 * accepted / accepted.sum()).pvalue > 1e-3


def test_similarity_keeps_its_law_when_most_are_wanted():
    rng, population, counts = np.random.default_rng(4), roster(4), Counter()
    members = NOBODY.put(population.names, consistency=[0.9, 0.5, 0.3, 0.1])
    for _ in range(5000):
        counts[frozenset(int(c[1:]) for c in BySimilarity().choose(population, 2, members, rng))] += 1
    law = successive([0.9, 0.5, 0.3, 0.1], 2)
    assert chisquare([counts[s] for s in law], [5000 * p for p in law.values()]).pvalue > 1e-3


def test_similarity_that_no_step_remembers_is_refused():
    with pytest.raises(StrategyError, match="remembers 'consistency'"):
        BySimilarity().choose(roster(5), 2, Members.empty({}), np.random.default_rng(0))
    trusted = Members.empty({"trust": 0.5})
    assert len(BySimilarity("trust").choose(roster(5), 2, trusted, np.random.default_rng(0))) == 2


def test_participation_evens_out_when_the_rare_come_first():
    population, rng, members = roster(40), np.random.default_rng(3), NOBODY
    spread = {}
    for selector in (ByParticipation(), Uniform()):
        members = NOBODY
        for _ in range(80):
            chosen = selector.choose(population, 4, members, rng)
            members = members.put(chosen, delivered=members.get("delivered", chosen) + 1)
        spread[selector] = np.std(members.get("delivered", population.names))
    assert spread[ByParticipation()] < spread[Uniform()] / 3


def test_those_who_come_often_can_be_preferred_and_ties_fall_at_random():
    names = [f"c{i}" for i in range(10)]
    members = NOBODY.put(names, delivered=[5] * 4 + [1] * 6)
    counts = frequencies(ByParticipation("frequent", candidates=10), roster(10), 2, members, draws=2000)
    assert not counts[4:].any()
    assert chisquare(counts[:4]).pvalue > 1e-3
    rare = frequencies(ByParticipation("rare", candidates=10), roster(10), 2, members, draws=2000)
    assert not rare[:4].any()


def test_power_of_choice_takes_the_unknown_and_then_the_highest_losses():
    names = [f"c{i}" for i in range(6)]
    members = NOBODY.put(names, last_loss=[0.1, 3.0, 0.2, 2.0, np.nan, 1.0])
    chosen = PowerOfChoice(candidates=6).choose(roster(6), 3, members, np.random.default_rng(0))
    assert chosen == ["c4", "c1", "c3"]
    assert PowerOfChoice.reads == ("loss_before",)


def test_power_of_choice_with_no_choice_is_sampling_by_examples():
    sizes = [50, 20, 20, 10]
    counts = frequencies(PowerOfChoice(candidates=1), roster(4, sizes), 1)
    assert chisquare(counts, np.array(sizes) * 60).pvalue > 1e-3


def test_excluded_clients_leave_the_others_alike():
    exclude = {f"c{i}" for i in range(20)}
    counts = frequencies(Uniform(), roster(50), 5, exclude=exclude)
    assert not counts[:20].any()
    assert chisquare(counts[20:]).pvalue > 1e-3


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
def test_a_million_registered_clients_are_not_read(selector):
    population = Counting(1_000_000)
    members = NOBODY.put([f"client-{i}" for i in range(1000)], consistency=0.2, delivered=9)
    chosen = selector.choose(population, 100, members, np.random.default_rng(0), exclude={"client-5"})
    assert len(set(chosen)) == 100
    assert population.reads < 3000


@pytest.mark.parametrize(
    "make",
    [lambda: BySimilarity(floor=0), lambda: BySimilarity(floor=2), lambda: ByParticipation("seldom")],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(StrategyError):
        make()


def test_too_few_candidates_are_refused():
    with pytest.raises(StrategyError, match="2 candidates are too few to choose 3"):
        PowerOfChoice(candidates=2).choose(roster(5), 3, NOBODY, np.random.default_rng(0))


def test_a_roster_tells_names_and_examples():
    population = roster(3, [4, 5, 6])
    assert (len(population), population.name(2), population.examples(1)) == (3, "c2", 5)
    assert population.cumulative.tolist() == [4, 9, 15]


@pytest.mark.parametrize("selector", SELECTORS, ids=repr)
def test_clients_of_a_folder_are_drawn_as_those_of_a_list_and_not_listed(selector, tmp_path, monkeypatch):
    n, rng = 20_000, np.random.default_rng(0)
    sizes = rng.integers(1, 6, n)
    total = int(sizes.sum())
    folder.write(tmp_path / "clients", np.zeros((total, 1), np.float32), np.arange(total) % 2, sizes)
    mapped = folder.read(tmp_path / "clients")
    listed = Roster([f"client-{k:05d}" for k in range(n)], sizes.tolist())
    names = []
    made = Numbered._name
    monkeypatch.setattr(Numbered, "_name", lambda self, k: names.append(k) or made(self, k))
    for seed in range(20):
        chosen = [
            selector.choose(population, 10, NOBODY, np.random.default_rng(seed))
            for population in (mapped, listed)
        ]
        assert chosen[0] == chosen[1]
        assert mapped.shards(chosen[0]).sizes.tolist() == [sizes[int(name[7:])] for name in chosen[0]]
    assert len(names) < 20 * 200
