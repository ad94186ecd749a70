"""Samples held by the server, as an outside opinion on updates (`haina.strategy.parts.Judge`).

Fifty samples that the coordinator may look at are enough to tell a good candidate model from a bad one where geometry cannot. They are never
used to train the global model, only to judge.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

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

    def direction(self) -> Array:
        """`[d]` increment that local training on the server's samples gives."""
        return self._direction

    @cached_property
    def _direction(self) -> Array:
        shards = Shards(("server",), self.x, self.y, np.array([[0, len(self.y)]]))
        work = Work(
            self.model,
            self.round,
            shards,
            replace(self.training, measure=frozenset()),
            self.learning_rate,
            seed=self.seed,
        )
        result = next(iter(self.learner.train(work)))
        if isinstance(result, Failure):
            raise LearnerError(f"the server's own samples cannot be trained on: {result.reason}")
        return result.vector

    def _evaluate(self, increment: Array) -> Metrics:
        return self.learner.evaluate((self.model + increment).astype(self.model.dtype), self.x, self.y)
