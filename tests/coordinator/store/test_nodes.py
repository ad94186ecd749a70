from dataclasses import replace

import pytest
from memory import race, sha

from haina.coordinator.store import InvitationRow, NodeRow, Seen

NODE = NodeRow(
    "a", "node", group="north", federation="iris", serial=(1 << 159) + 7, previous=(1 << 159) + 6, certificate_expires=9e8, examples=10**12,
    software="1.2", codec="bf16", mode="periodic", doing="training", last_seen=5.5, joined=4.5, settings_version=3,
)  # fmt: skip
KEY = "k" * 64
INVITATION = InvitationRow(sha(5), "a", "node", expires=100.0, federation="iris", group="north")


def enrolled(invitation, serial=1):
    return NodeRow(
        invitation.name,
        invitation.role,
        group=invitation.group,
        federation=invitation.federation,
        serial=serial,
    )


def test_a_node_comes_back_as_it_was_written(store):
    store.put_node(NODE)
    store.put_node(replace(NODE, name="B", role="operator", serial=None, last_seen=None))
    assert store.node("a") == NODE
    assert [row.name for row in store.nodes()] == ["B", "a"]
    assert store.node("c") is None
    store.put_node(replace(NODE, doing="waiting"))
    assert store.node("a").doing == "waiting"


def test_what_a_node_says_of_itself_changes_nothing_else(store):
    store.put_node(NODE)
    told = {"examples": 5, "software": "2", "codec": "int8", "mode": "rounds", "federation": "wine"}
    assert store.announce("a", **told, now=7.0) == replace(NODE, **told, last_seen=7.0)
    assert store.certify("a", serial=99, held=NODE.serial, expires=1e9) == replace(
        NODE, **told, last_seen=7.0, serial=99, previous=NODE.serial, certificate_expires=1e9
    )
    assert store.announce("b", **told, now=7.0) is None


def test_a_revoked_node_stays_revoked_whatever_it_says(store):
    store.put_node(NODE)
    gone = replace(NODE, state="revoked")
    assert store.revoke("a") == gone == store.revoke("a")
    assert store.certify("a", serial=99, held=1, expires=1e9) is None
    assert (
        store.announce("a", examples=5, software="2", codec="int8", mode="rounds", federation=None, now=7.0)
        is None
    )
    assert store.node("a") == gone
    assert store.revoke("b") is None


def test_signs_of_life_come_in_one_batch_and_never_go_back(store):
    for name in "abc":
        store.put_node(replace(NODE, name=name, last_seen=10.0 if name == "c" else None))
    store.see_nodes(
        [Seen("c", 9.0, "old", 1), Seen("b", 12.0, "x\0y", 4), Seen("nobody", 12.0), Seen("a", 11.0, "on", 5)]
    )
    assert [(row.last_seen, row.doing, row.settings_version) for row in store.nodes()] == [
        (11.0, "on", 5),
        (12.0, "x\ufffdy", 4),
        (10.0, "training", 3),
    ]
    store.see_nodes([])


def test_signs_of_life_in_crossed_orders_do_not_lock_each_other_out(memory):
    stores = [memory.open(), memory.open()]
    names = [f"n{number}" for number in range(30)]
    for name in names:
        stores[0].put_node(replace(NODE, name=name, last_seen=None))

    def see(n):
        for turn in range(5):
            order = names if n % 2 else names[::-1]
            stores[n % 2].see_nodes([Seen(name, 10.0 * turn + n) for name in order])

    race(4, see)
    assert {row.last_seen for row in stores[0].nodes()} == {43.0}


def test_an_invitation_is_good_once_and_until_it_expires(store):
    store.put_invitation(INVITATION)
    assert store.use_invitation(sha(6), 50.0) == "unknown"
    assert store.use_invitation(sha(5), 100.0) == "expired"
    assert store.use_invitation(sha(5), 99.0) == replace(INVITATION, used=99.0)
    assert store.use_invitation(sha(5), 99.0) == "used"
    assert store.use_invitation(sha(5), 101.0) == "used"


@pytest.mark.parametrize("replicas", [1, 4])
def test_of_eight_that_use_an_invitation_one_has_it(memory, replicas):
    stores = [memory.open() for _ in range(replicas)]
    for number in range(5):
        stores[0].put_invitation(replace(INVITATION, hash=sha(number)))
        told = race(8, lambda n, number=number: stores[n % replicas].use_invitation(sha(number), 10.0 + n))
        (won,) = [n for n, row in enumerate(told) if isinstance(row, InvitationRow)]
        assert told[won].used == 10.0 + won
        assert told.count("used") == 7


@pytest.mark.parametrize("replicas", [1, 4])
def test_of_eight_that_enrol_one_is_the_node(memory, replicas):
    stores = [memory.open() for _ in range(replicas)]
    stores[0].put_invitation(INVITATION)
    told = race(
        8, lambda n: stores[n % replicas].enrol(sha(5), 10.0, f"key{n}", lambda row: enrolled(row, serial=n))
    )
    (won,) = [n for n, row in enumerate(told) if isinstance(row, NodeRow)]
    assert stores[0].nodes() == [told[won]]
    assert told[won] == NodeRow("a", "node", group="north", federation="iris", serial=won)
    (line,) = stores[0].audit(0, 10)
    assert (line.who, line.action, line.subject, line.when) == ("a", "enrol", "a", 10.0)
    assert line.detail == {"role": "node", "serial": str(won)}


def test_an_enrolment_that_fails_leaves_the_invitation_good(store):
    store.put_invitation(INVITATION)

    def make(invitation):
        raise ValueError("no certificate")

    with pytest.raises(ValueError, match="no certificate"):
        store.enrol(sha(5), 10.0, KEY, make)
    assert (store.nodes(), store.audit(0, 10)) == ([], [])
    assert store.enrol(sha(5), 10.0, KEY, enrolled) == NodeRow(
        "a", "node", group="north", federation="iris", serial=1
    )
    assert store.enrol(sha(5), 10.0, "other", make) == "used"
    assert store.enrol(sha(6), 10.0, KEY, make) == "unknown"


def test_the_key_that_was_certified_may_ask_again_until_the_invitation_ends(store):
    store.put_invitation(INVITATION)
    assert store.enrol(sha(5), 10.0, KEY, enrolled).serial == 1
    assert store.enrol(sha(5), 11.0, KEY, lambda row: enrolled(row, serial=2)).serial == 2
    assert store.enrol(sha(5), 12.0, "other", enrolled) == "used"
    assert store.use_invitation(sha(5), 12.0) == "used"
    assert store.enrol(sha(5), 100.0, KEY, enrolled) == "used"
    assert store.node("a").serial == 2


def test_who_is_revoked_comes_back_by_a_new_invitation_only(store):
    for number in (5, 6):
        store.put_invitation(replace(INVITATION, hash=sha(number)))
    store.enrol(sha(5), 10.0, KEY, enrolled)
    assert store.revoke("a").state == "revoked"
    assert store.enrol(sha(5), 11.0, KEY, enrolled) == "used"
    assert store.enrol(sha(6), 11.0, KEY, enrolled) == "expired"
    assert store.node("a").state == "revoked"
    store.put_invitation(replace(INVITATION, hash=sha(7)))
    assert store.enrol(sha(7), 12.0, KEY, enrolled).state == "active"
