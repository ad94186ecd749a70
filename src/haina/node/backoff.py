"""Waiting between tries: exponential back-off with full jitter.

Source: M. Brooker, "Exponential Backoff and Jitter" (2015): sleep is uniform in [0, min(cap, base 2^n)], so that a thousand nodes that lost one
coordinator do not come back together.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def delays(rng: Random, base: float = 0.5, cap: float = 10.0) -> Iterator[float]:
    """Seconds to wait before the 2nd, 3rd, ... try, without end.

    Args:
        rng: the source of jitter.
        base: longest first wait, seconds.
        cap: longest wait, seconds.
    """
    longest = base
    while True:
        yield rng.uniform(0.1 * longest, longest)
        longest = min(cap, 2 * longest)
