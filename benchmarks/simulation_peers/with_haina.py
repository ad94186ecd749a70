"""Haina: what `haina run` does (strategy, metrics, records, checkpoints), in this process and, with more workers, in processes of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

from marks import Marks, arguments

from haina.federation import Federation
from haina.federation.runner import play
from haina.simulation.rundir import RunDir


def main() -> None:
    told = arguments(str(__doc__), workers={"type": int, "default": 1}, file={"default": "federation.toml"})
    federation = Federation.read(told.folder / told.file)
    names: list[list[str]] = []
    with tempfile.TemporaryDirectory() as folder:
        kept = RunDir(Path(folder) / "run")
        marks = Marks(told.marks, told.weights)
        marks.begin()
        for record in play(federation, kept, workers=told.workers):
            marks.end(lambda: federation.learner.from_bytes(kept.model()))
            names.append([client.client for client in record.clients])
            if record.round == told.rounds:
                break
            marks.begin()
    marks.tell(cohorts=names)


if __name__ == "__main__":
    main()
