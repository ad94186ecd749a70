"""DP-SGD, the half that needs no framework: what it draws, and what that costs (Abadi et al. 2016, "Deep Learning with Differential Privacy").

Each step takes every row with probability q = min(1, batch_size / rows), independently (Poisson sampling); clips each row's gradient to the L2
norm `example_clip`; adds Gaussian noise of `example_noise` times that bound to the sum; and divides by the expected number of rows, q * rows. Two
data sets are neighbours if one has one row more. Their number of rows is taken as known to all, as is usual: q follows from it.

**The grid.** Noise in floating point gives away its own low bits (Mironov 2012, "On Significance of the Least Significant Bits for Differential
Privacy"), and a sum in floating point is more sensitive than one of real numbers (Casacuberta et al. 2022, "Widespread Underestimation of
Sensitivity in Differentially Private Libraries and How to Fix It"). So the bound is `UNITS` units, each clipped row is cut off to whole units,
which only shortens it, the sum is one of integers, and the noise is of integers too. Whatever is done with the noisy integers then is safe.

**What remains.** Before that, gradients are floats. Each row's is bounded whatever they do; but in a batch with one row more or less, a product of
matrices may round the *other* rows in another way. A thousandth of the bound is kept free for that (`torch.private.MARGIN`), which is many times what
was measured, and a measurement is no proof: a rectifier that rounding turns over is a jump. Nor is time hidden.

The trap: seeded numbers are for simulations. They follow from the federation's seed, which the server knows, so they protect from no server; and
who knows which rows were taken pays for all of them. With `Work.noise_key` both kinds of numbers follow from secret bytes as well.
"""

from __future__ import annotations

from hashlib import sha256
from math import inf

import numpy as np
from numpy.typing import NDArray

from haina.learners.learner import Work, client_rng
from haina.privacy.accounting import Sampling, epsilon
from haina.privacy.mechanisms import Gaussian
from haina.privacy.stream import Stream

#: The clipping bound in units of the grid. A coordinate of a clipped row has at most 22 bits, so that float32 holds it with room for cutting off.
UNITS = 1 << 22

#: `client_rng` purposes: which rows a step takes, and the noise on their gradients.
SAMPLING, EXAMPLE_NOISE = 3, 4


class Draws:
    """The random numbers of one client in one round.

    Args:
        work: the round; its `noise_key` and settings.
        client: its name.
    """

    def __init__(self, work: Work, client: str) -> None:
        self._mechanism = Gaussian(work.training.example_noise) if work.training.example_noise else None
        self._batch_size = work.training.batch_size
        self._sampling, self._noise = (
            _stream(work, client, purpose) for purpose in (SAMPLING, EXAMPLE_NOISE)
        )

    def rows(self, examples: int) -> NDArray[np.int64]:
        """The rows of the next step, of `examples` rows, in order; there may be none."""
        if self._batch_size >= examples:
            return np.arange(examples)
        # Rounded down: a smaller probability costs no more.
        threshold = np.uint64((self._batch_size << 64) // examples)
        return np.flatnonzero(self._sampling.uint64(examples) < threshold)

    def noise(self, size: int) -> NDArray[np.int64]:
        """`[size]` the noise of the next step, in units; zeros where none is asked for."""
        if self._mechanism is None:
            return np.zeros(size, np.int64)
        return self._mechanism.noise(size, UNITS, self._noise)


def rate(examples: int, batch_size: int) -> float:
    """The probability with which a step takes a row."""
    return min(1.0, batch_size / examples)


def spent(
    rows: int, batch_size: int, steps_per_round: int, rounds: int, example_noise: float, delta: float
) -> float:
    """The epsilon that rows of one client have spent, each towards everybody who sees all of its updates.

    Args:
        rows: n >= 1 rows of the client.
        batch_size: the expected size of a batch.
        steps_per_round: optimiser steps in a round (`Training.steps_of`).
        rounds: how many rounds the client has taken part in.
        example_noise: `Training.example_noise`.
        delta: in (0, 1).

    Returns:
        Epsilon at `delta`, by the privacy loss distribution of the Poisson-sampled Gaussian mechanism; infinite without noise, 0 without a step.
    """
    if not steps_per_round * rounds:
        return 0.0
    if not example_noise:
        return inf
    sampling = Sampling("poisson", rate(rows, batch_size))
    return epsilon(Gaussian(example_noise), steps_per_round * rounds, delta, sampling)


def _stream(work: Work, client: str, purpose: int) -> Stream:
    if work.noise_key is None:
        return Stream(client_rng(work.seed, work.round, client, purpose).bytes(32))
    # The received model is in it too, so that a key used twice by mistake gives no two models the same noise.
    model = sha256(work.model.tobytes()).hexdigest()
    return Stream.derived(work.noise_key, f"haina dp-sgd/{purpose}/{work.round}/{model}/{client}")
