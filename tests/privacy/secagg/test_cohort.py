from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secret_sum import TERMS, Room, attempt, names

from haina.privacy.secagg import Advert, SecAggError
from haina.privacy.secagg.cohort import Cohort, _two_apart
from haina.privacy.secagg.plan import plan, together


def adverts(n, salt=b""):
    """Adverts that nobody signed: a cohort does not look at signatures."""
    keys = [salt + i.to_bytes(32 - len(salt), "big") for i in range(n)]
    return [Advert(name, key, key, key, key, bytes(64)) for name, key in zip(names(n), keys, strict=True)]


def cohort(n, degree, salt=b"", corrupt=0.1):
    terms = vars(TERMS) | {"corrupt": corrupt}
    return Cohort(type(TERMS)(**terms).setting(0, degree, 2, 2), adverts(n, salt))


@given(st.integers(5, 60), st.data())
def test_everyone_has_the_degree_and_neighbours_are_neighbours_of_each_other(n, data):
    degree = data.draw(st.integers(1, (n - 1) // 2).map(lambda half: 2 * half) | st.just(n - 1))
    group = cohort(n, degree)
    near = {name: group.neighbours(name) for name in group.names}
    for name, others in near.items():
        assert len(set(others)) == len(others) == degree
        assert list(others) == sorted(others)
        assert name not in others
        assert all(name in near[other] for other in others)


def test_the_order_is_a_shuffle_that_one_advert_changes():
    """Each of 20 members is in each place equally often, and one other key gives another order of all."""
    places = np.zeros((20, 20), int)
    for draw in range(2000):
        ring = cohort(20, 4, draw.to_bytes(2, "big")).ring
        places[np.arange(20), np.argsort(ring)] += 1
    expected = 2000 / 20
    statistic = float(((places - expected) ** 2 / expected).sum())
    # Chi-square with 19 * 19 degrees of freedom: mean 361, deviation 27.
    assert abs(statistic - 361) < 4 * 27
    changed = adverts(20)
    changed[0] = Advert(changed[0].name, *[bytes(31) + b"\xff"] * 4, bytes(64))
    other = Cohort(TERMS.setting(0, 4, 2, 2), changed)
    assert other.ring != cohort(20, 4).ring
    assert other.digest != cohort(20, 4).digest


def test_the_order_of_the_adverts_does_not_matter():
    setting = TERMS.setting(0, 4, 2, 2)
    one, other = Cohort(setting, adverts(9)), Cohort(setting, adverts(9)[::-1])
    assert (one.digest, one.ring, one.points) == (other.digest, other.ring, other.points)


@pytest.mark.parametrize("degree", [3, 7, 20])
def test_impossible_degrees_are_refused(degree):
    with pytest.raises(SecAggError, match="smaller even number"):
        cohort(9, degree)


def test_a_name_or_an_identity_twice_is_refused():
    setting, one = TERMS.setting(0, 2, 2, 2), adverts(5)
    twin = Advert("twin", *(bytes(32) for _ in range(3)), one[0].identity, bytes(64))
    for more in (one[0], twin):
        with pytest.raises(SecAggError, match="each name and each identity once"):
            Cohort(setting, [*one, more])


@given(st.lists(st.integers(0, 1), min_size=4, max_size=16), st.integers(1, 8))
def test_the_poorest_two_stretches_are_found(there, width):
    size, width = len(there), min(width, len(there) // 2)
    stretches = [sum(there[(start + step) % size] for step in range(width)) for start in range(size)]
    apart = [
        stretches[i] + stretches[j]
        for i, j in combinations(range(size), 2)
        if min(j - i, size - (j - i)) >= width
    ]
    assert _two_apart(np.array(stretches), width) == min(apart)


def honest_parts(group, there):
    """The connected parts of the honest members who are there."""
    left, parts = set(there), []
    while left:
        part, edge = set(), {left.pop()}
        while edge:
            name = edge.pop()
            part.add(name)
            found = set(group.neighbours(name)) & left
            left -= found
            edge |= found
        parts.append(part)
    return parts


@settings(max_examples=300)
@given(st.data())
def test_a_set_that_is_accepted_cannot_be_cut(data):
    """Whatever a coordinator calls gone, and whoever is corrupt: if the sum falls into parts, more are corrupt in two stretches than chance allows.

    Members go in runs, as somebody would choose them who knows the ring.
    """
    n = data.draw(st.integers(17, 40))
    group = cohort(n, data.draw(st.sampled_from([4, 6, 8])), bytes([data.draw(st.integers(0, 255))]))
    gone, corrupt = set(), set()
    for who in (gone, gone, corrupt, corrupt):
        start, length = data.draw(st.integers(0, n - 1)), data.draw(st.integers(0, 6))
        who.update(group.ring[(start + step) % n] for step in range(length))
    uploaders = set(group.names) - gone
    needed = together(n, group.setting.degree, group.setting.corrupt)
    _, code = attempt(group.check_together, uploaders)
    assert code in ("", "apart")
    if not code and len(corrupt) < needed:
        assert len(honest_parts(group, uploaders - corrupt)) <= 1


def test_two_stretches_that_are_called_gone_are_refused_and_so_many_at_random_are_not():
    chosen = plan(100)
    group = cohort(100, chosen.degree)
    half = chosen.degree // 2
    ring = group.ring
    cut = set(ring) - set(ring[:half]) - set(ring[50 : 50 + half])
    assert len(cut) >= chosen.least
    assert len(honest_parts(group, cut)) == 2
    with pytest.raises(SecAggError) as refused:
        group.check_together(cut)
    assert refused.value.code == "apart"
    assert "0 uploaders" in refused.value.what
    rng = np.random.default_rng(0)
    for _ in range(300):
        group.check_together(set(rng.choice(ring, 90, replace=False)))


def test_the_limit_is_what_chance_allows_to_be_corrupt():
    """So many uploaders on two stretches as could just not all be corrupt: accepted; one fewer: refused."""
    group = cohort(100, plan(100).degree)
    half, needed = group.setting.degree // 2, together(100, group.setting.degree, 0.1)
    ring = group.ring
    far = ring[50 : 50 + half]
    gone = set(ring[:half]) | set(far)
    assert needed == half
    group.check_together(set(ring) - gone | set(far))
    with pytest.raises(SecAggError, match=f"{needed - 1} uploaders"):
        group.check_together(set(ring) - gone | set(far[1:]))


def test_a_complete_graph_cannot_be_cut():
    cohort(9, 8).check_together(set(names(2)))


@pytest.mark.parametrize(("n", "corrupt"), [(100, 0.1), (100, 0.2), (100, 0.33), (500, 0.1), (500, 0.33)])
def test_as_many_drop_outs_as_planned_are_not_refused(n, corrupt):
    """At random; the margin is smallest for 100 members of whom a third is corrupt."""
    group = cohort(n, plan(n, corrupt=corrupt).degree, corrupt=corrupt)
    rng = np.random.default_rng(1)
    for _ in range(200):
        group.check_together(set(rng.choice(group.ring, n - n // 10, replace=False)))


def test_views_tell_lists_apart():
    """A name that moves from one list to the other, or a boundary that moves within names, gives other bytes."""
    group = Room(5).aggregator._cohort
    a, b, c = "a", "b", "ab"
    views = {
        group.view(*lists)
        for lists in (([a, b], []), ([a], [b]), ([], [a, b]), ([c], []), ([], [c]), ([a, b, c], []))
    }
    assert len(views) == 6
