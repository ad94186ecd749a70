"""Sums: what a client of an exact regression sends, and all that the server ever sees of the data.

For p coefficients at one point beta, with canonical links:

    gradient X'(y - mu) [p]  |  upper triangle of X'WX, row by row [p (p + 1) / 2]  |  deviance, examples, sum of y, saturated log-likelihood

Every entry is a sum over rows, so the sum over sites equals what one site holding all rows would have computed: adding is the whole of the
federated algorithm, and it survives secure aggregation. Means and variances of the columns are not sent: at the null model all weights are equal,
so the Hessian holds them already (`haina.strategy.server.elastic_net`).

The trap: with fewer rows than columns these sums give rows away. Clients must refuse to send them (`haina.learners.glm`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from haina.artifact import Array
from haina.errors import LayoutError
from haina.update import Vector


@dataclass(frozen=True)
class Sums:
    """Sufficient sums of a regression at one coefficient vector.

    Args:
        gradient: `[p]` of the log-likelihood (dispersion 1).
        hessian: `[p, p]` negative Hessian X'WX, symmetric.
        deviance: D(beta) >= 0.
        examples: number of rows.
        outcome: sum of y.
        saturated: log-likelihood of the saturated model (`haina.strategy.families`).
    """

    gradient: Vector
    hessian: Vector
    deviance: float
    examples: float
    outcome: float
    saturated: float

    @staticmethod
    def size(p: int) -> int:
        """Length of the packed vector for `p` coefficients."""
        return p + p * (p + 1) // 2 + 4

    def pack(self) -> Vector:
        """One float64 vector `[size(p)]`."""
        triangle = self.hessian[np.triu_indices(len(self.gradient))]
        scalars = [self.deviance, self.examples, self.outcome, self.saturated]
        return np.concatenate([self.gradient, triangle, scalars])

    @classmethod
    def unpack(cls, vector: Array, p: int) -> Sums:
        """The inverse of `pack`, for `p` coefficients.

        Raises:
            LayoutError: the vector has another length.
        """
        if vector.shape != (cls.size(p),):
            raise LayoutError(
                f"the sums have shape {vector.shape}",
                allowed=f"({cls.size(p)},) for {p} coefficients",
                remedy="All sites and the server must agree on the columns of the design",
            )
        vector = np.asarray(vector, np.float64)
        hessian = np.zeros((p, p))
        hessian[np.triu_indices(p)] = vector[p:-4]
        hessian += np.triu(hessian, 1).T
        return cls(vector[:p].copy(), hessian, *(float(value) for value in vector[-4:]))
