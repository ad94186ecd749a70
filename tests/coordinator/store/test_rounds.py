import itertools
from dataclasses import replace

import pytest
from memory import begun, federation, model, race, round_row, sha

from haina.coordinator.contract import Refusal

KINDS = pytest.mark.parametrize("replicas", [1, 4])


def test_a_round_from_opening_to_the_next(store):
    begun(store)
    assert store.current_round("iris") == round_row() == store.round("iris", 1)
    assert list(store.current_round("iris").roster) == ["b", "a"]
    fence = store.claim_close("iris", 1, "r1", now=10.0, lease=5.0)
    assert store.publish("iris", 1, fence, model(1), {"loss": 0.5}, 11.0, finished=False)
    row = store.round("iris", 1)
    assert (row.state, row.closed, row.record, row.holder) == ("closed", 11.0, {"loss": 0.5}, "r1")
    assert store.current_round("iris") is None
    assert store.federation("iris") == federation(version=1, closed=1)
    assert store.model("iris") == model(1)
    assert store.open_round(round_row(2))
    assert [row.number for row in store.rounds("iris", 5)] == [1, 2]
    assert [row.number for row in store.rounds("iris", 1)] == [2]


def test_the_last_round_finishes_the_federation(store):
    begun(store)
    fence = store.claim_close("iris", 1, "r1", 10.0, 5.0)
    assert store.publish("iris", 1, fence, model(1), {}, 11.0, finished=True)
    assert store.federation("iris").state == "finished"
    assert not store.open_round(round_row(2))


def test_a_round_opens_only_when_it_is_the_next_of_a_running_federation(store):
    store.put_federation(federation(), model())
    assert not store.open_round(round_row(2, version=0))
    assert not store.open_round(round_row(1, version=1))
    assert not store.open_round(round_row(1, federation="other"))
    for state in ("paused", "stopped", "finished"):
        assert store.set_state("iris", state, "why").reason == "why"
        assert not store.open_round(round_row(1))
    store.set_state("iris", "running")
    assert store.open_round(round_row(1))
    assert not store.open_round(round_row(1))
    assert not store.open_round(round_row(2, version=0))


def test_a_failed_round_uses_up_its_number(store):
    begun(store)
    fence = store.claim_close("iris", 1, "r1", 10.0, 5.0)
    assert not store.fail_round("iris", 1, fence + 1, "no quorum", None, 12.0)
    assert store.fail_round("iris", 1, fence, "no quorum", {"why": "few"}, 12.0)
    row = store.round("iris", 1)
    assert (row.state, row.reason, row.closed, row.record) == ("failed", "no quorum", 12.0, {"why": "few"})
    assert store.federation("iris") == federation(version=0, closed=1)
    assert not store.open_round(round_row(1))
    assert store.open_round(round_row(2, version=0))


def test_two_federations_do_not_touch_each_other(store):
    begun(store)
    store.put_federation(federation("wine"), model(federation="wine"))
    assert store.open_round(round_row(1, federation="wine"))
    fence = store.claim_close("wine", 1, "r1", 10.0, 5.0)
    assert store.publish("wine", 1, fence, model(1, "wine"), {}, 11.0, finished=True)
    assert store.current_round("iris").state == "open"
    assert [row.name for row in store.federations()] == ["iris", "wine"]


def test_a_lease_holds_until_it_is_over_and_every_claim_has_a_fence_of_its_own(store):
    begun(store)
    first = store.claim_close("iris", 1, "r1", now=10.0, lease=5.0)
    assert store.claim_close("iris", 1, "r2", now=14.9, lease=5.0) is None
    assert store.renew_lease("iris", 1, first, now=14.9, lease=5.0)
    assert store.claim_close("iris", 1, "r2", now=19.8, lease=5.0) is None
    second = store.claim_close("iris", 1, "r2", now=19.9, lease=5.0)
    assert second > first
    assert not store.renew_lease("iris", 1, first, now=20.0, lease=5.0)
    assert store.current_round("iris").holder == "r2"


