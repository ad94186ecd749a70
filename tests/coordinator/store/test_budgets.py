"""The coordinator's ledger on both databases: what is reserved, what is settled with a round, and that no two replicas overspend."""

import random
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import budget, charge, reckoned, sums_are_those_of_the_charges, written
from memory import Memory, begun, federation, model, race, round_row

from haina.coordinator.contract import Refusal
from haina.coordinator.store import Overspent, Settlement

KINDS = pytest.mark.parametrize("replicas", [1, 4])
OWNERS = ("a", "b", "c")


def spent(store, owner="ward"):
    return {account.budget.owner: account.spent.epsilon for account in store.budgets()}[owner]


def consistent(store):
    charges = store.charges(last=100_000)
    return all(sums_are_those_of_the_charges(account, charges) for account in store.budgets())


def ready(store):
    """A federation whose three nodes have opened budgets for four rounds."""
    store.put_federation(federation(), model())
    for owner in OWNERS:
        store.open_budget(budget(1.0, owner=owner))
    return store


def cohort(number=1, owners=OWNERS, epsilon=0.25):
    return [charge(f"iris/{number}/{owner}", epsilon, owner=owner, round=number) for owner in owners]


def states(store, **asked):
    return {one.id: one.state for one in store.charges(**asked)}


def test_a_budget_is_opened_once_and_on_its_terms(store):
    assert store.budgets() == []
    terms = budget(1.0, 1e-6, "zcdp", parts=("x", "y"))
    assert store.open_budget(terms) == replace(terms, opened=1_000_000.0)
    assert store.open_budget(replace(terms, opened=3.0)).opened == 1_000_000.0
    with pytest.raises(Refusal, match=r"epsilon 2,.*Allowed: ward's budget.*epsilon 1,.*fixed") as caught:
        store.open_budget(replace(terms, epsilon=2.0))
    assert caught.value.code == "conflict"
    store.open_budget(budget(owner="ada"))
    assert [account.budget.owner for account in store.budgets()] == ["ada", "ward"]
    assert store.budgets()[1].spent.fraction == 0.0


def test_a_batch_is_reserved_but_for_what_is_refused(store):
    store.open_budget(budget(1.0))
    store.open_budget(budget(1.0, 1e-6, "zcdp", owner="lab", parts=("x", "y")))
    batch = [
        charge("1", 0.6), charge("2", 0.6), charge("3", 0.4), charge("4", None, 0.001, owner="lab"), charge("5", None, owner="lab"),
        charge("6", owner="x" * 64), charge("7", owner="nobody"), charge("8", float("nan")), charge("9\0"), charge("10", 0.1, owner="lab", part="x"),
    ]  # fmt: skip
    refused = store.reserve(batch)
    assert list(refused) == ["2", "5", "6", "7", "8", "9\0"]
    assert "epsilon 0.6 of 1 is spent, and the charge is 0.6 more" in refused["2"]
    assert "opened no budget" in refused["7"]
    stamped = [replace(one, at=1_000_000.0) for one in batch if one.id not in refused]
    assert store.charges() == sorted(stamped, key=lambda one: one.id)
    lab, ward = store.budgets()
    assert (ward.spent.fraction, lab.spent.rho) == (1.0, 0.006)
    assert consistent(store)


def test_the_same_charge_again_is_counted_once(store):
    store.open_budget(budget(1.0))
    assert [store.reserve([charge("a", 0.6)]) for _ in range(3)] == [{}, {}, {}]
    assert store.reserve([charge("a", 0.1)]) == {"a": "another charge has its id"}
    assert spent(store) == 0.6
    store.release(["a"])
    store.release(["a"])
    assert "is released already" in store.reserve([charge("a", 0.6)])["a"]
    assert states(store) == {"a": "released"}


