import pytest
from memory import race

from haina.coordinator.store import Conflict, SettingRow


def put(store, scope="global", expect=None, expires=None, **values):
    return store.append_setting(scope, values, expect=expect, who="ada", why="try", expires=expires)


def test_changes_are_kept_in_order(store):
    assert store.settings_log(10) == []
    assert put(store, interval=5) == SettingRow(1, "global", {"interval": 5}, "ada", 1_000_000.0, "try")
    put(store, "node:a", interval=None, expires=1_000_009.0)
    put(store, interval=7)
    log = store.settings_log(2)
    assert [row.version for row in log] == [2, 3]
    assert (log[0].values, log[0].expires) == ({"interval": None}, 1_000_009.0)


def test_a_change_is_refused_when_the_log_moved_on(store):
    assert put(store, expect=0, x=1).version == 1
    assert put(store, expect=0, x=2) == Conflict(1)
    assert put(store, expect=9, x=2) == Conflict(1)
    assert put(store, "node:a", expect=1, y=1).version == 2
    assert put(store, expect=1, x=3) == Conflict(2)


@pytest.mark.parametrize("replicas", [1, 4])
def test_of_eight_that_change_the_same_version_one_does(memory, replicas):
    stores = [memory.open() for _ in range(replicas)]
    for seen in range(5):
        told = race(8, lambda n, seen=seen: put(stores[n % replicas], expect=seen, by=n))
        (won,) = [n for n, row in enumerate(told) if isinstance(row, SettingRow)]
        assert told[won].version == seen + 1
        assert told.count(Conflict(seen + 1)) == 7
        assert stores[-1].settings_log(1)[0].values == {"by": won}


@pytest.mark.parametrize("replicas", [1, 4])
def test_versions_have_no_gaps_whoever_writes(memory, replicas):
    stores = [memory.open() for _ in range(replicas)]
    race(8, lambda n: [put(stores[n % replicas], f"node:n{n}", turn=turn) for turn in range(5)])
    assert [row.version for row in stores[0].settings_log(100)] == list(range(1, 41))
