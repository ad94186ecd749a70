"""Environments: each peer in a virtual environment of its own, at pinned versions, made when it is first needed."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

#: What each peer is. torch comes first, so that nothing else chooses its build.
PEERS: Mapping[str, tuple[str, ...]] = {
    "flower": ("torch==2.13.0", "numpy==2.4.6", "flwr[simulation]==1.41.0", "ray==2.55.1"),
    "pfl": ("torch==2.13.0", "numpy==2.4.6", "pfl[pytorch]==0.6.0"),
    "fedjax": ("jax==0.10.2", "numpy==2.4.6", "fedjax==0.0.17"),
    "nvflare": ("torch==2.13.0", "numpy==2.4.6", "nvflare==2.9.0"),
}


def python_of(peer: str, home: Path, given: Mapping[str, Path]) -> Path:
    """The interpreter that has a peer: the one given, or that of an environment made once in `home`.

    Raises:
        SystemExit: the given one is not there, or the peer cannot be installed.
    """
    if peer in given:
        if not given[peer].is_file():
            raise SystemExit(f"there is no interpreter {given[peer]} for {peer}")
        return given[peer]
    place = home / f"simulation-{peer}"
    python, ready = place / "bin" / "python", place / ".ready"
    wanted = "\n".join(PEERS[peer])
    if not ready.exists() or ready.read_text() != wanted:
        print(f"Making an environment for {', '.join(PEERS[peer])} in {place} (once)", file=sys.stderr)
        venv.create(place, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if subprocess.run([*install, *PEERS[peer]], check=False).returncode:
            raise SystemExit(
                f"{peer} could not be installed; leave it out (--peers), or name an interpreter that has it"
            )
        ready.write_text(wanted)
    return python
