"""Answer: what R gave back of a client's training, checked before anything is made of it.

R checks the same in the script's own process, in the person's words; a service is a stranger, and a script's process may have gone wrong.

The trap is a message. What R says of an error may hold a patient ("factor ward has new level ..."), so of an `RError` only `reason` may leave the
site.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from haina.artifact import Array
from haina.errors import LearnerError
from haina.learners.r.coefficients import Coefficients
from haina.report import MAX_EXAMPLES, MAX_EXTRA, MAX_NAME

#: Numbers beside the coefficients: how many examples, and metrics.
BESIDE = 1 + MAX_EXTRA
#: Characters of a message that are told.
MAX_WORDS = 500


class RError(LearnerError):
    """R could not do it for one client; the others go on.

    Args:
        reason: in one sentence that begins with "its", without any data; it may be sent.
    """

    def __init__(self, reason: str) -> None:
        self.reason = " ".join(reason.split())[: MAX_WORDS + 100]
        super().__init__(self.reason)


@dataclass(frozen=True)
class Answer:
    """One client's training in R.

    Args:
        params: `[d]` the trained coefficients, float64.
        n: examples used, > 0; None where R did not say.
        metrics: named numbers.
    """

    params: Array
    n: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def check(self, model: Coefficients) -> None:
        """Refuse what no strategy could use.

        Raises:
            RError: another length, a number that is not finite, no possible count of examples, or metrics that cannot be told.
        """
        if self.params.shape != (model.length,):
            raise RError(f"its R code returned {self.params.size} params, and the model has {model.length}")
        finite = np.isfinite(self.params)
        if not finite.all():
            raise RError(
                f"its R code returned {model.name(int(np.argmin(finite)))} that is not a finite number"
            )
        if self.n is not None and not (math.isfinite(self.n) and 0 < self.n <= MAX_EXAMPLES):
            raise RError("its R code returned an n that is no count of examples")
        if len(self.metrics) > MAX_EXTRA or any(len(name) > MAX_NAME for name in self.metrics):
            raise RError(
                f"its R code returned metrics beyond {MAX_EXTRA} numbers with names of {MAX_NAME} letters"
            )
