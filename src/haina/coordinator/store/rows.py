"""What goes into the coordinator's memory and comes out of it: one frozen dataclass a table, its fields the table's columns.

Times are seconds since 1970 (UTC). Fields with defaults are those that a new row starts with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sqlalchemy import Result

Row = TypeVar("Row")

FederationState = Literal["running", "paused", "stopped", "finished"]
RoundState = Literal["open", "closing", "closed", "failed"]
ContributionStatus = Literal["accepted", "refused", "failed"]


@dataclass(frozen=True)
class FederationRow:
    """A federation: its file's text, what its rows look like (`columns`, JSON), its newest model's `version`, and its rounds that are over."""

    name: str
    text: str
    columns: str = ""
    state: FederationState = "running"
    reason: str = ""
    version: int = 0
    closed: int = 0
    created: float = 0.0
    result: str | None = None


@dataclass(frozen=True)
class ModelRow:
    """One version of a model. `parent` is the version it was made from; `state_sha256` the strategy's state with it; `kept`: its bytes are there."""

    federation: str
    version: int
    sha256: str
    bytes: int
    parent: int | None
    round: int
    state_sha256: str | None
    created: float
    metrics: dict[str, float] = field(default_factory=dict)
    note: str = ""
    kept: bool = True


@dataclass(frozen=True)
class RoundRow:
    """One round.

    Args:
        roster: name -> announced examples, in the order in which the strategy sees them.
        task: what every client of the round is told, beside its own lines.
        target: contributions after which the round closes early.
        quorum: contributions below which it fails.
        holder, fence, lease_until: who closes the round, the number that proves it, and until when.
        stage: where secure aggregation stands in an open round: `{"name": ..., ...}`; None in a round without it.
    """

    federation: str
    number: int
    version: int
    roster: dict[str, int]
    task: dict[str, Any]
    target: int
    quorum: int
    opened: float
    deadline: float
    state: RoundState = "open"
    closed: float | None = None
    holder: str = ""
    fence: int = 0
    lease_until: float = 0.0
    reason: str = ""
    record: dict[str, Any] | None = None
    stage: dict[str, Any] | None = None


@dataclass(frozen=True)
class ContributionRow:
    """What one node did for one task.

    Args:
        round: the task's round; with the node's name, the key.
        counted_in: the round it is folded in; at most one contribution of a node counts in a round.
        version: of the model that training began from.
        square: squared L2 norm of the vector.
        where: of a failure, places in the code.
        staleness: models published since `version`.
        seconds: from the task to the arrival.
        epoch: incarnation of the replica that took it.
        kept: its bytes are there.
    """

    federation: str
    round: int
    node: str
    counted_in: int
    version: int
    status: ContributionStatus
    received: float
    epoch: str
    sha256: str | None = None
    bytes: int = 0
    codec: str = "float32"
    length: int = 0
    report: dict[str, Any] | None = None
    signature: str = ""
    square: float | None = None
    reason: str = ""
    where: str = ""
    staleness: int = 0
    seconds: float = 0.0
    kept: bool = False

    @property
    def key(self) -> tuple[str, int, str]:
        """What makes a second one a duplicate."""
        return self.federation, self.round, self.node


#: What became of one contribution of a batch: written now; the row that was there already; too late for the round; another of the node counts there.
Outcome = Literal["new", "closed", "taken"] | ContributionRow


@dataclass(frozen=True)
class NodeRow:
    """One holder of a certificate: a node, a viewer or an operator.

    `previous` is the serial number before the last renewal: good until its own certificate ends, for a holder killed before it has the new one.
    `identity` is the public key (Ed25519, 64 hexadecimal digits) that signs a node's part in secure aggregation; `dataset` names what it trains on.
    """

    name: str
    role: str
    state: Literal["active", "revoked"] = "active"
    group: str | None = None
    federation: str | None = None
    serial: int | None = None
    previous: int | None = None
    certificate_expires: float | None = None
    examples: int = 0
    software: str = ""
    codec: str = ""
    mode: str = "rounds"
    doing: str = ""
    last_seen: float | None = None
    joined: float | None = None
    settings_version: int = 0
    identity: str | None = None
    dataset: str = ""


@dataclass(frozen=True)
class Seen:
    """A sign of life."""

    name: str
    last_seen: float
    doing: str = ""
    settings_version: int = 0


#: What became of a message: written now; these very bytes were there; other bytes were, and stay; the round does not take it (any more).
Taken = Literal["new", "same", "other", "closed"]


@dataclass(frozen=True)
class Settlement:
    """What a round's end means for the charges that were reserved for it.

    Args:
        release: ids of charges whose release has taken place, or takes place by this.
        void: ids of charges whose release has not, and never will.
        why: why those are void.
    """

    release: Sequence[str] = ()
    void: Sequence[str] = ()
    why: str = ""


@dataclass(frozen=True)
class Overspent:
    """No round was opened and nothing was reserved: some charges are refused. False, so that `if opened` means what it says.

    Args:
        refused: reasons, by the charge's id.
    """

    refused: dict[str, str]

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True)
class InvitationRow:
    """One invitation, known by the SHA-256 of its token; good once, until `expires`.

    Once is for the `key` (`authority.requested_key`) that was certified first, which may ask again if it never heard the answer.
    """

    hash: str
    name: str
    role: str
    expires: float
    federation: str | None = None
    group: str | None = None
    used: float | None = None
    key: str | None = None


#: Why an invitation cannot be used.
Unusable = Literal["unknown", "used", "expired"]


@dataclass(frozen=True)
class SettingRow:
    """One change: what it says of a scope's keys. After `expires` it counts no longer."""

    version: int
    scope: str
    values: dict[str, Any]
    who: str
    when: float
    why: str = ""
    expires: float | None = None


@dataclass(frozen=True)
class Conflict:
    """A change of settings came too late: the log has moved on to `version`."""

    version: int


@dataclass(frozen=True)
class AuditRow:
    """One action that somebody took."""

    id: int
    when: float
    who: str
    action: str
    subject: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


def read(kind: type[Row], result: Result[*tuple[Any, ...]]) -> list[Row]:
    """The rows of a result that has a column for each field."""
    return [kind(**row._mapping) for row in result]


def read_one(kind: type[Row], result: Result[*tuple[Any, ...]]) -> Row | None:
    """The first row of a result, if there is one."""
    row = result.first()
    return None if row is None else kind(**row._mapping)


def written(row: object) -> dict[str, Any]:
    """A row as the parameters of an INSERT."""
    return dict(vars(row))


def by(rows: Sequence[Row], *names: str) -> list[Row]:
    """Rows in the order of some fields. Here and not in SQL: databases order text as their locale does, and sums depend on the order."""
    return sorted(rows, key=lambda row: tuple(getattr(row, name) for name in names))
