"""Hosting: a federation file becomes a federation that runs here, from nothing or from where it stands.

What is written down first wins: the federation goes on with the words it was started with, and only what may change while it runs may differ (the
number of rounds, and `[serve]`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from haina.coordinator.blobs import Blobs
from haina.coordinator.charges import counts
from haina.coordinator.hosted import Hosted
from haina.coordinator.pace import Pace
from haina.coordinator.store import FederationRow, ModelRow, Store
from haina.data.schema import Schema
from haina.errors import ConfigError, PrivacyError
from haina.federation.bench import Bench
from haina.federation.envelope import Envelope
from haina.federation.federation import Federation
from haina.federation.schema import ServeSection
from haina.wire.messages import Welcome

log = logging.getLogger("haina.host")


def host(path: Path, store: Store, blobs: Blobs, clock: Callable[[], float]) -> Hosted:
    """Make a federation ready to run.

    Args:
        path: its file.
        store: what is remembered; the federation and its first model are written there if they are new.
        blobs: bytes of models.
        clock: seconds since 1970.

    Raises:
        ConfigError: the file cannot be used, or differs from the words that the federation was started with.
    """
    federation = Federation.read(path)
    row = store.federation(federation.name)
    if row is None:
        federation.serve  # noqa: B018 -- what cannot be served is said before anything is written
        with Bench(federation) as bench:
            federation = replace(federation, known=bench.schema())
            _check_told(federation)
            first = bench.initial()
        model = ModelRow(
            federation=federation.name,
            version=0,
            sha256=blobs.put_bytes(first),
            bytes=len(first),
            parent=None,
            round=0,
            state_sha256=None,
            created=clock(),
            note="the first model",
        )
        row = store.put_federation(
            FederationRow(
                name=federation.name,
                text=federation.text,
                columns=federation.schema.to_json(),
                created=clock(),
            ),
            model,
        )
    else:
        federation = replace(federation, known=Schema.from_json(row.columns))
        before = Federation.of(row.text, path.name, path.parent)
        try:
            federation.check_same(before)
        except ConfigError as error:
            raise ConfigError(
                error.what,
                allowed="another number of rounds, and another [serve]",
                remedy="Put it back, or serve it under another name",
            ) from error
        if row.text != federation.text:
            row = store.put_federation(replace(row, text=federation.text))
        more = before.settings.train.rounds <= row.closed < federation.settings.train.rounds
        if row.state == "finished" and more:
            store.set_state(federation.name, "running", "more rounds were asked for")
    newest = store.model(federation.name)
    assert newest is not None
    envelope = Envelope.of(blobs.path(newest.sha256).read_bytes())
    hosted = Hosted(federation, envelope, pace_of(federation.serve, federation), Bench(federation))
    _check_sums(hosted)
    return hosted


def _check_sums(hosted: Hosted) -> None:
    """That no secure sum of the nodes of a round can be made, or that one would wrap, is said here, and not when the nodes have trained.

    Raises:
        ConfigError: with the numbers, and the way out.
    """
    policy, file = hosted.policy, hosted.federation.settings
    if policy is None or policy.hidden is None:
        return
    cohort = file.train.clients_per_round or file.serve.nodes
    limit = hosted.strategy.instructions(hosted.strategy.init(np.zeros(1))).limit
    try:
        for clients in {policy.hidden.group or cohort, min(cohort, file.serve.nodes)}:
            policy.terms(hosted.dimension, limit, clients)
    except PrivacyError as error:
        raise ConfigError(
            f"[privacy] secure_aggregation of federation {hosted.name}: {error.what}",
            allowed=error.allowed,
            remedy=error.remedy or "Raise [serve] nodes",
        ) from error


def _check_told(federation: Federation) -> None:
    """What no node could be told is found here, and not when each of them says hello."""
    for what, text, field in (
        ("the file", federation.text, "text"),
        ("what its rows look like", federation.schema.to_json(), "columns"),
    ):
        (limit,) = (rule.max_length for rule in Welcome.model_fields[field].metadata)
        if len(text) > limit:
            raise ConfigError(
                f"{what} of federation {federation.name} has {len(text)} characters, which no node can be told",
                allowed=f"at most {limit}",
            )


def pace_of(serve: ServeSection, federation: Federation) -> Pace:
    """How the rounds of a federation run, as `[serve]` says.

    Raises:
        ConfigError: updates may be late where each round is charged to those who are in it.
    """
    if serve.late and counts(federation.privacy):
        raise ConfigError(
            "[privacy] budget charges a round to those who are invited to it, and [serve] lets updates count in later ones",
            allowed="max_staleness = 0 with a budget",
            remedy='Leave out [serve] max_staleness and mode = "buffered", or the budget',
        )
    adaptive = serve.deadline == "adaptive"
    return Pace(
        nodes=serve.nodes,
        cohort=serve.buffer if serve.mode == "buffered" else federation.settings.train.clients_per_round,
        over_selection=serve.over_selection,
        quorum=serve.quorum,
        deadline=None if adaptive else float(serve.deadline),
        shortest=float(serve.deadline_min),
        longest=float(serve.deadline_max),
        every=float(serve.every or 0.0),
        buffered=serve.mode == "buffered",
        max_staleness=serve.max_staleness,
        away=float(serve.away),
    )
