"""Inquiry: questions about all rows together, answered by sums, in one round or in several of which each asks by what the last one learnt.

The step knows nothing of what is asked: it is handed a pure function (`haina.learners.summary`), so that strategy imports no learner. All that a
question has learnt stands in the model, which every site sees, so nothing is remembered here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.strategy.parts import Aggregate, Payload, State, Stepped
from haina.update import Vector


@dataclass(frozen=True)
class Inquiry:
    """A question to all sites.

    Args:
        learn: (model `[d]`, sums over the sites) -> the next model, and whether the question is answered; pure.

    Notes of a round: `converged`, when the question is answered.
    """

    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.SUM
    learn: Callable[[Vector, Vector], tuple[Vector, bool]]

    def init(self, model: Array) -> State:
        """Nothing is remembered."""
        return {}

    def control(self, state: State) -> Array | None:
        """Clients add nothing."""
        return None

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """What is known after one more answer.

        Raises:
            RoundError: the answers do not hold together, such as no rows at all.
        """
        known, done = self.learn(np.asarray(model, np.float64), np.asarray(aggregate.vector, np.float64))
        return Stepped(known, state, finished=done, notes={"converged": 1.0} if done else {})
