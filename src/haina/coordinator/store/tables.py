"""The tables of a coordinator's memory, as SQLAlchemy Core sees them; `migrations/` holds the same as steps from one version to the next.

Times are seconds since 1970 (UTC) from the coordinator's clock, never the database's. JSON lies in text columns. The trap: text comes from the
network, and PostgreSQL refuses a NUL that SQLite takes, so what people read is of type `Words`, which replaces what cannot be kept.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

#: The newest step of `migrations/versions`. Compared with what a database holds, so that Alembic is imported only when there is a step to take.
REVISION = "0002"


class Json(sa.types.TypeDecorator[Any]):
    """A value as compact JSON. ASCII, so that no text in it can be refused; the order of keys is kept."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: D102
        return None if value is None else json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: D102
        return None if value is None else json.loads(value)


class Words(sa.types.TypeDecorator[str]):
    """Free text for people; a NUL or half a surrogate pair becomes U+FFFD."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: D102
        if value is None:
            return None
        return value.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


class Serial(sa.types.TypeDecorator[int]):
    """The serial number of a certificate: up to 160 bits, kept as decimal digits."""

    impl = sa.String(50)
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:  # noqa: D102
        return None if value is None else str(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:  # noqa: D102
        return None if value is None else int(value)


class Amount(sa.types.TypeDecorator[Decimal]):
    """An exact sum of a privacy budget: more digits than a number of any database keeps, so they are text."""

    impl = sa.String(80)
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:  # noqa: D102
        return None if value is None else format(value, "f")

    def process_result_value(self, value: str | None, dialect: Dialect) -> Decimal | None:  # noqa: D102
        return None if value is None else Decimal(value)


def _name(name: str, **kwargs: Any) -> sa.Column[str]:
    return sa.Column(name, sa.String(63), nullable=kwargs.pop("nullable", False), **kwargs)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(63), primary_key=True)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, primary_key=True, autoincrement=False)


def _count(name: str, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _dataset(**kwargs: Any) -> sa.Column[str]:
    return sa.Column("dataset", sa.String(200), nullable=False, **kwargs)


def _sha(name: str, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), nullable=nullable)


def _real(name: str, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Double, nullable=nullable)


def _amount(name: str) -> sa.Column[Decimal]:
    return sa.Column(name, Amount, nullable=False)


def _words(name: str, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, Words, nullable=nullable)


def _json(name: str, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, Json, nullable=nullable)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


metadata = sa.MetaData()

federation = sa.Table(
    "federation", metadata,
    _key("name"), sa.Column("text", sa.Text, nullable=False), sa.Column("columns", sa.Text, nullable=False),
    _name("state"), _words("reason"), _count("version"), _count("closed"), _real("created"),
    _words("result", nullable=True),
)  # fmt: skip

model = sa.Table(
    "model", metadata,
    _key("federation"), _number("version"), _sha("sha256"), _count("bytes"), _count("parent", nullable=True), _count("round"),
    _sha("state_sha256", nullable=True), _real("created"), _json("metrics"), _words("note"), _flag("kept"),
    sa.ForeignKeyConstraint(["federation"], ["federation.name"]),
)  # fmt: skip

round_ = sa.Table(
    "round", metadata,
    _key("federation"), _number("number"), _count("version"), _name("state"), _json("roster"), _json("task"),
    _count("target"), _count("quorum"), _real("opened"), _real("deadline"), _real("closed", nullable=True),
    sa.Column("holder", sa.String(200), nullable=False), _count("fence"), _real("lease_until"), _words("reason"), _json("record", nullable=True),
    _json("stage", nullable=True),
    sa.ForeignKeyConstraint(["federation"], ["federation.name"]),
)  # fmt: skip
# Whatever the code does, two rounds of one federation are never under way at once.
sa.Index(
    "round_under_way", round_.c.federation, unique=True,
    sqlite_where=round_.c.state.in_(["open", "closing"]), postgresql_where=round_.c.state.in_(["open", "closing"]),
)  # fmt: skip

contribution = sa.Table(
    "contribution", metadata,
    _key("federation"), _number("round"), _key("node"), _count("counted_in"), _count("version"), _name("status"),
    _sha("sha256", nullable=True), _count("bytes"), _name("codec"), _count("length"), _json("report", nullable=True),
    sa.Column("signature", sa.String(200), nullable=False), _real("square", nullable=True), _words("reason"), _words("where"),
    _count("staleness"), _real("seconds"), _real("received"), sa.Column("epoch", sa.String(200), nullable=False), _flag("kept"),
    sa.UniqueConstraint("federation", "counted_in", "node", name="contribution_once"),
    sa.ForeignKeyConstraint(["federation", "counted_in"], ["round.federation", "round.number"]),
)  # fmt: skip

partial = sa.Table(
    "partial", metadata,
    _key("federation"), _number("round"), sa.Column("epoch", sa.String(200), primary_key=True), _number("seq"),
    sa.Column("data", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["federation", "round"], ["round.federation", "round.number"]),
)  # fmt: skip

node = sa.Table(
    "node", metadata,
    _key("name"), _name("role"), _name("state"), _name("group", nullable=True), _name("federation", nullable=True),
    sa.Column("serial", Serial, nullable=True), sa.Column("previous", Serial, nullable=True), _real("certificate_expires", nullable=True),
    _count("examples"), _words("software"), _words("codec"), _name("mode"), _words("doing"), _real("last_seen", nullable=True),
    _real("joined", nullable=True), _count("settings_version"), _sha("identity", nullable=True),
    sa.Column("dataset", Words, nullable=False, server_default=""),
)  # fmt: skip

invitation = sa.Table(
    "invitation", metadata,
    sa.Column("hash", sa.String(64), primary_key=True), _name("name"), _name("role"), _name("federation", nullable=True),
    _name("group", nullable=True), _real("expires"), _real("used", nullable=True),
    sa.Column("key", sa.String(200), nullable=True),
)  # fmt: skip

setting = sa.Table(
    "setting", metadata,
    _number("version"), sa.Column("scope", sa.String(80), nullable=False, index=True), _json("values"),
    _words("who"), _real("when"), _words("why"), _real("expires", nullable=True),
)  # fmt: skip

audit = sa.Table(
    "audit", metadata,
    _number("id"), _real("when"), _words("who"), _name("action"), _words("subject"), _json("detail"),
)  # fmt: skip

#: Messages of a round with secure aggregation, sealed for others or signed; they go when the round ends.
sealed = sa.Table(
    "sealed", metadata,
    _key("federation"), _number("round"), _key("stage"), _key("node"), sa.Column("data", sa.LargeBinary, nullable=False), _real("received"),
    sa.ForeignKeyConstraint(["federation", "round"], ["round.federation", "round.number"]),
)  # fmt: skip

#: The privacy budgets; `budget_part` holds the running sums of `charge`, those that are void left out.
budget = sa.Table(
    "budget", metadata,
    _key("owner"), _dataset(primary_key=True), _real("epsilon"), _real("delta"), _name("composition"), _real("opened"), _json("parts"),
)  # fmt: skip

budget_part = sa.Table(
    "budget_part", metadata,
    _key("owner"), _dataset(primary_key=True), _key("part"), _amount("epsilon"), _amount("delta"), _amount("rho"),
    sa.ForeignKeyConstraint(["owner", "dataset"], ["budget.owner", "budget.dataset"]),
)  # fmt: skip

charge = sa.Table(
    "charge", metadata,
    sa.Column("id", sa.String(200), primary_key=True), _name("owner"), _dataset(), _name("part"), _name("federation"), _count("round"),
    _words("mechanism"), _real("epsilon", nullable=True), _real("delta"), _real("rho"), _name("state"), _real("at"), _words("why"),
    sa.ForeignKeyConstraint(["owner", "dataset"], ["budget.owner", "budget.dataset"]),
    sa.Index("charge_budget", "owner", "dataset"), sa.Index("charge_round", "federation", "round"), sa.Index("charge_at", "at"),
)  # fmt: skip

#: PostgreSQL only: bytes that every replica reads (`haina.coordinator.blobs`), in rows of at most 1 MB.
blob = sa.Table(
    "blob", metadata,
    _sha("sha256"), sa.Column("seq", sa.BigInteger, nullable=False), sa.Column("data", sa.LargeBinary, nullable=False),
    sa.PrimaryKeyConstraint("sha256", "seq"),
)  # fmt: skip

#: PostgreSQL only: the last transaction that each thread of each replica committed (`database.py` says why).
writer = sa.Table(
    "writer", metadata,
    sa.Column("name", sa.String(80), primary_key=True), _count("seq"), _real("at"),
)  # fmt: skip

#: What SQLite, which has one process and files beside it, does without.
POSTGRESQL_ONLY = frozenset({"blob", "writer"})
