"""What a scheme for secure sums offers, whichever it is: a member's five steps and the coordinator's four calls.

SecAgg+ (`members`, `aggregator`) needs all five. A one-shot scheme (Willow, OPA), in which members encrypt to a committee, has less to say: its
`share` gives no shares, its `consent` may be empty, and the committee alone answers. What carries the messages sees bytes either way.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from haina.privacy.secagg.masks import Words
from haina.privacy.secagg.messages import Advert, Answer, Inbox
from haina.privacy.secagg.setting import Setting


class Party(Protocol):
    """A member, with something to hide. Steps are taken in this order, each once; each may refuse with `SecAggError`."""

    def advertise(self) -> Advert:
        """Keys for this round."""

    def share(
        self, setting: Setting, adverts: Sequence[Advert], known: Callable[[str], bytes | None]
    ) -> dict[str, bytes]:
        """What each of the others must have for the sum to open, sealed for it."""

    def upload(self, inbox: Inbox, words: Words) -> Words:
        """The vector, hidden."""

    def consent(self, uploaders: Sequence[str]) -> bytes:
        """This member's word on whose vectors are in the sum."""

    def unmask(self, uploaders: Sequence[str], consents: Mapping[str, bytes]) -> Answer:
        """Its part in opening the sum of these, and of no others."""


class Opener(Protocol):
    """The coordinator's side: holds no secret, and opens a sum with what the members answered."""

    def inbox(self, shared: Mapping[str, Mapping[str, bytes]], name: str) -> Inbox:
        """What a member is told once the others have shared."""

    def consents(self, received: Mapping[str, bytes], name: str) -> dict[str, bytes]:
        """What a member is shown before it answers."""

    def enough(
        self, sharers: Collection[str], uploaders: Collection[str], answers: Mapping[str, Answer]
    ) -> bool:
        """Whether the answers so far open the sum."""

    def open(
        self,
        total: Words,
        sharers: Collection[str],
        uploaders: Collection[str],
        answers: Mapping[str, Answer],
    ) -> None:
        """Turn the sum of what was uploaded into the sum of what was hidden, in place."""
