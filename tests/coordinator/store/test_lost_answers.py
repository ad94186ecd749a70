"""Connections that die at the worst moment: a proxy before a real server cuts them around a COMMIT."""

import selectors
import socket
import threading
import time
from urllib.parse import urlsplit, urlunsplit

import pytest
from memory import Clock, Memory, begun, contribution, model, round_row, sha

from haina.coordinator.contract import Refusal
from haina.coordinator.store import InvitationRow, NodeRow, Store


class Cutter:
    """A TCP proxy that cuts a connection when a COMMIT passes: before it reaches the server, or after the server has answered it."""

    def __init__(self, host, port):
        self.target = host, port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.cuts = []
        self.open = True
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while self.open:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        with client, socket.create_connection(self.target) as server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ)
            ready.register(server, selectors.EVENT_READ)
            cut = None
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(1 << 16)
                    if not data:
                        return
                    if key.fileobj is client and b"COMMIT\0" in data and self.cuts:
                        cut = self.cuts.pop(0)
                        if cut == "before":
                            return
                    if key.fileobj is server and cut == "after":
                        return
                    (server if key.fileobj is client else client).sendall(data)

    def close(self):
        self.open = False
        self.listener.close()


@pytest.fixture
def cut(postgres, tmp_path):
    """A store behind a cutter, and the cutter."""
    url = urlsplit(postgres.empty())
    cutter = Cutter(url.hostname, url.port)
    through = urlunsplit(url._replace(netloc=f"{url.username}:{url.password}@127.0.0.1:{cutter.port}"))
    memory = Memory(through, tmp_path)
    store = memory.open(patience=10.0)
    # The thread that listens connects, reads and commits once; no cut is meant for it.
    time.sleep(0.5)
    yield store, cutter
    memory.close()
    cutter.close()


WAYS = pytest.mark.parametrize(
    "cuts", [["after"], ["before"], ["before", "after"], ["after", "before", "before"]]
)


@WAYS
def test_whatever_is_cut_everything_happens_once(cut, cuts):
    store, cutter = cut

    def lossy(call):
        cutter.cuts[:] = cuts
        told = call()
        assert cutter.cuts == []
        return told

    begun(store)
    folds = []

    def fold(rows):
        folds.append([row.node for row in rows])
        return b"sum of " + repr(sorted(row.node for row in rows)).encode()

    assert lossy(lambda: store.record([contribution("a"), contribution("b")], fold)) == ["new", "new"]
    assert store.partials("iris", 1) == [("e1", b"sum of ['a', 'b']")]
    undone = cuts.index("after") if "after" in cuts else len(cuts)
    assert folds == [["a", "b"]] * (undone + 1)
    assert lossy(lambda: store.claim_close("iris", 1, "r", 10.0, 5.0)) == 1
    assert lossy(lambda: store.publish("iris", 1, 1, model(1), {}, 11.0, finished=False))
    assert lossy(lambda: store.open_round(round_row(2)))
    assert lossy(lambda: store.rollback("iris", 0, "worse", 12.0)).version == 2
    assert [row.version for row in store.models("iris")] == [0, 1, 2]
    assert lossy(lambda: store.append_setting("global", {"x": 1}, expect=0, who="me")).version == 1
    assert lossy(lambda: store.add_audit("me", "look")).id == 1
    store.put_invitation(InvitationRow(sha(5), "a", "node", expires=100.0))
    node = lossy(lambda: store.enrol(sha(5), 10.0, "key", lambda row: NodeRow(row.name, row.role)))
    assert node == NodeRow("a", "node")
    assert [row.id for row in store.audit(0, 10)] == [1, 2]


def test_when_the_server_stays_away_the_caller_hears_so_in_time(cut):
    store, cutter = cut
    begun(store)
    store.database.patience = 1.0
    cutter.cuts[:] = ["before"] * 1000
    start = time.monotonic()
    with pytest.raises(Refusal, match="does not answer") as caught:
        store.add_audit("me", "look")
    assert caught.value.code == "unavailable"
    assert time.monotonic() - start < 5
    cutter.cuts.clear()
    assert store.add_audit("me", "look").id == 1


def test_what_is_wrong_and_stays_wrong_is_not_tried_again(cut):
    store, _ = cut
    begun(store)
    start = time.monotonic()
    with pytest.raises(Exception, match="StringDataRightTruncation") as caught:
        store.add_audit("me", "x" * 64)
    assert time.monotonic() - start < 1
    # Rows may hold what no log should.
    assert "x" * 64 not in str(caught.value)


def test_a_transaction_that_freezes_holds_nobody_for_longer_than_their_patience(postgres, tmp_path):
    url = postgres.empty()
    frozen, other = Store.open(url, tmp_path, Clock()), Store.open(url, tmp_path, Clock(), patience=0.5)
    begun(frozen)
    entered, leave = threading.Event(), threading.Event()

    def fold(rows):
        entered.set()
        leave.wait(20)
        return b"sum"

    writer = threading.Thread(target=frozen.record, args=([contribution("a")], fold))
    writer.start()
    entered.wait(10)
    with pytest.raises(Refusal) as caught:
        other.claim_close("iris", 1, "r", 10.0, 5.0)
    assert caught.value.code == "unavailable"
    leave.set()
    writer.join(20)
    assert other.claim_close("iris", 1, "r", 10.0, 5.0) == 1
    frozen.close()
    other.close()
