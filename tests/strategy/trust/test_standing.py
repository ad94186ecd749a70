import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import StrategyError
from haina.strategy.members import Members
from haina.strategy.record import Verdict
from haina.strategy.trust.standing import Standing, score, weighted_median

VECTORS = {
    v["id"]: v
    for v in json.loads((Path(__file__).parents[2] / "vectors/aggregation.json").read_text())["vectors"]
}
CLIENTS = tuple(f"c{k}" for k in range(10))
HONEST = np.full(10, 0.5)


def play(standing, rounds, agreement, norms=None, members=None, usual=0.5):
    """`agreement(t)` and `norms(t)` give `[n]` numbers; yields the table after each round."""
    members = members or Members.empty(standing.newcomer).meet(CLIENTS)
    for t in range(rounds):
        lengths = np.ones(10) if norms is None else norms(t)
        members, _, _ = standing.learn(members, CLIENTS, agreement(t), lengths, usual)
        yield members


def last(iterator):
    *_, item = iterator
    return item


def turned(k, value):
    out = HONEST.copy()
    out[k] = value
    return out


def test_the_formula_gives_the_rows_of_the_request():
    vector = VECTORS["trust_spec_rows"]
    got = score(*(np.array(vector["inputs"][name]) for name in ("consistency", "deviation")))
    np.testing.assert_allclose(got, vector["expected"], atol=1e-12)
    assert np.round(got, 2).tolist() == [0.88, 0.22]


def test_honest_clients_rise_and_stay_admitted():
    members = last(play(Standing(), 60, lambda t: HONEST))
    assert (members.columns["trust"] > 0.9).all()
    assert not members.columns["quarantined"].any()


def test_an_attacker_is_shut_out_within_a_few_rounds_and_comes_back_only_after_clean_ones():
    standing = Standing()
    table = list(play(standing, 120, lambda t: turned(3, -0.5) if t < 20 else HONEST))
    quarantined = np.array([members.columns["quarantined"][3] for members in table])
    entered = int(np.argmax(quarantined))
    assert entered <= 10
    released = entered + int(np.argmin(quarantined[entered:]))
    assert 20 + standing.clean <= released < 120
    assert table[released].columns["probation"][3] == standing.probation
    assert table[-1].columns["strikes"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
    assert table[-1].columns["probation"][3] == 0


@pytest.mark.parametrize(("strikes", "rounds"), [(1, 5), (2, 10), (3, 20)])
def test_each_return_asks_for_twice_the_clean_rounds(strikes, rounds):
    standing = Standing()
    members = last(play(standing, 60, lambda t: HONEST))
    members = members.put(["c3"], quarantined=1.0, strikes=float(strikes))
    inside = [
        table.columns["quarantined"][3] for table in play(standing, 30, lambda t: HONEST, members=members)
    ]
    assert inside.index(0.0) + 1 == rounds


def test_rounds_that_tell_nothing_change_nothing_but_drift_to_the_prior():
    standing = Standing()
    good = last(play(standing, 40, lambda t: HONEST))
    quiet = last(play(standing, 400, lambda t: np.zeros(10), members=good, usual=0.5))
    np.testing.assert_allclose(quiet.columns["consistency"], standing.prior, atol=0.02)
    assert not quiet.columns["quarantined"].any()


def test_a_first_blow_is_damped_in_the_same_round():
    standing = Standing()
    members = last(play(standing, 40, lambda t: HONEST))
    norms = np.ones(10)
    norms[3] = 6.0
    after, acceptable, _ = standing.learn(members, CLIENTS, HONEST, norms, 0.5)
    assert acceptable[3] == 0
    assert (np.delete(acceptable, 3) == 1).all()
    assert after.columns["deviation"][3] > 1
    verdicts = standing.verdicts(after, CLIENTS, acceptable)
    assert verdicts[3][0] is Verdict.DAMPED
    assert "longer" in verdicts[3][1]
    assert verdicts[0] == (Verdict.ADMITTED, "")


def test_short_updates_are_harmless():
    norms = np.ones(10)
    norms[3] = 1e-6
    _, acceptable, _ = Standing().learn(Members.empty(Standing().newcomer), CLIENTS, HONEST, norms, 0.5)
    assert (acceptable == 1).all()


def test_half_of_the_members_cannot_be_turned_by_the_other_half_being_absent():
    standing = Standing()
    members = Members.empty(standing.newcomer)
    for t in range(40):
        present = CLIENTS[:5] if t % 2 else CLIENTS[5:]
        members, _, _ = standing.learn(members, present, np.full(5, 0.5), np.ones(5), 0.5)
    assert (members.columns["trust"] > 0.85).all()


@given(
    st.lists(st.floats(-1, 1), min_size=10, max_size=10),
    st.lists(st.floats(1e-12, 1e12), min_size=10, max_size=10),
    st.floats(0, 1),
)
def test_whatever_comes_the_numbers_stay_in_their_ranges(agreement, norms, usual):
    standing = Standing()
    members = last(play(standing, 5, lambda t: np.array(agreement), lambda t: np.array(norms), usual=usual))
    columns = members.columns
    for name in ("consistency", "trust"):
        assert ((columns[name] >= 0) & (columns[name] <= 1)).all()
    assert ((columns["deviation"] >= 0) & (columns["deviation"] <= 10.24)).all()
    assert all(np.isfinite(columns[name]).all() for name in standing.columns)


@given(st.lists(st.tuples(st.integers(-5, 5), st.floats(0.01, 10)), min_size=1, max_size=12))
def test_the_weighted_median_halves_the_weight(pairs):
    values, weights = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    median = weighted_median(values, weights)
    total = weights.sum()
    assert weights[values < median].sum() <= total / 2 + 1e-9
    assert weights[values > median].sum() <= total / 2 + 1e-9


@pytest.mark.parametrize(
    "settings",
    [
        {"tolerance": -0.1},
        {"tolerance": 0.5, "prior": 0.4},
        {"keep": 1.0},
        {"kappa": 0.0},
        {"shut": 0.0},
        {"shut": 0.7},
        {"patience": 0},
        {"release": 0.1},
        {"clean": 0},
        {"probation": -1},
    ],
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(StrategyError, match="Allowed"):
        Standing(**settings)
