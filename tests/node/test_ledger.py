"""The node's own ledger: one file, several holders, and nothing that a deletion of memory could give back."""

import sqlite3
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledgers import budget, charge, reckoned, sums_are_those_of_the_charges, written
from memory import Clock, race

from haina.errors import PrivacyError
from haina.node.ledger import NodeLedger


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path):
    with NodeLedger(path, Clock()) as ledger:
        yield ledger


def test_a_charge_from_reservation_to_release(ledger, path):
    assert ledger.open(budget(1.0)) == budget(1.0, opened=1_000_000.0)
    assert ledger.reserve([charge("a", 0.75), charge("b", 0.5), charge("c", 0.25)]).keys() == {"b"}
    assert ledger.budgets()[0].spent.fraction == 1.0
    ledger.released(["a"])
    ledger.void(["c"], "the round failed")
    assert ledger.budgets()[0].spent.epsilon == 0.75
    stamped = [
        charge("a", 0.75, state="released", at=1e6),
        charge("c", 0.25, state="void", why="the round failed", at=1e6),
    ]
    assert ledger.charges() == stamped
    with NodeLedger(path, Clock(2e6)) as again:
        assert again.charges(state="void") == stamped[1:]
        assert again.charges(federation="wine") == []
        assert again.charges(owner="ward", dataset="patients", last=1) == stamped[1:]
        assert again.budgets() == ledger.budgets()
        assert again.reserve([charge("d", 0.25)]) == {}
    assert "would be overspent" in ledger.reserve([charge("e", 0.01)])["e"]
    assert ledger.reserve([charge("d", 0.25)]) == {}


def test_what_cannot_be_settled_changes_nothing(ledger):
    ledger.open(budget(1.0))
    ledger.reserve([charge("a", 0.5), charge("b", 0.5)])
    ledger.released(["a"])
    with pytest.raises(PrivacyError, match="'a' is released, and cannot be void"):
        ledger.void(["b", "a"], "no")
    with pytest.raises(PrivacyError, match="'x' is unknown, and cannot be released"):
        ledger.released(["b", "x"])
    ledger.released(["a"])
    assert [one.state for one in ledger.charges()] == ["released", "reserved"]
    assert ledger.budgets()[0].spent.fraction == 1.0


def test_a_budget_is_opened_once(ledger):
    ledger.open(budget(1.0, parts=("a", "b")))
    assert ledger.open(budget(1.0, opened=5.0, parts=("a", "b"))).opened == 1_000_000.0
    with pytest.raises(
        PrivacyError, match=r"epsilon 2.*Allowed: ward's budget for 'patients' \(pure, epsilon 1"
    ):
        ledger.open(budget(2.0))
    ledger.open(budget(2.0, 1e-5, "zcdp", dataset="other"))
    assert [account.budget.dataset for account in ledger.budgets()] == ["other", "patients"]


def test_a_round_is_used_once_whatever_happens(ledger, path):
    assert ledger.used_round("iris") == 0
    assert [ledger.use_round("iris", number) for number in (0, -1, 3, 3, 2, 4)] == [
        False,
        False,
        True,
        False,
        False,
        True,
    ]
    assert ledger.use_round("wine", 1)
    with NodeLedger(path, Clock()) as again:
        assert [again.used_round(name) for name in ("iris", "wine")] == [4, 1]
        assert not again.use_round("iris", 4)


def test_of_eight_one_uses_a_round(ledger, path):
    holders = [NodeLedger(path, Clock()) for _ in range(4)]
    for number in range(1, 11):
        assert sum(race(8, lambda n, number=number: holders[n % 4].use_round("iris", number))) == 1
    for holder in holders:
        holder.close()


def test_holders_that_open_a_new_file_at_once_and_spend_do_not_overspend(path):
    with ThreadPoolExecutor(4) as pool:
        holders = list(pool.map(lambda n: NodeLedger(path, Clock()), range(4)))
    race(4, lambda n: holders[n].open(budget(0.05)))
    told = race(8, lambda n: [len(holders[n % 4].reserve([charge(f"{n}/{k}")])) for k in range(10)])
    assert sum(sum(refused) for refused in told) == 30
    (account,) = holders[0].budgets()
    assert (account.spent.fraction, len(holders[1].charges())) == (1.0, 50)
    assert sums_are_those_of_the_charges(account, holders[2].charges())
    for holder in holders:
        holder.close()


