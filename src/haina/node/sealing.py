"""Sealing: this site's part in the secure sum of one round, from a trained update to the shares that open the sum.

Secrets are in memory only. The coordinator says which step comes next, and nothing else: who the others are is held against their signatures and the
keys that are known of them, how a sum must be made follows from the federation file, and whatever does not fit is refused with a typed reason, which
goes to the operator and to the person at this site.

The trap is to be asked twice. The same question gets the same bytes, for an answer may be lost on its way; another question of the same kind goes to
the member (`haina.privacy.secagg.members`), which knows which of them must never be answered.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haina.artifact import Array
from haina.errors import PrivacyError
from haina.federation.sealed import setting_of, terms_of
from haina.node.peers import Peers
from haina.privacy.policy import Policy, Words
from haina.privacy.secagg import Advert, Inbox, Member, SecAggError, pack, unpack
from haina.privacy.stream import Stream
from haina.update import Update
from haina.wire.messages import Sealed, SealedTask, Task


@dataclass(frozen=True)
class Masked:
    """What a site uploads: words, of which each is as likely as any other."""

    words: bytes
    codec: str
    length: int


#: What a site answers.
Answered = Sealed | Masked


@dataclass
class Sealing:
    """One round's part.

    Args:
        policy: with secure aggregation.
        task: that was trained.
        update: what came of it; forgotten once it is masked.
        memory: what the site remembers once it is delivered.
        key: of this site.
        peers: the others' keys.
        fewest: members of a group below which this site takes no part.
        begin: called before anything of the update leaves; it raises where that must not be.
        entropy: random bytes.
        delivered: True when the coordinator has acknowledged the upload.
    """

    policy: Policy
    task: Task
    update: Update | None
    memory: Mapping[str, Array]
    key: Ed25519PrivateKey
    peers: Peers
    fewest: int
    begin: Callable[[int], None]
    entropy: Callable[[int], bytes]
    delivered: bool = False
    _members: int = 0
    _answers: dict[str, tuple[bytes, Answered]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.update is not None
        self._name, self._size = self.update.client, len(self.update.vector)
        self._terms = terms_of(self.policy, self.task, self._size)
        self._member = Member(self._name, self.key, self._terms, self.entropy)
        self._advert = self._sealed("advertise", self._member.advertise().to_bytes())

    def fits(self, step: Task | SealedTask) -> bool:
        """True for a step, or a task, of this very round."""
        return (step.federation, step.round) == (self.task.federation, self.task.round)

    def answered(self, step: SealedTask) -> bool:
        """True where this very question was answered before."""
        return self._answers.get(step.stage, (b"", None))[0] == _question(step)

    def advertise(self) -> Sealed:
        """The site has trained: the keys of the round."""
        return self._advert

    def answer(self, step: SealedTask) -> Answered:
        """What a step is answered with.

        Raises:
            PrivacyError: it must not be answered; a `SecAggError` says by its code what was wrong.
        """
        if not self.answered(step):
            take: dict[str, Callable[[SealedTask], Answered]]
            take = {
                "share": self._share,
                "upload": self._mask,
                "consent": self._consent,
                "unmask": self._unmask,
            }
            self._answers[step.stage] = _question(step), take[step.stage](step)
        return self._answers[step.stage][1]

    def forget_words(self) -> None:
        """The upload has arrived."""
        self.delivered = True
        question, _ = self._answers["upload"]
        self._answers["upload"] = question, Masked(b"", "", 0)

    def _share(self, step: SealedTask) -> Sealed:
        adverts = [Advert.from_bytes(data) for data in unpack(_bytes(step)).values()]
        if len(adverts) < self.fewest:
            raise SecAggError(
                "weak",
                f"the group has {len(adverts)} members",
                allowed=f"{self.fewest} or more, as the federation file promises",
                remedy="The smaller the group, the more its sum tells of each",
            )
        self.peers.admit(adverts, self._name)
        setting = setting_of(self.policy, self._terms, step.group, len(adverts))
        shares = self._member.share(setting, adverts, self.peers.known)
        self.peers.meet(adverts)
        self._members = len(adverts)
        return self._sealed("share", pack(shares))

    def _mask(self, step: SealedTask) -> Masked:
        inbox = Inbox.from_bytes(_bytes(step))
        if not self._members:
            raise SecAggError("order", "an update is asked for before keys were shared")
        if self.update is None:
            raise SecAggError(
                "replayed",
                f"an update of round {self.task.round} is asked for a second time, with other company",
                allowed="once a round",
                remedy="Two masks of one update would show it",
            )
        words = self._words(self.update)
        masked = self._member.upload(inbox, words)
        self.begin(self.task.round)
        self.update = None
        codec = "masked" if self.policy.word == 32 else "masked64"
        return Masked(masked.astype(masked.dtype.newbyteorder("<"), copy=False).tobytes(), codec, len(masked))

    def _words(self, update: Update) -> Words:
        limit, weight = self.task.limit, update.report.examples
        if limit is None and self.policy.mechanism is not None:
            raise SecAggError(
                "changed",
                "the task names no limit, and noise covers updates up to one",
                allowed="the limit that the federation file asks for",
                remedy="Without it the update would leave with less cover than was promised",
            )
        vector, stream = np.asarray(update.vector), Stream.fresh(self.entropy)
        try:
            return self.policy.seal(vector, weight, limit, self._members, stream)
        except PrivacyError as error:
            # Which number it was is told to the person here alone.
            raise PrivacyError(
                "its update does not fit into the sum", allowed=str(error), remedy=error.remedy
            ) from error

    def _consent(self, step: SealedTask) -> Sealed:
        return self._sealed("consent", self._member.consent(step.uploaders))

    def _unmask(self, step: SealedTask) -> Sealed:
        answer = self._member.unmask(step.uploaders, unpack(_bytes(step)))
        return self._sealed("unmask", answer.to_bytes())

    def _sealed(self, stage: str, data: bytes) -> Sealed:
        return Sealed.model_validate(
            {
                "federation": self.task.federation,
                "round": self.task.round,
                "stage": stage,
                "data": base64.b64encode(data).decode(),
            }
        )


def words_of(error: PrivacyError) -> str:
    """A refusal as the operator reads it: its code first."""
    code = f"{error.code}: " if isinstance(error, SecAggError) else ""
    return f"{code}{error.what}"[:1000]


def _bytes(step: SealedTask) -> bytes:
    try:
        return base64.b64decode(step.data, validate=True)
    except ValueError:
        raise SecAggError("malformed", f"what comes with {step.stage} is not base64") from None


def _question(step: SealedTask) -> bytes:
    """What is asked, whatever the clock says."""
    return hashlib.sha256(step.model_copy(update={"seconds": 0.0}).model_dump_json().encode()).digest()
