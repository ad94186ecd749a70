"""||a_k||_1: how far a client's increment reaches, in units of one plain gradient step (FedNova).

A local increment is -eta * sum_i a_i g_i over the gradients of its steps (Wang et al. 2020, "Tackling the Objective Inconsistency Problem in
Heterogeneous Federated Optimization", eq. 4). Plain SGD has a_i = 1. Momentum rho and the proximal term mu make the a_i from the recurrence

    v <- rho * v + g + mu * (y - x)        y <- y - eta * v

which is linear, so the sum of the a_i is what a constant gradient of one produces: one power of a 3 x 3 matrix, for every case at once.

Trap: weight decay, clipping and offsets belong to g, as in the paper; they do not change the normaliser.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from haina.errors import LearnerError


@lru_cache(maxsize=1 << 14)
def norm_a(steps: int, momentum: float = 0.0, eta_mu: float = 0.0) -> float:
    """||a||_1 of local SGD.

    Without a proximal term this is [tau - rho (1 - rho^tau) / (1 - rho)] / (1 - rho); without momentum it is
    [1 - (1 - eta mu)^tau] / (eta mu); with neither it is tau.

    Args:
        steps: tau >= 0 optimiser steps.
        momentum: rho in [0, 1), started at zero.
        eta_mu: learning rate times proximal coefficient, in [0, 1].

    Raises:
        LearnerError: an argument is outside its range.
    """
    for name, value, holds, allowed in (
        ("steps", steps, steps >= 0, "an integer >= 0"),
        ("momentum", momentum, 0 <= momentum < 1, "a number in [0, 1)"),
        ("learning rate times proximal", eta_mu, 0 <= eta_mu <= 1, "a number in [0, 1]"),
    ):
        if not holds:
            raise LearnerError(f"{name} is {value}", allowed=allowed)
    # The state is (distance gone, velocity, 1), distances in units of -eta.
    step = np.array([[1.0 - eta_mu, momentum, 1.0], [-eta_mu, momentum, 1.0], [0.0, 0.0, 1.0]])
    return float(np.linalg.matrix_power(step, steps)[0, 2])
