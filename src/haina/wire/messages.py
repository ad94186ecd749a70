"""Messages between nodes, operators and a coordinator: one list for both doors.

Every message is a small pydantic model. The HTTP door sends it as JSON; the gRPC door as the protobuf message of the same name and fields
(`proto/haina/v1/haina.proto`), so that neither door has words of its own. Models and updates never travel inside a message: they are raw bytes,
named by their SHA-256.

Fields that a reader does not know are ignored, and every field added after version 1 has a default, so that a newer and an older side understand
each other. What a message holds is bounded here, before anything else looks at it.
"""

from __future__ import annotations

import hashlib
import struct
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

#: Versions of the protocol that this side speaks, newest last.
PROTOCOLS = (1,)

#: Names of federations, nodes and groups: they become parts of addresses and certificates, so nothing in them can be a path.
NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$"

Name = Annotated[str, Field(pattern=NAME)]
#: 64 hexadecimal digits, lower case.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Short = Annotated[str, Field(max_length=200)]
Text = Annotated[str, Field(max_length=20_000)]
#: A federation's number of a round, or a model's version; fits 63 bits.
Count = Annotated[int, Field(ge=0, lt=1 << 63)]
Codec = Literal["float32", "bf16", "int8", "topk", "raw"]
#: What the body of an upload may be written in: a codec that a federation file can name, or the words of a secure sum (32 or 64 bits each).
Sent = Literal[Codec, "masked", "masked64"]
#: Bytes in a message, as text that every language reads.
BASE64 = r"^[A-Za-z0-9+/]*={0,2}$"
#: A public key: 32 bytes, in hexadecimal.
Key = Sha256


class Message(BaseModel):
    """Base of all messages: immutable, finite numbers, unknown fields ignored."""

    # Most processes use a few of the messages: each is built when it is first used.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)


class Role(StrEnum):
    """What the holder of a certificate may do."""

    NODE = "node"
    VIEWER = "viewer"
    OPERATOR = "operator"


# ------------------------------------------------------------------------------------------------ first contact


class Enrol(Message):
    """A newcomer's first call: the one-time token of its invitation, and a request for a certificate (its key never leaves it)."""

    token: Annotated[str, Field(min_length=20, max_length=200, repr=False)]
    csr: Annotated[str, Field(max_length=10_000)]


class Enrolled(Message):
    """A certificate, PEM, with the authority's own. The name and the role are those of the invitation."""

    name: Name
    role: Role
    certificate: str
    authority: str


class Renew(Message):
    """A request for the next certificate, by the holder of a valid one."""

    csr: Annotated[str, Field(max_length=10_000)]


# ------------------------------------------------------------------------------------------------ a node's life


class Hello(Message):
    """A node says what it is. Sent at start, and again when any of it changes.

    `examples` are the rows it trains on; shares are made from them before training where the strategy streams. `mode` "away" is a goodbye: the node
    is not invited until it says hello again. `identity` is the public key (Ed25519) that signs its part in secure sums, the same for ever, and
    `dataset` what its owner calls the rows, for the ledger of privacy.
    """

    software: Short = ""
    protocols: Annotated[tuple[int, ...], Field(max_length=16)] = PROTOCOLS
    codecs: Annotated[tuple[Short, ...], Field(max_length=16)] = ("float32", "raw")
    learners: Annotated[tuple[Short, ...], Field(max_length=16)] = ()
    federation: Name | None = None
    examples: Annotated[int, Field(ge=0, le=10**12)] = 0
    mode: Literal["rounds", "periodic", "away"] = "rounds"
    identity: Key | None = None
    dataset: Short = ""


class Welcome(Message):
    """The coordinator's answer: the newest protocol both speak, and the federation that the node takes part in.

    `text` is the federation file; `columns` what its rows look like (`haina.data.schema`, JSON), so that a node encodes its rows as all others do;
    `brief` what follows from both (JSON), for languages that read no TOML (`haina.federation.federation.Federation.brief`).
    """

    protocol: int
    software: Short
    name: Name
    federation: Name
    text: Text
    columns: Annotated[str, Field(max_length=1_000_000)] = ""
    settings: Settings
    brief: Annotated[str, Field(max_length=1_000_000)] = ""


