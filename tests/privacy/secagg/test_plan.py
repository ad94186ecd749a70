from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom
from secret_sum import TERMS

from haina.errors import PrivacyError
from haina.privacy.secagg import SecAggError, plan
from haina.privacy.secagg.plan import _rare, check_strength, corrupted, safe_threshold, together

#: Members, share of corrupt ones, degree and threshold; 10 % drop out. Computed apart, with SciPy's tails.
TABLE = [
    (20, 0.1, 6, 3),
    (20, 0.2, 8, 5),
    (20, 0.33, 10, 7),
    (100, 0.1, 22, 11),
    (100, 0.2, 32, 21),
    (100, 0.33, 42, 32),
    (1000, 0.1, 52, 28),
    (1000, 0.2, 74, 45),
    (1000, 0.33, 114, 78),
    (10_000, 0.1, 60, 32),
    (10_000, 0.2, 90, 54),
    (10_000, 0.33, 140, 95),
]


@pytest.mark.parametrize(("members", "corrupt", "degree", "threshold"), TABLE)
def test_the_published_table(members, corrupt, degree, threshold):
    chosen = plan(members, corrupt=corrupt)
    assert (chosen.degree, chosen.threshold) == (degree, threshold)
    assert chosen.least == (members + int(corrupt * members)) // 2 + 1


@pytest.mark.parametrize(("members", "corrupt"), [(100, 0.2), (500, 0.1), (1000, 0.33)])
def test_chances_are_kept_by_an_independent_library(members, corrupt):
    chosen, bad, gone = plan(members, corrupt=corrupt), int(corrupt * members), int(0.1 * members)
    tail = hypergeom.sf(chosen.threshold - 1, members - 1, bad, chosen.degree)
    assert members * tail <= 2.0**-40
    assert members * hypergeom.sf(chosen.threshold - 2, members - 1, bad, chosen.degree) > 2.0**-40
    assert (
        members * hypergeom.cdf(chosen.threshold - 1, members - 1, members - 1 - gone, chosen.degree)
        <= 2.0**-30
    )
    needed, pairs = (
        together(members, chosen.degree, corrupt),
        members * (members - chosen.degree + 1) / 2,
    )
    assert pairs * hypergeom.sf(needed - 1, members, bad, chosen.degree) <= 2.0**-40
    assert pairs * hypergeom.sf(needed - 2, members, bad, chosen.degree) > 2.0**-40


def test_tails_are_counts_of_subsets():
    """Eleven members, three corrupt, four drawn: by going through all 330 subsets."""
    hits = [len({0, 1, 2} & set(drawn)) for drawn in combinations(range(11), 4)]
    assert len(hits) == comb(11, 4)
    for odds in (1, 3, 20, 41, 42, 330, 10_000):
        smallest = min(s for s in range(6) if odds * sum(hit >= s for hit in hits) <= len(hits))
        assert _rare(11, 3, 4, odds) == smallest


@given(st.integers(3, 16), st.floats(0, 0.33))
def test_small_groups_are_complete_and_two_thirds_and_one_open(members, corrupt):
    try:
        chosen = plan(members, corrupt=corrupt)
    except PrivacyError:
        assert corrupted(members, corrupt) >= members - 1 - int(0.1 * members)
        return
    assert chosen.degree == members - 1
    assert chosen.threshold == min(2 * members // 3 + 1, members - 1)
    assert chosen.threshold > corrupted(members, corrupt)


@given(st.integers(3, 400), st.floats(0, 0.33), st.floats(0, 0.3))
def test_whatever_is_planned_is_strong_enough_for_members_and_no_two_sets_can_be_agreed_to(
    members, corrupt, dropout
):
    try:
        chosen = plan(members, corrupt=corrupt, dropout=dropout)
    except PrivacyError:
        return
    bad = corrupted(members, corrupt)
    setting = vars(TERMS) | {"corrupt": corrupt}
    check_strength(
        type(TERMS)(**setting).setting(0, chosen.degree, chosen.threshold, chosen.least), members, 3
    )
    assert 2 * chosen.least > members + bad
    assert 3 <= chosen.least <= members - int(dropout * members)
    assert chosen.threshold <= chosen.least
    assert chosen.degree == members - 1 or chosen.degree % 2 == 0


@pytest.mark.parametrize(
    ("degree", "threshold", "least"), [(22, 10, 56), (22, 11, 55), (10, 4, 56), (99, 10, 56)]
)
def test_members_refuse_less_than_is_promised(degree, threshold, least):
    with pytest.raises(SecAggError) as refused:
        check_strength(TERMS.setting(0, degree, threshold, least), 100, 3)
    assert refused.value.code == "weak"


def test_members_refuse_smaller_sums_than_they_want():
    setting = TERMS.setting(0, 4, 4, 4)
    check_strength(setting, 5, 4)
    with pytest.raises(SecAggError, match="of 5 members a sum"):
        check_strength(setting, 5, 5)


def test_a_sum_of_two_is_refused_with_the_way_out():
    with pytest.raises(PrivacyError, match="fewest = 2"):
        plan(2)
    assert plan(2, fewest=2).least == 2


@pytest.mark.parametrize(
    ("members", "corrupt", "dropout"), [(10, 0.4, 0.4), (100, 0.33, 0.4), (5, 0.1, 0.49), (1000, 0.49, 0.3)]
)
def test_no_plan_where_too_few_would_stay_to_agree(members, corrupt, dropout):
    with pytest.raises(PrivacyError, match="drop-outs with"):
        plan(members, corrupt=corrupt, dropout=dropout)


@pytest.mark.parametrize("numbers", [{"corrupt": 0.5}, {"corrupt": -0.1}, {"dropout": 0.5}, {"fewest": 1}])
def test_impossible_shares_are_refused(numbers):
    with pytest.raises(PrivacyError, match="shares in"):
        plan(10, **numbers)


def test_at_least_one_member_counts_as_corrupt():
    assert corrupted(5, 0.0) == 1
    assert corrupted(2, 0.4) == 0
    assert safe_threshold(9, 8, 0.0) == 2
