import json
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.artifact import dump, load
from haina.strategy import members
from haina.strategy.members import HISTORY, Members

NAMES = st.text(max_size=6)
TRUST = {"trust": 0.5, "consistency": np.nan}


def test_an_empty_table_answers_with_what_a_newcomer_has():
    table = Members.empty(TRUST)
    assert len(table) == 0
    assert set(table.columns) == set(HISTORY) | set(TRUST)
    np.testing.assert_array_equal(table.get("trust", ["a", "b"]), [0.5, 0.5])
    np.testing.assert_array_equal(table.get("last_round", ["a"]), [-1.0])
    assert table.get("trust", []).shape == (0,)


def test_newcomers_are_met_late_and_the_others_keep_what_they_have():
    table = Members.empty(TRUST).put(["a", "b"], trust=[0.9, 0.1], delivered=1)
    later = table.put(["c", "a"], trust=[0.7, 0.95])
    assert later.ids == ("a", "b", "c")
    np.testing.assert_array_equal(later.get("trust", ["c", "b", "a", "stranger"]), [0.7, 0.1, 0.95, 0.5])
    np.testing.assert_array_equal(later.get("delivered", ["a", "b", "c"]), [1, 1, 0])
    assert np.isnan(later.get("consistency", ["c"])).all()


def test_a_proposal_is_dropped_by_keeping_the_table_it_came_from():
    table = Members.empty(TRUST).put(["a", "b"], trust=[0.9, 0.1])
    before = {name: column.copy() for name, column in table.columns.items()}
    table.put(["a", "new"], trust=0.0, delivered=9)
    table.put(["a"], trust=0.0, delivered=9)
    table.meet(["x", "y"])
    assert table.ids == ("a", "b")
    for name, column in before.items():
        np.testing.assert_array_equal(table.columns[name], column)
    assert table.meet(["b", "a"]) is table


@given(st.lists(st.lists(st.tuples(NAMES, st.floats(width=64)), max_size=5), max_size=5))
def test_it_is_a_dictionary_of_clients_that_a_checkpoint_restores_bit_for_bit(rounds):
    table, expected = Members.empty(TRUST), {}
    for one in rounds:
        values = dict(one)
        table = table.put(list(values), trust=list(values.values()))
        expected |= values
    assert table.ids == tuple(expected)
    for again in (table, Members.from_arrays(load(dump(table.to_arrays()))[0], TRUST)):
        assert again.ids == table.ids
        assert again.get("trust", list(expected)).tobytes() == np.array(list(expected.values())).tobytes()
        assert set(again.columns) == set(table.columns)
        for name, column in table.columns.items():
            assert again.columns[name].tobytes() == column.tobytes()
        grown = again.put(["a new one"], trust=0.25)
        assert grown.get("trust", ["a new one"])[0] == 0.25
        assert len(grown) == len(set(expected) | {"a new one"})


@pytest.mark.parametrize(
    "names", [["Zürich", "北京", "مستشفى"], [""], ["a\nb", "a", "b"], ["\r\n", "\u2028", "\x00"]]
)
def test_any_text_is_a_name(names):
    table = Members.empty({}).put(names, delivered=np.arange(len(names)))
    again = Members.from_arrays(load(dump(table.to_arrays()))[0], {})
    assert again.ids == tuple(names)
    np.testing.assert_array_equal(again.get("delivered", names), np.arange(len(names)))


@given(st.data())
def test_every_table_stays_what_it_was_however_others_grow_from_it(data):
    clients = st.lists(st.sampled_from([f"c{i}" for i in range(12)]), max_size=4)
    grown = [(Members.empty(TRUST), {})]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(members, "ROWS", 3)
        for number in range(data.draw(st.integers(1, 12))):
            table, known = data.draw(st.sampled_from(grown))
            names = data.draw(clients)
            known = {**known, **dict.fromkeys(names, number)}
            if data.draw(st.booleans()):
                table = Members.from_arrays(table.to_arrays(), TRUST)
            grown.append((table.meet(names).put(names, delivered=number), known))
        for table, known in grown:
            assert table.ids == tuple(known)
            assert len(table) == len(known)
            assert json.loads(table.to_arrays()["ids"].tobytes()) == list(known)
            assert table.columns["delivered"].tolist() == list(known.values())
            asked = [f"c{i}" for i in range(12)]
            assert table.get("delivered", asked).tolist() == [known.get(name, 0) for name in asked]
            assert (table.columns["trust"] == 0.5).all()


def test_the_last_of_equal_clients_wins():
    table = Members.empty(TRUST).put(["a", "b", "a"], trust=[1, 2, 3], delivered=[4, 5, 6])
    assert table.ids == ("a", "b")
    assert table.get("trust", ["a", "b"]).tolist() == [3, 2]
    assert table.get("delivered", ["a", "b"]).tolist() == [6, 5]


def test_what_is_not_remembered_is_refused():
    for ask in (lambda t: t.get("speed", ["a"]), lambda t: t.put(["a"], speed=1)):
        with pytest.raises(KeyError, match="speed"):
            ask(Members.empty(TRUST))


def test_ids_are_the_bytes_of_a_json_list_whichever_table_asks_first():
    first = Members.empty({}).put(["a", 'quote"', "ü"])
    second = first.put(["b"])
    for table in (second, first, second, first.put(["z"]), Members.empty({})):
        assert table.to_arrays()["ids"].tobytes() == json.dumps(table.ids).encode()


def test_threads_may_grow_tables_from_the_same_one():
    start = Members.empty({}).put([f"s{i}" for i in range(100)])
    with ThreadPoolExecutor(8) as pool:
        ways = list(pool.map(lambda k: _grow(start, k % 3), range(24)))
    for k, table in enumerate(ways):
        assert table.ids == (*start.ids, *(f"{k % 3}-{i}" for i in range(200)))
        assert table.columns["delivered"].tolist() == [0] * 100 + [k % 3] * 200
    assert len(start) == 100


def _grow(table, way):
    for i in range(200):
        table = table.put([f"{way}-{i}"], delivered=way)
    return table


def test_a_round_of_ten_among_a_million_seen_takes_less_than_a_millisecond():
    names = [f"client-{i:06d}" for i in range(1_000_000)]
    table, rng, took = Members.empty({}).put(names, invited=1), np.random.default_rng(0), []
    for number in range(60):
        cohort = [f"client-{i:06d}" for i in rng.integers(1_000_100, size=10)]
        start = time.thread_time()
        open_table = table.put(cohort, invited=table.get("invited", cohort) + 1)
        table = open_table.put(cohort, delivered=open_table.get("delivered", cohort) + 1, last_round=number)
        took.append(time.thread_time() - start)
    assert np.median(took) < 1e-3
    assert table.columns["invited"].sum() == 1_000_000 + 600
