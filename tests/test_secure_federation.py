"""Federations of real processes (`haina serve`, `haina join`, mutual TLS, both doors) whose updates are only ever seen as sums."""

import json
import sys
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from command import HAINA
from postgres import running as postgresql
from processes import wait
from served import GLM, hospital

from federation import Federation, sites
from haina.federation import Federation as Read
from haina.federation.envelope import Envelope
from haina.monitoring.text import number as figure
from haina.node.ledger import NodeLedger
from haina.strategy.record import Verdict

SUPPORT = Path(__file__).parent / "support"
# Where the other end is killed between a connection and its handshake, Python's `ssl` leaves the socket to the garbage collector, which complains.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")]

FILE = """\
name = "sealed"
seed = 7
[model]
learner = "jax"
kind = "logistic"
[data]
shape = [6]
classes = ["no", "yes"]
[train]
rounds = {rounds}
learning_rate = 0.3
[strategy]
preset = "fedavg"
[serve]
nodes = {nodes}
quorum = {quorum}
deadline = "60s"
[privacy]
{privacy}
"""


class Recorded(Federation):
    """A federation whose sites write down what they hand to the sum; `dying` says which of them die when."""

    def __init__(self, *args, dying=None, deadly=False, **more):
        self._dying, self._deadly = dying or {}, deadly
        super().__init__(*args, **more)

    def process(self, name, command):
        command = list(command)
        if name in self._sites:
            rows, door = self._sites[name]
            words = [
                self.folder / f"{name}.invite",
                rows,
                self.folder / name,
                door,
                *self._dying.get(name, ()),
            ]
            command = [sys.executable, SUPPORT / "recorded_site.py", *words]
        elif self._deadly and name.startswith("coordinator"):
            command = [sys.executable, SUPPORT / "dying_coordinator.py", self.folder, *command[len(HAINA) :]]
        return super().process(name, command)

    def rounds(self):
        return self.ledger.now("SELECT number, state, reason, stage FROM round ORDER BY number")

    def wait_for(self, condition, what, seconds=90):
        """Whoever died is started again, as a service manager does."""

        def met():
            self.supervise()
            return condition()

        return wait(met, what, seconds)


