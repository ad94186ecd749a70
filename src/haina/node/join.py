"""Joining: an invitation and a source of rows become a session that goes on until the federation ends.

The trap: the federation's text comes from the coordinator, and it may name code (`build = "task:net"`). What runs is the `task.py` of this site's own
folder; nothing that can run ever comes over the wire.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event as Flag
from typing import Literal

from haina import __version__
from haina.data.schema import Schema
from haina.errors import ConfigError, TrustError, Unreachable
from haina.federation.bench import Bench
from haina.federation.federation import Federation
from haina.federation.sealed import fewest
from haina.node.canary import SOURCE, CanaryBench
from haina.node.enrolment import Address
from haina.node.guard import Guard, Wishes
from haina.node.link import Link
from haina.node.link.http import HttpLink
from haina.node.peers import Peers, fingerprint, signing_key
from haina.node.promise import hold
from haina.node.sealing import Sealing
from haina.node.session import PASSING, Session, StoppedError
from haina.node.trainer import Learnt, Trainer
from haina.wire.codecs import CODECS
from haina.wire.identity import Credentials, request
from haina.wire.messages import Ask, Hello, Renew, Task, Welcome
from haina.wire.refusal import Refusal
from haina.wire.tls import client_context

#: Seconds between looks at a federation that has ended.
_LOOK = 30.0
#: Learners, and the module without which each cannot train.
_NEEDS = {"glm": "numpy", "forest": "sklearn", "jax": "jax", "torch": "torch", "rservice": "numpy"}


@dataclass
class Line:
    """The way to the coordinator, with the newest credentials.

    Args:
        folder: where the credentials lie.
        credentials: as they are now.
        address: of the coordinator.
        door: which of its doors.
        clock: seconds since 1970.
    """

    folder: Path
    credentials: Credentials
    address: Address
    door: Literal["http", "grpc"] = "http"
    clock: Callable[[], float] = time.time

    def connect(self, link: Link | None) -> Link:
        """The link as it is, or a fresh one where there is none; first renews the certificate when that is due.

        The key stays: updates that wait in the outbox are signed with it.

        Raises:
            TrustError: the certificate expired while the node was away.
            HainaError: it could not be renewed.
        """
        now = self.clock()
        if self.credentials.expires <= now:
            raise TrustError(
                f"the certificate of {self.credentials.name} expired while the node was away",
                remedy=f"Ask the operator for a new invitation (haina invite {self.credentials.name}), and join with it",
            )
        link = link or self._fresh()
        if not self.credentials.due(now):
            return link
        key = self.credentials.key
        answer = link.renew(Renew(csr=request(key, self.credentials.name)))
        self.credentials = Credentials.enrolled(key, answer)
        self.credentials.save(self.folder)
        link.close()
        return self._fresh()

    def _fresh(self) -> Link:
        if self.door == "http":
            return HttpLink(self.address.http, client_context(self.credentials.authority, self.credentials))
        from haina.node.link.grpc import GrpcLink
        from haina.wire.tls import grpc_channel_credentials

        return GrpcLink(self.address.grpc, grpc_channel_credentials(self.credentials))


@dataclass
class Member:
    """One site's part in a federation, for as long as this process runs.

    Args:
        line: the way to the coordinator.
        source: where the rows are.
        tasks: folder of the site's own `task.py`.
        rng: jitter.
        tell: shows a line to a person.
        once: end after one acknowledged update.
        daemon: stay when the federation has ended, and wait for it to go on.
        periodic: train when it is this site's time, and not when a round opens.
        wishes: of the owner of the rows.
        peers: keys of the other sites, where people gave them.
    """

    line: Line
    source: str
    tasks: Path
    rng: Random
    tell: Callable[[str], None]
    once: bool = False
    daemon: bool = False
    periodic: bool = False
    wishes: Wishes = field(default_factory=Wishes)
    peers: Mapping[str, bytes] | None = None
    _stop: Flag = field(default_factory=Flag)
    _session: Session | None = None
    _federation: str = ""
    _fewest: int = 0

    def run(self) -> str:
        """Take part. Returns why it ended, in words.

        Raises:
            HainaError: the rows cannot be read, the learner is not installed, or the coordinator does not want this node.
        """
        try:
            while True:
                self._session = session = self._opened()
                reason = session.run()
                if not self.daemon or self._stop.is_set():
                    return reason
                self.tell(f"{reason}. Waiting for more")
                self._until_more()
        except StoppedError:
            return "stopped"

    def stop(self) -> None:
        """End: at once where the node waits or sends, for what is not acknowledged is sent again at the next start; else when it has trained.

        For a signal handler, which runs in the thread that runs `run`.

        Raises:
            StoppedError: to end what that thread is doing.
        """
        self._stop.set()
        if self._session is not None:
            self._session.stop()
            if self._session.training:
                self.tell("Stopping when this round is trained; press Ctrl-C again to stop at once")
                return
        raise StoppedError

    def _opened(self) -> Session:
        hello = Hello(
            software=__version__,
            codecs=tuple(CODECS),
            learners=_learners(),
            mode="periodic" if self.periodic else "rounds",
            dataset=self.wishes.dataset,
        )
        return Session(
            self.line.connect,
            self.line.folder,
            hello,
            self._trainer,
            self.rng,
            once=self.once,
            tell=self.tell,
            seal=self._sealing,
        )

    def _trainer(self, welcome: Welcome) -> Trainer:
        self._federation = welcome.federation
        known = Schema.from_json(welcome.columns)
        federation = Federation.of(welcome.text, f"{welcome.federation}.toml", self.tasks, known)
        policy, name, folder = federation.privacy, self.line.credentials.name, self.line.folder
        hold(folder / welcome.federation, welcome.text, welcome.federation)
        training = federation.training
        guard = Guard(policy, federation.name, name, folder, self.wishes, self.line.clock, training=training)
        if policy is not None:
            for promise in policy.promises:
                self.tell(promise)
        else:
            self.tell(
                "nothing is promised of what this site sends: there is no [privacy] in the federation file"
            )
        self._fewest = 0
        if guard.hidden:
            self._fewest = fewest(federation)
            key = signing_key(folder)
            assert self._session is not None
            self._session.hello = self._session.hello.model_copy(update={"identity": fingerprint(key)})
            self.tell(f"the key of this site in secure sums, for the other sites: {fingerprint(key)}")
        bench: Bench | CanaryBench = (
            CanaryBench(self.source, policy)
            if self.source.startswith(SOURCE)
            else Bench(federation, site=self.source)
        )
        promised = None if policy is None else federation.departure
        return Trainer(bench, self.line.credentials, guard, departure=promised)

    def _sealing(self, task: Task, learnt: Learnt, trainer: Trainer) -> Sealing:
        guard, folder = trainer.guard, self.line.folder
        assert guard is not None
        assert guard.policy is not None
        return Sealing(
            policy=guard.policy,
            task=task,
            update=learnt.update,
            memory=learnt.memory,
            key=signing_key(folder),
            peers=Peers(folder, self.peers),
            fewest=self._fewest,
            begin=guard.begin,
            entropy=os.urandom,
        )

    def _until_more(self) -> None:
        """Look now and then whether the federation goes on, without a training process and without a word in its logs."""
        ask = Ask(federation=self._federation, wait=0.0, idle=False, doing="waiting for the next federation")
        link: Link | None = None
        while not self._stop.wait(_LOOK):
            try:
                link = self.line.connect(link)
                if not link.ask(ask).finished:
                    break
            except Unreachable:
                continue
            except Refusal as error:
                if error.code not in PASSING:
                    raise
        if link is not None:
            link.close()


def _learners() -> tuple[str, ...]:
    found = tuple(name for name, module in _NEEDS.items() if importlib.util.find_spec(module))
    return (*found, "rscript") if shutil.which("Rscript") else found


def check_source(source: str) -> None:
    """Find a misspelt file before the invitation is used up.

    Raises:
        ConfigError: it is a file's name, and there is no such file.
    """
    if Path(source).suffix.lower() in {".csv", ".parquet", ".npz"} and not Path(source).is_file():
        raise ConfigError(f"there is no file {source}", remedy="Check the path after --data")
