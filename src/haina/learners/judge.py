"""Samples held by the server, as an outside opinion on updates (`haina.strategy.parts.Judge`).

Fifty samples that the coordinator may look at, some of every class, are enough to tell learning from un-learning where geometry cannot. With the
`trusted` preset the server also takes part as one more client, so they are training data too, of at most a fifth of a step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.learner import Learner, Metrics, Training, Work
from haina.shards import Shards
from haina.update import Failure, Vector


@dataclass(frozen=True)
class HeldSamples:
    """A judge for one round.

    Args:
        learner: evaluates and trains candidate models.
        model: `[d]` current model.
        x: `[m, ...]` features of the server's samples.
        y: `[m]` their targets.
        training: how a client trains; the server's own direction is trained in the same way.
        round: number of the round (batch order).
        learning_rate: eta of the round.
        seed: the federation's seed.
    """

    learner: Learner
    model: Array
    x: Array
    y: Array
    training: Training
    round: int
    learning_rate: float
    seed: int

    def losses(self, increments: Array) -> Vector:
        """`[m, d]` increments -> `[m]` mean losses; inf where the model is not finite."""
        losses = np.array([self._evaluate(row).loss for row in increments], dtype=np.float64)
        return np.where(np.isfinite(losses), losses, np.inf)

    def accuracies(self, increments: Array) -> Vector:
        """`[m, d]` increments -> `[m]` accuracies in [0, 1]."""
        accuracies = [self._evaluate(row).accuracy for row in increments]
        if any(accuracy is None for accuracy in accuracies):
            raise LearnerError(
                "this model has no accuracy: it predicts values, not classes", remedy="Judge by loss instead"
            )
        return np.array(accuracies, dtype=np.float64)

    @property
    def examples(self) -> int:
        """How many samples there are."""
        return len(self.y)

    def direction(self) -> Array:
        """`[d]` increment that local training on the server's samples gives."""
        own: Array = self._trained[0]
        return own

    def witnesses(self) -> Array:
        """`[c, d]` increments of training on the samples of each class alone; on all samples where there are no classes."""
        trained = self._trained
        return trained[1:] if len(trained) > 1 else trained

    @cached_property
    def _trained(self) -> Array:
        """Increments of training on all samples, then on those of each class."""
        classes = np.unique(self.y) if self.y.dtype.kind in "iu" else np.empty(0)
        order = np.argsort(self.y, kind="stable") if len(classes) else np.arange(len(self.y))
        starts = np.searchsorted(self.y[order], classes) if len(classes) else np.empty(0, np.int64)
        ends = np.append(starts, len(self.y))
        offsets = [[0, len(self.y)], *([int(a), int(b)] for a, b in pairwise(ends))]
        names = ("server", *(f"server: {label}" for label in classes))
        shards = Shards(names, self.x[order], self.y[order], np.array(offsets, dtype=np.int64))
        # The server's own samples leave nobody's home, so what guards a client's update is not wanted here.
        training = replace(
            self.training,
            measure=frozenset(),
            clip_update=None,
            noise=0.0,
            example_clip=None,
            example_noise=0.0,
        )
        work = Work(self.model, self.round, shards, training, self.learning_rate, seed=self.seed)
        increments = []
        for result in self.learner.train(work):
            if isinstance(result, Failure):
                raise LearnerError(f"the server's own samples cannot be trained on: {result.reason}")
            increments.append(result.vector)
        return np.stack(increments)

    def _evaluate(self, increment: Array) -> Metrics:
        metrics = self.learner.evaluate((self.model + increment).astype(self.model.dtype), self.x, self.y)
        if metrics is None:
            raise LearnerError(
                "updates are to be judged by their losses, and nothing on this machine can evaluate the model",
                remedy="Choose a strategy without a judge",
            )
        return metrics
