"""A HomoLR job for FATE 2.x: the DAG that `/v2/job/submit` takes. Plain JSON, which FATE's tools read as YAML too.

Traps, each found by a run that failed after both of FATE's schemas had said yes:
* `reader` has one stage, `default`, and must say so where the job's is `train`;
* `batch_size = -1`, the client's default for all rows, is refused by the server; a number of at least all rows means the same;
* `penalty` must be given, also where there is none (`alpha = 0`);
* the client drops `tol` and `early_stop`: HomoLR of 2.x runs all its epochs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from haina.interop.fate.job import Job

Json = dict[str, Any]

#: The component of the Haina task, as FATE knows it once it is installed there (`examples/fate`).
COMPONENT = "haina_r"


def dag(job: Job) -> Json:
    """The DAG schema of a job: reader, the Haina task where there is one, HomoLR, evaluation."""
    sites = [_party("guest", [job.guest.party]), _party("host", [site.party for site in job.hosts])]
    everyone = [*sites, _party("arbiter", [job.arbiter])]
    tasks: Json = {"reader_0": {"component_ref": "reader", "stage": "default", "parties": sites}}
    if job.r is not None:
        tasks[f"{COMPONENT}_0"] = {
            "component_ref": COMPONENT,
            "stage": "default",
            "dependent_tasks": ["reader_0"],
            "parameters": job.r.parameters(),
            "inputs": {"data": {"input_data": _output("reader_0", "output_data", sites)}},
            "parties": sites,
        }
    tasks["homo_lr_0"] = {
        "component_ref": "homo_lr",
        "dependent_tasks": ["reader_0"],
        "parameters": _homo_lr(job),
        "inputs": {"data": {"train_data": _output("reader_0", "output_data", sites)}},
        "parties": everyone,
    }
    if job.evaluate:
        tasks["evaluation_0"] = {
            "component_ref": "evaluation",
            "stage": "default",
            "dependent_tasks": ["homo_lr_0"],
            "parameters": {"metrics": ["auc"]},
            "inputs": {"data": {"input_datas": _output("homo_lr_0", "train_output_data", sites, many=True)}},
            "parties": sites,
        }
    return {
        "schema_version": "2.2.0",
        "kind": "fate",
        "dag": {"stage": "train", "parties": everyone, "party_tasks": _tables(job), "tasks": tasks},
    }


def _homo_lr(job: Job) -> Json:
    settings = job.settings
    return {
        "epochs": settings.epochs,
        "batch_size": job.batch,
        "init_param": {"method": "zeros", "fit_intercept": True},
        "learning_rate_scheduler": {"method": "constant", "scheduler_params": {"factor": 1.0}},
        "optimizer": {
            "method": "sgd",
            "penalty": "l2",
            "alpha": settings.alpha,
            "optimizer_params": {"lr": settings.learning_rate},
        },
    }


def _tables(job: Job) -> Json:
    roles = [("guest", job.guest), *(("host", site) for site in job.hosts)]
    return {
        f"{role}_{site.party}": {
            "parties": [_party(role, [site.party])],
            "tasks": {
                "reader_0": {"parameters": {"namespace": site.table.namespace, "name": site.table.name}}
            },
        }
        for role, site in roles
    }


def _party(role: str, numbers: Iterable[int]) -> Json:
    return {"role": role, "party_id": [str(number) for number in numbers]}


def _output(task: str, key: str, parties: list[Json], *, many: bool = False) -> Json:
    artifact = {"producer_task": task, "output_artifact_key": key, "parties": parties}
    return {"task_output_artifact": [artifact] if many else artifact}
