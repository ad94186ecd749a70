"""Sites in R: the package installed once for the tests, and R processes that join real coordinators, ended by their own handles."""

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from processes import HungError, Process, wait
from rlang import environment, require_r

#: The package's sources.
SOURCES = Path(__file__).parents[2] / "r" / "haina"


@functools.cache
def library():
    """A library with the package in it, made from the sources once a session; removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="haina-r-"))
    atexit.register(shutil.rmtree, folder, True)
    command = ["R", "CMD", "INSTALL", "--no-docs", "--no-test-load", f"--library={folder}", str(SOURCES)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(), timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def needs_r(*packages):
    """Skip, or fail where R is required; then the environment of a process that has the package."""
    require_r("curl", "jsonlite", "openssl", *packages)
    return {**environment(), "R_LIBS": str(library())}


def evaluate(code, folder=".", env=None, seconds=120):
    """What R code prints."""
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", f"library(haina); {code}"],
        cwd=folder,
        env=env or needs_r(),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


class RSite(Process):
    """One R process that takes part. It dies with the test's.

    Args:
        name: of the site, whose invitation lies in `folder`.
        train: R code of the function that trains.
        folder: where it runs.
        before: R code that comes first.
        join: further arguments of `join()`.
    """

    def __init__(self, name, train, folder, before="", join="", packages=()):
        self._env = needs_r(*packages)
        script = folder / f"{name}.R"
        script.write_text(
            f'library(haina)\n{before}\ntrainer <- {train}\nended <- join("{name}.invite", trainer{join})\n'
            f'cat("state:", ended$reason, ended$rounds, ended$delivered, "\\n")\n'
        )
        super().__init__(name, ["Rscript", "--vanilla", script], folder / f"{name}.log", folder)

    def start(self):
        self.wanted = True
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._cwd,
                env=self._env,
            )
        return self

    def says(self, words, seconds=60):
        """Wait until the log has these words."""
        return self._until(lambda: words in self.text(), f"{self.name} says {words!r}", seconds)

    def ends(self, seconds=60):
        """Wait until it has ended by itself; its exit status."""
        self._until(lambda: self.code is not None, f"{self.name} has ended", seconds)
        return self.code

    def _until(self, condition, what, seconds):
        try:
            return wait(condition, what, seconds)
        except HungError as error:
            raise HungError(f"{error}\n{self.text()[-3000:]}") from None
