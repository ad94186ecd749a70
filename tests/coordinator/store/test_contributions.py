import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory import Memory, begun, contribution, federation, model, race, round_row, sha


def folding(sums, epoch, values):
    """A replica's fold: adds what is new to its own sum, without touching the sum that was there."""

    def fold(rows):
        return (sums.get(epoch, np.zeros(3)) + sum(values[row.node] for row in rows)).tobytes()

    return fold


def test_a_batch_is_folded_once_and_in_its_order(store):
    begun(store)
    seen = []

    def fold(rows):
        seen.append([row.node for row in rows])
        return b"sum of " + b" ".join(row.node.encode() for row in rows)

    batch = [contribution(node) for node in ("c", "a", "b")]
    assert store.record(batch, fold) == ["new"] * 3
    assert seen == [["c", "a", "b"]]
    assert store.partials("iris", 1) == [("e1", b"sum of c a b")]
    assert store.record([contribution("d"), *batch], fold) == ["new", *batch]
    assert seen[1:] == [["d"]]
    assert store.partials("iris", 1) == [("e1", b"sum of d")]
    assert store.record(batch, fold) == batch
    assert len(seen) == 2
    assert [row.node for row in store.contributions("iris", 1)] == ["a", "b", "c", "d"]
    assert store.contribution("iris", 1, "b") == batch[2]
    assert store.contribution("iris", 2, "b") is None
    assert store.tally("iris", 1) == {"accepted": 4}


def test_what_was_sent_comes_back_as_it_was(store):
    begun(store)
    row = contribution(
        "a",
        status="failed", sha256=None, bytes=1 << 40, codec="int8", length=1 << 33, report={"examples": 3, "metrics": {"x": 0.1}},
        signature="c2ln", square=0.1 + 0.2, reason="no memory", where="task.py:3", staleness=4, seconds=0.3, kept=True,
    )  # fmt: skip
    assert store.record([row]) == ["new"]
    assert store.contributions("iris", 1) == [row]
    assert store.tally("iris", 1) == {"failed": 1}


def test_the_same_task_twice_in_one_batch_counts_once(store):
    begun(store)
    one, other = contribution("a"), contribution("a", sha256=sha(78))
    folded = []
    assert store.record([one, other, one], lambda rows: folded.extend(rows)) == ["new", one, one]
    assert folded == [one]
    assert store.partials("iris", 1) == []


def test_another_for_the_same_task_is_told_what_is_there(store):
    begun(store)
    store.record([contribution("a")])
    assert store.record([contribution("a", sha256=sha(78), epoch="e2")]) == [contribution("a")]


def test_a_node_counts_once_in_a_round_whatever_task_it_did(store):
    begun(store)
    fence = store.claim_close("iris", 1, "r", 10.0, 5.0)
    assert store.publish("iris", 1, fence, model(1), {}, 11.0, finished=False)
    assert store.open_round(round_row(2))
    late = contribution("a", round=1, counted_in=2, staleness=1)
    assert store.record([late, contribution("b", round=2)]) == ["new", "new"]
    assert store.record([contribution("a", round=2)]) == ["taken"]
    assert store.record(
        [contribution("c", round=2, counted_in=2), contribution("c", round=1, counted_in=2)]
    ) in (
        ["new", "taken"],
        ["taken", "new"],
    )
    assert [row.node for row in store.contributions("iris", 2)] == ["a", "b", "c"]


def test_a_round_that_is_closing_takes_no_more_but_knows_what_it_has(store):
    begun(store)
    store.record([contribution("a")], lambda rows: b"a")
    store.claim_close("iris", 1, "r", 10.0, 5.0)
    folded = []
    assert store.record([contribution("a"), contribution("b")], folded.append) == [
        contribution("a"),
        "closed",
    ]
    assert store.record([contribution("b", round=7)], folded.append) == ["closed"]
    assert folded == []
    assert store.partials("iris", 1) == [("e1", b"a")]


def test_what_a_fold_raises_leaves_nothing_written(store):
    begun(store)

    def fold(rows):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.record([contribution("a")], fold)
    assert store.contributions("iris", 1) == []
    assert store.record([contribution("a")]) == ["new"]


@pytest.mark.parametrize("length", [0, 1, (1 << 20) - 8, 1 << 20, 3 * (1 << 20) + 8])
def test_sums_of_any_length_and_of_several_epochs(store, length):
    begun(store)
    first, second = (np.random.default_rng(seed).bytes(length) for seed in (1, 2))
    store.record([contribution("a", epoch="z")], lambda rows: b"x" * (5 << 20))
    store.record([contribution("b", epoch="z")], lambda rows: memoryview(first))
    store.record([contribution("c", epoch="Y")], lambda rows: memoryview(np.frombuffer(second, np.uint8)))
    assert store.partials("iris", 1) == [("Y", second), ("z", first)]
    fence = store.claim_close("iris", 1, "r", 10.0, 5.0)
    assert store.publish("iris", 1, fence, model(1), {}, 11.0, finished=False)
    assert store.partials("iris", 1) == []


def test_a_failed_round_drops_its_sums(store):
    begun(store)
    store.record([contribution("a")], lambda rows: b"sum")
    fence = store.claim_close("iris", 1, "r", 10.0, 5.0)
    assert store.fail_round("iris", 1, fence, "few", None, 11.0)
    assert store.partials("iris", 1) == []
    assert len(store.contributions("iris", 1)) == 1


