import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.artifact import dump, load
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