class Settings(Message):
    """Dynamic settings as they stand for one node: the version, and a value for every key (`haina.wire.settings`)."""

    version: Count
    values: dict[str, Any]


class Ask(Message):
    """A node asks what to do: answered when there is something, or after `wait` seconds with nothing.

    `settings_version` is what the node has applied (the acknowledgement of a push). `idle` False asks for news of settings only.
    """

    federation: Name
    settings_version: Count = 0
    wait: Annotated[float, Field(ge=0, le=60)] = 50.0
    idle: bool = True
    doing: Short = ""


class Task(Message):
    """What one client must do in one round: everything beside the model's bytes. The same task gives the same update on any machine.

    Args:
        federation: its name.
        round: number of the round that the task belongs to; with the node's name, the key of the update.
        version: version of the model to train.
        model: SHA-256 of its bytes, to be fetched unless cached.
        bytes: how long they are.
        learning_rate: eta of the round.
        proximal: mu of the proximal term.
        epochs, steps, batch_size, momentum, weight_decay, clip_norm, clip_update, noise, example_clip, example_noise, measure:
            `haina.learners.learner.Training`.
        control: SHA-256 of the control vector (SCAFFOLD), fetched like a model; None for most.
        seed: the federation's seed.
        codec: how to write the vector of the update.
        seconds: how long the coordinator waits from now.
        limit: the longest update that counts in full this round, where clients bound or hide what they send; else None.
    """

    federation: Name
    round: Count
    version: Count
    model: Sha256
    bytes: Count
    learning_rate: float
    proximal: float = 0.0
    epochs: Annotated[int, Field(ge=1)] = 1
    steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 32
    momentum: float = 0.0
    weight_decay: float = 0.0
    clip_norm: float | None = None
    measure: tuple[str, ...] = ()
    control: Sha256 | None = None
    seed: Count = 0
    codec: Sent = "float32"
    seconds: float = 0.0
    clip_update: float | None = None
    noise: float = 0.0
    limit: Annotated[float, Field(gt=0)] | None = None
    example_clip: float | None = None
    example_noise: float = 0.0

    @property
    def agreed(self) -> str:
        """SHA-256 of what must be the same for all members of a secure sum: every field but `codec` and `seconds`.

        One line a field, in the order of their names: the name, a space, and the value. An integer is decimal, a number with a point 8 bytes (IEEE
        754, high byte first) in hexadecimal, None a `-`, several texts one after the other with commas.
        """
        lines = []
        for name in sorted(type(self).model_fields.keys() - {"codec", "seconds"}):
            value = getattr(self, name)
            if isinstance(value, float):
                said = struct.pack(">d", value).hex()
            elif isinstance(value, tuple):
                said = ",".join(value)
            else:
                said = "-" if value is None else str(value)
            lines.append(f"{name} {said}\n")
        return hashlib.sha256("".join(lines).encode()).hexdigest()


class SealedTask(Message):
    """What a member of a secure sum needs for its next step, once it has trained and advertised.

    The member believes none of it: adverts are signed, shares are sealed, and the sets of names are those that all members sign.

    Args:
        federation: its name.
        round: of the task that the member has trained.
        stage: "share" (answered by sealed shares), "upload" (by the masked words, as an upload), "consent" (by a signature over the uploaders) or
            "unmask" (by what takes the masks off).
        group: number of the member's group.
        seconds: how long the coordinator waits from now.
        data: bytes (`haina.privacy.secagg.messages`). "share": a table of the adverts of the whole group; "upload": an `Inbox`; "unmask": a table of
            the others' consents.
        uploaders: whose words of the group arrived; for "consent" and "unmask".
    """

    federation: Name
    round: Count
    stage: Literal["share", "upload", "consent", "unmask"]
    group: Count = 0
    seconds: float = 0.0
    data: Annotated[str, Field(max_length=8_000_000, pattern=BASE64)] = ""
    uploaders: tuple[Name, ...] = ()


