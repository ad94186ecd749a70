"""`haina serve`, by a process that kills itself in the middle of secure sums.

In round r it dies in the r-th of the stages (or in a later round), right after the second message of that stage has been
committed and before its sender hears of it; and once when a round begins to close. Each once: the folder remembers.

    python dying_coordinator.py FOLDER ARGS...     ARGS as of `haina serve`
"""

import os
import signal
import sys
from pathlib import Path

from haina.cli import main
from haina.coordinator.store import Store

STAGES = ("advertise", "share", "upload", "consent", "unmask", "closing")
FOLDER = Path(sys.argv[1])


def die(number, stage):
    """Once in each stage, each in a round of its own: the one of its turn, or a later one where its turn was missed."""
    mark = FOLDER / f"killed-{stage}"
    rounds = {other.read_text() for other in FOLDER.glob("killed-*")}
    if STAGES.index(stage) < number and not mark.exists() and str(number) not in rounds:
        mark.write_text(str(number))
        os.kill(os.getpid(), signal.SIGKILL)


def after(name, watch):
    """Look at what a method of the store has just committed."""
    method = getattr(Store, name)

    def called(self, *args, **kwargs):
        result = method(self, *args, **kwargs)
        watch(self, args, result)
        return result

    setattr(Store, name, called)


def sealed(store, args, taken):
    federation, number, stage = args[:3]
    if taken == "new" and len(store.sizes(federation, number, stage)) >= 2:
        die(number, stage)


def recorded(store, args, outcomes):
    for row, outcome in zip(args[0], outcomes, strict=True):
        there = [c for c in store.contributions(row.federation, row.counted_in) if c.status == "accepted"]
        if outcome == "new" and row.codec.startswith("masked") and len(there) >= 2:
            die(row.counted_in, "upload")


def claimed(store, args, fence):
    if fence is not None:
        die(args[1], "closing")


after("put_sealed", sealed)
after("record", recorded)
after("claim_close", claimed)
sys.argv = ["haina", *sys.argv[2:]]
main()
