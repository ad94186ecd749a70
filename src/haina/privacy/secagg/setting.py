"""What one secure sum is about, in numbers that all its members agree on, and the digests that tie every key and signature to them.

`Terms` are known before the group is: a member signs its keys over them. A `Setting` adds what follows from who came: which group, and how its
members share their secrets. The digests are SHA-256 over every field at a fixed place or with its length, so no two settings have the same bytes.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import sha256
from typing import Literal

from haina.privacy.secagg.refusal import SecAggError

Word = Literal[32, 64]

#: Begins every label, so that no key and no signature of this protocol means anything in another one, or in another version of it.
DOMAIN = b"haina/secagg/1/"
#: Words of the longest vector: 64 bits each, they are still fewer bytes than GCM makes with one key. Members of the largest group (`shamir`).
LONGEST, LARGEST = 1 << 32, 1 << 16
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a member knows when it makes its keys.

    Args:
        federation: its name, 1 to 255 bytes of UTF-8.
        round: >= 0.
        task: SHA-256 of what every member is told to do, the model that it begins from included; 64 hexadecimal digits. Members who were told
            different things could be told apart in the sum of what they did.
        length: words of a vector, >= 1.
        word: bits of a word, 32 or 64; sums are taken modulo 2^word.
        corrupt: share of a group, in [0, 0.5), that may work together with the coordinator. `plan` makes degree and threshold from it, and every
            member checks that they suffice for it.

    Raises:
        SecAggError: "malformed".
    """

    federation: str
    round: int
    task: str
    length: int
    word: Word = 32
    corrupt: float = 0.1

    def __post_init__(self) -> None:
        name_bytes(self.federation)
        _check_range("round", self.round, 0, (1 << 63) - 1)
        _check_range("length", self.length, 1, LONGEST)
        if not _SHA256.fullmatch(self.task):
            raise SecAggError(
                "malformed", f"the task is {self.task[:80]!r}", allowed="a SHA-256 in 64 hexadecimal digits"
            )
        if self.word not in (32, 64):
            raise SecAggError("malformed", f"a word has {self.word} bits", allowed="32 or 64")
        if not 0 <= self.corrupt < 0.5:
            raise SecAggError("malformed", f"corrupt is {self.corrupt}", allowed="a share in [0, 0.5)")

    @property
    def terms(self) -> Terms:
        """These fields alone."""
        return (
            self
            if type(self) is Terms
            else Terms(**{field.name: getattr(self, field.name) for field in fields(Terms)})
        )

    def context(self) -> bytes:
        """32 bytes that stand for all of it."""
        return _terms_digest(self.terms)

    def setting(self, group: int, degree: int, threshold: int, least: int) -> Setting:
        """The setting of a group that came together on these terms."""
        own = {field.name: getattr(self, field.name) for field in fields(Terms)}
        return Setting(**own, group=group, degree=degree, threshold=threshold, least=least)


@dataclass(frozen=True, kw_only=True)
class Setting(Terms):
    """One group of one round.

    Args:
        group: number of the group within the round, >= 0.
        degree: k, neighbours of each member: an even number, or all the others.
        threshold: t, how many of a secret's k + 1 shares (its owner keeps one) open it; 2 to k + 1.
        least: the fewest members whose sum may be opened, and the fewest that must have agreed on who they are; >= threshold.

    Raises:
        SecAggError: "malformed".
    """

    group: int
    degree: int
    threshold: int
    least: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_range("group", self.group, 0, (1 << 31) - 1)
        _check_range("degree", self.degree, 1, LARGEST)
        _check_range("threshold", self.threshold, 2, self.degree + 1)
        _check_range("least", self.least, self.threshold, LARGEST)

    def context(self) -> bytes:
        """32 bytes that stand for all of it, terms included."""
        numbers = struct.pack(">4I", self.group, self.degree, self.threshold, self.least)
        return sha256(DOMAIN + b"setting\0" + _terms_digest(self.terms) + numbers).digest()


def name_bytes(name: str) -> bytes:
    """A name as it is hashed, signed and sent: its length in one byte, then UTF-8.

    Raises:
        SecAggError: "malformed": empty, longer than 255 bytes, or not text.
    """
    try:
        data = name.encode()
    except UnicodeEncodeError:
        data = b""
    if not 1 <= len(data) <= 255:
        raise SecAggError("malformed", f"a name is {name[:80]!r}", allowed="1 to 255 bytes of UTF-8")
    return bytes((len(data),)) + data


@lru_cache(maxsize=64)
def _terms_digest(terms: Terms) -> bytes:
    numbers = struct.pack(
        ">Q32sQBd", terms.round, bytes.fromhex(terms.task), terms.length, terms.word, terms.corrupt
    )
    return sha256(DOMAIN + b"terms\0" + name_bytes(terms.federation) + numbers).digest()


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise SecAggError("malformed", f"{name} is {value}", allowed=f"{low} to {high}")