CHILD = """
import sys, time
from pathlib import Path
from haina.node.ledger import NodeLedger
sys.path[:0] = {path!r}
from ledgers import budget, charge

with NodeLedger(Path({file!r}), time.time) as ledger:
    ledger.open(budget(0.05))
    print(sum(not ledger.reserve([charge(f"{{sys.argv[1]}}/{{n}}")]) for n in range(40)))
"""


def test_two_processes_do_not_overspend(path):
    code = CHILD.format(path=[entry for entry in sys.path if entry], file=str(path))
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(n)], stdout=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    assert sum(int(child.communicate(timeout=60)[0]) for child in children) == 50
    with NodeLedger(path, Clock()) as ledger:
        assert ledger.budgets()[0].spent.fraction == 1.0


def test_the_file_is_set_to_lose_nothing_and_to_be_read_by_its_owner_only(ledger, path):
    ledger.open(budget())
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert ledger._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_no_ledger_of_ours_is_refused_in_words(path, tmp_path):
    path.write_bytes(b"not a database " * 100)
    with pytest.raises(
        PrivacyError, match=r"cannot be used \(file is not a database\).*never begin a new one"
    ):
        NodeLedger(path, Clock())
    with pytest.raises(PrivacyError, match="No such file"):
        NodeLedger(tmp_path / "nowhere" / "ledger.sqlite", Clock())
    newer = tmp_path / "newer.sqlite"
    plain = sqlite3.connect(newer)
    plain.execute("PRAGMA user_version = 9")
    plain.close()
    with pytest.raises(PrivacyError, match=r"newer Haina \(version 9\)"):
        NodeLedger(newer, Clock())


def test_a_disk_that_is_full_lets_nothing_be_released(ledger):
    ledger.open(budget(100.0))
    ledger._db.execute("PRAGMA max_page_count = 1")

    def spend():
        for number in range(2000):
            assert ledger.reserve([charge(f"{number}", mechanism="x" * 200)]) == {}

    with pytest.raises(PrivacyError, match=r"full.*Nothing is released without it"):
        spend()
    ledger._db.execute("PRAGMA max_page_count = 100000")
    (account,) = ledger.budgets()
    assert sums_are_those_of_the_charges(account, ledger.charges(last=10_000))


names = st.sampled_from("abcdefgh")
wishes = st.one_of(
    st.tuples(
        st.just("reserve"),
        st.lists(
            st.tuples(names, st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 2.0]), st.sampled_from(["*", "x", "y"])),
            max_size=4,
        ),
    ),
    st.tuples(st.sampled_from(["released", "void"]), st.lists(names, max_size=3)),
)


@settings(max_examples=60)
@given(st.lists(wishes, max_size=25), st.sampled_from(["pure", "zcdp"]))
def test_whatever_is_done_the_cap_holds_and_sums_are_those_of_the_charges(
    tmp_path_factory, steps, composition
):
    number, cap = ("rho", 0.2) if composition == "zcdp" else ("epsilon", 1.0)
    with NodeLedger(tmp_path_factory.mktemp("ledger") / "ledger.sqlite", Clock()) as ledger:
        ledger.open(budget(1.0, 0.5 if composition == "zcdp" else 0.0, composition, parts=("x", "y")))
        before = {}
        for step, items in steps:
            if step == "reserve":
                batch = [charge(name, epsilon, part=part) for name, epsilon, part in items]
                refused = ledger.reserve(batch)
                assert {one.id for one in batch} - set(refused) <= {
                    one.id for one in ledger.charges(state="reserved")
                }
            else:
                try:
                    ledger.released(items) if step == "released" else ledger.void(items, "why")
                except PrivacyError:
                    assert ledger.charges() == list(before.values())
            charges, (account,) = ledger.charges(), ledger.budgets()
            assert sums_are_those_of_the_charges(account, charges)
            if composition == "pure":
                assert reckoned(charges, number) <= written(cap)
                assert account.spent.epsilon == float(reckoned(charges, number))
            assert account.spent.fraction <= 1 + 1e-12
            # What was released stays so.
            after = {one.id: one for one in charges}
            assert all(
                after[name].state == one.state for name, one in before.items() if one.state != "reserved"
            )
            before = after


def test_what_a_reservation_costs(ledger):
    """Processor time, generous by ten, as the machine is shared. Printed with -s."""
    ledger.open(budget(100.0))

    def price(name, call):
        start = time.process_time()
        for number in range(200):
            call(str(number))
        each = (time.process_time() - start) / 200 * 1e3
        print(f"node: {name} {each:.2f} ms CPU")
        return each

    assert price("reserve", lambda name: ledger.reserve([charge(name)])) < 5
    assert price("release", lambda name: ledger.released([name])) < 5
