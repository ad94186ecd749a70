"""A federation with secure aggregation behind both doors: real sessions in threads, and training that a test says beforehand."""

import random
import threading
from types import SimpleNamespace

import numpy as np

from haina.federation.bench import Trained
from haina.node.enrolment import Address
from haina.node.join import Line, Member
from haina.node.trainer import Trainer
from haina.report import Report
from haina.update import Update

FILE = """
name = "veil"
seed = 1
[model]
learner = "jax"
kind = "logistic"
[data]
shape = [3]
classes = ["a", "b"]
[train]
rounds = {rounds}
[strategy]
preset = "fedavg"
weigh = ["uniform"]
[serve]
nodes = {nodes}
quorum = 4
deadline = "60s"
[privacy]
secure_aggregation = {{ dropout = 0.34, range = 16.0, patience = "{patience:g}s" }}
"""
#: Numbers of the model.
SIZE = 8


def text(rounds=2, nodes=6, patience=5.0):
    return FILE.format(rounds=rounds, nodes=nodes, patience=patience)


class Bench:
    """In the place of a training process: the update of each round is known."""

    def __init__(self, vector):
        self.vector, self.child = vector, SimpleNamespace(threads=1)

    def start(self):
        pass

    def close(self):
        pass

    def examples(self):
        return 25

    def train(self, task, client, model, **more):
        return Trained(Update(client, self.vector(task.round), Report(25, steps=3)))


class Way(Line):
    """A line whose links pass through the test's hands."""

    def __init__(self, person, folder, door, between):
        fortress = person.fortress
        address = Address(f"https://localhost:{fortress.http_port}", f"localhost:{fortress.grpc_port}")
        super().__init__(folder, person.credentials, address, door)
        self.between = between

    def _fresh(self):
        return self.between(super()._fresh())


class Player(Member):
    """A member that trains in no time."""

    def __init__(self, *args, vector, **more):
        super().__init__(*args, **more)
        self.vector = vector

    def _trainer(self, welcome):
        real = super()._trainer(welcome)
        return Trainer(Bench(self.vector), real.credentials, real.guard, departure=real.departure)


class Troupe:
    """Members of a fortress's federation `veil`, each in a thread.

    Args:
        fort: with that federation.
        vector: (number of the member, round) -> its update.
        between: name -> what stands between that member and its coordinator.
        doors: in turn.
    """

    def __init__(self, fort, names, vector, between=None, doors=("http", "grpc"), **more):
        self.fort, self.said, self.ended, self.members = fort, {name: [] for name in names}, {}, {}
        self.threads = []
        for number, name in enumerate(names):
            folder = fort.folder / f"node-{name}"
            folder.mkdir(exist_ok=True)
            person = fort.person(name, federation="veil")
            person.credentials.save(folder)
            line = Way(
                person, folder, doors[number % len(doors)], (between or {}).get(name, lambda link: link)
            )
            self.members[name] = Player(
                line,
                "nothing",
                fort.folder,
                random.Random(number),
                self.said[name].append,
                vector=lambda turn, number=number: np.asarray(vector(number, turn), np.float32),
                **more.get(name, {}),
            )
            self.threads.append(threading.Thread(target=self._live, args=(name,), daemon=True))

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def _live(self, name):
        try:
            self.ended[name] = self.members[name].run()
        except Exception as error:
            self.ended[name] = error

    def join(self, seconds=60):
        for thread in self.threads:
            thread.join(seconds)
            assert not thread.is_alive(), (self.ended, self.said)

    def stop(self):
        for member in self.members.values():
            member._stop.set()
            if member._session is not None:
                member._session.stop()


def model(fort, version=None):
    """The newest model's vector."""
    row = fort.ground.store.model("veil", version)
    return np.array(fort.core.stations["veil"].hosted.envelope.vector(fort.ground.blobs.path(row.sha256)))


__all__ = ["FILE", "SIZE", "Troupe", "model", "text"]
