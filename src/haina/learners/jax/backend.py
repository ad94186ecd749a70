"""JAX as this room uses it: on one thread.

A process trains with one thread, so that a sum never depends on how many threads shared it, and a simulation of w workers gives the same bytes
as one of a single worker. It is faster as well for small models: measured, 100 clients of logistic regression took 71 ms a round on one thread
and 155 ms when XLA's pool had two, as handing over a step costs more than the step.

Trap: XLA reads these variables when its first array is made. Where jax was already used in the process, or the variables are set by the user,
they stand as they are, and bytes may differ from those of a process on one thread (measured: they do for a network of 784-200-200).
"""

from __future__ import annotations

import os

from haina.errors import LearnerError

try:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("NPROC", "1")
    import jax
    import jax.numpy as jnp
    from jax import lax
except ImportError as error:
    raise LearnerError(
        "the jax learner needs jax, which is not installed", remedy="Run: pip install 'haina[jax]'"
    ) from error

__all__ = ["jax", "jnp", "lax"]
