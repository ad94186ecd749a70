"""Processes of one's own on the loopback, the ports that they come back to, and the store as plain SQL sees it.

Every process dies with the test's (`setpriv --pdeathsig`), keeps its log in the test's folder, and is known by its own handle.

The trap: a port that was free may be another's when a killed coordinator comes back for it. So ports are kept: bound and never listened on, which on
Linux leaves them to whoever else sets SO_REUSEADDR, and is never handed out by the system.
"""

import os
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

NGINX = Path("/usr/sbin/nginx")
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
#: Seconds in which a federation that can go on must do so: a start, the longest lease, and a node's patience between tries.
PATIENCE = 90.0


class HungError(AssertionError):
    """Something that must happen did not."""


def wait(condition, what, seconds=PATIENCE, look=0.02):
    """Wait until `condition()` is true; returns what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise HungError(f"after {seconds:g} s still not: {what}")
        time.sleep(look)
    return found


class Port:
    """A port of the loopback that is ours until the test ends."""

    def __init__(self):
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.number = self._socket.getsockname()[1]
        self.address = f"127.0.0.1:{self.number}"

    def answers(self):
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex(("127.0.0.1", self.number)) == 0

    def close(self):
        self._socket.close()


class Process:
    """One process, started as often as it is killed. To be started by the main thread: it dies with the thread that started it."""

    def __init__(self, name, command, log, cwd):
        self.name, self.log = name, log
        self._command, self._cwd = ["setpriv", "--pdeathsig", "KILL", *map(str, command)], cwd
        self._popen = None
        self.wanted = False

    def start(self):
        self.wanted = True
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env=environment,
            )

    @property
    def pid(self):
        return self._popen.pid

    @property
    def code(self):
        """The exit status; None while it runs or was not started."""
        return None if self._popen is None else self._popen.poll()

    def kill(self):
        self.wanted = False
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait(30)

    def halt(self):
        self._popen.send_signal(signal.SIGSTOP)

    def go_on(self):
        self._popen.send_signal(signal.SIGCONT)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Ledger:
    """The store, by plain SQL; `?` for parameters."""

    def __init__(self, path=None, url=None):
        self._path, self._url = path, url

    def rows(self, query, *values):
        if self._url is None:
            with sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=10) as connection:
                connection.isolation_level = None
                found = connection.execute(query, values).fetchall()
            connection.close()
            return found
        with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as connection:
            return connection.execute(query.replace("?", "%s"), values or None).fetchall()

    def now(self, query, *values):
        """As `rows`; nothing while the store is down or not made yet."""
        try:
            return self.rows(query, *values)
        except (sqlite3.OperationalError, psycopg.OperationalError, psycopg.errors.UndefinedTable):
            return []

    @property
    def closed(self):
        return (
            self.now("SELECT closed FROM federation")[0][0]
            if self.now("SELECT closed FROM federation")
            else 0
        )

    @property
    def state(self):
        found = self.now("SELECT state FROM federation")
        return found[0][0] if found else ""

    @property
    def model(self):
        """SHA-256 of the newest model."""
        return self.rows("SELECT sha256 FROM model ORDER BY version DESC LIMIT 1")[0][0]


def needs_nginx():
    """Skip the test where nginx is not there; before anything is begun that would have to be ended."""
    if not (NGINX.exists() and STREAM.exists()):
        pytest.skip("nginx or its stream module is not installed (apt-get install nginx libnginx-mod-stream)")


def balancer(folder, port, doors):
    """The command of an nginx that passes connections on to whichever replica answers (layer 4: TLS ends at the replicas)."""
    needs_nginx()
    servers = "\n".join(f"    server {door.address} max_fails=1 fail_timeout=1s;" for door in doors)
    (folder / "nginx.conf").write_text(
        f"""load_module {STREAM};
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
stream {{
  upstream doors {{
    least_conn;
{servers}
  }}
  server {{
    listen {port.address};
    proxy_pass doors;
    proxy_connect_timeout 1s;
    proxy_timeout 10m;
  }}
}}
"""
    )
    return [NGINX, "-c", folder / "nginx.conf", "-e", folder / "nginx-error.log"]
