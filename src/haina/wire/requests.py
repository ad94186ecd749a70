"""What a call asks for, where the answer needs no more than a few words: the parts of an address and of a query, checked like every other message."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from haina.wire.messages import Count, Message, Name, Sha256

Why = Annotated[str, Field(max_length=500)]
Scope = Annotated[str, Field(pattern=r"^(global|(group|node):[A-Za-z0-9][A-Za-z0-9_-]{0,62})$")]
#: How many of the newest entries.
Last = Annotated[int, Field(ge=1, le=10_000)]


class Nothing(Message):
    """A call that says all by its address."""


class Wanted(Message):
    """Bytes of a federation, by their SHA-256: a model, or a control vector."""

    federation: Name
    sha256: Sha256


class Slot(Message):
    """The place of the caller's update in one round."""

    federation: Name
    round: Count


class Latest(Message):
    """The newest entries of a log."""

    last: Last = 100


class OfFederation(Message):
    """One federation."""

    federation: Name


class Rounds(OfFederation):
    """The newest rounds of a federation."""

    last: Last = 100


class Command(OfFederation):
    """Hold a federation, let it go on, or end it."""

    command: Literal["start", "pause", "stop"]
    why: Why = ""


class Rollback(OfFederation):
    """Make an earlier version of the model the newest again."""

    version: Count
    why: Why = ""


class Revoke(Message):
    """Shut a node out for good."""

    name: Name
    why: Why = ""


class InScope(Message):
    """Settings of one scope."""

    scope: Scope = "global"


class Restore(Message):
    """Make the settings as they were at a version."""

    version: Count
    why: Why = ""


class Follow(Message):
    """What happens from now on, in one federation or in all."""

    federation: Name | None = None


class Charges(Latest):
    """The newest charges to privacy budgets, of one owner or of all."""

    owner: Name | None = None