def test_an_old_fence_publishes_nothing(store):
    begun(store)
    old = store.claim_close("iris", 1, "r1", now=10.0, lease=5.0)
    new = store.claim_close("iris", 1, "r2", now=20.0, lease=5.0)
    before = store.federation("iris"), store.models("iris"), store.round("iris", 1)
    assert not store.publish("iris", 1, old, model(1), {"by": "old"}, 21.0, finished=True)
    assert not store.fail_round("iris", 1, old, "old", None, 21.0)
    assert (store.federation("iris"), store.models("iris"), store.round("iris", 1)) == before
    assert store.publish("iris", 1, new, model(1), {"by": "new"}, 22.0, finished=False)
    assert not store.publish("iris", 1, old, model(2), {"by": "old"}, 23.0, finished=True)
    assert store.round("iris", 1).record == {"by": "new"}


def test_to_publish_or_fail_again_says_what_is_there(store):
    begun(store)
    fence = store.claim_close("iris", 1, "r1", 10.0, 5.0)
    assert [store.publish("iris", 1, fence, model(1), {}, 11.0, finished=False) for _ in range(2)] == [
        True,
        True,
    ]
    assert not store.fail_round("iris", 1, fence, "late", None, 12.0)
    assert store.federation("iris") == federation(version=1, closed=1)
    assert store.open_round(round_row(2))
    fence = store.claim_close("iris", 2, "r1", 10.0, 5.0)
    assert [store.fail_round("iris", 2, fence, "few", None, 11.0) for _ in range(2)] == [True, True]
    assert not store.publish("iris", 2, fence, model(2), {}, 11.0, finished=False)


def test_a_model_with_the_wrong_version_is_refused_and_nothing_is_written(store):
    begun(store)
    fence = store.claim_close("iris", 1, "r1", 10.0, 5.0)
    with pytest.raises(Refusal, match="Allowed: 1 of iris"):
        store.publish("iris", 1, fence, model(2), {}, 11.0, finished=False)
    assert store.current_round("iris").state == "closing"
    assert store.publish("iris", 1, fence, model(1), {}, 11.0, finished=False)


@KINDS
def test_of_eight_that_open_one_wins(memory, replicas):
    stores = [memory.open() for _ in range(replicas)]
    stores[0].put_federation(federation(), model())
    for number in range(1, 6):
        row = [round_row(number, version=0, holder=f"r{n}") for n in range(8)]
        won = race(8, lambda n, row=row: stores[n % replicas].open_round(row[n]))
        assert sum(won) == 1
        assert stores[0].current_round("iris") == row[won.index(True)]
        fence = stores[0].claim_close("iris", number, "r", 10.0, 5.0)
        assert stores[0].fail_round("iris", number, fence, "next", None, 11.0)


@KINDS
def test_of_eight_that_claim_one_has_the_fence_at_a_time(memory, replicas):
    stores = [begun(memory.open())] + [memory.open() for _ in range(replicas - 1)]
    for turn in range(1, 6):
        fences = race(
            8, lambda n, turn=turn: stores[n % replicas].claim_close("iris", 1, f"r{n}", 10.0 * turn, 10.0)
        )
        assert [fence for fence in fences if fence is not None] == [turn]
        assert stores[0].current_round("iris").holder == f"r{fences.index(turn)}"


