"""Clients without rows: a thread each, with credentials of its own and an update for every round that is known beforehand."""

import hashlib
import io
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from haina.errors import Unreachable
from haina.node.link.http import HttpLink, enrol
from haina.report import Report
from haina.wire import tls
from haina.wire.identity import Credentials, new_key, request, sign
from haina.wire.messages import Ask, Hello, Manifest
from haina.wire.refusal import Refusal

#: Refusals that pass; `conflict` and `range` because the same upload comes twice at once.
PASSING = {"unavailable", "too_many", "internal", "full", "conflict", "range"}


class Client:
    """One client.

    Args:
        invitation: lets it in.
        number: which of all.
        doors: addresses of the replicas, for what is sent twice.
        vector: (number, round) -> its update.
        pool: for what is sent at the same time.
    """

    def __init__(self, invitation, number, doors, vector, pool):
        self.name, self.examples, self.acks = invitation.name, 10 + number % 20, []
        self._invitation, self._number, self._doors = invitation, number, doors
        self._vector, self._pool, self._rng = vector, pool, random.Random(number)
        self._over, self._links, self._link = threading.Event(), {}, None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def stop(self):
        self._over.set()

    def _run(self):
        try:
            self._live()
        finally:
            for link in [self._link, *self._links.values()]:
                if link is not None:
                    link.close()

    def _live(self):
        key = new_key()
        enrolled = self._patiently(lambda: enrol(self._invitation, request(key, self.name)))
        self._context = tls.client_context(enrolled.authority, Credentials.enrolled(key, enrolled))
        self._key, self._link = key, HttpLink(self._invitation.http, self._context)
        welcome = self._patiently(lambda: self._link.hello(Hello(examples=self.examples)))
        ask = Ask(federation=welcome.federation, wait=20.0)
        done = 0
        while not self._over.is_set():
            event = self._patiently(lambda: self._link.ask(ask))
            if event is None or event.finished:
                return
            # A replica that has not heard yet may give the same task again.
            if event.task is not None and event.task.round > done:
                done = event.task.round
                self._deliver(event.task)
            else:
                self._over.wait(max(0.02, event.retry))

    def _deliver(self, task):
        body = self._vector(self._number, task.round).tobytes()
        manifest = sign(
            self._key,
            Manifest(
                node=self.name, federation=task.federation, round=task.round, version=task.version,
                sha256=hashlib.sha256(body).hexdigest(), bytes=len(body), codec=task.codec, length=len(body) // 4,
                report=Report(examples=self.examples, steps=1).to_json(),
            ),
        )  # fmt: skip
        # Twice at once: by the balancer, and straight to some replica.
        other = self._link_to(self._rng.choice(self._doors))
        ways = [self._pool.submit(self._send, link, manifest, body) for link in (self._link, other)]
        for way in ways:
            ack = way.result()
            if ack is not None:
                self.acks.append((task.round, ack.fate.value, ack.reason))

    def _send(self, link, manifest, body):
        return self._patiently(lambda: link.upload(manifest, io.BytesIO(body)))

    def _link_to(self, door):
        if door not in self._links:
            self._links[door] = HttpLink(door, self._context)
        return self._links[door]

    def _patiently(self, call):
        while not self._over.is_set():
            try:
                return call()
            except Unreachable:
                pass
            except Refusal as error:
                if error.code not in PASSING:
                    raise
            time.sleep(self._rng.uniform(0.05, 0.4))
        return None


def join(invitations, doors, vector):
    """All clients, on their way."""
    pool = ThreadPoolExecutor(2 * len(invitations), thread_name_prefix="upload")
    clients = [Client(invited, number, doors, vector, pool) for number, invited in enumerate(invitations)]
    for client in clients:
        client.thread.start()
    return clients


def canned(dimension):
    """Known updates: (client, round) -> float32 `[dimension]`."""

    def vector(number, round):
        return (0.01 * np.random.default_rng([number, round]).normal(size=dimension)).astype(np.float32)

    return vector