class Sealed(Message):
    """A member's message in one stage of a secure sum, once a stage: bytes, or the `reason` why it takes no further part.

    `data` by stage (`haina.privacy.secagg.messages`): an `Advert`, which says that the member has trained; a table of sealed shares; a `Consent`; an
    `Answer`.
    """

    federation: Name
    round: Count
    stage: Literal["advertise", "share", "consent", "unmask"]
    data: Annotated[str, Field(max_length=200_000, pattern=BASE64)] = ""
    reason: Annotated[str, Field(max_length=1000)] = ""


class Event(Message):
    """The answer to `Ask`: new settings, a task, or nothing yet; `finished` when the federation has ended and `paused` while it is held.

    `retry` is how long to wait before asking again, in seconds. `sealed` is the next step of a secure sum.
    """

    settings: Settings | None = None
    task: Task | None = None
    finished: bool = False
    paused: bool = False
    reason: Short = ""
    retry: float = 0.0
    sealed: SealedTask | None = None


class Manifest(Message):
    """What an upload is, signed by the node's key: the audit can prove who sent which bytes for which round.

    Args:
        node: who sends it; must be the holder of the certificate.
        federation: of which federation.
        round: the task's round.
        version: version of the model that training began from.
        sha256: of the body as sent.
        bytes: length of the body.
        codec: how the vector is written.
        length: d, the length of the vector; the number of words of a secure sum; 0 for collected payloads.
        report: `haina.report.Report.to_json`.
        signature: base64 of the ECDSA signature (P-256, SHA-256) over `signed_bytes` (`haina.wire.identity`).
    """

    node: Name
    federation: Name
    round: Count
    version: Count
    sha256: Sha256
    bytes: Count
    codec: Sent = "float32"
    length: Count = 0
    report: dict[str, Any]
    signature: Annotated[str, Field(max_length=200)] = ""


class Received(Message):
    """How much of an upload lies here: where to go on, or that it is done. `sha256` is of the update that is kept or begun, if any."""

    bytes: Count = 0
    done: bool = False
    sha256: Sha256 | None = None


