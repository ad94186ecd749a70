"""JAX as this room uses it: on one thread.

A process trains with one thread, so that a sum never depends on how many threads shared it, and a simulation of w workers gives the same bytes
as one of a single worker. It is faster as well for small models: measured, 100 clients of logistic regression took 71 ms a round on one thread
and 155 ms when XLA's pool had two, as handing over a step costs more than the step.

Trap: XLA reads these variables when its first array is made. Where jax was already used in the process, or the variables are set by the user,
they stand as they are, and bytes may differ from those of a process on one thread (measured: they do for a network of 784-200-200).
"""

from __future__ import annotations

import os
from pathlib import Path

from haina.errors import LearnerError

try:
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("NPROC", "1")
    import jax
    import jax.numpy as jnp
    from jax import lax
    from jax.experimental.xla_metadata import set_xla_metadata
except ImportError as error:
    raise LearnerError(
        "the jax learner needs jax, which is not installed", remedy="Run: pip install 'haina[jax]'"
    ) from error

__all__ = ["jax", "jnp", "lax", "set_xla_metadata"]

#: Seconds of compilation from which a programme is worth a file.
_WORTH = 0.2


def _remember_programmes() -> None:
    """Keep compiled programmes between processes, in the user's cache (`XDG_CACHE_HOME`), unless the user has said where or that none be kept.

    What is read from there is run, so a folder that others may write to is not used.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or os.environ.get("JAX_ENABLE_COMPILATION_CACHE") in (
        "0",
        "false",
    ):
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "haina" / "jax"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        own = [place.stat() for place in (folder, folder.parent)]
    except (OSError, RuntimeError):
        return
    theirs = any(status.st_uid != os.getuid() or status.st_mode & 0o022 for status in own)
    if folder.is_absolute() and not theirs and os.access(folder, os.W_OK):
        jax.config.update("jax_compilation_cache_dir", str(folder))  # type: ignore[no-untyped-call]
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH)  # type: ignore[no-untyped-call]


_remember_programmes()
