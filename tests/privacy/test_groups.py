from hypothesis import given
from hypothesis import strategies as st

from haina.privacy.groups import divide


@given(
    st.sets(st.text("abcdefgh", min_size=1, max_size=5), max_size=60),
    st.integers(3, 20),
    st.integers(2, 3),
    st.binary(min_size=4, max_size=4),
)
def test_groups_are_even_and_none_is_small(names, size, least, seed):
    groups = divide(names, size, least, seed)
    members = [name for group in groups for name in group]
    assert len(members) == len(set(members))
    assert set(members) == (names if len(names) >= least else set())
    sizes = [len(group) for group in groups]
    assert all(count >= least for count in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert groups == divide(sorted(names, reverse=True), size, least, seed)


def test_the_seed_decides_who_goes_with_whom():
    names = [f"n{k:03}" for k in range(100)]
    one, other = (divide(names, 10, 3, seed) for seed in (b"a", b"b"))
    assert len(one) == len(other) == 10
    assert one != other


def test_those_shut_out_go_with_each_other():
    names = [f"n{k:02}" for k in range(20)]
    groups = divide(names, 5, 3, b"seed", shut=names[:4])
    assert tuple(names[:4]) in groups
    assert len(groups) == 4
    # Too few of them for a sum sit out.
    assert {name for group in divide(names, 5, 3, b"seed", shut=names[:2]) for name in group} == set(
        names[2:]
    )


def test_one_group_of_all():
    assert divide(["b", "a", "c"], None, 3, b"") == (("a", "b", "c"),)
    assert divide(["b", "a"], None, 3, b"") == ()
