"""The folder of one run: everything needed to read it, explain it, or go on with it.

    federation.toml     the federation as it was started (the words, not the objects)
    executor.txt        what trains it, where that was said on the command line
    rounds.jsonl        one `RoundRecord` a line
    model.safetensors   the newest model; its SHA-256 is in the last record
    best.safetensors    the model of the best evaluated round
    state.safetensors   the checkpoint: model, strategy state and client memories after the last closed round
    data.sha256         of the rows that the run was started on
    result.txt          what an exact learner found (a table of coefficients)
    summary.json        how the run ended

Killed at any instant, a run resumes from its last closed round: every file is replaced in one step, and the order is records, then checkpoint. Lines
beyond the checkpoint belong to a round that did not close and are dropped. Nothing of a round takes its place before all of it is on the disk, which
is waited for once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from haina.alone import alone
from haina.artifact import Array, Pieces, load, pieces, sha256
from haina.errors import LayoutError, RunError, StrategyError
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

    def create(self, federation: str, executor: str | None = None) -> None:
        """Make the folder for a new run of a federation (the text of its file), trained by an executor other than the file's if one is given.

        Raises:
            RunError: the folder holds a run already, or cannot be made.
        """
        if (self.path / "federation.toml").exists():
            raise RunError(
                f"{self.path} holds a run already",
                remedy="Go on with it (--resume), start over (--overwrite), or name another folder (--out)",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if executor is not None:
                replace_file(self.path / "executor.txt", (executor + "\n").encode())
            replace_file(self.path / "federation.toml", federation.encode())
        except OSError as error:
            raise RunError(
                f"{self.path} cannot be written to: {error.strerror}", remedy="Name another folder (--out)"
            ) from error

    def clear(self) -> None:
        """Remove the files of an earlier run (only files that a run makes).

        The checkpoint goes first and the federation last: killed in between, what is left is a run before its first round.
        """
        for name in (
            "state.safetensors",
            "rounds.jsonl",
            "model.safetensors",
            "best.safetensors",
            "result.txt",
            "data.sha256",
            "summary.json",
            "executor.txt",
            "federation.toml",
        ):
            (self.path / name).unlink(missing_ok=True)

    def federation(self) -> str:
        """The federation file that the run was started with.

        Raises:
            RunError: there is none.
        """
        try:
            return (self.path / "federation.toml").read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(
                f"{self.path} is not the folder of a run", remedy="Start one with: haina run federation.toml"
            ) from error

    def executor(self) -> str | None:
        """What trains the run in place of what its file says; None where the file is followed."""
        try:
            return (self.path / "executor.txt").read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def save(self, run: Run, record: RoundRecord, learner: Learner, *, best: bool) -> None:
        """Make a closed round durable."""
        files: dict[Path, Pieces] = {}
        newest = self.path / "model.safetensors"
        if best or record.model != record.parent or not newest.exists():
            model = learner.to_bytes(run.model)
            files[newest] = [model]
            if best:
                files[self.path / "best.safetensors"] = [model]
        arrays: dict[str, Array] = {"model": run.model}
        arrays |= {f"state/{name}": array for name, array in run.state.to_arrays().items()}
        arrays |= {f"memory/{client}": memory for client, memory in sorted(run.memories.items())}
        for client, tensors in sorted((learner.personal or {}).items()):
            arrays |= {f"personal/{json.dumps([client, name])}": tensor for name, tensor in tensors.items()}
        metadata = {
            "format": str(FORMAT),
            "finished": str(int(run.finished)),
            "model_sha256": run.identity,
        }
        metadata["checksum"] = _checksum(arrays, metadata)
        files[self.path / "state.safetensors"] = pieces(arrays, metadata)
        with (self.path / "rounds.jsonl").open("ab") as lines:
            lines.write(record.to_line())
            lines.flush()
            _replace(files, lines)

    def append(self, record: RoundRecord) -> None:
        """Write a record behind the others, where there is no checkpoint to go with it."""
        with (self.path / "rounds.jsonl").open("ab") as lines:
            lines.write(record.to_line())
            lines.flush()
            os.fsync(lines.fileno())

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
            raise self._unusable(f"is damaged: {error.what}") from error
        if metadata.get("format") != str(FORMAT):
            raise self._unusable(f"has format {metadata.get('format')}, and this version reads {FORMAT}")
        if metadata.pop("checksum", "") != _checksum(arrays, metadata):
            raise self._unusable("is damaged: its bytes do not have the recorded checksum")
        model = np.array(arrays["model"])
        try:
            identity = sha256(learner.to_bytes(model))
            state = strategy.restore({n[6:]: a for n, a in arrays.items() if n.startswith("state/")})
        except (LayoutError, StrategyError) as error:
            raise self._unusable(f"is of another federation: {error.what}") from error
        if identity != metadata.get("model_sha256"):
            raise self._unusable("is of another model: its code has changed since")
        memories = {n[7:]: np.array(a) for n, a in arrays.items() if n.startswith("memory/")}
        for name, array in arrays.items():
            if name.startswith("personal/") and learner.personal is not None:
                client, tensor = json.loads(name[9:])
                learner.personal[client] = {**learner.personal.get(client, {}), tensor: np.array(array)}
        lines = self._lines()[: state.round]
        if len(lines) < state.round:
            raise self._unusable(f"is of round {state.round}, and rounds.jsonl holds {len(lines)}")
        replace_file(self.path / "rounds.jsonl", b"".join(line + b"\n" for line in lines))
        return Run(model, identity, state, memories, finished=metadata.get("finished") == "1")

    def records(self) -> list[RoundRecord]:
        """Every closed round, oldest first.

        Raises:
            RunError: this is not the folder of a run, or a line cannot be read.
        """
        self.federation()
        records = []
        for number, line in enumerate(self._lines(), 1):
            try:
                records.append(RoundRecord.from_json(json.loads(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(
                    f"line {number} of {self.path / 'rounds.jsonl'} is no record of a round",
                    remedy="Start over (--overwrite)",
                ) from error
        return records

    def _lines(self) -> list[bytes]:
        try:
            data = (self.path / "rounds.jsonl").read_bytes()
        except FileNotFoundError:
            return []
        # A kill in the middle of a write leaves a last line without its end.
        return [line for line in data.split(b"\n")[:-1] if line]

    def _unusable(self, why: str) -> RunError:
        return RunError(
            f"the checkpoint {self.path / 'state.safetensors'} {why}", remedy="Start over (--overwrite)"
        )

    def model(self, name: str = "model") -> bytes:
        """Canonical bytes of the newest ("model") or best ("best") model.

        Raises:
            RunError: there is none.
        """
        try:
            return (self.path / f"{name}.safetensors").read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RunError(f"{self.path} has no {name} yet", remedy="Let at least one round close") from error

    def note_data(self, digest: str) -> None:
        """Keep the SHA-256 of the rows that the run was started on."""
        replace_file(self.path / "data.sha256", (digest + "\n").encode())

    def check_data(self, digest: str) -> None:
        """Refuse to go on with other rows.

        Raises:
            RunError: the rows differ from those that the run was started on.
        """
        try:
            noted = (self.path / "data.sha256").read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            # Killed before the first round.
            self.note_data(digest)
            return
        if noted != digest:
            raise RunError(
                "the data are not those that the run was started on",
                remedy="Put them back, or start a new run (--overwrite, or --out another folder)",
            )

    def write_result(self, text: str) -> None:
        """Keep what an exact learner found, in words."""
        replace_file(self.path / "result.txt", (text + "\n").encode())

    def result(self) -> str:
        """What an exact learner found; empty where there is nothing of the kind."""
        try:
            return (self.path / "result.txt").read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def alone(self) -> AbstractContextManager[None]:
        """Keep other processes from this run while it goes on (`haina.alone`)."""
        return alone(self.path, "--out")

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Write how the run ended."""
        replace_file(self.path / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())


def _checksum(arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, array in arrays.items():
        digest.update(json.dumps([name, str(array.dtype), array.shape]).encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old bytes or the new ones, never a mixture.

    A crash may leave the new bytes beside the old ones, under a name of their own that the next call uses again.
    """
    _replace({path: [data]})


def _replace(files: Mapping[Path, Pieces], *appended: IO[bytes]) -> None:
    """Replace files of one folder in their order, once they and what was `appended` elsewhere are on the disk.

    The disk is asked for all of them at once: a journal writes them together, which takes as long as one.
    """
    with ExitStack() as stack:
        written = {path.with_name(f".{path.name}.new"): path for path in files}
        new = [stack.enter_context(temporary.open("wb")) for temporary in written]
        for file, parts in zip(new, files.values(), strict=True):
            file.writelines(parts)
            file.flush()
        waiting = [file.fileno() for file in (*appended, *new)]
        pool = stack.enter_context(ThreadPoolExecutor(len(waiting)))
        list(pool.map(os.fsync, waiting))
        for temporary, path in written.items():
            temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
