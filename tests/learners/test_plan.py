from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.learners.learner import Training, client_rng
from haina.learners.plan import Plan, batches, groups


@given(n=st.integers(1, 70), size=st.integers(1, 20), epochs=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_example_comes_exactly_once_an_epoch(n, size, epochs, seed):
    training = Training(epochs=epochs, batch_size=size)
    rows, lengths = batches(n, training, client_rng(seed, 1, "a"))
    assert rows.shape == (training.steps_of(n), size)
    taken = [row for batch, length in zip(rows, lengths, strict=True) for row in batch[:length]]
    for epoch in range(epochs):
        assert sorted(taken[epoch * n : (epoch + 1) * n]) == list(range(n))
    assert sorted(set(lengths)) == sorted({min(size, n), n - (n - 1) // size * size})


@given(n=st.integers(1, 70), size=st.integers(1, 20), steps=st.integers(1, 60))
def test_fixed_steps_are_the_same_stream_cut_short(n, size, steps):
    some, lengths = batches(n, Training(steps=steps, batch_size=size), client_rng(0, 1, "a"))
    many, long = batches(n, Training(epochs=60, batch_size=size), client_rng(0, 1, "a"))
    assert len(some) == steps
    assert np.array_equal(some, many[:steps])
    assert np.array_equal(lengths, long[:steps])


@given(n=st.integers(1, 70), size=st.integers(1, 20))
def test_filling_repeats_the_first_row_of_its_own_batch(n, size):
    rows, lengths = batches(n, Training(batch_size=size), client_rng(0, 1, "a"))
    for batch, length in zip(rows, lengths, strict=True):
        assert (batch[length:] == batch[0]).all()


def test_epochs_rounds_seeds_and_clients_have_their_own_order():
    def order(seed=0, round=1, client="a"):
        return batches(50, Training(epochs=2, batch_size=50), client_rng(seed, round, client))[0]

    first = order()
    assert np.array_equal(first, order())
    assert not np.array_equal(first[0], first[1])
    for other in (order(seed=1), order(round=2), order(client="b")):
        assert not np.array_equal(first, other)


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=8), data=st.data())
def test_a_plan_is_its_clients_own_batches_in_any_company(sizes, data):
    training = Training(epochs=2, batch_size=7)
    order = data.draw(st.permutations(range(len(sizes))))
    plan = Plan.of([f"c{k}" for k in order], [sizes[k] for k in order], training, round=2, seed=3)
    assert len(plan.rows) == plan.steps.sum()
    base = 0
    for place, k in enumerate(order):
        mine = slice(plan.starts[place], plan.starts[place] + plan.steps[place])
        rows, lengths = batches(sizes[k], training, client_rng(3, 2, f"c{k}"))
        assert plan.bases[place] == base
        assert np.array_equal(plan.rows[mine] - base, rows)
        assert np.array_equal(plan.lengths[mine], lengths)
        base += sizes[k]


@given(costs=st.lists(st.integers(0, 50), max_size=30), budget=st.integers(1, 100))
def test_groups_keep_the_order_and_the_budget(costs, budget):
    found = list(groups(costs, budget))
    assert [k for group in found for k in group] == list(range(len(costs)))
    assert all(len(group) == 1 or sum(costs[k] for k in group) <= budget for group in found)


@pytest.mark.parametrize(
    ("sizes", "budget", "expected"), [([3, 3, 3], 6, [[0, 1], [2]]), ([9, 1], 6, [[0], [1]])]
)
def test_groups_are_as_large_as_they_may_be(sizes, budget, expected):
    assert list(groups(sizes, budget)) == expected
