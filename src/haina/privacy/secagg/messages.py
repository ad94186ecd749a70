"""What members and the coordinator send each other in a secure sum, as bytes that can be read without trust.

Every message begins with the version and its kind. Numbers are big-endian; a name is its length in one byte, then UTF-8; a table is its number of
entries in four bytes, then for each a name, a length in two bytes and so many bytes, names in ascending order of their bytes. So a message has one
form only. A length is checked against what is there before anything of that length is read.

The trap: to be well formed is not to be true. Who sent a message is for the caller to know, and what it claims is checked where it is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, Literal

from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.setting import name_bytes

VERSION = 1
Kind = Literal[1, 2, 3, 4, 5]
_ADVERT: Kind = 1
_TABLE: Kind = 2
_INBOX: Kind = 3
_CONSENT: Kind = 4
_ANSWER: Kind = 5

#: Bytes of a key, a signature, a share of a 32-byte secret, both shares sealed for a neighbour, and the mark with which a neighbour agrees.
KEY, SIGNATURE, SHARE, MARK = 32, 64, 36, 16
SEALED = 2 * SHARE + 16


@dataclass(frozen=True)
class Advert:
    """The keys of one member for one round.

    Args:
        name: of the member.
        channel: X25519 public key to which its neighbours seal shares.
        mask: X25519 public key of the masks between two members.
        commitment: SHA-256 that binds the member to the seed of its own mask, so that wrong shares of it cannot pass for right ones.
        identity: Ed25519 public key, the member's for as long as it is a member.
        signature: of the identity key, over the terms and all of the above.
    """

    name: str
    channel: bytes
    mask: bytes
    commitment: bytes
    identity: bytes
    signature: bytes

    def body(self) -> bytes:
        """All but the signature."""
        return name_bytes(self.name) + self.channel + self.mask + self.commitment + self.identity

    def to_bytes(self) -> bytes:
        """The message."""
        return bytes((VERSION, _ADVERT)) + self.body() + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Advert:
        """The inverse of `to_bytes`.

        Raises:
            SecAggError: "malformed".
        """
        reader = _Reader(data, _ADVERT)
        name = reader.name()
        channel, mask, commitment, identity = (reader.take(KEY) for _ in range(4))
        advert = cls(name, channel, mask, commitment, identity, reader.take(SIGNATURE))
        reader.end()
        return advert


@dataclass(frozen=True)
class Inbox:
    """What a member is told once the others have shared.

    Args:
        sharers: everyone in the group who shared, in ascending order. All members must be told the same: they sign it with their consent.
        sealed: the shares that neighbours sealed for this member.
    """

    sharers: tuple[str, ...]
    sealed: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """The message."""
        names = [name_bytes(name) for name in self.sharers]
        return (
            bytes((VERSION, _INBOX)) + len(names).to_bytes(4, "big") + b"".join(names) + _table(self.sealed)
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Inbox:
        """The inverse of `to_bytes`.

        Raises:
            SecAggError: "malformed".
        """
        reader = _Reader(data, _INBOX)
        sharers = tuple(reader.names())
        sealed = reader.table()
        reader.end()
        return cls(sharers, sealed)


@dataclass(frozen=True)
class Consent:
    """One member's word on who shared and who uploaded.

    Args:
        signature: for everyone.
        marks: for each neighbour, ascending, a code under the key that the two share: it says the same and costs fifty times less to check.
    """

    #: Where the signature stands in the message, and where its marks begin.
    SIGNED: ClassVar = slice(2, 2 + SIGNATURE)
    signature: bytes
    marks: bytes

    def to_bytes(self) -> bytes:
        """The message."""
        return bytes((VERSION, _CONSENT)) + self.signature + self.marks

    @classmethod
    def from_bytes(cls, data: bytes) -> Consent:
        """The inverse of `to_bytes`.

        Raises:
            SecAggError: "malformed".
        """
        reader = _Reader(data, _CONSENT)
        signature, marks = reader.take(SIGNATURE), reader.rest()
        if len(marks) % MARK:
            raise SecAggError("malformed", f"{len(marks)} bytes of marks", allowed=f"a multiple of {MARK}")
        return cls(signature, marks)


@dataclass(frozen=True)
class Answer:
    """The shares that one member hands out: of each neighbour that shared, one of the two.

    Args:
        seeds: shares of the seeds of those who uploaded, the member's own among them.
        keys: shares of the mask keys of those who shared and did not upload.
    """

    seeds: Mapping[str, bytes] = field(repr=False)
    keys: Mapping[str, bytes] = field(repr=False)

    def to_bytes(self) -> bytes:
        """The message."""
        return bytes((VERSION, _ANSWER)) + _table(self.seeds) + _table(self.keys)

    @classmethod
    def from_bytes(cls, data: bytes) -> Answer:
        """The inverse of `to_bytes`.

        Raises:
            SecAggError: "malformed", also when a name is among both.
        """
        reader = _Reader(data, _ANSWER)
        seeds, keys = reader.table(SHARE), reader.table(SHARE)
        reader.end()
        both = seeds.keys() & keys.keys()
        if both:
            raise SecAggError(
                "malformed", f"an answer has both shares of {min(both)!r}", allowed="one of the two"
            )
        return cls(seeds, keys)


def pack(table: Mapping[str, bytes]) -> bytes:
    """A table of names and bytes as one message: the sealed shares of a member, the consents for one."""
    return bytes((VERSION, _TABLE)) + _table(table)


def unpack(data: bytes) -> dict[str, bytes]:
    """The inverse of `pack`.

    Raises:
        SecAggError: "malformed".
    """
    reader = _Reader(data, _TABLE)
    table = reader.table()
    reader.end()
    return table


def _table(table: Mapping[str, bytes]) -> bytes:
    parts = [len(table).to_bytes(4, "big")]
    for name in sorted(table):
        parts += (name_bytes(name), len(table[name]).to_bytes(2, "big"), table[name])
    return b"".join(parts)


class _Reader:
    """Bytes from a stranger, read from left to right."""

    def __init__(self, data: bytes, kind: Kind) -> None:
        self._data, self._at = data, 0
        head = self.take(2)
        if head != bytes((VERSION, kind)):
            raise SecAggError(
                "malformed",
                f"a message begins with {head.hex()}",
                allowed=f"version {VERSION}, kind {kind}",
                remedy="Both ends need the same version of Haina",
            )

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        left = len(self._data) - self._at
        if size > left:
            raise SecAggError("malformed", f"a message ends {size - left} bytes too early")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """The next number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def name(self) -> str:
        """The next name."""
        data = self.take(self.number(1))
        try:
            name = data.decode()
        except UnicodeDecodeError:
            name = ""
        if not name:
            raise SecAggError("malformed", f"a name is {data[:40]!r}", allowed="1 to 255 bytes of UTF-8")
        return name

    def count(self, smallest: int) -> int:
        """The next number of entries, of which each takes at least `smallest` bytes."""
        count = self.number(4)
        if count * smallest > len(self._data) - self._at:
            raise SecAggError("malformed", f"a message of {len(self._data)} bytes announces {count} entries")
        return count

    def names(self) -> list[str]:
        """The next list of names."""
        names = [self.name() for _ in range(self.count(2))]
        _check_ascending(names)
        return names

    def table(self, size: int | None = None) -> dict[str, bytes]:
        """The next table; every entry of `size` bytes, if given."""
        entries = [(self.name(), self.take(self.number(2))) for _ in range(self.count(4))]
        _check_ascending([name for name, _ in entries])
        for name, value in entries:
            if size is not None and len(value) != size:
                raise SecAggError("malformed", f"{name!r} has {len(value)} bytes", allowed=f"{size}")
        return dict(entries)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def end(self) -> None:
        """Nothing may be left."""
        left = len(self._data) - self._at
        if left:
            raise SecAggError("malformed", f"a message has {left} bytes too many")


def _check_ascending(names: list[str]) -> None:
    for before, after in pairwise(names):
        if not before < after:
            raise SecAggError(
                "malformed", f"{after!r} follows {before!r}", allowed="names in ascending order"
            )
