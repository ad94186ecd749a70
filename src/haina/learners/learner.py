"""The one contract of local training, and the words it is made of.

A learner is a home of local training: a statistical model, a forest, a network in torch or JAX, an R script. The same call serves a node with
one client and a simulation worker with its whole share of clients, so a learner may train them together (one compiled programme) or one by
one, and the result does not depend on how clients are divided among calls.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.shards import Shards as Shards
from haina.strategy.parts import Payload
from haina.update import Result


@dataclass(frozen=True)
class Training:
    """How a client trains, the same for all clients of a federation.

    Args:
        epochs: passes over the local data; ignored when `steps` is given.
        steps: a fixed number of optimiser steps per round instead of epochs; batches go on through fresh permutations of the local data.
        batch_size: examples per step; the last batch of an epoch may be shorter.
        momentum: heavy-ball momentum in [0, 1), started at zero every round.
        weight_decay: L2 coefficient >= 0 added to the gradient.
        clip_norm: the gradient of a step is scaled down to this L2 norm; None for no clipping.
        clip_update: the increment is scaled down to this L2 norm before it leaves the client; None for no clipping.
        noise: standard deviation, in units of `clip_update`, of the Gaussian noise added to each coordinate of the clipped increment.
        measure: which of `loss_before`, `loss_after`, `accuracy`, `label_counts` the report must hold (each loss costs one pass).
        example_clip: differential privacy for single examples (`haina.learners.dpsgd`): the gradient of each example is scaled down to this L2
            norm, and batches are drawn, with `batch_size` as their expected size; None for plain training. The torch learner only.
        example_noise: standard deviation, in units of `example_clip`, of the Gaussian noise added to each coordinate of a step's summed gradient.
    """

    epochs: int = 1
    steps: int | None = None
    batch_size: int = 32
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    clip_update: float | None = None
    noise: float = 0.0
    measure: frozenset[str] = field(default_factory=frozenset)
    example_clip: float | None = None
    example_noise: float = 0.0

    def __post_init__(self) -> None:
        allowed = (
            ("epochs", self.epochs >= 1, "an integer >= 1"),
            ("steps", self.steps is None or self.steps >= 1, "an integer >= 1"),
            ("batch_size", self.batch_size >= 1, "an integer >= 1"),
            ("momentum", 0 <= self.momentum < 1, "a number in [0, 1)"),
            ("weight_decay", 0 <= self.weight_decay < float("inf"), "a finite number >= 0"),
            ("clip_norm", self.clip_norm is None or 0 < self.clip_norm < float("inf"), "a number > 0"),
            ("clip_update", self.clip_update is None or 0 < self.clip_update < float("inf"), "a number > 0"),
            ("noise", 0 <= self.noise < float("inf"), "a finite number >= 0"),
            (
                "example_clip",
                self.example_clip is None or 0 < self.example_clip < float("inf"),
                "a number > 0",
            ),
            ("example_noise", 0 <= self.example_noise < float("inf"), "a finite number >= 0"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise LearnerError(f"{name} is {getattr(self, name)}", allowed=words)
        if self.noise and self.clip_update is None:
            raise LearnerError(
                f"noise is {self.noise}, in units of clip_update, and clip_update is not given",
                allowed="noise = 0, or a clip_update > 0",
                remedy="Set clip_update to the largest L2 norm that an update may have",
            )
        if self.example_noise and self.example_clip is None:
            raise LearnerError(
                f"example_noise is {self.example_noise}, in units of example_clip, and example_clip is not given",
                allowed="example_noise = 0, or an example_clip > 0",
                remedy="Set example_clip to the largest L2 norm that an example's gradient may have",
            )
        if self.example_noise and self.measure:
            raise LearnerError(
                f"{sorted(self.measure)[0]} would leave each client as it is, beside gradients with noise for its examples",
                allowed="an empty measure together with example_noise",
                remedy="Leave measure out and evaluate on data of the server, or choose parts that do not ask for it",
            )

    def steps_of(self, examples: int) -> int:
        """Optimiser steps tau_k of a client with that many examples."""
        return self.steps if self.steps is not None else self.epochs * -(-examples // self.batch_size)


@dataclass(frozen=True)
class Work:
    """One call of local training: some clients of one round.

    Args:
        model: `[d]` received model.
        round: number of the round, from 1.
        shards: the clients' data.
        training: how to train.
        learning_rate: eta of this round (schedules are the server's).
        proximal: mu of FedProx.
        offsets: `[k, d]` vectors added to each local gradient (SCAFFOLD, FedDyn), or None.
        seed: the federation's seed; batch order depends on (seed, round, client name) and on nothing else.
        noise_key: 32 secret bytes of the operating system, fresh for each call, which the noise and the batches of `example_clip` follow from as
            well; None for numbers that follow from the seed alone, which protect from nobody who knows it, as the server does.

    Raises:
        LearnerError: a `noise_key` of another length.
    """

    model: Array
    round: int
    shards: Shards
    training: Training
    learning_rate: float
    proximal: float = 0.0
    offsets: Array | None = None
    seed: int = 0
    noise_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.noise_key is not None and len(self.noise_key) != 32:
            raise LearnerError(
                f"noise_key has {len(self.noise_key)} bytes",
                allowed="32 secret bytes, or None for numbers that follow from the seed",
                remedy="Pass os.urandom(32)",
            )


@dataclass(frozen=True)
class Metrics:
    """Evaluation of one model on some data.

    Args:
        examples: how many rows.
        loss: mean loss.
        accuracy: share of right classes, in [0, 1]; None where there are no classes.
        extra: further named numbers.
    """

    examples: int
    loss: float
    accuracy: float | None = None
    extra: Mapping[str, float] = field(default_factory=dict)


#: Client name -> the tensors that stay with that client, between rounds.
Personal = MutableMapping[str, Mapping[str, Array]]


class Learner(Protocol):
    """A home of local training."""

    payload: ClassVar[Payload]

    @property
    def update_size(self) -> int | None:
        """Length of an update's vector; None when it is the model's (or free, for collected payloads)."""

    @property
    def personal(self) -> Personal | None:
        """The tensors that stay with each client between rounds; None when all travel. A checkpoint saves them."""

    def initial(self, seed: int) -> Array:
        """The model before the first round; the same seed gives the same bytes."""

    def train(self, work: Work) -> Iterator[Result]:
        """Train each client of `work` and yield its update, or why there is none, in the order of `work.shards`.

        The increment is trained minus received model, for `Payload.AVERAGE`. A client that cannot train (no examples, too few for the
        model) yields a `Failure` with the reason. A loss that is
        not finite is not an error here: the vector goes up as it is, and the server's validation refuses it with the reason.
        """

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics | None:
        """Loss and accuracy of a model on rows; None where nothing on this machine can say."""

    def predict(self, model: Array, x: Array) -> Array:
        """`[N, classes]` probabilities, or `[N]` values for regressions."""

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes; their SHA-256 is the model's identity."""

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""

    def describe(self) -> Mapping[str, Any]:
        """What kind of model this is, in plain JSON values (kind, parameters, classes, ...)."""


def refuse_examples(training: Training, learner: str) -> None:
    """Refuse differential privacy for single examples, for learners that know no gradients of them.

    Args:
        training: how clients train.
        learner: what the learner is called in a federation file.

    Raises:
        LearnerError: `example_clip` is given.
    """
    if training.example_clip is not None:
        raise LearnerError(
            f"example_clip is {training.example_clip:g}, and the {learner} learner cannot clip single examples",
            allowed="example_clip with the torch learner",
            remedy='Set learner = "torch" under [model], or protect whole clients',
        )


def client_key(client: str) -> int:
    """64 bits that name a client in seeds: the same in simulation and on a node."""
    return int.from_bytes(hashlib.sha256(client.encode()).digest()[:8], "little")


def client_rng(seed: int, round: int, client: str, purpose: int = 0) -> np.random.Generator:
    """The random numbers of one client in one round; independent of workers, cohort and order."""
    return np.random.default_rng([seed, round, client_key(client), purpose])
