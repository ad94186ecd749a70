"""The jobs of `haina fate`: FATE Flow is asked, and its answers are told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, cast

from haina.cli.fate.files import document, version_of
from haina.cli.talk import data, json_line, say
from haina.errors import ConfigError, RunError
from haina.interop.fate.flow import Flow, Status


def upload(url: str, files: Sequence[Path], *, insecure: bool, patience: float, as_json: bool) -> None:
    """Have tables taken up one after another, and wait for each."""
    confs = [document(file) for file in files]
    jobs = []
    with _flow(url, insecure, 2) as flow:
        for conf in confs:
            job = flow.upload(conf)
            flow.follow(job, patience=patience, pause=0.5)
            jobs.append(job)
            say(f"{conf.get('file')} is table {conf.get('namespace')}/{conf.get('name')}")
    if as_json:
        json_line({"jobs": jobs})
    else:
        for job in jobs:
            data(job)


def submit(
    url: str,
    files: Sequence[Path],
    *,
    follow: bool,
    model: Path | None,
    task: str,
    insecure: bool,
    patience: float,
    as_json: bool,
) -> None:
    """Start a job; wait for it, and bring its model home, where that is asked for."""
    version, documents = version_of(files), [document(file) for file in files]
    if model is not None and (version == 1 or not follow):
        raise ConfigError(
            "a model comes from a job of FATE 2.x that was followed", remedy="Leave --model out"
        )
    if model is not None and model.exists():
        raise RunError(f"{model} is there already", remedy="Remove it, or name another file (--model)")
    with _flow(url, insecure, version) as flow:
        job = flow.submit(*documents)
        say(f"Job {job}. To stop it: haina fate stop --url {url} {job}" + (" --version 1" * (version == 1)))
        if follow:
            flow.follow(job, _tell, patience=patience)
        if model is not None:
            found = flow.model(job, task, "guest", _guest(documents[0]))
            model.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if as_json:
        json_line({"job": job, "state": "success" if follow else "submitted", "model": model and str(model)})
    else:
        data(job)


def stop(url: str, job: str, version: int, *, insecure: bool) -> None:
    """End a job."""
    with _flow(url, insecure, cast("Literal[1, 2]", version)) as flow:
        flow.stop(job)
    say(f"Job {job} is told to stop")


@contextmanager
def _flow(url: str, insecure: bool, version: Literal[1, 2]) -> Iterator[Flow]:
    flow = Flow(url, insecure=insecure, version=version)
    try:
        yield flow
    finally:
        flow.close()


def _tell(status: Status) -> None:
    say(f"{status.state}, {status.progress:g} %")


def _guest(job: dict[str, object]) -> int:
    """The guest's number in a DAG."""
    try:
        parties = cast("dict[str, list[dict[str, object]]]", job["dag"])["parties"]
        (guest,) = (party for party in parties if party["role"] == "guest")
        return int(cast("list[str]", guest["party_id"])[0])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            "the DAG names no guest", allowed="dag.parties with a party of role guest"
        ) from error
