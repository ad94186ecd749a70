"""Runner: a federation's rounds, one after the other, each made durable before the next begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from time import perf_counter

from haina.errors import ConfigError
from haina.federation.federation import Federation
from haina.federation.meter import cpu_seconds, peak_memory
from haina.federation.workers import Workers
from haina.monitoring.history import merit
from haina.simulation.rundir import RunDir
from haina.simulation.simulation import Run
from haina.strategy.record import RoundRecord


def play(
    federation: Federation,
    folder: RunDir,
    *,
    workers: int | None = None,
    engine: str | None = None,
    resume: bool = False,
) -> Iterator[RoundRecord]:
    """Run a federation and yield each record when its round is on disk.

    A caller may stop between rounds; the run then resumes from there with the same result as an unbroken one.

    Args:
        federation: what to run.
        folder: where the run is kept.
        workers: processes that train; the file's number if not given.
        engine: `local` or `ray`; the file's if not given.
        resume: go on with the run in the folder.

    Raises:
        RunError: the folder holds a run and `resume` is false, or it cannot be resumed.
        ConfigError: the engine cannot be used as asked.
    """
    federation = federation.settled()
    simulation = federation.simulation()
    count = workers or federation.settings.simulation.workers
    engine = engine or federation.settings.simulation.engine
    if (count > 1 or engine == "ray") and simulation.learner.personal is not None:
        raise ConfigError(
            "workers would each keep personal tensors of their own",
            allowed="workers = 1 on the local engine while tensors are local",
        )
    digest = simulation.data.digest()
    with ExitStack() as stack:
        crew: Workers | None = None
        if engine == "ray":
            from haina.federation.ray import Cluster

            cluster = stack.enter_context(Cluster(count, gpus=federation.wants_gpu))
            crew = stack.enter_context(Workers(federation, count, cluster.hire, digest))
        elif count > 1:
            crew = stack.enter_context(Workers(federation, count, data=digest))
        run: Run | None = None
        best: tuple[float, float] | None = None
        if resume:
            folder.federation()
            run = folder.resume(simulation.strategy, simulation.learner)
            folder.check_data(digest)
            best = max((merit(record) for record in folder.records() if record.metrics), default=None)
        else:
            folder.create(federation.text, federation.executor)
            folder.note_data(digest)
        run = run or simulation.start()
        meter, saving = _Meter(crew), 0.0
        while run.round < simulation.rounds and not run.finished:
            run, record = simulation.advance(run, None if crew is None else crew.train)
            timing = {**record.timing, "save": saving, "total": record.timing["total"] + saving}
            record = replace(record, timing=timing, cost=meter.lap())
            score = merit(record)
            is_best = bool(record.metrics) and (best is None or score > best)
            best = score if is_best else best
            began = perf_counter()
            folder.save(run, record, simulation.learner, best=is_best)
            saving = round(perf_counter() - began, 6)
            yield record
    if federation.tell is not None:
        folder.write_result(federation.tell(run))


class _Meter:
    """What each round costs, with what workers have used by their last answers."""

    def __init__(self, crew: Workers | None) -> None:
        self._crew = crew
        self._cpu, self._busy = self._used()

    def lap(self) -> dict[str, float]:
        """What was used since the last lap, as `RoundRecord.cost` has it."""
        cpu, busy = self._used()
        lap = {"cpu_seconds": round(cpu - self._cpu, 6)}
        self._cpu, before = cpu, self._busy
        self._busy = busy
        if self._crew is None:
            return {**lap, "peak_memory_mb": round(peak_memory(), 1)}
        lap["peak_memory_mb"] = round(peak_memory() + sum(one.peak for one in self._crew.working), 1)
        return {**lap, "workers": len(self._crew.seats), "busy_seconds": round(busy - before, 6)}

    def _used(self) -> tuple[float, float]:
        if self._crew is None:
            return cpu_seconds(children=True), 0.0
        # The children of this process are workers, who tell of themselves.
        return cpu_seconds(children=False) + sum(
            one.cpu for one in self._crew.usage.values()
        ), self._crew.busy
