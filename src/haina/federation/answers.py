"""Answers: what a training process sends back, as bytes: a result of training, or what went wrong in words that may travel and words that may not.

The trap is an error's message. "could not convert string to float: 'Zhang Wei'" is a patient; so of an error only its kind and the places in the code
leave this machine. What Haina's own errors say goes to the process that asked, on the same machine, and no further. Of a foreign error even that is
left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np

from haina.artifact import Array, dump
from haina.errors import ConfigError, DataError, HainaError, LearnerError
from haina.report import Report
from haina.update import Failure, Result, Update

#: What a client says to others of an error, by its kind.
_REASONS = {
    DataError: "its rows cannot be read as the schema of the federation asks",
    ConfigError: "the federation file cannot be used on its machine",
    LearnerError: "its learner cannot train as asked",
}

#: Names of a report's numbers.
_NUMBERS = [field.name for field in fields(Report)]

#: Innermost frames of an error that are told.
_FRAMES = 30


def result_bytes(result: Result, memory: Mapping[str, Array] | None = None) -> bytes:
    """A result of training, and what its client remembers."""
    if isinstance(result, Failure):
        return dump({}, {"client": result.client, "failure": result.reason})
    kept = {f"memory/{name}": array for name, array in (memory or {}).items()}
    words = {"client": result.client, "report": json.dumps(_numbers(result.report))}
    return dump({"vector": result.vector, **kept}, words)


def result_of(arrays: Mapping[str, Array], words: Mapping[str, str]) -> tuple[Result, dict[str, Array]]:
    """The inverse of `result_bytes`, from the message as read."""
    if "failure" in words:
        return Failure(words["client"], words["failure"]), {}
    memory = {name.removeprefix("memory/"): a for name, a in arrays.items() if name.startswith("memory/")}
    report = _report(json.loads(words["report"]))
    return Update(words["client"], np.asarray(arrays["vector"]), report), memory


def results_arrays(results: Sequence[Result]) -> tuple[dict[str, Array], dict[str, str]]:
    """Many results as one message: arrays, not copied, and words."""
    arrays = {str(k): result.vector for k, result in enumerate(results) if isinstance(result, Update)}
    said = [
        [result.client, result.reason if isinstance(result, Failure) else _numbers(result.report)]
        for result in results
    ]
    return arrays, {"results": json.dumps(said)}


def results_of(arrays: Mapping[str, Array], words: Mapping[str, str]) -> list[Result]:
    """The inverse of `results_arrays`."""
    return [
        Failure(client, said) if isinstance(said, str) else Update(client, arrays[str(k)], _report(said))
        for k, (client, said) in enumerate(json.loads(words["results"]))
    ]


def error_bytes(error: Exception) -> bytes:
    """What went wrong: `error` the kind, `reason` and `where` for anybody, `what`, `allowed` and `remedy` for this machine."""
    kind = type(error).__name__
    reason = next(
        (words for known, words in _REASONS.items() if isinstance(error, known)),
        f"its training stopped with {kind}",
    )
    words = {"error": kind, "reason": reason, "where": where(error), "what": "", "allowed": "", "remedy": ""}
    if isinstance(error, HainaError):
        words |= {"what": error.what, "allowed": error.allowed, "remedy": error.remedy}
    return dump({}, words)


def _numbers(report: Report) -> dict[str, Any]:
    return {name: getattr(report, name) for name in _NUMBERS}


def _report(numbers: Mapping[str, Any]) -> Report:
    counts = numbers["label_counts"]
    return Report(**{**numbers, "label_counts": None if counts is None else tuple(counts)})


def where(error: BaseException) -> str:
    """The places in the code that an error passed, outermost first, a line each: file, line and function, without a value or a local path."""
    lines = []
    for frame, line in walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).rpartition(".")[0].replace(".", "/")
        file = Path(frame.f_code.co_filename).name
        lines.append(f"{package + '/' if package else ''}{file}:{line} {frame.f_code.co_qualname}")
    return "\n".join(lines[-_FRAMES:])[-10_000:]