@KINDS
def test_eight_closers_publish_one_model_and_it_is_of_the_newest_fence(memory, replicas):
    stores = [begun(memory.open())] + [memory.open() for _ in range(replicas - 1)]
    now = itertools.count(10)

    def close(n):
        store = stores[n % replicas]
        # No lease: each claim takes the round away from the one before.
        fence = store.claim_close("iris", 1, f"r{n}", float(next(now)), 0.0)
        return fence, fence is not None and store.publish(
            "iris", 1, fence, model(1, note=f"r{n}"), {"by": n}, 50.0, finished=False
        )

    told = race(8, close)
    winners = [n for n, (_, published) in enumerate(told) if published]
    row = stores[0].round("iris", 1)
    if winners:
        assert len(winners) == 1
        assert row.record == {"by": winners[0]}
        assert row.fence == told[winners[0]][0]
        assert stores[0].model("iris").note == f"r{winners[0]}"
    else:
        assert row.state == "closing"
    fences = [fence for fence, _ in told if fence is not None]
    assert len(set(fences)) == len(fences)
    assert len(stores[0].models("iris")) == 1 + len(winners)


def test_forgotten_models_say_which_bytes_nobody_needs(store):
    begun(store)
    for number in (1, 2, 3):
        if number > 1:
            assert store.open_round(round_row(number))
        fence = store.claim_close("iris", number, "r", 10.0, 5.0)
        # All rounds leave the same state of the strategy.
        assert store.publish(
            "iris", number, fence, model(number, state_sha256=sha(500)), {}, 11.0, finished=False
        )
    assert store.referenced() == {sha(n) for n in (0, 1, 2, 3, 500, 1000)}
    assert store.forget_models("iris", {1}) == {sha(0), sha(1000), sha(2)}
    assert [row.version for row in store.models("iris") if row.kept] == [1, 3]
    assert store.forget_models("iris", {1}) == set()
    assert store.open_round(round_row(4))
    assert store.forget_models("iris", set()) == {sha(1)}
    assert store.referenced() == {sha(3), sha(500)}


def test_a_roll_back_is_a_new_version_with_old_bytes(store):
    begun(store)
    for number in (1, 2):
        if number > 1:
            assert store.open_round(round_row(number))
        fence = store.claim_close("iris", number, "r", 10.0, 5.0)
        assert store.publish("iris", number, fence, model(number), {}, 11.0, finished=False)
    new = store.rollback("iris", 1, "2 was worse", 20.0)
    old = {"sha256": sha(1), "state_sha256": sha(1001), "parent": 1, "round": 1}
    assert new == model(3, **old, note="2 was worse", created=20.0)
    assert store.model("iris") == new
    assert store.federation("iris").version == 3
    assert store.forget_models("iris", set()) == {sha(0), sha(1000), sha(2), sha(1002)}
    with pytest.raises(Refusal, match="model 2 are not kept"):
        store.rollback("iris", 2, "", 21.0)
    with pytest.raises(Refusal, match="no model 9"):
        store.rollback("iris", 9, "", 21.0)
    with pytest.raises(Refusal, match="no model 1"):
        store.rollback("other", 1, "", 21.0)


@pytest.mark.parametrize("closing", [False, True])
def test_a_roll_back_ends_the_round_that_works_on_what_is_taken_back(store, closing):
    begun(store)
    fence = store.claim_close("iris", 1, "r", 10.0, 5.0) if closing else 1
    store.rollback("iris", 0, "again", 20.0)
    assert not store.publish("iris", 1, fence, model(2), {}, 21.0, finished=False)
    row = store.round("iris", 1)
    assert (row.state, row.reason) == ("failed", "the model was rolled back to version 0")
    assert store.federation("iris") == federation(version=1, closed=1)
    assert store.open_round(round_row(2))


def test_to_put_a_federation_again_takes_its_words_and_keeps_its_course(store):
    begun(store)
    fence = store.claim_close("iris", 1, "r", 10.0, 5.0)
    assert store.publish("iris", 1, fence, model(1), {}, 11.0, finished=False)
    stored = store.put_federation(replace(federation(), text="name = 'iris' # more"), model())
    assert (stored.text, stored.version, stored.closed) == ("name = 'iris' # more", 1, 1)
    assert store.model("iris") == model(1)
    assert store.set_state("other", "paused") is None
    assert store.federation("other") is None
    assert store.model("other") is None
