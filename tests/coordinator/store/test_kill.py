"""Whoever is killed, what was acknowledged is there, once."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import sqlalchemy as sa
from memory import Memory, begun, contribution
from postgres import running

from haina.coordinator.store import Store

CHILD = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from memory import begun, contribution
from haina.coordinator.store import Store

store = begun(Store.open(None, Path({folder!r}), time.time))
number = 0
while True:
    batch = [contribution(f"n{{number + k}}") for k in range(3)]
    told = store.record(batch, lambda rows: (number + 3).to_bytes(8, "little") * 40_000)
    assert told == ["new"] * 3
    number += 3
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 2, 5, 20, 60])
def test_sqlite_keeps_what_was_acknowledged_when_its_process_is_killed(tmp_path, after):
    code = CHILD.format(path=[entry for entry in sys.path if entry], folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        acknowledged = 0
        for _ in range(after):
            acknowledged = int(child.stdout.readline())
        time.sleep(0.0007 * after)
        child.send_signal(signal.SIGKILL)
        acknowledged = int([*child.stdout.read().split("\n"), ""][0] or acknowledged)
        child.wait(20)
    store = Store.open(None, tmp_path, time.time)
    rows = store.contributions("iris", 1)
    assert len(rows) >= acknowledged
    assert {row.node for row in rows} == {f"n{number}" for number in range(len(rows))}
    # The sum is of exactly these rows, and so whole.
    ((_, data),) = store.partials("iris", 1)
    assert data == len(rows).to_bytes(8, "little") * 40_000
    store.close()


@pytest.mark.slow
def test_postgresql_killed_twice_in_the_middle_loses_and_doubles_nothing(tmp_path):
    nodes = [f"n{number:03d}" for number in range(400)]
    values = {node: np.full(30_000, 1.0 + number) for number, node in enumerate(nodes)}
    with running() as server:
        memory = Memory(server.url(), tmp_path)
        stores = [memory.open(patience=60.0) for _ in range(3)]
        begun(stores[0])
        sums, acknowledged, failures = {}, {}, []

        def replica(n):
            """Each replica is offered every node's update; each counts where it came first."""
            epoch = f"e{n}"
            sums[epoch] = np.zeros(30_000)
            try:
                for start in range(0, len(nodes), 8):
                    batch = [contribution(node, epoch=epoch) for node in nodes[start : start + 8]]

                    def fold(rows):
                        return (sums[epoch] + sum(values[row.node] for row in rows)).tobytes()

                    for row, outcome in zip(batch, stores[n].record(batch, fold), strict=True):
                        if outcome == "new":
                            sums[epoch] += values[row.node]
                            assert acknowledged.setdefault(row.node, epoch) == epoch
                        else:
                            assert outcome.node == row.node
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=replica, args=(n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for share in (0.2, 0.6):
            end = time.monotonic() + 30
            while len(acknowledged) < share * len(nodes) and time.monotonic() < end:
                time.sleep(0.002)
            assert any(thread.is_alive() for thread in threads)
            server.kill()
            time.sleep(0.2)
            server.start()
        for thread in threads:
            thread.join(100)
        assert failures == []
        rows = stores[0].contributions("iris", 1)
        assert {row.node: row.epoch for row in rows} == acknowledged
        assert sorted(acknowledged) == nodes
        kept = {epoch: np.frombuffer(data) for epoch, data in stores[0].partials("iris", 1)}
        for epoch, data in kept.items():
            assert data.tobytes() == sums[epoch].tobytes()
        assert (sum(kept.values()) == sum(range(1, 401))).all()
        memory.close()


@pytest.mark.slow
def test_a_batch_costs_one_commit(memory):
    """The commit is what costs, and 16 contributions with their sum share one."""
    store = begun(memory.open())
    commits = []
    sa.event.listen(store.database.engine, "commit", lambda connection: commits.append(1))
    batch = [contribution(f"node-{k}", epoch="many") for k in range(16)]
    assert store.record(batch, lambda rows: b"x" * 800_000) == ["new"] * 16
    assert len(commits) == 1
