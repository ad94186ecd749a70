"""One member of a secure sum: the side that has something to hide.

SecAgg+ (Bell et al. 2020) with the double masks of Bonawitz et al. 2017, "Practical Secure Aggregation for Privacy-Preserving Machine Learning". What
a member uploads is its vector plus a mask of its own plus, for each neighbour, a mask that the neighbour takes away. The seed of the first and the
key of the second lie in shares with the neighbours. Who uploads has its seed opened; who shared and did not upload, its key; nobody both.

    advertise   keys for this round, signed
    share       of the whole group's adverts, the member finds its neighbours and seals a share of both secrets for each
    upload      told who shared, it masks with those of its neighbours who did
    consent     told who uploaded, it signs both lists
    unmask      shown that enough signed the same, it hands out one share of each neighbour that shared, once, and forgets all

Why nothing is opened that should not be, though the coordinator may lie and `corrupt` of the members help it:

* Every honest member that answers has the same two lists, because more than half of the honest members must have agreed to them (`plan`). So of each
  member the honest ones open the same secret, and of the other there are only the shares of corrupt neighbours: fewer than t.
* A member does not take part in a sum that it is not in, and `least` uploaders are members who signed. So a claimed uploader who never uploaded, or a
  member who is left out, makes nothing open.
* The lists name the dead by difference: sharers without uploaders. A member cannot be asked for the same neighbour as active and as dead.
* The honest uploaders hang together on the ring (`Cohort.check_together`), so their masks cancel in the sum of all and in no other.

What decides about masks is the list of sharers, not what could be decrypted. Members who were told different lists would mask differently and the
sum would be garbage; but they would agree to different lists, and nothing be opened. A share that does not decrypt or is malformed is dropped, and
the mask with its sender kept. Refusing would let one member that sends rubbish put out all its neighbours; like this its own secrets are a share
shorter.

Only neighbours' adverts are checked by signature. A forged advert cannot sit beside an honest member unnoticed, and members far apart share no
secret; consents are checked against the pinned identities of all.

The trap: secrets live in memory and die with the process, on purpose. A member that starts again has dropped out of the round, and must not begin it
anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from haina.privacy.secagg import checks, keys, shamir
from haina.privacy.secagg.cohort import Cohort
from haina.privacy.secagg.masks import Words, add_masks
from haina.privacy.secagg.messages import KEY, SHARE, SIGNATURE, Advert, Answer, Consent, Inbox
from haina.privacy.secagg.plan import FEWEST, check_strength
from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.setting import Setting, Terms

_STEPS = ("advertise", "share", "upload", "consent", "unmask")


class Member:
    """One member, in one group of one round.

    Args:
        name: as the coordinator and the other members know it.
        identity: signs for this member; its public key is what the others have pinned.
        terms: of the round.
        entropy: gives so many random bytes. 96 are taken now, the rest when sharing.
        fewest: the fewest members in whose sum this one agrees to be, whatever the setting says; >= 2.
    """

    def __init__(
        self,
        name: str,
        identity: Ed25519PrivateKey,
        terms: Terms,
        entropy: Callable[[int], bytes],
        *,
        fewest: int = FEWEST,
    ) -> None:
        self.name, self.terms = name, terms.terms
        self._identity, self._entropy, self._fewest = identity, entropy, fewest
        self._done = 0
        self._channel_key = X25519PrivateKey.from_private_bytes(entropy(KEY))
        self._mask_key = X25519PrivateKey.from_private_bytes(entropy(KEY))
        self._seed = entropy(KEY)
        self._channels: dict[str, keys.Channel] = {}
        self._masks: dict[str, bytes] = {}
        #: Of each neighbour, and of this member, a share of the seed and then one of the key.
        self._held: dict[str, bytes] = {}

    def advertise(self) -> Advert:
        """The keys of this round, signed.

        Raises:
            SecAggError: "replayed": asked a second time.
        """
        self._begin("advertise")
        context = self.terms.context()
        unsigned = Advert(
            self.name,
            self._channel_key.public_key().public_bytes_raw(),
            self._mask_key.public_key().public_bytes_raw(),
            keys.commitment(self._seed, self.name, context),
            self._identity.public_key().public_bytes_raw(),
            b"",
        )
        self._advert = replace(
            unsigned, signature=self._identity.sign(keys.advert_message(unsigned, context))
        )
        self._done += 1
        return self._advert

    def share(
        self, setting: Setting, adverts: Sequence[Advert], known: Callable[[str], bytes | None]
    ) -> dict[str, bytes]:
        """Shares of this member's secrets, sealed for each neighbour.

        Args:
            setting: of the group; on the terms that were advertised.
            adverts: of the whole group, this member's own among them.
            known: the pinned identity key (32 bytes) of a member by name, or None where it was never seen; then the advertised one stands, and should
                be pinned by the caller once this call has returned.

        Returns:
            Neighbour -> 88 bytes, in ascending order.

        Raises:
            SecAggError: "order", "replayed", "changed" (other terms), "malformed", "weak", "missing", "substituted" or "signature"; nothing is
            changed then.
        """
        self._begin("share")
        checks.check_terms(setting, self.terms)
        cohort = Cohort(setting, adverts)
        check_strength(setting, len(adverts), self._fewest)
        checks.check_identities(cohort, self._advert, known)
        neighbours = cohort.neighbours(self.name)
        for name in neighbours:
            keys.check_advert(cohort.adverts[name], self.terms)
        self._cohort, self._neighbours = cohort, neighbours
        for name in neighbours:
            advert = cohort.adverts[name]
            self._channels[name] = keys.channel(
                self._channel_key, self.name, name, advert.channel, cohort.digest
            )
            self._masks[name] = keys.pair_mask(self._mask_key, self.name, name, advert.mask, cohort.digest)
        self._masks[self.name] = keys.self_mask(self._seed, self.name, cohort.digest)
        shares = self._split(setting.threshold)
        self._held[self.name] = shares.pop(self.name)
        self._done += 1
        return {
            name: self._channels[name].seal(share, keys.share_context(self.name, name, cohort.digest))
            for name, share in shares.items()
        }

    def upload(self, inbox: Inbox, words: Words) -> Words:
        """Mask a vector.

        Args:
            inbox: who shared, and what neighbours sealed for this member. Shares that cannot be read are passed over.
            words: `[length]`, uint32 or uint64 as the terms say, contiguous; changed in place.

        Returns:
            The same array: what may be uploaded, indistinguishable from random words.

        Raises:
            SecAggError: "order", "replayed", "malformed", "unknown", "missing" or "too_few"; the words are unchanged then.
        """
        self._begin("upload")
        checks.check_words(words, self.terms)
        sharers = self._cohort.check_names(inbox.sharers, "are said to have shared")
        near = set(self._neighbours) & set(sharers)
        checks.check_sharers(self._cohort, self.name, sharers, near, inbox.sealed)
        for name in sorted(near & inbox.sealed.keys()):
            self._keep(name, inbox.sealed[name])
        self._sharers = sharers
        plus = [self._masks[name] for name in near | {self.name} if name <= self.name]
        minus = [self._masks[name] for name in near if name > self.name]
        add_masks(words, plus, minus)
        self._masks.clear()
        self._done += 1
        return words

    def consent(self, uploaders: Sequence[str]) -> bytes:
        """Sign who shared and who uploaded (a `Consent` as bytes). Asked again for the same, it signs the same.

        Args:
            uploaders: everyone in the group whose vector is in the sum.

        Raises:
            SecAggError: "order", "replayed", "unknown", "malformed", "missing", "too_few", "apart", or "changed": another set was signed before, or
                someone in it did not share.
        """
        if self._done != _STEPS.index("unmask"):
            self._begin("consent")
        names = self._cohort.check_names(uploaders, "are said to have uploaded")
        view = self._cohort.view(self._sharers, names)
        if self._done == _STEPS.index("unmask"):
            self._check_same(view)
        else:
            checks.check_uploaders(self._cohort, self.name, self._sharers, names)
            self._view, self._done = view, self._done + 1
        marks = b"".join(self._channels[name].mark(view) for name in self._neighbours)
        return Consent(self._identity.sign(keys.consent_message(view)), marks).to_bytes()

    def unmask(self, uploaders: Sequence[str], consents: Mapping[str, bytes]) -> Answer:
        """Hand out what opens the sum: once, and then forget all secrets.

        Args:
            uploaders: as consented to.
            consents: of uploaders, as `Aggregator.consents` passes them on: a signature (64 bytes), from a neighbour with its mark (80). Others, and
                those that do not fit, are not counted.

        Raises:
            SecAggError: "order", "replayed" (there is one answer a round), "changed", or "too_few" fit; it may be asked again then.
        """
        self._begin("unmask")
        names = self._cohort.check_names(uploaders, "are said to have uploaded")
        self._check_same(self._cohort.view(self._sharers, names))
        there = set(names)
        others = there - {self.name}
        agreed = self._agreed({name: word for name, word in consents.items() if name in others})
        if agreed < self._cohort.setting.least:
            raise SecAggError(
                "too_few",
                f"{agreed} members agree on who uploaded",
                allowed=f"{self._cohort.setting.least} or more",
                remedy="Others were told something else, or are gone; nothing is opened",
            )
        answer = Answer(
            {name: share[:SHARE] for name, share in self._held.items() if name in there},
            {name: share[SHARE:] for name, share in self._held.items() if name not in there},
        )
        self._held.clear()
        self._channels.clear()
        self._done += 1
        return answer

    def _begin(self, step: str) -> None:
        """Refuse a step out of turn."""
        turn = _STEPS.index(step)
        if turn > self._done:
            raise SecAggError("order", f"{step} is asked for", allowed=f"{_STEPS[self._done]} comes next")
        if turn < self._done:
            raise SecAggError(
                "replayed",
                f"{step} is asked for a second time in round {self.terms.round}",
                allowed="once a round",
                remedy="A member that answered twice could be made to show its vector",
            )

    def _check_same(self, view: bytes) -> None:
        if view != self._view:
            raise SecAggError(
                "changed",
                "another set of uploaders was agreed to",
                allowed="one set a round",
                remedy="Two sums that differ by one member would show its vector",
            )

    def _split(self, threshold: int) -> dict[str, bytes]:
        """Both secrets in shares: for each neighbour and for this member. Then they are forgotten."""
        holders = (self.name, *self._neighbours)
        points = np.array([self._cohort.points[name] for name in holders], np.uint64)
        secrets = shamir.to_limbs(self._seed + self._mask_key.private_bytes_raw())
        shares = shamir.split(secrets, threshold, points, self._entropy)
        del self._seed, self._mask_key, self._channel_key
        return {name: share.tobytes() for name, share in zip(holders, shares.astype("<u4"), strict=True)}

    def _keep(self, name: str, sealed: bytes) -> None:
        """Keep what a neighbour sealed, if it can be read and could be a share."""
        context = keys.share_context(name, self.name, self._cohort.digest)
        shares = self._channels[name].open(sealed, context)
        if shares is not None and len(shares) == 2 * SHARE and shamir.readable(shares):
            self._held[name] = shares

    def _agreed(self, consents: Mapping[str, bytes]) -> int:
        """How many agree, this member included; no more are counted than are needed. Marks first, as signatures cost more."""
        least, message = self._cohort.setting.least, keys.consent_message(self._view)
        agreed, rest = 1, []
        for name, word in consents.items():
            channel = self._channels.get(name)
            if channel is not None and channel.marked(self._view, word[SIGNATURE:]):
                agreed += 1
            else:
                rest.append(name)
        for name in rest:
            if agreed >= least:
                break
            agreed += keys.signed(self._cohort.adverts[name].identity, consents[name][:SIGNATURE], message)
        return agreed
