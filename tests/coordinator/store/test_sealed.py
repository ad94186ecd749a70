"""The stages of secure aggregation and their messages: the first of a node stays, and a stage that is over takes none."""

import itertools

import pytest
from memory import Memory, begun, contribution, federation, model, race, round_row

from haina.coordinator.store import NodeRow

KINDS = pytest.mark.parametrize("replicas", [1, 4])
SHARE, UPLOAD = {"name": "share", "until": 123.0, "members": ["a", "b"]}, {"name": "upload", "until": 150.5}


def put(store, node="a", stage="share", data=b"x", number=1):
    return store.put_sealed("iris", number, stage, node, data, 5.0)


def test_a_round_goes_from_stage_to_stage(store):
    begun(store)
    assert store.round("iris", 1).stage is None
    assert not store.set_stage("iris", 1, "share", UPLOAD)
    assert store.set_stage("iris", 1, None, SHARE)
    assert store.current_round("iris").stage == SHARE
    assert not store.set_stage("iris", 1, None, SHARE)
    assert store.set_stage("iris", 1, "share", UPLOAD)
    assert store.round("iris", 1).stage == UPLOAD
    assert not store.set_stage("iris", 2, None, SHARE)
    assert store.claim_close("iris", 1, "r", 10.0, 5.0)
    assert not store.set_stage("iris", 1, "upload", {"name": "consent"})
    assert store.round("iris", 1).stage == UPLOAD


def test_a_round_may_begin_with_a_stage(store):
    begun(store, stage=SHARE)
    assert store.current_round("iris") == round_row(stage=SHARE)
    assert put(store) == "new"


def test_the_first_message_of_a_node_stays(store):
    begun(store, stage=SHARE)
    data = bytes(range(256)) * 5000
    assert put(store, data=data) == "new"
    assert [put(store, data=data), put(store, data=b"y"), put(store, "b", data=b"")] == [
        "same",
        "other",
        "new",
    ]
    assert store.sealed("iris", 1, "share") == {"a": data, "b": b""}
    assert store.senders("iris", 1, "share") == {"a", "b"}
    assert (store.sealed("iris", 1, "upload"), store.senders("iris", 2, "share")) == ({}, set())


def test_a_message_is_taken_at_its_stage_only(store):
    begun(store)
    assert put(store) == "closed"
    store.set_stage("iris", 1, None, SHARE)
    assert [put(store), put(store, stage="upload"), put(store, number=2)] == ["new", "closed", "closed"]
    store.set_stage("iris", 1, "share", UPLOAD)
    assert put(store, stage="upload", data=b"other bytes, other stage") == "new"
    # Whose answer was lost hears that it was taken; who comes late does not get in.
    assert [put(store), put(store, data=b"y"), put(store, "b")] == ["same", "other", "closed"]
    assert store.claim_close("iris", 1, "r", 10.0, 5.0)
    assert [put(store, "b", "upload"), put(store)] == ["closed", "same"]
    assert store.sealed("iris", 1, "share") == {"a": b"x"}


@pytest.mark.parametrize("end", ["publish", "fail", "roll back"])
def test_messages_go_with_their_round(store, end):
    begun(store, stage=SHARE)
    store.put_federation(federation("wine"), model(federation="wine"))
    store.open_round(round_row(federation="wine", stage=SHARE))
    assert put(store) == "new"
    assert store.put_sealed("wine", 1, "share", "a", b"z", 5.0) == "new"
    if end == "roll back":
        store.rollback("iris", 0, "again", 20.0)
    else:
        fence = store.claim_close("iris", 1, "r", 10.0, 5.0)
        if end == "publish":
            assert store.publish("iris", 1, fence, model(1), {}, 11.0, finished=False)
        else:
            assert store.fail_round("iris", 1, fence, "few", None, 11.0)
    assert store.sealed("iris", 1, "share") == {}
    assert put(store) == "closed"
    assert store.round("iris", 1).stage == SHARE
    assert store.sealed("wine", 1, "share") == {"a": b"z"}


def test_a_stage_does_not_shut_out_contributions(store):
    begun(store, stage=UPLOAD)
    assert store.record([contribution("a")]) == ["new"]


@KINDS
def test_of_eight_that_move_a_round_on_one_does(memory, replicas):
    stores = [begun(memory.open())] + [memory.open() for _ in range(replicas - 1)]
    names = [None, *"abcdefgh"]
    for old, new in itertools.pairwise(names):
        told = race(
            8,
            lambda n, old=old, new=new: stores[n % replicas].set_stage(
                "iris", 1, old, {"name": new, "by": n}
            ),
        )
        assert sum(told) == 1
        assert stores[-1].round("iris", 1).stage == {"name": new, "by": told.index(True)}


@KINDS
def test_a_stage_that_is_over_has_all_it_will_ever_have(memory, replicas):
    """Seven send while one moves the round on: what was "new" is there when the move is told, and nothing comes after."""
    stores = [begun(memory.open(), stage={"name": "0"})] + [memory.open() for _ in range(replicas - 1)]
    for turn in range(8):

        def one(n, turn=turn):
            store = stores[n % replicas]
            if n == 3:
                assert store.set_stage("iris", 1, str(turn), {"name": str(turn + 1)})
                return store.senders("iris", 1, str(turn))
            return [node for node in (f"n{n}-{k}" for k in range(4)) if put(store, node, str(turn)) == "new"]

        told = race(8, one)
        seen = told.pop(3)
        assert seen == {node for nodes in told for node in nodes} == stores[-1].senders("iris", 1, str(turn))


@KINDS
def test_of_eight_messages_of_one_node_one_stays(memory, replicas):
    stores = [begun(memory.open(), stage=SHARE)] + [memory.open() for _ in range(replicas - 1)]
    told = race(8, lambda n: put(stores[n % replicas], data=b"%d" % n))
    assert sorted(told) == ["new"] + ["other"] * 7
    assert stores[-1].sealed("iris", 1, "share") == {"a": b"%d" % told.index("new")}


def announce(store, **values):
    told = {
        "examples": 5,
        "software": "1",
        "codec": "float32",
        "mode": "rounds",
        "federation": "iris",
        "now": 9.0,
    }
    return store.announce("a", **told | values)


def test_a_node_keeps_the_first_key_that_it_announced_until_it_enrols_anew(store):
    store.put_node(NodeRow("a", "node"))
    assert announce(store) == NodeRow(
        "a", "node", federation="iris", examples=5, software="1", codec="float32", last_seen=9.0
    )
    assert announce(store, identity="ab" * 32, dataset="ward 3").identity == "ab" * 32
    assert announce(store, identity="cd" * 32).identity == "ab" * 32
    row = announce(store, dataset="ward 4")
    assert (row.identity, row.dataset, store.node("a")) == ("ab" * 32, "ward 4", row)
    store.certify("a", 2, 1, 99.0)
    assert announce(store, identity="cd" * 32).identity == "ab" * 32
    store.put_node(NodeRow("a", "node"))
    assert announce(store, identity="cd" * 32).identity == "cd" * 32


def test_the_stages_wake_who_listens(tmp_path):
    memory, told = Memory(None, tmp_path), []
    store = begun(memory.open())
    store.changes.listen(told.append)
    for call, news in [
        (lambda: store.set_stage("iris", 1, None, SHARE), 1), (lambda: store.set_stage("iris", 1, None, SHARE), 0),
        (lambda: put(store), 1), (lambda: put(store), 0), (lambda: put(store, "b", "upload"), 0),
    ]:  # fmt: skip
        call()
        assert told == ["round:iris"] * news
        told.clear()
    memory.close()
