import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.data.dataset import Dataset
from haina.data.federated import federate
from haina.data.partition import IID, Dirichlet, NaturalKey
from haina.data.sources import load
from haina.data.table import Columns, read_sites
from haina.errors import DataError
from haina.strategy.select import Population


def marked(n, groups=None):
    """Rows whose feature is their own number, so that each can be found again."""
    return Dataset.of(np.arange(n)[:, None], np.arange(n) % 3, groups=groups)


@given(st.integers(30, 90), st.floats(0, 0.4), st.integers(0, 10), st.integers(1, 7), st.integers(0, 2**32))
def test_test_held_and_clients_hold_every_row_once_with_its_target(n, test, held, clients, seed):
    data = federate(marked(n), IID(clients), np.random.default_rng(seed), test=test, held=held)
    pieces = [data.test, data.held, *(data.clients.of(k) for k in range(clients))]
    x = np.concatenate([piece[0][:, 0] for piece in pieces])
    y = np.concatenate([piece[1] for piece in pieces])
    np.testing.assert_array_equal(np.sort(x), np.arange(n))
    np.testing.assert_array_equal(y, x % 3)
    assert len(data.test[1]) == round(test * n)
    assert len(data.held[1]) == held


def test_the_seed_decides():
    digits = load("sklearn:digits")
    a, b, c = (federate(digits, Dirichlet(0.3, 10), np.random.default_rng(s), held=50) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.clients.x, b.clients.x)
    np.testing.assert_array_equal(a.clients.offsets, b.clients.offsets)
    assert (a.clients.x != c.clients.x).any()


def test_rows_are_held_once_and_a_cohort_copies_none():
    data = federate(load("sklearn:digits"), Dirichlet(0.3, 10), np.random.default_rng(0), held=50)
    everything = data.clients.x
    assert len(everything) == 1797
    assert np.shares_memory(data.test[0], everything)
    assert np.shares_memory(data.held[0], everything)
    cohort = data.shards(["client-007", "client-002"])
    assert cohort.clients == ("client-007", "client-002")
    assert cohort.x is everything
    assert cohort.offsets.shape == (2, 2)
    np.testing.assert_array_equal(cohort.of(1)[1], data.clients.of(2)[1])


def test_it_is_a_population():
    data = federate(marked(100), IID(7), np.random.default_rng(0), test=0)
    population: Population = data
    assert len(population) == 7
    assert [population.name(i) for i in (0, 6)] == ["client-000", "client-006"]
    assert sum(population.examples(i) for i in range(7)) == 100
    np.testing.assert_array_equal(
        population.cumulative, np.cumsum([population.examples(i) for i in range(7)])
    )
    with pytest.raises(DataError, match="no client 'client-7'"):
        data.shards(["client-7"])


def test_natural_clients_keep_their_names_and_their_share_of_rows():
    groups = np.repeat(["big", "middle", "one"], [100, 10, 1])
    data = federate(marked(111, groups), NaturalKey("group"), np.random.default_rng(0), test=0.1)
    assert data.clients.clients == ("big", "middle", "one")
    np.testing.assert_array_equal(data.clients.sizes, [90, 9, 1])


def test_synthetic_devices_are_split_nine_to_one_each():
    whole = load("synthetic:1,1", seed=0)
    data = federate(whole, NaturalKey("device"), np.random.default_rng(0), test=0.1)
    sizes = np.unique(whole.groups, return_counts=True)[1]
    assert (np.abs(data.clients.sizes - 0.9 * sizes) <= 1).all()


def test_an_exact_number_of_test_rows():
    data = federate(marked(50), IID(3), np.random.default_rng(0), test=7)
    assert len(data.test[1]) == 7


def test_the_digest_tells_rows_targets_owners_and_names_apart():
    def digest(n=60, clients=3, seed=0, groups=None):
        partition = IID(clients) if groups is None else NaturalKey("group")
        return federate(marked(n, groups), partition, np.random.default_rng(seed), test=0).digest()

    names = np.repeat(["a", "b"], 30)
    told = [digest(), digest(n=61), digest(clients=4), digest(seed=1), digest(groups=names)]
    told += [digest(groups=np.where(names == "a", "a", "c"))]
    assert len(set(told)) == len(told)
    assert digest() == told[0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"test": 1.0}, "test is 1.0"),
        ({"test": -0.1}, "test is -0.1"),
        ({"test": float("nan")}, "test is nan"),
        ({"held": -1}, "held is -1 rows of 30"),
        ({"held": 30}, "held is 30 rows of 30"),
        ({"test": 0.5, "held": 15}, "leave none"),
        ({"test": 28}, "2 rows cannot give 3 clients"),
    ],
)
def test_impossible_sizes_are_refused(settings, words):
    with pytest.raises(DataError, match=words):
        federate(marked(30), IID(3), np.random.default_rng(0), **settings)


def test_files_of_sites_become_clients(tmp_path):
    rng = np.random.default_rng(0)
    sites = {}
    for name, n in (("zuerich", 40), ("aarhus", 20)):
        lines = [f"{rng.normal():.3f},{'yes' if rng.random() < 0.5 else 'no'}" for _ in range(n)]
        sites[name] = tmp_path / f"{name}.csv"
        sites[name].write_text("v,y\n" + "\n".join(lines) + "\n")
    data = federate(read_sites(sites, Columns("y")), NaturalKey("site"), np.random.default_rng(0), test=0.25)
    assert data.clients.clients == ("aarhus", "zuerich")
    np.testing.assert_array_equal(data.clients.sizes, [15, 30])
    assert data.classes == ("no", "yes")
