"""FATE's averaging as a federation file: the settings by which Haina's own FedAvg does what HomoLR does on the same rows.

HomoLR (2.x) starts at zero, takes SGD steps on each site's mean cross-entropy, and after each epoch takes the mean of the models, weighted by rows.
So does FedAvg with one epoch a round. There is one difference to make good: HomoLR has one output and Haina's logistic model one for each of the
two classes, which move apart twice as fast, each pulled by half of the penalty. So the learning rate is half of FATE's, and the weight decay twice
its alpha.

Equal to the digits of float32 holds for full batches (`batch_size` of at least all rows). FATE's mini-batches are drawn by torch and ours by us.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from haina.interop.fate.job import HomoLr


def federation(
    settings: HomoLr, sites: Mapping[str, str], features: Sequence[str], batch: int, *, name: str = "fate"
) -> str:
    """The text of `federation.toml`.

    Args:
        settings: of HomoLR.
        sites: name of a site -> its file, as `haina.interop.fate.table` writes it.
        features: columns, in order.
        batch: rows a step; at least all of the largest site's for FATE's full batch.
        name: of the federation.
    """
    # JSON's strings and numbers are TOML's too.
    files = ", ".join(f"{json.dumps(site)} = {json.dumps(file)}" for site, file in sites.items())
    lines = [
        "# FATE's HomoLR in Haina: the same model from the same rows (docs/fate.md).",
        f"name = {json.dumps(name)}",
        "",
        "[model]",
        'learner = "auto"',
        'kind = "logistic"                   # starts at zero, as init_param = zeros',
        "",
        "[data]",
        f"sites = {{{files}}}",
        'target = "y"',
        'classes = ["0", "1"]',
        f"features = {json.dumps(list(features))}",
        "test = 0",
        "",
        "[train]",
        f"rounds = {settings.epochs}",
        "epochs = 1                          # a mean after each epoch",
        f"batch_size = {batch}",
        f"learning_rate = {settings.learning_rate / 2!r}                # half of FATE's: two outputs for its one",
    ]
    if settings.alpha:
        lines.append(
            f"weight_decay = {settings.alpha * 2!r}                  # twice FATE's alpha, for the same reason"
        )
    lines += ["", "[strategy]", 'preset = "fedavg"                   # weighted by rows']
    return "\n".join(lines) + "\n"
