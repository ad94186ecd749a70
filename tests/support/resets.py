"""A proxy that breaks connections: each is reset (RST, no goodbye) at a seeded moment, after some seconds or some bytes, whichever comes first."""

import random
import select
import socket
import struct
import threading
import time


class Resets:
    """Passes connections on from `here` to `there`, and resets them.

    Args:
        here: a `federation.Port`.
        there: another.
        seed: of the moments; the n-th connection has its own.
        bytes: most bytes of a connection, both ways together.
        seconds: most seconds of a connection.
    """

    def __init__(self, here, there, seed, bytes, seconds):
        self._there, self._seed, self._bytes, self._seconds = there, seed, bytes, seconds
        self.broken, self.count, self._open = [], 0, True
        self._door = socket.socket()
        self._door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._door.bind(("127.0.0.1", here.number))
        self._door.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def stop_breaking(self):
        """From now on connections live."""
        self._bytes = self._seconds = float("inf")

    def close(self):
        self._open = False
        self._door.close()

    def _accept(self):
        while self._open:
            try:
                near, _ = self._door.accept()
            except OSError:
                return
            self.count += 1
            rng = random.Random(self._seed * 1_000_003 + self.count)
            threading.Thread(target=self._pass_on, args=(near, self.count, rng), daemon=True).start()

    def _pass_on(self, near, number, rng):
        far = socket.socket()
        room, until = rng.uniform(0, 1) * self._bytes, time.monotonic() + rng.uniform(0.02, 1) * self._seconds
        to = {near: far, far: near}
        passed, ended = {near: 0, far: 0}, "seconds"
        try:
            far.connect(("127.0.0.1", self._there.number))
            while (left := until - time.monotonic()) > 0:
                for source in select.select([near, far], [], [], min(left, 1.0))[0]:
                    data = source.recv(min(65536, max(1, int(min(room - sum(passed.values()), 65536)))))
                    if not data:
                        ended = ""
                        return
                    to[source].sendall(data)
                    passed[source] += len(data)
                if sum(passed.values()) >= room:
                    ended = "bytes"
                    return
        except OSError:
            ended = ""
        finally:
            if ended:
                self.broken.append((number, ended, passed[near], passed[far]))
            for end in (near, far):
                if ended:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()
