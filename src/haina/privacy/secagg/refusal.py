"""Refusals of a secure sum. Each has a code, so that the other end, a log and a test can tell them apart."""

from __future__ import annotations

from typing import Literal

from haina.errors import PrivacyError

Code = Literal[
    "malformed",  # bytes or numbers that no correct program sends
    "order",  # a step was asked for before the one that it follows
    "replayed",  # a step was asked for a second time
    "changed",  # not what was agreed on or signed before
    "weak",  # the parameters protect less than was promised
    "substituted",  # another identity key than the one that is known for the name
    "signature",  # a signature does not fit
    "unknown",  # a name that is not in the group
    "missing",  # the member itself is left out
    "too_few",  # too few take part, answered or agreed
    "apart",  # so many are missing side by side that the sum could fall into sums of parts
    "damaged",  # shares give a secret that is not the one its owner committed to
]


class SecAggError(PrivacyError):
    """A message of a secure sum must not be answered, or the sum cannot be opened.

    Args:
        code: what kind of refusal it is.
        what: what was wrong, with the offending value.
        allowed: what would have been accepted.
        remedy: what the reader can do now.
    """

    def __init__(self, code: Code, what: str, *, allowed: str = "", remedy: str = "") -> None:
        self.code: Code = code
        super().__init__(what, allowed=allowed, remedy=remedy)
