"""SummaryLearner: descriptive statistics as a learner, so that they run where everything else runs: in simulations, in real federations, under secure
aggregation, in the records of rounds.

Nothing is learnt that could predict, so there is nothing to evaluate: all rows are asked, and none is set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import DataError, LearnerError
from haina.layout import Layout
from haina.learners.disclosure import FEWEST, too_few, unusable
from haina.learners.learner import Metrics, Work, refuse_examples
from haina.learners.summary.question import Question
from haina.report import Report
from haina.strategy.parts import Payload
from haina.update import Result, Update


@dataclass(frozen=True)
class SummaryLearner:
    """A question to all sites.

    Args:
        question: what is asked.
    """

    payload: ClassVar[Payload] = Payload.SUM
    question: Question

    @cached_property
    def _layout(self) -> Layout:
        return Layout.vector(len(self.question.first()), name="known", dtype="float64")

    @property
    def personal(self) -> None:
        """Nothing stays with a client."""

    @property
    def update_size(self) -> int:
        """Length of an answer."""
        return self.question.size

    def initial(self, seed: int) -> Array:
        """What is known before anybody was asked."""
        return self.question.first()

    def train(self, work: Work) -> Iterator[Result]:
        """Each client's answer, float64, or why it gives none.

        Raises:
            LearnerError: the model belongs to another question, or single examples shall be protected.
        """
        refuse_examples(work.training, "summary")
        known = np.asarray(work.model, np.float64)
        if known.shape != self.question.first().shape:
            raise LearnerError(
                f"the model has shape {known.shape}",
                allowed=f"{self.question.first().shape} for this question",
            )
        for k, client in enumerate(work.shards.clients):
            x, y = work.shards.of(k)
            silent = too_few(client, len(x), FEWEST)
            if silent is not None:
                yield silent
                continue
            try:
                yield Update(client, self.question.answer(known, x, y), Report(len(x)))
            except DataError as error:
                yield unusable(client, error)

    def evaluate(self, model: Array, x: Array, y: Array) -> Metrics:
        """Refuses: a summary predicts nothing."""
        raise LearnerError(
            "a summary predicts nothing, and rows set aside for a test would be missing in it",
            remedy="Write test = 0 under [data]",
        )

    def predict(self, model: Array, x: Array) -> Array:
        """Refuses: a summary predicts nothing."""
        raise LearnerError("a summary predicts nothing", allowed="found() of its question")

    def to_bytes(self, model: Array) -> bytes:
        """Canonical bytes of what is known (`haina.artifact`)."""
        self._layout.check(model)
        return self._layout.to_bytes(model)

    def from_bytes(self, data: bytes) -> Array:
        """The inverse of `to_bytes`."""
        return self._layout.from_bytes(data)

    def describe(self) -> Mapping[str, Any]:
        """Kind of summary, and all that a site in another language needs to answer it (`Question.asked`)."""
        return {"kind": "summary", "asks": self.question.kind, **self.question.asked()}