def test_only_what_was_not_released_is_given_back(store):
    store.open_budget(budget(1.0, parts=("x",)))
    assert store.reserve([charge("a", 0.5), charge("b", 0.3), charge("c", 0.2), charge("d", 0.1, part="x")])[
        "d"
    ]
    store.release(["a"])
    store.void(["b", "c"], "never sent")
    store.void(["b"], "again")
    assert spent(store) == 0.5
    assert [one.why for one in store.charges(state="void")] == ["never sent", "never sent"]
    for call, words in [
        (lambda: store.void(["a"], "no"), "'a' is released, and cannot be void"),
        (lambda: store.release(["b"]), "'b' is void, and cannot be released"),
        (lambda: store.release(["x"]), "'x' is unknown"),
    ]:
        with pytest.raises(Refusal, match=words) as caught:
            call()
        assert caught.value.code == "conflict"
    assert store.reserve([charge("d2", 0.5, part="x")]) == {}
    assert consistent(store)


def test_charges_are_found_by_what_they_are_of(memory):
    store = ready(memory.open())
    for number in (1, 2):
        memory.clock.now += 1
        assert store.reserve(cohort(number)) == {}
    store.release(["iris/1/a"])
    assert list(states(store, owner="a")) == ["iris/1/a", "iris/2/a"]
    assert list(states(store, last=4)) == ["iris/1/c", "iris/2/a", "iris/2/b", "iris/2/c"]
    assert list(states(store, state="released", federation="iris", dataset="patients")) == ["iris/1/a"]
    assert states(store, federation="wine") == states(store, dataset="other") == {}


def test_a_round_opens_with_its_charges_or_not_at_all(store):
    ready(store)
    store.open_budget(budget(0.1, owner="poor"))
    told = store.open_round(round_row(), [*cohort(), *cohort(owners=("poor", "none"))])
    assert isinstance(told, Overspent)
    assert not told
    assert list(told.refused) == ["iris/1/poor", "iris/1/none"]
    assert (store.current_round("iris"), store.charges()) == (None, [])
    assert store.open_round(round_row(), cohort()) is True
    assert set(states(store).values()) == {"reserved"}
    # Of a round that is not the next, nothing is reserved.
    assert store.open_round(round_row(), cohort(9)) is False
    assert len(store.charges()) == 3
    assert [spent(store, owner) for owner in OWNERS] == [0.25] * 3


def test_a_round_ends_with_its_charges_settled(store):
    assert ready(store).open_round(round_row(), cohort())
    fence = store.claim_close("iris", 1, "r", 10.0, 5.0)
    settlement = Settlement(["iris/1/a", "iris/1/b"], ["iris/1/c"], "c sent nothing")
    assert not store.publish("iris", 1, fence + 1, model(1), {}, 11.0, False, settle=settlement)
    assert set(states(store).values()) == {"reserved"}
    for _ in range(2):
        assert store.publish("iris", 1, fence, model(1), {}, 11.0, False, settle=settlement)
        assert states(store) == {"iris/1/a": "released", "iris/1/b": "released", "iris/1/c": "void"}
        assert [spent(store, owner) for owner in OWNERS] == [0.25, 0.25, 0.0]
    assert store.open_round(round_row(2), cohort(2))
    fence = store.claim_close("iris", 2, "r", 20.0, 5.0)
    ids = [one.id for one in cohort(2)]
    assert not store.fail_round("iris", 2, fence - 1, "few", None, 21.0, settle=Settlement(void=ids))
    assert store.fail_round(
        "iris", 2, fence, "few", None, 21.0, settle=Settlement(void=ids, why="nothing was opened")
    )
    assert set(states(store, state="void")) == {*ids, "iris/1/c"}
    assert [spent(store, owner) for owner in OWNERS] == [0.25, 0.25, 0.0]
    assert consistent(store)


@pytest.mark.parametrize(
    "settlement",
    [Settlement(release=["x"]), Settlement(void=["iris/1/a"]), Settlement(["iris/1/b"], ["iris/1/b"])],
)
def test_what_cannot_be_settled_ends_no_round(store, settlement):
    assert ready(store).open_round(round_row(), cohort())
    store.release(["iris/1/a"])
    fence = store.claim_close("iris", 1, "r", 10.0, 5.0)
    before = states(store)
    with pytest.raises(Refusal) as caught:
        store.publish("iris", 1, fence, model(1), {}, 11.0, False, settle=settlement)
    assert caught.value.code == "conflict"
    assert store.current_round("iris").state == "closing"
    assert (store.model("iris").version, states(store)) == (0, before)


