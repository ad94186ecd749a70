import logging
import time

import pytest
from memory import Memory, begun, contribution, federation, model, race, round_row, sha
from postgres import running

from haina.coordinator.store import InvitationRow, NodeRow, Seen


def heard(news, topic, seconds=5.0):
    """Whether news of a topic came, now or soon; takes it away."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if topic in news:
            news.remove(topic)
            return True
        time.sleep(0.005)
    return False


@pytest.fixture
def pair(memory):
    """A store, and the news that another on the same database hears (on SQLite, the same store)."""
    store, news = memory.open(), []
    store.put_federation(federation(), model())
    other = memory.open()
    other.changes.listen(news.append)
    if memory.url:
        # Once it is connected, it tells everything.
        other.add_audit("me", "look")
        assert heard(news, "audit")
        time.sleep(0.2)
    news.clear()
    return store, news


def test_who_listens_hears_what_another_replica_committed(pair):
    store, news = pair
    for topic, change in [
        ("round:iris", lambda: store.open_round(round_row())),
        ("round:iris", lambda: store.record([contribution("a")])),
        ("round:iris", lambda: store.claim_close("iris", 1, "r", 10.0, 5.0)),
        ("round:iris", lambda: store.publish("iris", 1, 1, model(1), {}, 11.0, finished=False)),
        ("round:iris", lambda: store.set_state("iris", "paused")),
        ("settings", lambda: store.append_setting("global", {"x": 1}, expect=None, who="me")),
        ("nodes", lambda: store.put_node(NodeRow("a", "node"))),
        ("nodes", lambda: store.revoke("a")),
        ("audit", lambda: store.add_audit("me", "look")),
    ]:
        change()
        assert heard(news, topic), topic
        assert news == []


def test_what_changes_nothing_or_is_undone_wakes_nobody(pair):
    store, news = pair
    store.open_round(round_row())
    store.record([contribution("a")])
    assert heard(news, "round:iris")
    assert heard(news, "round:iris")
    assert not store.open_round(round_row())
    store.record([contribution("a")])
    store.see_nodes([Seen("a", 1.0)])
    store.put_invitation(InvitationRow(sha(1), "a", "node", 10.0))
    with pytest.raises(ZeroDivisionError):
        store.enrol(sha(1), 1.0, "key", lambda row: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        store.record([contribution("b")], lambda rows: 1 / 0)
    assert store.renew_lease("iris", 1, 7, 1.0, 1.0) is False
    time.sleep(0.3)
    assert news == []


def test_the_news_comes_after_the_commit(memory):
    store, seen = memory.open(), []
    store.put_federation(federation(), model())
    store.changes.listen(lambda topic: seen.append(topic))
    race(4, lambda n: [store.add_audit("me", "look") for _ in range(3)])
    end = time.monotonic() + 5
    while seen.count("audit") < 12 and time.monotonic() < end:
        time.sleep(0.01)
    assert seen.count("audit") >= 12
    assert len(store.audit(0, 100)) == 12


def test_a_listener_that_fails_does_not_undo_the_commit_nor_silence_others(memory, caplog):
    store, news = memory.open(), []
    end = store.changes.listen(lambda topic: 1 / 0)
    store.changes.listen(news.append)
    with caplog.at_level(logging.ERROR):
        store.add_audit("me", "look")
        assert heard(news, "audit")
    assert "a listener failed on" in caplog.text
    assert len(store.audit(0, 10)) == 1
    end()
    caplog.clear()
    news.clear()
    store.add_audit("me", "look")
    assert heard(news, "audit")
    assert caplog.text == ""


@pytest.mark.slow
def test_who_listens_hears_again_after_the_server_was_killed(tmp_path):
    with running() as server:
        memory, news = Memory(server.url(), tmp_path), []
        store = begun(memory.open(patience=40.0))
        store.changes.listen(news.append)
        store.add_audit("me", "look")
        assert heard(news, "audit")
        server.kill()
        server.start()
        # Whatever happened while nobody heard: everything is told once.
        news.clear()
        for topic in ("round:iris", "settings", "nodes", "audit"):
            assert heard(news, topic, 20.0), topic
        news.clear()
        store.append_setting("global", {"x": 1}, expect=None, who="me")
        assert heard(news, "settings")
        memory.close()
