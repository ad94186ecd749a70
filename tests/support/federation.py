"""Federations of real processes (`haina serve`, `haina join`, nginx, PostgreSQL); killed, stopped and started again by the test.

What happened is read from the store with plain SQL, by no code of Haina's.
"""

import json
import re
import time
from contextlib import contextmanager

import numpy as np
from command import HAINA
from processes import PATIENCE, HungError, Ledger, Port, Process, balancer, needs_nginx, wait

from haina.node.link.api import Api
from haina.wire import invitation, tls
from haina.wire.identity import Credentials
from haina.wire.messages import Invite

#: Verdicts of updates that are part of the new model.
USED = {"admitted", "clipped", "damped"}


class Federation:
    """A federation of processes.

    Args:
        folder: of everything.
        text: the federation file.
        sites: node -> (file with its rows, door).
        postgres: a server (`postgres.Postgres`); None for SQLite.
        replicas: coordinators, needs `postgres`; more than one stand behind nginx.
        balanced: False to do without nginx: the sites go to the replicas in turn.
        between: told of (a port, a door's port): something is to pass connections on from one to the other.
        state: folder of the coordinator's state, if it must lie elsewhere.
        settings: further static settings.
    """

    def __init__(
        self,
        folder,
        text,
        sites,
        *,
        postgres=None,
        replicas=1,
        balanced=True,
        between=None,
        state=None,
        **settings,
    ):
        if replicas > 1 and balanced:
            needs_nginx()
        self.folder, self.postgres = folder, postgres
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "federation.toml"
        self.file.write_text(text)
        self.url = postgres.database() if postgres else None
        self.ports, self._sites, self.begun = [], sites, time.monotonic()
        self.states = [state or folder / f"state{i}" for i in range(replicas)]
        self.ledger = Ledger(self.states[0] / "coordinator.sqlite", self.url)
        self.doors = [(self.port(), self.port()) for _ in range(replicas)]
        self.coordinators = []
        for number, (http, grpc) in enumerate(self.doors):
            said = {"state": str(self.states[number]), "http": http.address, "grpc": grpc.address, **settings}
            if self.url:
                said |= {"database": self.url, "authority": str(folder / "authority")}
            config = folder / f"coordinator{number}.toml"
            config.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in said.items()))
            command = [*HAINA, "serve", self.file, "--config", config]
            self.coordinators.append(self.process(f"coordinator{number}", command))
        self.http, self.grpc = self.doors[0]
        self.balancer = None
        if replicas > 1 and balanced:
            self.http = self.port()
            self.balancer = self.process(
                "nginx", balancer(folder, self.http, [http for http, _ in self.doors])
            )
        if between is not None:
            there, (self.http, self.grpc) = (self.http, self.grpc), (self.port(), self.port())
            for near, far in zip((self.http, self.grpc), there, strict=True):
                between(near, far)
        self.nodes = {}

    def port(self):
        self.ports.append(Port())
        return self.ports[-1]

    def process(self, name, command):
        return Process(name, command, self.folder / f"{name}.log", self.folder)

    # ------------------------------------------------------------------------------------------ beginning

    def begin(self):
        """Everything up, and nodes on their way in."""
        for coordinator, (http, _) in zip(self.coordinators, self.doors, strict=True):
            # One after the other: the first makes the authority.
            coordinator.start()
            self.ready(coordinator, http)
        if self.balancer is not None:
            self.balancer.start()
            wait(self.http.answers, "nginx answers", 20)
        api = self.api()
        for name, (rows, door) in self._sites.items():
            file = self.folder / f"{name}.invite"
            invitation.write(file, self.invite(api, name))
            command = [*HAINA, "join", file, "--data", rows, "--state", self.folder / name, "--door", door]
            self.nodes[name] = self.process(name, command)
        api.close()
        for node in self.nodes.values():
            node.start()
        return self

    def ready(self, coordinator, http):
        def up():
            if coordinator.code is not None:
                raise HungError(f"{coordinator.name} ended:\n{coordinator.text()[-3000:]}")
            return (
                http.answers()
                and (self.states[self.coordinators.index(coordinator)] / "coordinator.json").exists()
            )

        wait(up, f"{coordinator.name} serves", 60)

    def api(self, number=-1):
        """The operator, at one coordinator. With replicas the last that started knows its operator for certain."""
        who = Credentials.load(self.states[number] / "operator")
        return Api(
            f"https://localhost:{self.doors[number][0].number}", tls.client_context(who.authority, who)
        )

    def invite(self, api, name):
        """An invitation that names the way in, and not the replica that was asked."""
        said = api.invite(Invite(name=name))
        http, grpc = self.http, self.grpc
        if len(self.doors) > 1 and self.balancer is None:
            http, grpc = self.doors[list(self._sites).index(name) % len(self.doors)]
        way = {"http": f"https://localhost:{http.number}", "grpc": f"localhost:{grpc.number}"}
        return said.model_copy(update=way)

    # ------------------------------------------------------------------------------------------ as it goes

    def supervise(self):
        """Start again what ended by itself with a fault, as a service manager does. Returns what there was to do."""
        fallen = []
        for process in [*self.coordinators, *self.nodes.values()]:
            if process.wanted and process.code not in (None, 0):
                fallen.append(process.name)
                process.start()
        return fallen

    def until(self, condition, what, seconds=PATIENCE):
        def met():
            fallen = self.supervise()
            # A coordinator may not find its database at its start, nor a newcomer its coordinator; nothing else has a reason.
            known = {name for name in self.nodes if (self.folder / name / Credentials.FILE).exists()}
            assert not known.intersection(fallen), f"{fallen} ended by itself"
            return condition()

        return wait(met, what, seconds)

    @property
    def finished(self):
        return self.ledger.state == "finished"

    def end(self):
        """Until it has ended, and all nodes have heard of it."""
        self.until(lambda: self.finished, "the federation has ended", 240)
        self.until(lambda: all(node.code == 0 for node in self.nodes.values()), "the nodes have ended")

    def close(self):
        for process in [*self.nodes.values(), *self.coordinators, self.balancer]:
            if process is not None:
                process.kill()
        for port in self.ports:
            port.close()

    def told(self):
        """What nodes were told is counted: (round, node)."""
        said = {name: re.findall(r"round (\d+): delivered", node.text()) for name, node in self.nodes.items()}
        return {(int(number), name) for name, numbers in said.items() for number in numbers}

    def kept(self, told):
        """Nothing acknowledged is lost."""
        accepted = set(self.ledger.rows("SELECT round, node FROM contribution WHERE status = 'accepted'"))
        assert told <= accepted, f"acknowledged and lost: {sorted(told - accepted)}"

    # ------------------------------------------------------------------------------------------ afterwards

    def check(self, slack=5.0, everyone=True):
        """What must be true of every federation, whatever was done to its processes."""
        ledger, names = self.ledger, sorted(self.nodes)
        rounds = ledger.rows(
            "SELECT number, version, state, opened, deadline, closed, record FROM round ORDER BY number"
        )
        closed = ledger.closed
        assert [row[0] for row in rounds] == list(range(1, closed + 1))
        assert {row[2] for row in rounds} <= {"closed", "failed"}
        late = [(row[0], row[5] - row[4]) for row in rounds if row[5] > row[4] + slack]
        assert not late, f"closed after the deadline: {late}"
        # Every closed round made one version, from the version before.
        models = ledger.rows("SELECT version, parent, round FROM model ORDER BY version")
        made = [row[0] for row in rounds if row[2] == "closed"]
        assert models == [(0, None, 0), *((v, v - 1, number) for v, number in enumerate(made, 1))]
        # Every update at most once, and in the record as often as in the ledger.
        heard = ledger.rows("SELECT round, node, counted_in, status FROM contribution")
        assert len({row[:2] for row in heard}) == len(heard) == len({row[1:3] for row in heard})
        for number, _, state, *_, record in rounds:
            if state != "closed":
                continue
            used = [c["client"] for c in json.loads(record)["clients"] if c["verdict"] in USED]
            counted = sorted(row[1] for row in heard if row[2] == number and row[3] == "accepted")
            assert sorted(used) == counted, f"round {number}"
            assert not everyone or counted == names, f"round {number}"
        self.kept(self.told())
        assert not ledger.rows("SELECT 1 FROM partial"), "sums of closed rounds are left"


@contextmanager
def running(*args, **kwargs):
    """A federation that has begun; gone afterwards. Where the test fails, the ends of all logs are shown."""
    federation = Federation(*args, **kwargs)
    try:
        yield federation.begin()
    except BaseException:
        for log in sorted(federation.folder.glob("*.log")):
            print(f"----- {log.name}\n{log.read_text(errors='replace')[-3000:]}")
        raise
    finally:
        federation.close()


def sites(folder, doors, features=6):
    """Rows for a node at each door, always the same ones: node -> (file, door)."""
    rng, found = np.random.default_rng(5), {}
    beta = rng.normal(size=features)
    for number, door in enumerate(doors):
        x = rng.normal(size=(80 + 10 * number, features))
        y = (rng.random(len(x)) < 1 / (1 + np.exp(-x @ beta))).astype(np.int64)
        file = folder / f"rows{number}.npz"
        np.savez(file, x=x, y=y)
        found[f"site-{number}"] = (file, door)
    return found
