"""`haina join`, as a test may want it: a process that writes down the words that it hands to the secure sum before they are masked, and that kills
itself at a step of the sum.

    python recorded_site.py INVITATION SOURCE STATE DOOR [ROUND STAGE]     SIGKILL when asked for STAGE in ROUND
"""

import os
import signal
import sys
from pathlib import Path

import numpy as np

from haina.cli.join import join
from haina.node.join import Member


class Recording:
    """A policy that keeps what it seals."""

    def __init__(self, policy, folder, number):
        self._policy, self._file = policy, folder / f"words-{number}.npy"

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def seal(self, *args):
        words = self._policy.seal(*args)
        np.save(self._file, words)
        return words


class Recorder(Member):
    """A member that writes down its words, and dies when it is told to."""

    die: tuple[int, str] | None = None

    def _sealing(self, task, learnt, trainer):
        part = super()._sealing(task, learnt, trainer)
        part.policy = Recording(part.policy, self.line.folder, task.round)
        answer = part.answer

        def asked(step):
            if self.die == (step.round, step.stage):
                os.kill(os.getpid(), signal.SIGKILL)
            return answer(step)

        part.answer = asked
        return part


def main():
    where, source, state, door, *die = sys.argv[1:]
    Recorder.die = (int(die[0]), die[1]) if die else None
    plain = {"once": False, "daemon": False, "print_unit": False, "periodic": False}
    join(Path(where), source, Path(state), **plain, door=door, tasks=Path(), member=Recorder)


if __name__ == "__main__":
    main()