def test_a_round_that_a_roll_back_ends_stays_charged(store):
    assert ready(store).open_round(round_row(), cohort())
    store.rollback("iris", 0, "again", 20.0)
    assert store.current_round("iris") is None
    assert set(states(store).values()) == {"reserved"}
    assert spent(store, "a") == 0.25


def test_the_budget_ends_the_training(store):
    ready(store)
    for number in range(1, 5):
        assert store.open_round(round_row(number), cohort(number))
        fence = store.claim_close("iris", number, "r", 10.0, 5.0)
        ids = [one.id for one in cohort(number)]
        assert store.publish("iris", number, fence, model(number), {}, 11.0, False, settle=Settlement(ids))
    told = store.open_round(round_row(5), cohort(5))
    assert list(told.refused) == [one.id for one in cohort(5)]
    assert {account.spent.fraction for account in store.budgets()} == {1.0}


@KINDS
def test_of_eight_that_open_a_round_one_is_charged(memory, replicas):
    stores = [ready(memory.open())] + [memory.open() for _ in range(replicas - 1)]
    won = race(8, lambda n: bool(stores[n % replicas].open_round(round_row(holder=f"r{n}"), cohort())))
    assert sum(won) == 1
    assert [spent(stores[0], owner) for owner in OWNERS] == [0.25] * 3


@KINDS
def test_eight_that_spend_the_same_budgets_in_other_orders_spend_them_once(memory, replicas):
    """Each asks for 6 of an owner's 20 thousandths, for many owners in an order of its own: 48 in all, and 20 are granted."""
    stores = [memory.open() for _ in range(replicas)]
    owners = [f"o{n}" for n in range(6)]
    for owner in owners:
        stores[0].open_budget(budget(0.02, owner=owner))

    def spend(n):
        granted = []
        for turn in range(6):
            order = random.Random(100 * n + turn).sample(owners, 6)
            batch = [charge(f"{n}/{turn}/{owner}", owner=owner) for owner in order]
            refused = stores[n % replicas].reserve(batch)
            granted += [one.id for one in batch if one.id not in refused]
        return granted

    granted = [name for names in race(8, spend) for name in names]
    assert sorted(granted) == sorted(states(stores[0]))
    assert [len(stores[0].charges(owner=owner)) for owner in owners] == [20] * 6
    assert {account.spent.fraction for account in stores[0].budgets()} == {1.0}
    assert consistent(stores[0])


@KINDS
def test_what_eight_release_and_give_back_at_once_is_one_or_the_other(memory, replicas):
    stores = [memory.open() for _ in range(replicas)]
    stores[0].open_budget(budget(1.0))
    names = [f"c{n}" for n in range(10)]
    assert stores[0].reserve([charge(name, 0.1) for name in names]) == {}

    def settle(n):
        done = []
        for name in random.Random(n).sample(names, 10):
            try:
                if n % 2:
                    stores[n % replicas].release([name])
                else:
                    stores[n % replicas].void([name], "raced")
            except Refusal:
                continue
            done.append(name)
        return done

    told = race(8, settle)
    released, void = (set().union(*map(set, told[first::2])) for first in (1, 0))
    assert (released | void, released & void) == (set(names), set())
    assert states(stores[0], state="released").keys() == released
    assert spent(stores[0]) == len(released) / 10
    assert consistent(stores[0])


CHILD = """
import sys, threading, time
from pathlib import Path
sys.path[:0] = {path!r}
from ledgers import charge
from haina.coordinator.store import Store

store, granted = Store.open({url!r}, Path({folder!r}), time.time), []

def spend(n):
    number = refused = 0
    while refused < 3:
        name = f"{{sys.argv[1]}}/{{n}}/{{number}}"
        if store.reserve([charge(name, owner="a"), charge(name + "b", 0.003, owner="b")]):
            refused += 1
        else:
            store.release([name]) if number % 2 else None
        number += 1

threads = [threading.Thread(target=spend, args=(n,)) for n in range(3)]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
store.close()
print("done")
"""


