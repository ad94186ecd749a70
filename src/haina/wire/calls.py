"""Every call a coordinator answers: one table that drives the HTTP door, its OpenAPI document, the callers' end, and (by name) the gRPC door.

A request is one message. Its fields that the path names travel in the path; the others in the query of a GET, or in the JSON body of a POST. `kind`
says what else there is: the bytes of a model going down or up, or JSON lines without end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter

from haina.wire.messages import (
    Ack,
    Ask,
    AuditEntry,
    BudgetInfo,
    ChargeInfo,
    Enrol,
    Enrolled,
    Event,
    Failed,
    FederationInfo,
    Hello,
    Invitation,
    Invite,
    Message,
    ModelInfo,
    NodeInfo,
    Received,
    Renew,
    RoundInfo,
    Sealed,
    SettingsChange,
    SettingsEntry,
    Welcome,
)
from haina.wire.requests import (
    Charges,
    Command,
    Follow,
    InScope,
    Latest,
    Nothing,
    OfFederation,
    Restore,
    Revoke,
    Rollback,
    Rounds,
    Slot,
    Wanted,
)

#: Where an upload says what it is and how much of it is there already: headers of HTTP (base64url of JSON; decimal) and, in lower case, metadata of
#: gRPC (`haina-manifest-bin` is the JSON as it is).
MANIFEST, OFFSET = "Haina-Manifest", "Haina-Offset"
#: gRPC trailing metadata that holds the `Problem`, as JSON.
PROBLEM = "haina-problem-bin"
#: A JSON body, and a manifest before base64, are refused beyond so many bytes.
MAX_JSON = 256 * 1024
MAX_MANIFEST = 24 * 1024
#: Bytes of a model that travel in one piece.
CHUNK = 1 << 20
#: The same as one message of gRPC, which holds several of them for each stream: smaller ones cost no more time, and a fraction of the memory.
MESSAGE = 1 << 18
#: The gRPC service.
SERVICE = "haina.v1.Coordinator"

Q = TypeVar("Q", bound=Message)
A = TypeVar("A")


@dataclass(frozen=True)
class Call(Generic[Q, A]):
    """One call.

    Args:
        name: of the Core's method that answers it.
        method: HTTP method.
        path: HTTP path; `{field}` stands for a field of the request.
        request: the message that holds everything the caller says.
        answer: type of the answer (of one line, where `kind` is "lines").
        who: the roles that may call, in words.
        summary: what it does.
        kind: "json"; "download" (the answer is bytes), "upload" (so is the body), "lines" (one JSON document a line, without end).
    """

    name: str
    method: str
    path: str
    request: type[Q]
    answer: TypeAdapter[A]
    who: str
    summary: str
    kind: Literal["json", "download", "upload", "lines"] = "json"
    parameters: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        inside = tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))
        object.__setattr__(self, "parameters", inside)


#: A process makes a few of the calls: what reads an answer is built when the first comes.
_LATER = ConfigDict(defer_build=True)
_ANYONE, _NODE, _NODES = "anyone", "node", "node, viewer or operator"
_VIEWER, _OPERATOR = "viewer or operator", "operator"
_F = "/v1/federations/{federation}"
_TABLE = TypeAdapter(dict[str, Any], config=_LATER)

INDEX = Call("index", "GET", "/v1/", Nothing, _TABLE, _ANYONE, "Name, version and documents")
OPENAPI = Call("openapi", "GET", "/v1/openapi.json", Nothing, _TABLE, _ANYONE, "This document")
HEALTH = Call("health", "GET", "/v1/health", Nothing, _TABLE, _ANYONE, "How the coordinator is")
LIVEZ = Call("livez", "GET", "/v1/livez", Nothing, _TABLE, _ANYONE, "The process answers")
READYZ = Call("readyz", "GET", "/v1/readyz", Nothing, _TABLE, _ANYONE, "Calls can be answered")

ENROL = Call("enrol", "POST", "/v1/enrol", Enrol, TypeAdapter(Enrolled), _ANYONE, "A token for a certificate")
RENEW = Call("renew", "POST", "/v1/renew", Renew, TypeAdapter(Enrolled), _NODES, "The next certificate")
HELLO = Call("hello", "POST", "/v1/hello", Hello, TypeAdapter(Welcome), _NODE, "A node says what it is")
ASK = Call(
    "ask", "POST", "/v1/ask", Ask, TypeAdapter(Event), _NODE, "What is there to do? Waits for it (long-poll)"
)
DOWNLOAD = Call(
    "download",
    "GET",
    _F + "/blobs/{sha256}",
    Wanted,
    TypeAdapter(bytes),
    _NODES,
    "The bytes of a model; `Range` goes on where an earlier call was cut",
    "download",
)
UPLOAD = Call(
    "upload",
    "PUT",
    _F + "/rounds/{round}/update",
    Slot,
    TypeAdapter(Ack),
    _NODE,
    "The bytes of an update, from the offset that is there already",
    "upload",
)
RECEIVED = Call(
    "received",
    "GET",
    _F + "/rounds/{round}/update",
    Slot,
    TypeAdapter(Received),
    _NODE,
    "How much of the caller's update is there",
)
FAIL = Call(
    "fail",
    "POST",
    _F + "/rounds/{round}/failure",
    Failed,
    TypeAdapter(Ack),
    _NODE,
    "The caller could not train",
)
SEAL = Call(
    "seal",
    "POST",
    _F + "/rounds/{round}/sealed",
    Sealed,
    TypeAdapter(Ack),
    _NODE,
    "The caller's message in one stage of a secure sum",
)

NODES = Call(
    "nodes", "GET", "/v1/nodes", Nothing, TypeAdapter(list[NodeInfo], config=_LATER), _VIEWER, "All nodes"
)
INVITE = Call(
    "invite", "POST", "/v1/invitations", Invite, TypeAdapter(Invitation), _OPERATOR, "An invitation"
)
REVOKE = Call(
    "revoke", "POST", "/v1/nodes/{name}/revoke", Revoke, TypeAdapter(NodeInfo), _OPERATOR, "Shut a node out"
)
FEDERATIONS = Call(
    "federations",
    "GET",
    "/v1/federations",
    Nothing,
    TypeAdapter(list[FederationInfo], config=_LATER),
    _VIEWER,
    "All federations",
)
COMMAND = Call(
    "command",
    "POST",
    _F + "/command",
    Command,
    TypeAdapter(FederationInfo),
    _OPERATOR,
    "Start, pause or stop a federation",
)
ROUNDS = Call(
    "rounds",
    "GET",
    _F + "/rounds",
    Rounds,
    TypeAdapter(list[RoundInfo], config=_LATER),
    _VIEWER,
    "The newest rounds",
)
ROUND = Call(
    "round", "GET", _F + "/rounds/{round}", Slot, TypeAdapter(RoundInfo), _VIEWER, "One round and its record"
)
MODELS = Call(
    "models",
    "GET",
    _F + "/models",
    OfFederation,
    TypeAdapter(list[ModelInfo], config=_LATER),
    _VIEWER,
    "Versions of the model",
)
ROLLBACK = Call(
    "rollback",
    "POST",
    _F + "/models/rollback",
    Rollback,
    TypeAdapter(ModelInfo),
    _OPERATOR,
    "An earlier version becomes the newest",
)
SETTINGS = Call("settings", "GET", "/v1/settings", InScope, _TABLE, _VIEWER, "Settings of a scope")
CONFIGURE = Call(
    "configure",
    "POST",
    "/v1/settings",
    SettingsChange,
    TypeAdapter(SettingsEntry),
    _OPERATOR,
    "Change settings",
)
SETTINGS_LOG = Call(
    "settings_log",
    "GET",
    "/v1/settings/log",
    Latest,
    TypeAdapter(list[SettingsEntry], config=_LATER),
    _VIEWER,
    "Who changed which settings",
)
SETTINGS_ROLLBACK = Call(
    "settings_rollback",
    "POST",
    "/v1/settings/rollback",
    Restore,
    TypeAdapter(SettingsEntry),
    _OPERATOR,
    "Settings as they were",
)
AUDIT = Call(
    "audit", "GET", "/v1/audit", Latest, TypeAdapter(list[AuditEntry], config=_LATER), _VIEWER, "Who did what"
)
BUDGETS = Call(
    "budgets",
    "GET",
    "/v1/budgets",
    Nothing,
    TypeAdapter(list[BudgetInfo], config=_LATER),
    _VIEWER,
    "Privacy budgets, and what is spent of them",
)
CHARGES = Call(
    "charges",
    "GET",
    "/v1/charges",
    Charges,
    TypeAdapter(list[ChargeInfo], config=_LATER),
    _VIEWER,
    "What was charged to privacy budgets",
)
FOLLOW = Call(
    "follow",
    "GET",
    "/v1/audit/follow",
    Follow,
    TypeAdapter(AuditEntry),
    _VIEWER,
    "What happens, as it happens: one JSON document a line; an empty line now and then says that the connection lives",
    "lines",
)

CALLS: tuple[Call[Any, Any], ...] = (
    *(
        INDEX,
        OPENAPI,
        HEALTH,
        LIVEZ,
        READYZ,
        ENROL,
        RENEW,
        HELLO,
        ASK,
        DOWNLOAD,
        UPLOAD,
        RECEIVED,
        FAIL,
        SEAL,
    ),
    *(NODES, INVITE, REVOKE, FEDERATIONS, COMMAND, ROUNDS, ROUND, MODELS, ROLLBACK),
    *(SETTINGS, CONFIGURE, SETTINGS_LOG, SETTINGS_ROLLBACK, AUDIT, BUDGETS, CHARGES, FOLLOW),
)
