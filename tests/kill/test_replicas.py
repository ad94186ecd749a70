import json
import random
import resource
import time
from fractions import Fraction

import numpy as np
import psycopg
import pytest
from clients import canned, join
from postgres import running as postgresql
from processes import PATIENCE, wait

from federation import running
from haina.federation import Federation
from haina.federation.envelope import Envelope
from haina.report import Report
from haina.update import Update

# Where the other end is killed between a connection and its handshake, Python's `ssl` leaves the socket to the garbage collector, which complains.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")]

CLIENTS, TRIALS, SEED = 200, 20, 11
TEXT = f"""\
name = "mean"
[model]
learner = "jax"
kind = "logistic"
[data]
shape = [124]
classes = ["0", "1", "2", "3", "4", "5", "6", "7"]
[train]
rounds = {TRIALS}
[serve]
nodes = {CLIENTS}
deadline = "{PATIENCE:g}s"
keep_models = {TRIALS + 1}
"""


def test_three_replicas_two_hundred_clients_and_one_dies_in_every_round(tmp_path):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, 16384), most))
    vector, rng = canned(1000), random.Random(SEED)
    with postgresql() as postgres, running(tmp_path, TEXT, {}, postgres=postgres, replicas=3) as federation:
        api = federation.api()
        invitations = [federation.invite(api, f"client-{number:03d}") for number in range(CLIENTS)]
        clients = join(
            invitations, [f"https://localhost:{http.number}" for http, _ in federation.doors], vector
        )
        try:
            _trials(federation, rng)
            wait(lambda: federation.finished, "the federation has ended")
            for client in clients:
                client.thread.join(60)
                assert not client.thread.is_alive(), client.name
        finally:
            for client in clients:
                client.stop()
            api.close()
        federation.check(everyone=False)
        _closed_once_with_everybody(federation, clients)
        _exact(federation, vector, {client.name: client.examples for client in clients})


def _trials(federation, rng):
    """In every round a replica dies when some of its updates have come, and comes back."""
    count = "SELECT count(*) FROM contribution WHERE counted_in = %s"
    with psycopg.connect(federation.url, autocommit=True) as store:
        for number in range(1, TRIALS + 1):
            some, victim = rng.randrange(1, CLIENTS - 1), rng.randrange(3)
            wait(
                lambda n=number, k=some: store.execute(count, [n]).fetchone()[0] >= k,
                f"updates of round {number}",
            )
            time.sleep(rng.uniform(0.0, 0.05))
            there = store.execute(count, [number]).fetchone()[0]
            federation.coordinators[victim].kill()
            print(
                f"seed {SEED}, round {number}: replica {victim} killed with {there} of {CLIENTS} updates there"
            )
            time.sleep(rng.uniform(0.0, 0.5))
            federation.coordinators[victim].start()
            wait(federation.doors[victim][0].answers, "the replica is back", 60)


def _closed_once_with_everybody(federation, clients):
    rows = federation.ledger.rows("SELECT number, state, record FROM round ORDER BY number")
    assert [row[:2] for row in rows] == [(number, "closed") for number in range(1, TRIALS + 1)]
    for _, _, record in rows:
        said = json.loads(record)["clients"]
        assert sorted(c["client"] for c in said) == sorted(client.name for client in clients)
        assert {c["verdict"] for c in said} == {"admitted"}
    for client in clients:
        # Both deliveries of every round were answered, and never both of them as the one that counts.
        assert len(client.acks) == 2 * TRIALS
        fates = {
            number: sorted(a[1] for a in client.acks if a[0] == number) for number in range(1, TRIALS + 1)
        }
        for number, both in fates.items():
            assert both in (["accepted", "duplicate"], ["duplicate", "duplicate"]), (
                client.name,
                number,
                client.acks,
            )


def _exact(federation, vector, examples):
    """Every model is the one that a single process makes of the same updates, whatever their order; and it is the mean."""
    models = federation.ledger.rows("SELECT version, sha256 FROM model ORDER BY version")
    assert len(models) == TRIALS + 1
    files = [_bytes(federation, sha256) for _, sha256 in models]
    envelope, strategy = Envelope.of(files[0]), Federation.of(TEXT, "mean.toml").strategy
    model = envelope.vector(files[0])
    state, names, rng = strategy.init(model), sorted(examples), random.Random(SEED)
    reports = {name: Report(examples=examples[name], steps=1) for name in names}
    for number in range(1, TRIALS + 1):
        alone = strategy.open(state, model, dict(reports), dimension=len(model), registered=CLIENTS)
        updates = [(name, vector(index, number)) for index, name in enumerate(names)]
        for name, update in rng.sample(updates, len(updates)):
            alone.add(Update(name, update, reports[name]))
        closed = alone.close()
        assert envelope.sha256(closed.model) == models[number][1], f"round {number}"
        for k in range(0, len(model), 97):
            mean = sum(Fraction(float(update[k])) * examples[name] for name, update in updates)
            mean /= sum(examples.values())
            new = envelope.vector(files[number])[k]
            # The mean is rounded to float32 once, and so is its sum with the model.
            error = abs(Fraction(float(new)) - Fraction(float(model[k])) - mean)
            assert error <= Fraction(51, 100) * (_unit(new) + _unit(np.float32(mean)))
        model, state = envelope.vector(files[number]), closed.state


def _bytes(federation, sha256):
    return b"".join(
        bytes(row[0])
        for row in federation.ledger.rows("SELECT data FROM blob WHERE sha256 = ? ORDER BY seq", sha256)
    )


def _unit(number):
    return Fraction(float(np.spacing(np.abs(number))))