def test_two_processes_of_three_threads_spend_a_budget_on_postgresql_to_the_last_thousandth(
    postgres, tmp_path
):
    memory = Memory(postgres.empty(), tmp_path)
    store = memory.open()
    store.open_budget(budget(0.2, owner="a"))
    store.open_budget(budget(0.2, owner="b"))
    path = [entry for entry in sys.path if entry]
    children = []
    for n in range(2):
        code = CHILD.format(path=path, url=memory.url, folder=str(tmp_path / str(n)))
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        children.append(subprocess.Popen([sys.executable, "-c", code, str(n)], **pipes))
    assert [child.stdout.readline() for child in children] == ["ready\n"] * 2
    for child in children:
        child.stdin.write("\n")
        child.stdin.flush()
    assert [child.communicate(timeout=120)[0] for child in children] == ["done\n"] * 2
    charges = store.charges(last=1000)
    counts = {owner: sum(one.owner == owner for one in charges) for owner in "ab"}
    # 66 charges of 0.003 fit into 0.2. After the last, each of six threads asked in vain three times, and got what it asked of the other owner.
    assert counts == {"a": 66 + 3 * 6, "b": 66}
    assert [written(spent(store, owner)) for owner in "ab"] == [
        reckoned([c for c in charges if c.owner == o], "epsilon") for o in "ab"
    ]
    assert {one.id.split("/")[0] for one in charges} == {"0", "1"}
    assert consistent(store)
    memory.close()


def test_what_a_reservation_costs(memory):
    """Processor time of this process; generous by ten, as the machine is shared. Printed with -s."""
    store = memory.open()
    for number in range(1000):
        store.open_budget(budget(100.0, 1e-6, "zcdp", owner=f"o{number}"))

    def price(name, count, call):
        start = time.process_time()
        for number in range(count):
            call(number)
        each = (time.process_time() - start) / count * 1e3
        print(f"{'postgresql' if memory.url else 'sqlite'}: {name} {each:.2f} ms CPU")
        return each

    one = price("reserve 1", 50, lambda n: store.reserve([charge(f"a{n}", owner="o1")]))
    many = price(
        "reserve 1,000 owners",
        3,
        lambda n: store.reserve([charge(f"{n}/{k}", owner=f"o{k}") for k in range(1000)]),
    )
    end = price("release 1,000 owners", 3, lambda n: store.release([f"{n}/{k}" for k in range(1000)]))
    assert (one < 30, many < 2000, end < 2000) == (True, True, True)


@pytest.fixture(scope="module")
def long_lived(tmp_path_factory):
    memory = Memory(None, tmp_path_factory.mktemp("budgets"))
    yield memory.open()
    memory.close()


names = st.sampled_from("abcdefgh")
wishes = st.one_of(
    st.tuples(
        st.just("reserve"),
        st.lists(
            st.tuples(names, st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 2.0]), st.sampled_from(["*", "x", "y"])),
            max_size=4,
        ),
    ),
    st.tuples(st.sampled_from(["release", "void"]), st.lists(names, max_size=3)),
)
examples = iter(range(1_000_000))


@settings(max_examples=40)
@given(st.lists(wishes, max_size=20))
def test_whatever_is_done_the_cap_holds_and_sums_are_those_of_the_charges(long_lived, steps):
    store, owner = long_lived, f"owner-{next(examples)}"
    store.open_budget(budget(1.0, owner=owner, parts=("x", "y")))
    before = {}
    for step, items in steps:
        if step == "reserve":
            store.reserve([charge(f"{owner}/{n}", e, owner=owner, part=part) for n, e, part in items])
        else:
            try:
                ids = [f"{owner}/{name}" for name in items]
                store.release(ids) if step == "release" else store.void(ids, "why")
            except Refusal:
                assert states(store, owner=owner) == before
        charges = store.charges(owner=owner)
        (account,) = [account for account in store.budgets() if account.budget.owner == owner]
        assert sums_are_those_of_the_charges(account, charges)
        assert account.spent.epsilon == float(reckoned(charges, "epsilon")) <= 1.0
        after = states(store, owner=owner)
        assert all(after[name] == state for name, state in before.items() if state != "reserved")
        before = after


def test_a_store_without_budgets_opens_rounds_as_before(store):
    assert begun(store).budgets() == []
