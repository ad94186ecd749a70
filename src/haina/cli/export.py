"""`haina models export`: a forest in a format that other programs read, made from a file that is already here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from haina.artifact import sha256
from haina.cli.talk import data, json_line
from haina.errors import ConfigError, RunError
from haina.learners.forest import Forests, read, write


def export(file: Path, out: Path, *, as_json: bool) -> None:
    """Write the forest of one file into another, as the ending of its name says.

    Raises:
        ConfigError: an ending that names no format, no such file, or a model that is no forest.
        RunError: something is there already.
        LayoutError: the forest is damaged, or has no trees yet.
        LearnerError: the library of the format is not installed.
    """
    if out.suffix not in FORMATS:
        raise ConfigError(f"{out.name} names no format", allowed=", ".join(f"FILE{s}" for s in FORMATS))
    if out.exists():
        raise RunError(f"{out} is there already", remedy="Remove it, or name another file (--out)")
    try:
        document = file.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{file} cannot be read: {error.strerror}", remedy="Bring it here with: haina models fetch"
        ) from error
    if not document.startswith(b"{"):
        raise ConfigError(
            f"{file} is no forest",
            allowed='a model of learner = "forest"',
            remedy="Other models are in the safetensors format",
        )
    forests = read(document)
    written = FORMATS[out.suffix](forests)
    out.write_bytes(written)
    if as_json:
        told = {"file": str(out), "sha256": sha256(written), "bytes": len(written), "trees": forests.trees}
        json_line(told)
    else:
        data(f"{sha256(written)}  {out}")


def _onnx(forests: Forests) -> bytes:
    from haina.learners.forest.onnx import to_onnx

    return to_onnx(forests)


def _treelite(forests: Forests) -> bytes:
    from haina.learners.forest.treelite import to_treelite

    return to_treelite(forests)


#: Endings of names, and what they mean.
FORMATS: dict[str, Callable[[Forests], bytes]] = {".onnx": _onnx, ".treelite": _treelite, ".json": write}
