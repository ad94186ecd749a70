"""Runner: a federation's rounds, one after the other, each made durable before the next begins."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np

from haina.errors import ConfigError
from haina.federation.federation import Federation
from haina.federation.workers import Workers
from haina.monitoring.history import merit
from haina.simulation.rundir import RunDir
from haina.simulation.simulation import Run, Simulation
from haina.strategy.record import RoundRecord


def play(
    federation: Federation, folder: RunDir, *, workers: int | None = None, resume: bool = False
) -> Iterator[RoundRecord]:
    """Run a federation and yield each record when its round is on disk.

    A caller may stop between rounds; the run then resumes from there with the same result as an unbroken one.

    Args:
        federation: what to run.
        folder: where the run is kept.
        workers: processes that train; the file's number if not given.
        resume: go on with the run in the folder.

    Raises:
        RunError: the folder holds a run and `resume` is false, or it cannot be resumed.
    """
    simulation = federation.simulation()
    count = workers or federation.settings.simulation.workers
    if count > 1 and simulation.learner.personal is not None:
        raise ConfigError(
            f"{count} workers would each keep personal tensors of their own",
            allowed="workers = 1 while tensors are local",
        )
    run: Run | None = None
    best: tuple[float, float] | None = None
    if resume:
        folder.federation()
        run = folder.resume(simulation.strategy, simulation.learner)
        folder.check_data(data_digest(simulation))
        best = max((merit(record) for record in folder.records() if record.metrics), default=None)
    else:
        folder.create(federation.text)
        folder.note_data(data_digest(simulation))
    run = run or simulation.start()
    with ExitStack() as stack:
        train = stack.enter_context(Workers(federation, count)).train if count > 1 else None
        while run.round < simulation.rounds and not run.finished:
            run, record = simulation.advance(run, train)
            score = merit(record)
            is_best = bool(record.metrics) and (best is None or score > best)
            best = score if is_best else best
            folder.save(run, record, simulation.learner, best=is_best)
            yield record
    if federation.tell is not None:
        folder.write_result(federation.tell(run))


def data_digest(simulation: Simulation) -> str:
    """SHA-256 of all rows and of whose they are, so that a run is never continued on other data."""
    data = simulation.data.clients
    digest = hashlib.sha256(json.dumps(data.clients).encode())
    for array in (data.offsets, data.x, data.y):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
