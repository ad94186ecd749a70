import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.data.dataset import Dataset
from haina.data.partition import IID, PARTITIONS, Dirichlet, LabelShards, NaturalKey, QuantitySkew
from haina.data.sources import load
from haina.errors import DataError


def rows(n, classes=4, seed=0):
    y = np.random.default_rng(seed).permutation(np.arange(n) % classes)
    return Dataset.of(np.zeros((n, 1)), y, groups=np.array([f"g{v:03d}" for v in y * 7 % 13]))


@st.composite
def cases(draw):
    clients = draw(st.integers(1, 12))
    least = draw(st.integers(1, 6))
    n = draw(st.integers(max(clients * least, 4), 200))
    alpha = draw(st.sampled_from([1e-300, 1e-9, 1e-3, 0.1, 1.0, 1e8]))
    partition = draw(
        st.sampled_from(
            [
                IID(clients),
                Dirichlet(alpha, clients, least),
                QuantitySkew(alpha, clients, least),
                LabelShards(least, clients),
                NaturalKey("group"),
            ]
        )
    )
    return rows(n), partition, least if isinstance(partition, Dirichlet | QuantitySkew) else 1


@settings(deadline=None, max_examples=200)
@given(cases(), st.integers(0, 2**32))
def test_every_row_goes_to_exactly_one_client_and_the_seed_decides(case, seed):
    data, partition, least = case
    parts = partition.split(data, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(data)))
    assert min(map(len, parts)) >= least
    assert all((np.diff(part) > 0).all() for part in parts)
    if not isinstance(partition, NaturalKey):
        assert len(parts) == partition.clients
    again = partition.split(data, np.random.default_rng(seed))
    for part, same in zip(parts, again, strict=True):
        np.testing.assert_array_equal(part, same)


def test_iid_sizes_differ_by_one_at_most():
    sizes = [len(part) for part in IID(7).split(rows(100), np.random.default_rng(0))]
    assert sorted(set(sizes)) == [14, 15]


def heterogeneity(data, parts):
    """Mean total-variation distance of the clients' label distributions from the global one, in [0, 1)."""
    whole = np.bincount(data.y, minlength=10) / len(data)
    return np.mean([np.abs(np.bincount(data.y[p], minlength=10) / len(p) - whole).sum() / 2 for p in parts])


def test_label_skew_falls_as_alpha_grows():
    data = load("sklearn:digits")
    skews = [
        heterogeneity(data, Dirichlet(alpha, 20).split(data, np.random.default_rng(1)))
        for alpha in (0.05, 0.5, 5, 500)
    ]
    assert skews == sorted(skews, reverse=True)
    assert skews[0] > 0.7
    assert skews[-1] < 0.12


def test_proportions_of_a_class_have_the_moments_of_the_dirichlet_distribution():
    data = rows(40_000, classes=4)
    alpha, clients = 0.5, 5
    rng = np.random.default_rng(0)
    shares = np.array(
        [
            [
                np.count_nonzero(data.y[part] == 0) / 10_000
                for part in Dirichlet(alpha, clients, 1).split(data, rng)
            ]
            for _ in range(300)
        ]
    )
    variance = (clients - 1) / (clients**2 * (clients * alpha + 1))
    np.testing.assert_allclose(shares.mean(axis=0), 1 / clients, atol=4 * np.sqrt(variance / 300))
    assert shares.var() == pytest.approx(variance, rel=0.15)


def test_where_draws_never_suffice_rows_are_moved_instead():
    data = load("sklearn:digits")
    parts = Dirichlet(0.01, 150, 8).split(data, np.random.default_rng(0))
    assert min(map(len, parts)) == 8
    # All of 1797 rows but 597 are needed to give everyone eight.
    full = Dirichlet(0.01, 1797 // 8, 8).split(data, np.random.default_rng(0))
    assert min(map(len, full)) == 8


def test_quantity_skew_keeps_labels_alike_and_sizes_apart():
    data = load("sklearn:digits")
    parts = QuantitySkew(0.5, 10, 30).split(data, np.random.default_rng(3))
    sizes = sorted(map(len, parts))
    assert sizes[-1] > 5 * sizes[0]
    assert heterogeneity(data, parts) < 0.2


def test_shards_give_each_client_few_labels():
    data = load("sklearn:digits")
    parts = LabelShards(2, 10).split(data, np.random.default_rng(0))
    labels = [len(np.unique(data.y[part])) for part in parts]
    assert max(labels) <= 4
    assert np.mean(labels) < 3.5
    assert max(map(len, parts)) - min(map(len, parts)) <= 2


def test_natural_clients_have_the_names_of_their_key():
    data = rows(60)
    parts = NaturalKey("group").split(data, np.random.default_rng(0))
    names = NaturalKey("group").names(data)
    assert len(names) == len(parts)
    for name, part in zip(names, parts, strict=True):
        assert set(data.groups[part]) == {name}


@pytest.mark.parametrize(
    "make",
    [
        lambda: IID(0),
        lambda: IID(2.5),
        lambda: Dirichlet(-0.1, 3),
        lambda: Dirichlet(0, 3),
        lambda: Dirichlet(float("nan"), 3),
        lambda: Dirichlet(float("inf"), 3),
        lambda: Dirichlet(0.1, 0),
        lambda: Dirichlet(0.1, 3, 0),
        lambda: QuantitySkew(0, 3),
        lambda: LabelShards(0, 3),
        lambda: LabelShards(2, -1),
        lambda: IID(41).split(rows(40), np.random.default_rng(0)),
        lambda: Dirichlet(0.1, 6).split(rows(40), np.random.default_rng(0)),
        lambda: QuantitySkew(0.1, 6).split(rows(40), np.random.default_rng(0)),
        lambda: LabelShards(3, 20).split(rows(40), np.random.default_rng(0)),
        lambda: NaturalKey("hospital").split(rows(40), np.random.default_rng(0)),
        lambda: Dirichlet(0.1, 2).split(load("sklearn:diabetes"), np.random.default_rng(0)),
    ],
)
def test_impossible_divisions_are_refused(make):
    with pytest.raises(DataError) as caught:
        make()
    assert caught.value.allowed or caught.value.remedy


def test_values_can_be_divided_by_every_partition_without_labels():
    data = load("sklearn:diabetes")
    for partition in (IID(5), QuantitySkew(0.5, 5), LabelShards(2, 5)):
        assert len(partition.split(data, np.random.default_rng(0))) == 5


def test_names_of_the_federation_file():
    assert set(PARTITIONS) == {"iid", "dirichlet", "shards", "natural_key", "quantity_skew"}
