"""Series: every engine on every workload, in turns.

Engines take turns repeat by repeat, so that a machine that is busy for a while slows all of them. Ours is started once before, unmeasured, so that
what a start compiles is found compiled.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from prepare import prepare
from tables import Row, row_of
from watch import EngineError, Watched, watch
from workload import COMPARED, Workload

PARTS = Path(__file__).resolve().parent
#: In the environment of every process that is measured.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
#: Whose weights the others are compared with.
REFERENCE = "torch loop"


@dataclass(frozen=True)
class Engine:
    """Something that does the rounds of a workload.

    Args:
        name: in the table.
        script: in this folder, without its suffix.
        peer: whose environment it needs; empty for this one.
        options: of the script.
        only: workloads that it does; empty for all.
        most: registered clients that it is asked to hold, at most.
        compared: whether its weights are.
    """

    name: str
    script: str
    peer: str = ""
    options: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    most: int | None = None
    compared: bool = True

    def fits(self, name: str, workload: Workload) -> bool:
        """Whether it does a workload."""
        return (not self.only or name in self.only) and (self.most is None or workload.clients <= self.most)

    @property
    def file(self) -> str:
        """Its name in names of files."""
        return self.name.replace(", ", "-").replace(" ", "-")


class Series:
    """All runs of one call of a benchmark.

    Args:
        data: where workloads and logs lie.
        engines: who takes turns; the first is ours.
        pythons: peer -> its interpreter.
        timeout: seconds for one run.
    """

    def __init__(
        self, data: Path, engines: Sequence[Engine], pythons: Mapping[str, Path], timeout: float
    ) -> None:
        self._data, self._engines, self._pythons, self._timeout = data, engines, pythons, timeout
        self._runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._invited: dict[str, list[list[str]]] = {}
        self.versions: dict[str, str] = {}
        self.loads: list[float] = []

    def measure(
        self,
        workloads: Mapping[str, tuple[Workload, int]],
        repeats: int,
        learner: str,
    ) -> None:
        """Make the workloads and run everything.

        Args:
            workloads: name -> workload and rounds, the one that warms up included.
            repeats: how often.
            learner: ours, for `[model] learner`.
        """
        for name, (workload, rounds) in workloads.items():
            self._invited[name] = prepare(workload, self._data / name, rounds, learner)
            self.watched(self._engines[0], name, 1)
        for repeat in range(1, repeats + 1):
            for name, (workload, rounds) in workloads.items():
                self._turn(
                    repeat, name, [each for each in self._engines if each.fits(name, workload)], rounds
                )

    def rows(self) -> list[Row]:
        """What was measured."""
        return [row_of(workload, engine, runs) for (workload, engine), runs in self._runs.items()]

    def watched(self, engine: Engine, name: str, rounds: int) -> Watched | EngineError:
        """Run one engine on one workload."""
        weights = self._weights(engine, name)
        weights.unlink(missing_ok=True)
        python = self._pythons[engine.peer] if engine.peer else Path(sys.executable)
        script, folder = PARTS / f"{engine.script}.py", self._data / name
        # The parts find each other in processes that a peer starts elsewhere, too.
        env = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(PARTS)}
        log = self._data / "logs" / f"{name}-{engine.file}.log"
        log.parent.mkdir(exist_ok=True)
        command = [python, script, folder, "--weights", weights, *engine.options]
        try:
            return watch(command, rounds, env=env, log=log, timeout=self._timeout)
        except EngineError as error:
            return error

    def _turn(self, repeat: int, name: str, engines: Sequence[Engine], rounds: int) -> None:
        """One repeat of one workload."""
        for file in sorted((self._data / name / "clients").glob("*.npy")):
            # Into the system's cache: who comes first must not pay for the disk.
            file.read_bytes()
        weights = {}
        for engine in engines:
            seen = self.watched(engine, name, rounds)
            run = {"failed": str(seen)} if isinstance(seen, EngineError) else self._kept(seen, engine, name)
            self._runs.setdefault((name, engine.name), []).append(run)
            file = self._weights(engine, name)
            if engine.compared and file.exists():
                weights[engine.name] = np.load(file)
            said = run.get("failed") or ", ".join(
                f"{what} {np.mean(run[what][1:]):.4f} s" for what in ("cpu", "wall")
            )
            print(f"repeat {repeat}  {name}  {engine.name}: {said}", file=sys.stderr, flush=True)
        reference = weights.pop(REFERENCE, None)
        for engine_name, own in weights.items() if reference is not None else ():
            self._runs[name, engine_name][-1]["difference"] = float(np.abs(own - reference).max())

    def _kept(self, seen: Watched, engine: Engine, name: str) -> dict[str, Any]:
        """What is kept of a run.

        Raises:
            SystemExit: it did other work than the schedule says.
        """
        self.versions |= seen.told.get("versions", {})
        self.loads.append(seen.load)
        cohorts: list[list[str]] = seen.told.get("cohorts", [])
        for invited, scheduled in zip(cohorts, self._invited[name], strict=False):
            if sorted(invited) != sorted(scheduled):
                raise SystemExit(f"{name}: {engine.name} did not invite the clients of the schedule")
        if "products" in seen.told:
            # CPU seconds of the products, scaled to the operations of each round; the quickest shows what the processor can do.
            quickest = min(seen.cpu) / seen.told["products"]
            seen.cpu = seen.wall = [quickest * operations for operations in seen.told["operations"]]
        return {"cpu": seen.cpu, "wall": seen.wall, "first": seen.first, "peak": seen.peak}

    def _weights(self, engine: Engine, name: str) -> Path:
        return self._data / name / f"after-{COMPARED}-{engine.file}.npy"
