"""A PostgreSQL server of one's own: a temporary folder, a free port of the loopback, a password; started, killed and started again by the test.

PostgreSQL refuses to run as root, so under uid 0 everything runs as `postgres` (or `nobody`), and its folder lies outside of pytest's, which only
root can enter. It dies with the test's process, or with the thread of it that started the server.
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

#: Set to 1 where PostgreSQL must be there: its absence then fails instead of skipping.
REQUIRE = "HAINA_REQUIRE_POSTGRES"


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, newest version first; None where PostgreSQL is not installed."""
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True
    )
    found = shutil.which("initdb")
    folders += [Path(found).resolve().parent] if found else []
    return next((f for f in folders if (f / "initdb").exists() and (f / "postgres").exists()), None)


def account() -> pwd.struct_passwd | None:
    """Who the server runs as: None for ourselves."""
    if os.getuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


@dataclass
class Postgres:
    """One server. `url` is that of a database on it."""

    programs: Path
    folder: Path
    password: str = field(default_factory=lambda: secrets.token_hex(8), repr=False)
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self.password)
        self._own(self.folder, secret)
        self._call(
            "initdb", "--pgdata", self.data, "--username=haina", f"--pwfile={secret}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions",
        )  # fmt: skip
        self.port = free_port()

    def start(self) -> None:
        """Start (again, also after `kill`), and wait until it answers."""
        self._spawn()
        end = time.monotonic() + 60
        while True:
            try:
                self.connect().close()
            except psycopg.OperationalError:
                if time.monotonic() > end:
                    raise RuntimeError((self.folder / "log").read_text()[-4000:]) from None
                time.sleep(0.05)
                # Processes of a server that was killed may outlive it for a moment, and while they do, no other starts.
                if self.process is not None and self.process.poll() is not None:
                    self._spawn()
            else:
                return

    def kill(self) -> None:
        """SIGKILL, as by a power cut: no shutdown, no checkpoint."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An immediate end; harmless when it has ended."""
        self._end(signal.SIGQUIT)

    def database(self) -> str:
        """Make an empty database; its address."""
        name = f"haina_{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def empty(self) -> str:
        """The address of a database that is empty: always the same one, so take it when nobody else has it. Much cheaper than a new one."""
        with self.connect() as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://haina:{self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def _spawn(self) -> None:
        who = account()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self.programs / "postgres", "-D", self.data, "-p", str(self.port), "-h", "127.0.0.1",
                 "-c", "unix_socket_directories=", "-c", "shared_buffers=32MB", "-c", "max_connections=100"],
                stdout=log, stderr=log, cwd=self.folder, env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                user=who.pw_uid if who else None, group=who.pw_gid if who else None, extra_groups=[] if who else None,
            )  # fmt: skip

    def _end(self, sign: int) -> None:
        if self.process is None:
            return
        self.process.send_signal(sign)
        self.process.wait(30)
        self.process = None

    def _call(self, program: str, *args: str | Path) -> None:
        who = account()
        subprocess.run(
            [self.programs / program, *args], check=True, capture_output=True, cwd=self.folder, timeout=120,
            user=who.pw_uid if who else None, group=who.pw_gid if who else None, extra_groups=[] if who else None,
        )  # fmt: skip

    @staticmethod
    def _own(*paths: Path) -> None:
        if who := account():
            for path in paths:
                os.chown(path, who.pw_uid, who.pw_gid)


def free_port() -> int:
    """A port of the loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running() -> Iterator[Postgres]:
    """A running server, gone afterwards with all it held. Skips where PostgreSQL is not installed, unless `REQUIRE` is 1."""
    programs = binaries()
    if programs is None:
        reason = "PostgreSQL is not installed (apt-get install postgresql); its half of the tests cannot run"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason}, and {REQUIRE}=1 asks for it")
        pytest.skip(reason)
    server = Postgres(programs, Path(tempfile.mkdtemp(prefix="haina-postgres-")))
    try:
        server.create()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
