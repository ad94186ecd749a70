"""Task and work: what a client must do in a round, as a message and as what a learner takes.

A task and the rows give an update; nothing else does. So the same task on the same rows gives the same bytes, wherever it is done.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from haina.artifact import Array
from haina.learners.learner import Learner, Training, Work
from haina.shards import Shards
from haina.strategy.local import Local
from haina.update import Update
from haina.wire.messages import Codec, Task

#: Settings of training that a task carries under their own names.
_SETTINGS = (
    *("epochs", "steps", "batch_size", "momentum", "weight_decay", "clip_norm", "clip_update", "noise"),
    *("example_clip", "example_noise"),
)

#: A client's memory between rounds by name: `control` (SCAFFOLD, FedDyn) and `personal/TENSOR` for each tensor that stays with the client.
Memory = Mapping[str, Array]

_CONTROL, _PERSONAL = "control", "personal/"


def task_of(
    training: Training,
    *,
    federation: str,
    round: int,
    learning_rate: float,
    proximal: float,
    seed: int,
    version: int,
    model: str,
    bytes: int,
    control: str | None = None,
    codec: Codec = "float32",
    seconds: float = 0.0,
) -> Task:
    """A task; arguments as the fields of `Task`, with `training` in place of its settings."""
    return Task(
        federation=federation,
        round=round,
        version=version,
        model=model,
        bytes=bytes,
        learning_rate=learning_rate,
        proximal=proximal,
        measure=tuple(sorted(training.measure)),
        control=control,
        seed=seed,
        codec=codec,
        seconds=seconds,
        **{name: getattr(training, name) for name in _SETTINGS},
    )


def training_of(task: Task) -> Training:
    """How a task's clients train."""
    settings = {name: getattr(task, name) for name in _SETTINGS}
    return Training(**settings, measure=frozenset(task.measure))


def work_of(
    task: Task, model: Array, shards: Shards, offsets: Array | None = None, noise_key: bytes | None = None
) -> Work:
    """What a learner takes.

    Args:
        task: the message.
        model: `[d]` the model that it names.
        shards: rows of the clients that train.
        offsets: `[k, d]` vectors added to their gradients, or None.
        noise_key: 32 secret bytes, where noise is to cover single examples from a server that knows the seed.
    """
    rate, key = task.learning_rate, noise_key if task.example_noise else None
    return Work(
        model, task.round, shards, training_of(task), rate, task.proximal, offsets, task.seed, noise_key=key
    )


def recalled(
    local: Local, learner: Learner, client: str, model: Array, control: Array | None, memory: Memory
) -> Array | None:
    """Before a client trains: its memory is put in place.

    Args:
        local: what the strategy asks of local training.
        learner: gets the tensors that stay with the client.
        client: its name.
        model: `[d]` received model.
        control: `[d]` the server's control vector, or None.
        memory: from `remembered` of its last training; empty before the first.

    Returns:
        `[1, d]` offsets for `Work`, or None.
    """
    if learner.personal is not None:
        kept = {name.removeprefix(_PERSONAL): v for name, v in memory.items() if name.startswith(_PERSONAL)}
        learner.personal.clear()
        learner.personal.update({client: kept} if kept else {})
    if not local.remembers:
        return None
    return local.offset(control, memory.get(_CONTROL, np.zeros_like(model))[None])


def remembered(
    local: Local, learner: Learner, update: Update, model: Array, control: Array | None, memory: Memory
) -> dict[str, Array]:
    """After a client has trained: its memory for the next round. Arguments as for `recalled`; `memory` is what that was given, and stays as it is."""
    kept: dict[str, Array] = {}
    if learner.personal is not None:
        own = learner.personal.get(update.client, {})
        kept |= {f"{_PERSONAL}{name}": np.asarray(tensor) for name, tensor in own.items()}
    if local.remembers:
        before = memory.get(_CONTROL, np.zeros_like(model))
        kept[_CONTROL] = local.remember(before, control, update.vector, update.report)
    return kept