def test_forgotten_contributions_say_which_bytes_nobody_needs(store):
    begun(store)
    store.put_federation(federation("wine"), model(federation="wine", sha256=sha(91)))
    rows = [
        contribution(node, sha256=sha(number), kept=True)
        for node, number in (("a", 90), ("b", 91), ("c", 92))
    ]
    store.record([*rows, contribution("d", status="failed", sha256=None)])
    assert store.referenced() >= {sha(90), sha(91), sha(92)}
    assert store.forget_contributions("iris", 1) == {sha(90), sha(92)}
    assert store.forget_contributions("iris", 1) == set()
    assert not any(row.kept for row in store.contributions("iris", 1))


@pytest.mark.parametrize("replicas", [1, 4])
def test_each_counts_once_when_eight_threads_bring_the_same_in_other_orders(memory, replicas):
    stores = [begun(memory.open())] + [memory.open() for _ in range(replicas - 1)]
    nodes = [f"n{number:02d}" for number in range(40)]
    values = {node: np.full(3, 1.0 + number) for number, node in enumerate(nodes)}
    sums, told = {}, []

    def bring(n):
        order = random.Random(n).sample(nodes, len(nodes))
        epoch, mine = f"e{n}", []
        for start in range(0, len(order), 5):
            batch = [contribution(node, epoch=epoch) for node in order[start : start + 5]]
            outcomes = stores[n % replicas].record(batch, folding(sums, epoch, values))
            fresh = [row.node for row, outcome in zip(batch, outcomes, strict=True) if outcome == "new"]
            assert all(
                outcome == "new" or outcome.key == row.key
                for row, outcome in zip(batch, outcomes, strict=True)
            )
            sums[epoch] = sums.get(epoch, np.zeros(3)) + sum(values[node] for node in fresh)
            mine += fresh
        told.append((epoch, mine))

    race(8, bring)
    assert sorted(node for _, mine in told for node in mine) == nodes
    rows = stores[0].contributions("iris", 1)
    assert {row.node: row.epoch for row in rows} == {node: epoch for epoch, mine in told for node in mine}
    total = sum(np.frombuffer(data) for _, data in stores[0].partials("iris", 1))
    assert total.tolist() == [sum(range(1, 41))] * 3


def test_closing_waits_for_what_is_being_written_and_finds_it(memory):
    # Two replicas on PostgreSQL, two threads on SQLite.
    store, other = begun(memory.open()), memory.open()
    writing, closed, go_on = threading.Event(), threading.Event(), threading.Event()
    found = []

    def fold(rows):
        writing.set()
        assert not closed.wait(0.3)
        go_on.set()
        return b"sum"

    def close():
        writing.wait(10)
        fence = other.claim_close("iris", 1, "r", 10.0, 5.0)
        closed.set()
        found.append(
            (
                fence,
                go_on.is_set(),
                [row.node for row in other.contributions("iris", 1)],
                other.partials("iris", 1),
            )
        )

    closer = threading.Thread(target=close)
    closer.start()
    assert store.record([contribution("a")], fold) == ["new"]
    closer.join(20)
    assert found == [(1, True, ["a"], [("e1", b"sum")])]


NODES = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.lists(st.tuples(NODES, st.integers(1, 3)), min_size=1, max_size=4),
        st.sampled_from(["close", "fail"]),
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def one_store(tmp_path_factory):
    memory = Memory(None, tmp_path_factory.mktemp("state"))
    yield memory.open()
    memory.close()


@settings(max_examples=40)
@given(steps=STEPS)
def test_whatever_comes_in_whatever_order_the_sum_is_of_the_rows_that_count(one_store, steps):
    name = f"f{len(one_store.federations())}"
    one_store.put_federation(federation(name), model(federation=name))
    number, version = 1, 0
    assert one_store.open_round(round_row(1, name))
    accepted = {}
    for step in steps:
        if isinstance(step, list):
            batch = [contribution(node, task, name, counted_in=number) for node, task in step]

            def fold(rows, number=number):
                return repr(sorted([*accepted.get(number, []), *(row.key for row in rows)])).encode()

            outcomes = one_store.record(batch, fold)
            new = [row.key for row, outcome in zip(batch, outcomes, strict=True) if outcome == "new"]
            accepted.setdefault(number, []).extend(new)
        else:
            fence = one_store.claim_close(name, number, "r", 10.0, 5.0)
            if step == "close":
                version += 1
                assert one_store.publish(name, number, fence, model(version, name), {}, 11.0, finished=False)
            else:
                assert one_store.fail_round(name, number, fence, "", None, 11.0)
            number += 1
            assert one_store.open_round(round_row(number, name, version=version))
        rows = one_store.contributions(name, number)
        assert sorted(row.key for row in rows) == sorted(accepted.get(number, []))
        assert len({row.node for row in rows}) == len(rows)
        sums = one_store.partials(name, number)
        assert sums == ([("e1", repr(sorted(accepted[number])).encode())] if accepted.get(number) else [])
    everything = [key for keys in accepted.values() for key in keys]
    assert len(set(everything)) == len(everything)
