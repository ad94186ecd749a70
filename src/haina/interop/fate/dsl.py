"""A HomoLR job for FATE 1.x: a DSL (which components, and what flows between them) and a conf (who, which tables, which settings).

`DataTransform` reads tables since 1.7; `DataIO` did before, is unsupported for training since 1.9, and is written on demand for older servers.

The traps: FATE 1.x lets the learning rate decay as 1 / sqrt(1 + t) unless `decay` is 0, and looks for convergence unless `tol` cannot be met. The
Haina task has no place here: its component is one of 2.x.
"""

from __future__ import annotations

from typing import Any

from haina.errors import ConfigError
from haina.interop.fate.job import Job, Site

Json = dict[str, Any]


def dsl(job: Job, *, dataio: bool = False) -> Json:
    """The components of a job.

    Args:
        job: without a Haina task.
        dataio: read tables with `DataIO`, for FATE before 1.7.

    Raises:
        ConfigError: the job has a Haina task.
    """
    if job.r is not None:
        raise ConfigError(
            "the job has an R task, whose component is one of FATE 2.x",
            allowed="a job of 1.x without r_script_url",
            remedy='Run R beside FATE instead: learner = "rservice" in a federation file',
        )
    transform = _transform(dataio)
    components: Json = {
        "reader_0": {"module": "Reader", "output": {"data": ["data"]}, "provider": "fate_flow"},
        transform: {
            "module": "DataIO" if dataio else "DataTransform",
            "input": {"data": {"data": ["reader_0.data"]}},
            "output": {"data": ["data"], "model": ["model"]},
            "provider": "fate",
        },
        "homo_lr_0": {
            "module": "HomoLR",
            "input": {"data": {"train_data": [f"{transform}.data"]}},
            "output": {"data": ["data"], "model": ["model"]},
            "provider": "fate",
        },
    }
    if job.evaluate:
        components["evaluation_0"] = {
            "module": "Evaluation",
            "input": {"data": {"data": ["homo_lr_0.data"]}},
            "output": {"data": ["data"]},
            "provider": "fate",
        }
    return {"components": components}


def conf(job: Job, *, label: str = "y", dataio: bool = False) -> Json:
    """Who takes part in a job, and how: the runtime configuration that belongs to `dsl`."""
    common: Json = {
        _transform(dataio): {
            "with_label": True,
            "label_name": label,
            "label_type": "int",
            "output_format": "dense",
        },
        "homo_lr_0": _homo_lr(job),
    }
    if job.evaluate:
        common["evaluation_0"] = {"eval_type": "binary"}
    return {
        "dsl_version": 2,
        "initiator": {"role": "guest", "party_id": job.guest.party},
        "role": {
            "guest": [job.guest.party],
            "host": [site.party for site in job.hosts],
            "arbiter": [job.arbiter],
        },
        "job_parameters": {"common": {"job_type": "train"}},
        "component_parameters": {
            "role": {"guest": _tables([job.guest]), "host": _tables(list(job.hosts))},
            "common": common,
        },
    }


def _homo_lr(job: Job) -> Json:
    settings = job.settings
    return {
        "penalty": "L2",
        "alpha": settings.alpha,
        "optimizer": "sgd",
        "learning_rate": settings.learning_rate,
        "decay": 0.0,
        "batch_size": settings.batch_size or -1,
        "max_iter": settings.epochs,
        "early_stop": "diff",
        "tol": 1e-300,
        "init_param": {"init_method": "zeros", "fit_intercept": True},
    }


def _tables(sites: list[Site]) -> Json:
    return {
        str(i): {"reader_0": {"table": {"name": site.table.name, "namespace": site.table.namespace}}}
        for i, site in enumerate(sites)
    }


def _transform(dataio: bool) -> str:
    return "dataio_0" if dataio else "data_transform_0"