@contextmanager
def running(*args, **more):
    federation = Recorded(*args, **more)
    try:
        yield federation.begin()
    except BaseException:
        for log in sorted(federation.folder.glob("*.log")):
            print(f"----- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        federation.close()


def words_of(federation, names, number):
    """The sum of what these sites handed over in a round."""
    found = [np.load(federation.folder / name / f"words-{number}.npy") for name in names]
    return np.sum(found, axis=0, dtype=found[0].dtype)


def admitted(record):
    return [c["client"] for c in record["clients"] if Verdict(c["verdict"]) is Verdict.ADMITTED]


def played(federation, text, number, members, blobs):
    """SHA-256 of the model that the words of those in the sum of a round make, by the calls of a simulation."""
    read = Read.of(text, "sealed.toml")
    policy, strategy = read.privacy, read.strategy
    (record,) = federation.ledger.rows("SELECT record FROM round WHERE number = ?", number)[0]
    clients = admitted(json.loads(record))
    (before,) = [
        row[0] for row in federation.ledger.rows("SELECT sha256 FROM model WHERE round = ?", number - 1)
    ]
    data = blobs(before)
    envelope = Envelope.of(data)
    model = envelope.vector(data)
    state = strategy.init(model)
    limit = strategy.instructions(state).limit
    pool = policy.unseal(words_of(federation, clients, number), len(model), clients, limit, members)
    opened = strategy.open(
        state, model, dict.fromkeys([f"site-{k}" for k in range(members)]), registered=members
    )
    opened.add_pool(pool)
    return envelope.sha256(opened.close().model), clients


def blobs_of(federation):
    return lambda sha256: (federation.states[0] / "blobs" / sha256).read_bytes()


def test_six_processes_two_drop_outs_noise_of_all_and_a_ledger(tmp_path):
    """Secure aggregation with distributed discrete Gaussian noise: one site is killed before it shares its keys, one after; the model is exactly
    the sum of what the others handed over, their budgets are charged, and nobody else's.
    """
    privacy = """\
secure_aggregation = { dropout = 0.34, patience = "4s" }
noise = "distributed"
clip = 1.0
budget = { epsilon = 8.0, delta = 1e-3 }
max_examples = 200"""
    text = FILE.format(rounds=2, nodes=6, quorum=4, privacy=privacy)
    dying = {"site-1": (1, "share"), "site-4": (1, "upload")}
    doors = ("http", "grpc") * 3
    with running(tmp_path, text, sites(tmp_path, doors), dying=dying) as federation:
        wait(lambda: federation.ledger.closed >= 1, "round 1 is over", 50)
        dead = {name for name, node in federation.nodes.items() if node.code is not None}
        assert dead == {"site-1", "site-4"}
        federation.wait_for(lambda: federation.finished, "round 2 is over", 50)
        assert [row[:2] for row in federation.rounds()] == [(1, "closed"), (2, "closed")], federation.rounds()
        blobs = blobs_of(federation)
        for number, expected in ((1, {"site-0", "site-2", "site-3", "site-5"}), (2, set(federation.nodes))):
            identity, clients = played(federation, text, number, 6, blobs)
            assert set(clients) == expected
            ((made,),) = federation.ledger.rows("SELECT sha256 FROM model WHERE round = ?", number)
            # The state of the strategy is that of the first round in both, as this strategy remembers nothing of the server's.
            assert made == identity, f"round {number}"
        charges = federation.ledger.rows("SELECT round, owner, state FROM charge ORDER BY round, owner")
        states = {name: "void" if name in dead else "released" for name in federation.nodes}
        assert charges == [
            (n, o, states[o] if n == 1 else "released") for n in (1, 2) for o in sorted(states)
        ]
        spent = {
            row[0]: float(row[1]) for row in federation.ledger.rows("SELECT owner, rho FROM budget_part")
        }
        assert spent["site-0"] == pytest.approx(2 * spent["site-1"])
        print("rho spent:", {name: figure(rho) for name, rho in spent.items()})
        with closing(federation.api()) as api:
            budgets = {budget.owner: budget for budget in api.budgets()}
        assert 0.99 < budgets["site-0"].fraction <= 1
        # The sites' own ledgers say the same of themselves.
        own = {}
        for name in federation.nodes:
            with NodeLedger(tmp_path / name / "privacy.sqlite", lambda: 0.0) as ledger:
                own[name] = [charge.round for charge in ledger.charges() if charge.state == "released"]
        assert own == {name: [2] if name in dead else [1, 2] for name in federation.nodes}
        assert not federation.ledger.rows("SELECT 1 FROM sealed")


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_coordinator_that_is_killed_in_every_stage_loses_no_round(tmp_path, replicas):
    """Killed in the middle of each stage, after a message was committed and before its sender heard of it, and when a round began to close; alone,
    and as one of two replicas, whichever it hits.
    """
    privacy = 'secure_aggregation = { dropout = 0.34, patience = "20s" }'
    text = FILE.format(rounds=10, nodes=4, quorum=3, privacy=privacy)
    with ExitStack() as stack:
        more = {}
        if replicas > 1:
            more = {"postgres": stack.enter_context(postgresql()), "replicas": replicas, "balanced": False}
        doors = ("http", "http", "grpc", "grpc")
        federation = stack.enter_context(running(tmp_path, text, sites(tmp_path, doors), deadly=True, **more))
        federation.wait_for(lambda: federation.finished, "all rounds are over", 100)
        killed = sorted(path.name for path in tmp_path.glob("killed-*"))
        assert killed == sorted(
            f"killed-{s}" for s in ("advertise", "share", "upload", "consent", "unmask", "closing")
        )
        rounds = federation.rounds()
        print([(row[0], row[1], row[2]) for row in rounds])
        assert [row[0] for row in rounds] == list(range(1, 11))
        assert all(row[1] == "closed" or row[2] for row in rounds)
        assert rounds[-1][1] == "closed"
        for number, state, *_ in rounds:
            if state != "closed":
                continue
            ((made,),) = federation.ledger.rows("SELECT sha256 FROM model WHERE round = ?", number)
            (record,) = federation.ledger.rows("SELECT record FROM round WHERE number = ?", number)[0]
            assert json.loads(record)["model"] == made
            assert len(admitted(json.loads(record))) >= 3
        federation.kept(federation.told())


def test_two_replicas_share_a_secure_sum(tmp_path):
    """Members of one sum at different replicas and doors; messages, stages and the end of a round go through the database."""
    privacy = 'secure_aggregation = { dropout = 0.34, patience = "20s" }'
    text = FILE.format(rounds=3, nodes=4, quorum=4, privacy=privacy)
    # Both doors of both replicas.
    doors = ("http", "http", "grpc", "grpc")
    with (
        postgresql() as postgres,
        running(
            tmp_path, text, sites(tmp_path, doors), postgres=postgres, replicas=2, balanced=False
        ) as federation,
    ):
        federation.wait_for(lambda: federation.finished, "all rounds are over", 90)
        assert [row[:2] for row in federation.rounds()] == [(n, "closed") for n in (1, 2, 3)], (
            federation.rounds()
        )
        holders = {row[0] for row in federation.ledger.rows("SELECT holder FROM round")}
        print("rounds were closed by", len(holders), "replicas")

        def blobs(sha256):
            rows = federation.ledger.rows("SELECT data FROM blob WHERE sha256 = ? ORDER BY seq", sha256)
            return b"".join(bytes(row[0]) for row in rows)

        for number in (1, 2, 3):
            identity, clients = played(federation, text, number, 4, blobs)
            assert len(clients) == 4
            ((made,),) = federation.ledger.rows("SELECT sha256 FROM model WHERE round = ?", number)
            assert made == identity
        assert not federation.ledger.rows("SELECT 1 FROM sealed")
        assert not federation.ledger.rows("SELECT 1 FROM contribution WHERE kept")


def test_an_exact_fit_needs_to_see_no_hospital(tmp_path):
    """The sums of a GLM's statistics, in words of 64 bits: the same coefficients as where each hospital's own statistics are seen."""
    found = {}
    for name, privacy in (("open", ""), ("sealed", "[privacy]\nsecure_aggregation = true\n")):
        folder = tmp_path / name
        folder.mkdir()
        rows = {
            f"site-{k}": (hospital(folder / f"rows{k}.csv", 150 + 30 * k, k), door)
            for k, door in enumerate(("http", "grpc", "http"))
        }
        text = GLM.format(rounds=25, nodes=3) + privacy
        with running(folder, text, rows) as federation:
            federation.wait_for(lambda f=federation: f.finished, "the fit has converged", 60)
            models = federation.ledger.rows("SELECT sha256 FROM model ORDER BY version")
            data = [blobs_of(federation)(row[0]) for row in models]
            found[name] = [Envelope.of(data[0]).vector(each) for each in data]
    assert len(found["open"]) == len(found["sealed"]) > 3
    for plain, summed in zip(found["open"], found["sealed"], strict=True):
        assert summed == pytest.approx(plain, rel=1e-6, abs=1e-8)
