"""One process of the demo: a `haina` command that ends with the process that started it, however that one ends.

    python -m haina.cli.demo.process serve federation.toml ...
    python -m haina.cli.demo.process join site-1.invite ...
    python -m haina.cli.demo.process attack ROUND site-6.invite site-6.npz

`attack` is a node that takes part honestly, and from a round on sends the opposite of what it learnt, three times over. It has a certificate and
signs what it sends, like every other: against such a one keys do not help.

The trap: standard input is watched with `os.read`, because a thread that waits in `sys.stdin` holds a lock which Python needs to end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, cast

import numpy as np

from haina.cli import main
from haina.cli.join import join
from haina.errors import HainaError
from haina.federation.bench import Bench, Trained
from haina.node.join import Member
from haina.node.trainer import Trainer
from haina.update import Update
from haina.wire.messages import Task, Welcome

#: How many times over the attacker sends its update, and which way.
_SCALE = np.float32(-3.0)


@dataclass(frozen=True)
class Turned:
    """A bench whose updates are turned round from a round on.

    Args:
        bench: trains honestly.
        since: the first round of the attack.
    """

    bench: Bench
    since: int

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bench, name)

    def train(self, task: Task, *args: Any, **options: Any) -> Trained:
        """See `Bench.train`."""
        trained = self.bench.train(task, *args, **options)
        if task.round < self.since or not isinstance(trained.result, Update):
            return trained
        return replace(trained, result=replace(trained.result, vector=_SCALE * trained.result.vector))


@dataclass
class Attacker(Member):
    """A member with a turned bench."""

    since: int = 1

    def _trainer(self, welcome: Welcome) -> Trainer:
        trainer = super()._trainer(welcome)
        return replace(trainer, bench=cast(Bench, Turned(cast(Bench, trainer.bench), self.since)))


def attack(since: str, invitation: str, source: str) -> None:
    """Join, and attack from a round on."""
    plain: Mapping[str, Any] = {"once": False, "daemon": False, "print_unit": False, "periodic": False}
    member = partial(Attacker, since=int(since))
    join(Path(invitation), source, None, **plain, door="http", tasks=Path(), member=member)


def _end_with_parent() -> None:
    """Wait until the other end of standard input is gone; nothing is ever written to it."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    Thread(target=_end_with_parent, daemon=True).start()
    if sys.argv[1] != "attack":
        main()
    else:
        try:
            attack(*sys.argv[2:])
        except HainaError as error:
            raise SystemExit(f"haina: {error}") from None
