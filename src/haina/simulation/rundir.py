"""The folder of one run: everything needed to read it, explain it, or go on with it.

    federation.toml     the federation as it was started (the words, not the objects)
    rounds.jsonl        one `RoundRecord` a line
    model.safetensors   the newest model; its SHA-256 is in the last record
    best.safetensors    the model of the best evaluated round
    state.safetensors   the checkpoint: model, strategy state and client memories after the last closed round
    summary.json        how the run ended

Killed at any instant, a run resumes from its last closed round: every file is replaced in one step, and the order is records, then checkpoint. Lines
beyond the checkpoint belong to a round that did not close and are dropped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from haina.artifact import Array, dump, load, sha256
from haina.errors import LayoutError, RunError
from haina.learners.learner import Learner
from haina.simulation.simulation import Run
from haina.strategy.record import RoundRecord
from haina.strategy.strategy import Strategy

#: Grows when the files of a run change so that an older version cannot read them.
FORMAT = 1


@dataclass(frozen=True)
class RunDir:
    """One run's folder.

    Args:
        path: the folder.
    """

    path: Path

    def create(self, federation: str) -> None:
        """Make the folder for a new run of a federation (the text of its file).

        Raises:
            RunError: the folder holds a run already.
        """
        if (self.path / "federation.toml").exists():
            raise RunError(
                f"{self.path} holds a run already",
                remedy="Go on with it (--resume), start over (--overwrite), or name another folder (--out)",
            )
        self.path.mkdir(parents=True, exist_ok=True)
        replace_file(self.path / "federation.toml", federation.encode())

    def clear(self) -> None:
        """Remove the files of an earlier run (only files that a run makes)."""
        for name in (
            "federation.toml",
            "rounds.jsonl",
            "model.safetensors",
            "best.safetensors",
            "state.safetensors",
            "summary.json",
        ):
            (self.path / name).unlink(missing_ok=True)

    def federation(self) -> str:
        """The federation file that the run was started with."""
        try:
            return (self.path / "federation.toml").read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise RunError(
                f"{self.path} is not the folder of a run", remedy="Start one with: haina run federation.toml"
            ) from error

    def save(self, run: Run, record: RoundRecord, learner: Learner, *, best: bool) -> None:
        """Make a closed round durable."""
        model = learner.to_bytes(run.model)
        with (self.path / "rounds.jsonl").open("ab") as file:
            file.write(json.dumps(record.to_json(), separators=(",", ":")).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        replace_file(self.path / "model.safetensors", model)
        if best:
            replace_file(self.path / "best.safetensors", model)
        arrays: dict[str, Array] = {"model": run.model}
        arrays |= {f"state/{name}": array for name, array in run.state.to_arrays().items()}
        arrays |= {f"memory/{client}": memory for client, memory in sorted(run.memories.items())}
        for client, tensors in sorted((learner.personal or {}).items()):
            arrays |= {f"personal/{json.dumps([client, name])}": tensor for name, tensor in tensors.items()}
        metadata = {"format": str(FORMAT), "finished": str(int(run.finished)), "model_sha256": sha256(model)}
        replace_file(self.path / "state.safetensors", dump(arrays, metadata))

    def resume(self, strategy: Strategy, learner: Learner) -> Run | None:
        """The run after its last closed round, or None before the first; lines of unclosed rounds are dropped.

        Raises:
            RunError: the checkpoint is damaged, or was written by another federation.
        """
        try:
            data = (self.path / "state.safetensors").read_bytes()
        except FileNotFoundError:
            replace_file(self.path / "rounds.jsonl", b"")
            return None
        try:
            arrays, metadata = load(data)
        except LayoutError as error:
            raise RunError(
                f"{self.path / 'state.safetensors'}: {error.what}", remedy="Start over (--overwrite)"
            ) from error
        if metadata.get("format") != str(FORMAT):
            raise RunError(f"the checkpoint has format {metadata.get('format')}", allowed=str(FORMAT))
        model = np.array(arrays["model"])
        if sha256(learner.to_bytes(model)) != metadata.get("model_sha256"):
            raise RunError(
                "the checkpoint's model does not have the recorded SHA-256", remedy="Start over (--overwrite)"
            )
        state = strategy.restore({n[6:]: a for n, a in arrays.items() if n.startswith("state/")})
        memories = {n[7:]: np.array(a) for n, a in arrays.items() if n.startswith("memory/")}
        for name, array in arrays.items():
            if name.startswith("personal/") and learner.personal is not None:
                client, tensor = json.loads(name[9:])
                learner.personal[client] = {**learner.personal.get(client, {}), tensor: np.array(array)}
        lines = self._lines()[: state.round]
        replace_file(self.path / "rounds.jsonl", b"".join(line + b"\n" for line in lines))
        return Run(model, state, memories, finished=metadata.get("finished") == "1")

    def records(self) -> list[RoundRecord]:
        """Every closed round, oldest first."""
        self.federation()
        return [RoundRecord.from_json(json.loads(line)) for line in self._lines()]

    def _lines(self) -> list[bytes]:
        try:
            data = (self.path / "rounds.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        # A kill in the middle of a write leaves a last line without its end.
        return [line for line in data.split(b"\n")[:-1] if line]

    def model(self, name: str = "model") -> bytes:
        """Canonical bytes of the newest ("model") or best ("best") model."""
        try:
            return (self.path / f"{name}.safetensors").read_bytes()
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no {name} yet", remedy="Let at least one round close") from error

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Write how the run ended."""
        replace_file(self.path / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old bytes or the new ones, never a mixture."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
