"""Merge: collected documents become the model.

The step knows nothing of what it merges; it is handed a pure function (`haina.learners.forest.ForestLearner.merge` for forests), so that
strategy imports no learner. One round is the whole of it: the parts are complete models, and their union is final.

The trap is one broken document among many: each is tried alone first, and what cannot be read is left out and counted, so that one client
cannot keep the others from a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from haina.artifact import Array
from haina.errors import HainaError, RoundError
from haina.strategy.combine import split
from haina.strategy.parts import Aggregate, Payload, State, Stepped


@dataclass(frozen=True)
class Merge:
    """One model out of the clients' documents.

    Args:
        merge: documents in the order of the clients -> bytes of the model; pure, and raises a `HainaError` for a document it cannot read.

    Notes of a round: `documents` merged and `refused`.
    """

    uses_drift: ClassVar[bool] = False
    accepts: ClassVar[Payload] = Payload.COLLECT
    merge: Callable[[list[bytes]], bytes]

    def init(self, model: Array) -> State:
        """Nothing is remembered."""
        return {}

    def control(self, state: State) -> Array | None:
        """Clients add nothing."""
        return None

    def step(self, model: Array, aggregate: Aggregate, state: State) -> Stepped:
        """The merged model, as uint8 bytes.

        Raises:
            RoundError: no document can be read; the message holds the first reason.
            LayoutError: the payload was not put together by `haina.strategy.combine.Collect`.
        """
        good: list[bytes] = []
        faults: list[str] = []
        for document in (part.tobytes() for part in split(aggregate.vector)):
            try:
                self.merge([document])
            except HainaError as error:
                faults.append(str(error))
            else:
                good.append(document)
        if not good:
            raise RoundError(
                f"none of {len(faults)} documents can be read: {faults[0] if faults else 'none came'}"
            )
        merged = np.frombuffer(self.merge(good), dtype=np.uint8)
        notes = {"documents": float(len(good)), "refused": float(len(faults))}
        return Stepped(merged, state, finished=True, notes=notes)
