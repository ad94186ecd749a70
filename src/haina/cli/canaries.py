"""`haina canaries`: an audit of a federation that runs, by sites that send what can be found again (`haina.node.canary`)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from haina.artifact import Array
from haina.cli.audit import code
from haina.cli.reach import Where
from haina.cli.talk import data, json_line, say
from haina.errors import ConfigError
from haina.federation import Federation
from haina.federation.audit import searched
from haina.federation.envelope import Envelope
from haina.monitoring.privacy import told
from haina.monitoring.text import number
from haina.node.canary import SOURCE, Flock
from haina.node.link.http import HttpLink
from haina.simulation.rundir import replace_file


def new(path: Path, count: int) -> None:
    """Make canaries, and say how they join."""
    Flock.hatch(path, count, os.urandom)
    data(str(path))
    say(
        f"Invite {count} sites and let number N join with: haina join canary-N.invite --data {SOURCE}{path}:N\n"
        "Keep the file from everybody else until the federation has ended."
    )


def judge(where: Where, path: Path, file: Path, out: Path | None, confidence: float, *, as_json: bool) -> int:
    """Look for the canaries in the models that were published.

    Returns:
        The exit code, see `haina.cli.audit`.
    """
    flock, federation = Flock.read(path), Federation.read(file)
    policy = federation.privacy
    rounds, increments = _increments(where, federation.name)
    canaries = flock.of(policy, len(increments[0]))
    with where.api() as api:
        clients = len(api.nodes())
    found = searched(federation, canaries, increments, rounds, clients, confidence=confidence).to_json()
    found = {
        "attack": "canaries (running federation)",
        "federation": federation.name,
        **found,
        "rounds": len(rounds),
        "canaries_in": int(canaries.included.sum()),
        "clients": flock.count,
        "mechanism": "no noise" if policy is None else policy.words,
    }
    for line in told(found):
        say(line)
    if out is not None:
        replace_file(out, json.dumps(found, indent=1, allow_nan=False).encode())
        say(f"The finding is in {out}, for the privacy officer's page: haina budget export --audit {out}")
    if as_json:
        json_line(found)
    else:
        data(
            f"claimed epsilon {number(found['claimed'])}  measured lower bound {found['lower_bound']:.3g}  verdict {found['verdict']}"
        )
    return code(found["verdict"])


def _increments(where: Where, name: str) -> tuple[list[int], list[Array]]:
    """What each round changed in the model, of those whose models before and after are kept, and the numbers of the rounds."""
    with where.api() as api:
        models = {model.version: model for model in api.models(name) if model.kept}
    vectors: dict[int, Array] = {}
    with where.reached(HttpLink) as link, TemporaryDirectory() as folder:
        for version, model in models.items():
            path = Path(folder) / "model"
            with path.open("wb") as target:
                link.download(name, model.sha256, target)
            content = path.read_bytes()
            vectors[version] = np.array(Envelope.of(content).vector(content))
    rounds, increments = [], []
    for version in sorted(models):
        model = models[version]
        if model.round and model.parent in vectors:
            rounds.append(model.round)
            increments.append((vectors[version] - vectors[model.parent]).astype(np.float32))
    if not increments:
        raise ConfigError(
            f"federation {name} keeps no two models that follow each other",
            remedy="Let some rounds close first; keep_models says how many models are kept",
        )
    return rounds, increments
