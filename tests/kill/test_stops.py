"""Half a minute of silence: a process that is there, holds what it holds, and says nothing (SIGSTOP)."""

import json
import time

import psycopg
import pytest
from files import NETWORK, PATH
from postgres import running as postgresql
from processes import HungError, wait

from federation import USED, running, sites

pytestmark = pytest.mark.slow

#: Seconds of silence.
SILENCE = 30.0


def test_a_coordinator(tmp_path, undisturbed):
    doors = ("http", "grpc", "http")
    with running(tmp_path, PATH, sites(tmp_path, doors)) as federation:
        federation.until(lambda: federation.ledger.closed >= 5, "five rounds")
        federation.coordinators[0].halt()
        time.sleep(SILENCE)
        federation.coordinators[0].go_on()
        federation.end()
        federation.check()
        assert federation.ledger.model == undisturbed(PATH, ("http", "http", "http"))


def test_a_node_and_rounds_that_do_not_wait_for_it(tmp_path):
    text = NETWORK % ("fedavg", "float32")
    text = text.replace("100s", "3s") + "quorum = 1\n"
    everyone, other = ["site-0", "site-1"], ["site-0"]
    with running(tmp_path, text, sites(tmp_path, ("http", "grpc"))) as federation:
        federation.until(lambda: _who(federation)[-2:] == [everyone] * 2, "both take part")
        federation.nodes["site-1"].halt()
        before = federation.ledger.closed
        time.sleep(SILENCE)
        during = federation.ledger.closed
        federation.nodes["site-1"].go_on()
        federation.end()
        federation.check(slack=1.5, everyone=False)
        who = _who(federation)
    assert during - before >= 7
    # The first may have had its update, or have been closing.
    assert who[before + 1 : during] == [other] * (during - before - 1)
    assert who[-1] == everyone


def _who(federation):
    """Whose updates are in each round's model."""
    rows = federation.ledger.now("SELECT record FROM round WHERE state = 'closed' ORDER BY number")
    clients = [json.loads(record)["clients"] for (record,) in rows]
    return [sorted(c["client"] for c in each if c["verdict"] in USED) for each in clients]


def test_a_replica_that_is_closing_a_round(tmp_path, undisturbed):
    doors = ("http", "http", "http")
    with postgresql() as postgres:
        options = {"postgres": postgres, "replicas": 3}
        with running(tmp_path, PATH, sites(tmp_path, doors), **options) as federation:
            federation.until(lambda: federation.ledger.closed >= 5, "five rounds")
            silent, number, fence = _silence_who_closes(federation)
            begin = time.monotonic()
            taken = "SELECT state, fence FROM round WHERE number = ?"
            wait(
                lambda: federation.ledger.now(taken, number) == [("closed", fence + 1)],
                "another has closed it",
                20,
            )
            print(f"round {number} was closed by another after {time.monotonic() - begin:.1f} s")
            time.sleep(max(0.0, SILENCE - (time.monotonic() - begin)))
            models = federation.ledger.rows("SELECT count(*) FROM model WHERE round = ?", number)
            silent.go_on()
            federation.end()
            federation.check()
            # Under its old fence it wrote nothing, and the round is as its successor left it.
            assert federation.ledger.now(taken, number) == [("closed", fence + 1)]
            assert (
                federation.ledger.rows("SELECT count(*) FROM model WHERE round = ?", number)
                == models
                == [(1,)]
            )
            assert federation.ledger.model == undisturbed(PATH, doors)


def _silence_who_closes(federation):
    """Stop a replica between its claim and its publication, outside of a transaction. The process, the round, and its fence."""
    by_pid = {coordinator.pid: coordinator for coordinator in federation.coordinators}
    closing = "SELECT number, fence, holder, state FROM round WHERE state = 'closing'"
    free = "SELECT number FROM round WHERE number = %s AND fence = %s AND state = 'closing' FOR UPDATE NOWAIT"
    with psycopg.connect(federation.url, autocommit=True) as store:
        for _ in range(100_000):
            found = store.execute(closing).fetchone()
            if found is None:
                continue
            holder = by_pid[int(found[2].split(".")[-2])]
            holder.halt()
            time.sleep(0.2)
            try:
                if store.execute(free, found[:2]).fetchone():
                    store.execute("SELECT name FROM federation FOR UPDATE NOWAIT").fetchone()
                    return holder, found[0], found[1]
            except psycopg.errors.LockNotAvailable:
                pass
            holder.go_on()
            time.sleep(0.1)
    raise HungError("no replica was met while it closed a round")
