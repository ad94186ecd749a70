from __future__ import annotations

import numpy as np

from haina.learners.learner import Training, Work, client_rng
from haina.learners.plan import batches
from haina.shards import Shards

OPTIONS = {
    "plain": ({"epochs": 2}, {}),
    "momentum": ({"momentum": 0.9}, {}),
    "weight decay": ({"weight_decay": 0.1}, {}),
    "clipping": ({"clip_norm": 0.2}, {}),
    "proximal": ({"epochs": 2}, {"proximal": 0.5}),
    "offset": ({}, {"offset": True}),
    "fixed steps": ({"steps": 11}, {}),
    "all": (
        {"steps": 7, "momentum": 0.5, "weight_decay": 0.01, "clip_norm": 0.5},
        {"proximal": 0.1, "offset": True},
    ),
}


def work_of(
    learner,
    sizes=(23, 8, 1, 40),
    features=(6,),
    classes=3,
    *,
    training=None,
    learning_rate=0.1,
    proximal=0.0,
    offset=False,
    round=3,
    seed=5,
):
    rng = np.random.default_rng(11)
    stops = np.cumsum(sizes)
    x = rng.standard_normal((int(stops[-1]), *features)).astype(np.float32)
    y = rng.integers(0, classes, len(x))
    shards = Shards(
        tuple(f"client-{k}" for k in range(len(sizes))), x, y, np.stack([stops - sizes, stops], 1)
    )
    model = learner.initial(seed)
    model = model + 0.1 * rng.standard_normal(model.shape).astype(np.float32)
    offsets = 0.05 * rng.standard_normal((len(sizes), *model.shape)).astype(np.float32) if offset else None
    return Work(
        model, round, shards, training or Training(batch_size=8), learning_rate, proximal, offsets, seed
    )


def logistic_gradient(model, x, y, classes):
    weight = model[: x.shape[1] * classes].reshape(classes, -1)
    logits = x @ weight.T + model[x.shape[1] * classes :]
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(classes)[y]) / len(y)
    return np.concatenate([(error.T @ x).ravel(), error.sum(0)])


def logistic_loss(model, x, y, classes):
    weight = model[: x.shape[1] * classes].reshape(classes, -1)
    logits = x @ weight.T + model[x.shape[1] * classes :]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(y)), y]
    return losses.mean(), (logits.argmax(1) == y).mean()


def logistic_sgd(work, k, classes):
    """Local training of a logistic model in float64, written out."""
    training = work.training
    x, y = work.shards.of(k)
    x = x.astype(np.float64)
    rows, lengths = batches(len(x), training, client_rng(work.seed, work.round, work.shards.clients[k]))
    start = work.model.astype(np.float64)
    now, velocity = start.copy(), np.zeros_like(start)
    for batch, length in zip(rows, lengths, strict=True):
        chosen = batch[:length]
        g = logistic_gradient(now, x[chosen], y[chosen], classes)
        if training.clip_norm is not None:
            g *= min(1.0, training.clip_norm / np.linalg.norm(g))
        g = g + training.weight_decay * now + work.proximal * (now - start)
        if work.offsets is not None:
            g = g + work.offsets[k]
        velocity = training.momentum * velocity + g
        now = now - work.learning_rate * velocity
    return now - start
