"""Jobs of FATE Flow: submit one, see how it stands, stop it, take a table up, bring a model home. Both 2.x and 1.x.

The trap: a job has a state for each party, and a server tells those it knows of, so a job has succeeded when all have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from haina.errors import ConfigError, RunError
from haina.interop.fate.rest import FlowError, Json, Rest

#: Seconds between two looks at a job.
_PAUSE = 2.0

_ENDED = ("success", "failed", "canceled", "timeout")


@dataclass(frozen=True)
class Status:
    """How a job stands.

    Args:
        state: `waiting`, `running`, `success`, `failed`, `canceled` or `timeout`.
        progress: percent.
        failed: tasks that failed: name, role and party.
    """

    state: str
    progress: float = 0.0
    failed: tuple[tuple[str, str, str], ...] = ()

    @property
    def ended(self) -> bool:
        """True when nothing more will happen."""
        return self.state in _ENDED


class Flow(Rest):
    """What is done with one FATE Flow server; arguments and errors are those of `Rest`."""

    def submit(self, job: Json, conf: Json | None = None) -> str:
        """Start a job.

        Args:
            job: the DAG schema (2.x), or the DSL (1.x).
            conf: the runtime configuration (1.x).

        Returns:
            FATE's number of the job.
        """
        body = {"dag_schema": job} if self.version == 2 else {"job_dsl": job, "job_runtime_conf": conf}
        return _job(self.call("POST", "job/submit", body))

    def upload(self, conf: Mapping[str, Any]) -> str:
        """Have 2.x take a file of its own machine up as a table (`haina.interop.fate.table.upload_v2`); the job that does it."""
        self._only_v2("tables are taken up")
        return _job(self.call("POST", "data/component/upload", dict(conf)))

    def stop(self, job: str) -> None:
        """End a job."""
        self.call("POST", "job/stop", {"job_id": job})

    def status(self, job: str) -> Status:
        """How a job stands, over all parties that this server knows of."""
        if self.version == 1:
            answer = self.call("POST", "job/query", {"job_id": job})
            return _status(_records(answer), "f_")
        status = _status(_records(self.call("GET", "job/query", {"job_id": job})), "")
        if status.state not in ("failed", "timeout"):
            return status
        tasks = _records(self.call("GET", "job/task/query", {"job_id": job}))
        failed = tuple(
            (str(task.get("task_name")), str(task.get("role")), str(task.get("party_id")))
            for task in tasks
            if task.get("status") == "failed"
        )
        return Status(status.state, status.progress, failed)

    def follow(
        self,
        job: str,
        tell: Callable[[Status], None] = lambda status: None,
        *,
        patience: float = 3600.0,
        pause: float = _PAUSE,
    ) -> None:
        """Wait until a job has succeeded.

        Args:
            job: its number.
            tell: called with each change.
            patience: seconds.
            pause: seconds between two looks.

        Raises:
            FlowError: it failed, or was stopped.
            RunError: it goes on, and patience has ended.
        """
        deadline, before = time.monotonic() + patience, None
        while True:
            status = self.status(job)
            if status != before:
                tell(status)
                before = status
            if status.state == "success":
                return
            if status.ended:
                raise _failure(job, status)
            if time.monotonic() > deadline:
                raise RunError(
                    f"job {job} has not ended after {patience:g} seconds ({status.state}, {status.progress:g} %)",
                    remedy=f"Wait longer (--patience), or stop it: haina fate stop --url {self.url} {job}",
                )
            time.sleep(pause)

    def model(self, job: str, task: str, role: str, party: int) -> Json:
        """The output model of a task of 2.x, which `haina.interop.fate.model.read_json` reads."""
        self._only_v2("models are given out")
        query = {"job_id": job, "task_name": task, "role": role, "party_id": str(party)}
        data = self.call("GET", "output/model/query", query).get("data")
        if not isinstance(data, dict) or not data:
            raise FlowError(f"task {task} of job {job} has no model at {role} {party}")
        return data

    def _only_v2(self, what: str) -> None:
        if self.version != 2:
            raise ConfigError(
                f"over REST {what} by FATE Flow 2.x only", remedy="Use FATE's own `flow` command"
            )


def _job(answer: Json) -> str:
    """The number of the job that an answer is about; 1.x spells it in another way."""
    number = answer.get("job_id") or answer.get("jobId")
    if not isinstance(number, str) or not number.isalnum():
        raise FlowError(f"FATE Flow gave no number of a job ({json.dumps(answer)[:300]})")
    return number


def _records(answer: Json) -> list[Json]:
    data = answer.get("data")
    return [record for record in data if isinstance(record, dict)] if isinstance(data, list) else []


def _status(records: list[Json], prefix: str) -> Status:
    """One word for all parties: the worst, else the last to come."""
    states = [str(record.get(f"{prefix}status")) for record in records]
    if not states:
        raise FlowError("FATE Flow knows nothing of this job")
    progress = [record.get(f"{prefix}progress") for record in records]
    percent = min((float(one) for one in progress if isinstance(one, int | float)), default=0.0)
    for state in ("failed", "timeout", "canceled"):
        if state in states:
            return Status(state, percent)
    waiting = [state for state in states if state != "success"]
    return Status(waiting[0] if waiting else "success", percent)


def _failure(job: str, status: Status) -> FlowError:
    where = ", ".join(f"{task} at {role} {party}" for task, role, party in status.failed)
    return FlowError(
        f"job {job} ended as {status.state}" + (f": {where}" if where else ""),
        remedy=f"On FATE's machine, read logs/{job}/ROLE/PARTY/TASK/root/ERROR: FATE keeps the cause there",
    )