class Fate(StrEnum):
    """What became of an upload."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


class Ack(Message):
    """An upload's acknowledgement. Accepted (or a duplicate of what was): it counts, and no crash takes it back. Refused: it never will; why is
    said.
    """

    fate: Fate
    reason: Annotated[str, Field(max_length=1000)] = ""
    settings_version: Count = 0


class Failed(Message):
    """A node could not train: the reason in one sentence, and where in the code (file names, lines and functions; no values, no data)."""

    federation: Name
    round: Count
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    where: Annotated[str, Field(max_length=10_000)] = ""


class Problem(Message):
    """A typed refusal (RFC 9457 in spirit): `code` for programs, the rest for people. `retry`: seconds after which trying again can help; 0 for
    never.
    """

    code: Short
    what: Annotated[str, Field(max_length=2000)]
    allowed: Annotated[str, Field(max_length=2000)] = ""
    remedy: Annotated[str, Field(max_length=2000)] = ""
    retry: float = 0.0


# ------------------------------------------------------------------------------------------------ the operator


class Invite(Message):
    """Ask for an invitation; good for one enrolment within `hours`. Whoever has the name now is put out by it, which `replace` must allow."""

    name: Name
    role: Role = Role.NODE
    federation: Name | None = None
    group: Name | None = None
    hours: Annotated[float, Field(gt=0, le=24 * 30)] = 24.0
    replace: bool = False


class Invitation(Message):
    """What `haina invite` writes into a file: where the coordinator is, how to know it, and the one-time token."""

    name: Name
    role: Role
    federation: Name | None
    http: Short
    grpc: Short
    authority: str
    fingerprint: Sha256
    token: str = Field(repr=False)
    expires: str


class NodeInfo(Message):
    """One node as an operator sees it. Times are seconds since 1970 (UTC).

    `identity` is the fingerprint of the key that signs its part in secure sums, to be compared with what the site sees.
    """

    name: Name
    role: Role
    state: Literal["active", "revoked"]
    group: Name | None = None
    federation: Name | None = None
    examples: int = 0
    doing: str = ""
    last_seen: float | None = None
    joined: float | None = None
    certificate_expires: float | None = None
    settings_version: int = 0
    software: str = ""
    codec: str = ""
    identity: str | None = None
    dataset: str = ""


class RoundInfo(Message):
    """One round as an operator sees it; `record` is the `RoundRecord` of a closed one.

    `failures` says of each node that could not train where in the code that was; for one round only, not in lists. `stage` is where a secure sum
    stands.
    """

    federation: Name
    number: int
    state: Literal["open", "closing", "closed", "failed"]
    version: int
    opened: float
    deadline: float
    closed: float | None = None
    invited: int = 0
    arrived: int = 0
    failed: int = 0
    quorum: int = 0
    reason: str = ""
    record: dict[str, Any] | None = None
    failures: dict[str, str] = Field(default_factory=dict)
    stage: str = ""


class FederationInfo(Message):
    """One federation as an operator sees it. `promises` says in sentences what of updates is hidden, and from whom."""

    name: Name
    state: Literal["running", "paused", "stopped", "finished"]
    rounds: int
    closed: int
    version: int
    model: Sha256 | None = None
    reason: str = ""
    metrics: dict[str, float] = Field(default_factory=dict)
    round: RoundInfo | None = None
    nodes: int = 0
    result: str = ""
    promises: tuple[str, ...] = ()


class ModelInfo(Message):
    """One version of a model. `parent` is the version it was made from; a roll-back makes a new version with old bytes."""

    federation: Name
    version: int
    sha256: Sha256
    parent: int | None
    round: int
    created: float
    bytes: int
    metrics: dict[str, float] = Field(default_factory=dict)
    note: str = ""
    kept: bool = True


class SettingsChange(Message):
    """Change dynamic settings of one scope: `global`, `group:NAME` or `node:NAME`.

    `expect` is the version the caller has seen (compare-and-set); None takes whatever is there. A value of None removes the scope's own value.
    """

    scope: Annotated[str, Field(pattern=r"^(global|(group|node):[A-Za-z0-9][A-Za-z0-9_-]{0,62})$")] = "global"
    values: dict[str, Any] = Field(max_length=100)
    expect: Count | None = None
    why: Annotated[str, Field(max_length=500)] = ""
    hours: Annotated[float, Field(gt=0, le=24 * 365)] | None = None
    dry_run: bool = False


class SettingsEntry(Message):
    """One change in the log of settings: who, when, why, and what differs."""

    version: int
    scope: str
    values: dict[str, Any]
    before: dict[str, Any] = Field(default_factory=dict)
    who: str
    when: float
    why: str = ""
    expires: float | None = None


class AuditEntry(Message):
    """One action in the audit log."""

    id: int
    when: float
    who: str
    action: str
    subject: str = ""
    detail: dict[str, Any] = Field(default_factory=dict)


class BudgetInfo(Message):
    """One privacy budget: what its owner allows for a data set, and what is spent of it (`haina.privacy.ledger`).

    `spent_epsilon` holds with `spent_delta`; `fraction` is the part of the budget that is spent.
    """

    owner: Name
    dataset: str = ""
    epsilon: float
    delta: float = 0.0
    composition: Literal["pure", "zcdp"]
    opened: float = 0.0
    parts: tuple[str, ...] = ()
    spent_epsilon: float = 0.0
    spent_delta: float = 0.0
    spent_rho: float = 0.0
    fraction: float = 0.0


class ChargeInfo(Message):
    """One release of one owner's data, as it is charged to a budget (`haina.privacy.budget.Charge`)."""

    id: str
    owner: Name
    dataset: str = ""
    part: str = "*"
    federation: Name
    round: int
    mechanism: str
    epsilon: float | None = None
    delta: float = 0.0
    rho: float = 0.0
    state: Literal["reserved", "released", "void"]
    at: float = 0.0
    why: str = ""
