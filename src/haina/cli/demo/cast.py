"""Who plays in the demo: processes of `haina`, each started, killed and ended by its own id, none of which outlives this one.

Each has a session of its own, so that Ctrl-C reaches this process alone, and a pipe from this process, whose end it does not survive (`process`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from haina.errors import RunError

#: Seconds that a process has to end by itself.
_PATIENCE = 5.0


@dataclass
class Cast:
    """Processes by name; use as a context manager, which ends them.

    Args:
        folder: where they run, and where each has its log.
    """

    folder: Path
    _processes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The last started first: the coordinator hears its nodes go.
        running = list(self._processes.values())[::-1]
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start(self, name: str, *words: str) -> None:
        """Start `haina WORDS`."""
        with self.log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "haina.cli.demo.process", *words],
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                # Nine processes share this machine; what they compute themselves is small.
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def line(self, name: str) -> str:
        """The next line that a process writes as data.

        Raises:
            RunError: it ended instead.
        """
        output = self._processes[name].stdout
        assert output is not None
        line = output.readline()
        if not line:
            raise self._ended(name)
        return line

    def kill(self, name: str) -> None:
        """As the machine's power fails: at once, without a word (SIGKILL)."""
        self._processes[name].kill()
        self._processes[name].wait()

    def alive(self, name: str) -> bool:
        """True while a process runs."""
        return self._processes[name].poll() is None

    def check(self, name: str) -> None:
        """Refuse to go on without a process.

        Raises:
            RunError: it has ended; with its last words.
        """
        if not self.alive(name):
            raise self._ended(name)

    def log(self, name: str) -> Path:
        """Where a process talks."""
        return self.folder / f"{name}.log"

    def _ended(self, name: str) -> RunError:
        words = self.log(name).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = words[-1] if words else "without a word"
        return RunError(f"{name} ended: {last}", remedy=f"See {self.log(name)}")
