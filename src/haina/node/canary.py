"""Canaries in a running federation: a site that learns nothing, and sends what an auditor will look for in the models.

    haina join canary-3.invite --data canary:ward.canaries:3

An auditor has the file with the canaries' seed, and runs some of these sites beside those of a federation that is to be audited (never of the one
whose model is wanted). Each goes through all that a site goes through: the limit, the noise, the ledger, the secure sum. Which of them are in is
decided by coins of the seed; those that are out send zeros. Where updates are hidden or covered by their clients, the coordinator cannot tell the two
apart; where it sees them, it can.

The trap: who has the file knows the coins. It stays with the auditor until the federation has ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from haina.artifact import Array
from haina.errors import ConfigError
from haina.federation.bench import Trained
from haina.federation.envelope import Envelope
from haina.privacy.audit.canary import Canaries
from haina.privacy.policy import Policy
from haina.report import Report
from haina.update import Update
from haina.wire.messages import Task
from haina.wire.secret import read_secret, write_secret

#: What the source of a canary's "rows" begins with.
SOURCE = "canary:"


@dataclass(frozen=True)
class Flock:
    """The canaries of one audit.

    Args:
        count: m, in or out.
        seed: 32 bytes of the auditor's.
    """

    count: int
    seed: bytes

    @classmethod
    def hatch(cls, path: Path, count: int, entropy: Callable[[int], bytes]) -> Flock:
        """New canaries, in a file that only its owner can read.

        Raises:
            ConfigError: the file is there already, or there are to be none.
        """
        if count < 8:
            # The coins of fewer may well all fall on one side, and what so few can show is next to nothing.
            raise ConfigError(
                f"{count} canaries are asked for", allowed="8 or more; a hundred show much more"
            )
        if path.exists():
            raise ConfigError(
                f"{path} is there already", remedy="Canaries are for one audit: name another file"
            )
        flock = cls(count, entropy(32))
        write_secret(path, json.dumps({"count": count, "seed": flock.seed.hex()}).encode(), keep=True)
        return flock

    @classmethod
    def read(cls, path: Path) -> Flock:
        """The canaries of a file.

        Raises:
            ConfigError: it is no such file.
        """
        try:
            said: Any = json.loads(read_secret(path))
            flock = cls(int(said["count"]), bytes.fromhex(said["seed"]))
            if len(flock.seed) != 32 or flock.count < 2:
                raise ValueError("of another length")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} holds no canaries", remedy="Make some: haina canaries new FILE --count 24"
            ) from error
        return flock

    def of(self, policy: Policy | None, dimension: int) -> Canaries:
        """The canaries for a model of `dimension` numbers, as the federation bounds updates."""
        norm: Literal[1, 2] = 2
        if policy is not None and policy.mechanism is not None:
            norm = policy.mechanism.norm
        return Canaries(self.count, dimension, self.seed, norm)


@dataclass
class _Process:
    """Stands for the process that a canary does not need."""

    threads: int | None = None


class CanaryBench:
    """One canary where others train (`haina.federation.bench.Bench`).

    Args:
        source: `canary:FILE:NUMBER`.
        policy: what the federation promises.

    Raises:
        ConfigError: there is no such canary.
    """

    def __init__(self, source: str, policy: Policy | None) -> None:
        path, _, number = source.removeprefix(SOURCE).rpartition(":")
        self._flock, self._policy = Flock.read(Path(path)), policy
        if not number.isdigit() or int(number) >= self._flock.count:
            raise ConfigError(
                f"the canary is {number!r}",
                allowed=f"{SOURCE}FILE:NUMBER, with a number from 0 to {self._flock.count - 1}",
            )
        self._number, self.child = int(number), _Process()

    def start(self) -> None:
        """Nothing has to be started."""

    def examples(self) -> int:
        """One: it counts for something."""
        return 1

    def close(self) -> None:
        """Nothing has to be ended."""

    def train(
        self,
        task: Task,
        client: str,
        model: Path,
        *,
        control: Array | None = None,
        memory: Mapping[str, Array] | None = None,
        limit: float | None = None,
    ) -> Trained:
        """What the canary sends: its own direction, or nothing."""
        dimension = Envelope.of(model.read_bytes()).length
        canaries = self._flock.of(self._policy, dimension)
        vector = np.zeros(dimension, np.float32)
        if canaries.included[self._number]:
            vector = canaries.contribution(self._number, task.round, task.limit or 1.0)
        return Trained(Update(client, vector, Report(1.0, steps=task.steps or 1)))
