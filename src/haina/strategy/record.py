"""RoundRecord: every round explains itself.

A record says for each invited client what became of its update, its share of the new model and each factor that made that share. It is stored
as one JSON line, shown in the terminal and drawn in the report; nothing in it is data of a client beyond what the client reported.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np


class Verdict(StrEnum):
    """What became of a client's update."""

    ADMITTED = "admitted"
    CLIPPED = "clipped"
    DAMPED = "damped"
    PASSED_OVER = "passed over"
    PROBATION = "probation"
    QUARANTINED = "quarantined"
    REFUSED = "refused"
    FAILED = "failed"
    ABSENT = "absent"


class Outcome(StrEnum):
    """What became of a round."""

    STEPPED = "stepped"
    KEPT = "kept"


@dataclass(frozen=True)
class ClientRecord:
    """One client in one round.

    Args:
        client: its name.
        verdict: what became of its update.
        share: its part of the aggregate, in [0, 1]; None where the rule has no shares (coordinate-wise rules).
        prior: its share before trust and the combiner.
        factors: what made the prior: factor name -> multiplier; trust's gate is named `trust`.
        evidence: named numbers behind the verdict.
        report: what the client said of itself (numbers only).
        norm: L2 norm of the update as it came; None if it never came or was not finite.
        clip: factor in (0, 1] applied by clipping.
        reason: the verdict in plain words; empty for an ordinary admission.
    """

    client: str
    verdict: Verdict
    share: float | None = None
    prior: float | None = None
    factors: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, float] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    norm: float | None = None
    clip: float = 1.0
    reason: str = ""


@dataclass(frozen=True)
class RoundRecord:
    """One round.

    Args:
        round: number, from 1.
        outcome: `stepped`, or `kept` when no new model could be made.
        reason: why the model was kept, in plain words; else empty.
        clients: one record for each invited client.
        model: SHA-256 of the model after the round.
        parent: SHA-256 of the model before it.
        notes: numbers of the round (learning rate, update norm, effective sample size, signal-to-noise ratio, ...).
        decisions: choices of the round in words (the arbiter's candidate, a resumed schedule, ...).
        metrics: evaluation of the new model (accuracy, loss), where the federation evaluates.
        timing: seconds of each phase (`select`, `train`, `combine`, `evaluate`, `total`; `save`: making the round before durable, which comes after
            its record).
        cost: what the round took, where it was simulated: `cpu_seconds` and `peak_memory_mb` (since the start) of all processes together, and with
            workers their number and `busy_seconds`, the sum of what each trained. Timing and cost are what the same seed does not reproduce.
    """

    round: int
    outcome: Outcome
    clients: tuple[ClientRecord, ...]
    reason: str = ""
    model: str = ""
    parent: str = ""
    notes: Mapping[str, float] = field(default_factory=dict)
    decisions: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    timing: Mapping[str, float] = field(default_factory=dict)
    cost: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; numbers that are not finite become null."""
        plain = _finite(self._shallow())
        assert isinstance(plain, dict)
        return plain

    def to_line(self) -> bytes:
        """One line of JSON, the same as of `to_json`; cheaper where all numbers are finite, as they nearly always are."""
        try:
            text = json.dumps(self._shallow(), separators=(",", ":"), allow_nan=False, default=_plain)
        except ValueError:
            text = json.dumps(self.to_json(), separators=(",", ":"))
        return text.encode() + b"\n"

    def _shallow(self) -> dict[str, Any]:
        return {**vars(self), "clients": [vars(client) for client in self.clients]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RoundRecord:
        """The inverse of `to_json`."""
        clients = tuple(
            ClientRecord(**{**entry, "verdict": Verdict(entry["verdict"])}) for entry in data["clients"]
        )
        return cls(**{**data, "clients": clients, "outcome": Outcome(data["outcome"])})


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers of NumPy, and mappings that are no dictionaries."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"a record holds {type(value).__name__}")


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
