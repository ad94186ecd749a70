"""The coordinator's side of a secure sum of one group: it passes messages on, and takes the masks out of a sum of masked vectors.

It holds no secret and keeps nothing: what it returns follows from what was received, so that any replica can make it again from what is stored. Of an
uploader it needs the seed, of a member that shared and did not upload, the mask key, each from `threshold` of the shares that neighbours answer with.
Sums that members upload are anyone's to add; this side is not trusted with more than their total.

A wrong share would give a wrong secret, and a wrong secret a wrong sum. So every secret is held against what its owner advertised (the seed's
commitment, the public key); where it does not fit, other shares are tried while there are more than the threshold. Either the sum is exactly that of
the uploaders' words, or it is refused.

The trap: that is so if members mask as they should. One that uploads garbage is in the sum with garbage; secrecy leaves nobody to see it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from haina.privacy.secagg import keys, shamir
from haina.privacy.secagg.checks import check_words
from haina.privacy.secagg.cohort import Cohort
from haina.privacy.secagg.masks import Words, add_masks
from haina.privacy.secagg.messages import MARK, SHARE, Advert, Answer, Consent, Inbox
from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.setting import Setting

#: A secret by the name of its owner, and whether it is the mask key (or the seed).
_Secret = tuple[str, bool]


class Aggregator:
    """One group of one round.

    Args:
        setting: of the group.
        adverts: of all its members, in any order; each checked before with `keys.check_advert`.

    Raises:
        SecAggError: "malformed".
    """

    def __init__(self, setting: Setting, adverts: Sequence[Advert]) -> None:
        self.setting = setting
        self._cohort, self._terms = Cohort(setting, adverts), setting.terms.context()
        #: Each member's neighbours, ascending.
        self.neighbours = {name: self._cohort.neighbours(name) for name in self._cohort.names}

    def inbox(self, shared: Mapping[str, Mapping[str, bytes]], name: str) -> Inbox:
        """What a member is told once the others have shared.

        Args:
            shared: of each sharer what `Member.share` gave; the same for every member that is told.
            name: who is told.
        """
        near = (other for other in self.neighbours[name] if other in shared)
        sealed = {other: shared[other][name] for other in near if name in shared[other]}
        return Inbox(tuple(sorted(shared)), sealed)

    def consents(self, received: Mapping[str, bytes], name: str) -> dict[str, bytes]:
        """What a member is shown before it answers: of each other that agreed its signature, and the mark that is for this member.

        Args:
            received: of each member what `Member.consent` gave.
            name: who is shown.
        """
        out = {other: data[Consent.SIGNED] for other, data in received.items() if other != name}
        for other in self.neighbours[name]:
            if other in received:
                start = Consent.SIGNED.stop + MARK * self.neighbours[other].index(name)
                out[other] += received[other][start : start + MARK]
        return out

    def enough(
        self, sharers: Collection[str], uploaders: Collection[str], answers: Mapping[str, Answer]
    ) -> bool:
        """Whether there are shares enough of every secret that is needed, if all of them are right."""
        holders = self._holders(sharers, uploaders, answers)
        return all(len(who) >= self.setting.threshold for who in holders.values())

    def opens(
        self, sharers: Collection[str], uploaders: Collection[str], answers: Mapping[str, Answer]
    ) -> bool:
        """Whether `open` would succeed with these answers; where some are wrong, it may with more of them."""
        try:
            self._recover(sharers, tuple(sorted(uploaders)), answers)
        except SecAggError:
            return False
        return True

    def open(
        self,
        total: Words,
        sharers: Collection[str],
        uploaders: Collection[str],
        answers: Mapping[str, Answer],
    ) -> None:
        """Take the masks out of the sum of the uploaders' words, in place.

        Args:
            total: `[length]`, the sum modulo 2^word of what exactly these uploaders uploaded.
            sharers, uploaders: as the members were told.
            answers: of members, by name.

        Raises:
            SecAggError: "unknown", "malformed", "too_few" uploaders or shares, or "damaged": some secret is not what its owner advertised. The total
                is unchanged then.
        """
        check_words(total, self.setting)
        there = self._cohort.check_names(tuple(uploaders), "are said to have uploaded")
        self._cohort.check_names(tuple(sharers), "are said to have shared")
        if len(there) < self.setting.least or not set(there) <= set(sharers):
            raise SecAggError(
                "too_few",
                f"{len(there)} of {len(sharers)} sharers uploaded",
                allowed=f"{self.setting.least} or more",
                remedy="The round must be tried again",
            )
        added, subtracted = self._masks(set(there), self._recover(sharers, there, answers))
        add_masks(total, subtracted, added)

    def _holders(
        self, sharers: Collection[str], uploaders: Collection[str], answers: Mapping[str, Answer]
    ) -> dict[_Secret, list[str]]:
        """Each secret that is needed, and who answered with a share of it."""
        there = set(uploaders)
        out: dict[_Secret, list[str]] = {}
        for name in sorted(sharers):
            near = self.neighbours[name]
            if name in there:
                shares = {holder: answers[holder].seeds for holder in (name, *near) if holder in answers}
            elif there.isdisjoint(near):
                continue
            else:
                shares = {holder: answers[holder].keys for holder in near if holder in answers}
            who = [holder for holder, table in shares.items() if len(table.get(name, b"")) == SHARE]
            out[name, name not in there] = who
        return out

    def _recover(
        self, sharers: Collection[str], uploaders: Collection[str], answers: Mapping[str, Answer]
    ) -> dict[_Secret, bytes]:
        """Every secret that is needed, held against its owner's advert.

        Shares are tried in runs of the threshold, in a circle, until one gives the secret: a few wrong shares among more than enough are stepped
        over.
        """
        holders, threshold = self._holders(sharers, uploaders, answers), self.setting.threshold
        for (name, _), who in holders.items():
            if len(who) < threshold:
                raise SecAggError(
                    "too_few",
                    f"{len(who)} shares of a secret of {name!r} are there",
                    allowed=f"{threshold} or more",
                    remedy="Wait for more answers; if there are none, the round must be tried again",
                )
        out: dict[_Secret, bytes] = {}
        missing, turn = list(holders), 0
        while missing:
            runs = {secret: _run(holders[secret], turn, threshold) for secret in missing}
            out |= self._join(runs, answers)
            missing, turn = [secret for secret in missing if secret not in out], turn + 1
        return out

    def _join(
        self, runs: Mapping[_Secret, Sequence[str]], answers: Mapping[str, Answer]
    ) -> dict[_Secret, bytes]:
        """Secrets from exactly enough shares each; those that are what was advertised."""
        points = np.array(
            [[self._cohort.points[holder] for holder in who] for who in runs.values()], np.uint64
        )
        shares = b"".join(
            (answers[holder].keys if key else answers[holder].seeds)[name]
            for (name, key), who in runs.items()
            for holder in who
        )
        values = np.frombuffer(shares, "<u4").reshape(*points.shape, shamir.LIMBS).astype(np.uint64)
        found = zip(runs, map(shamir.from_limbs, shamir.join(points, values).tolist()), strict=True)
        return {secret: data for secret, data in found if data is not None and self._fits(secret, data)}

    def _fits(self, secret: _Secret, data: bytes) -> bool:
        name, key = secret
        advert = self._cohort.adverts[name]
        if key:
            return X25519PrivateKey.from_private_bytes(data).public_key().public_bytes_raw() == advert.mask
        return keys.commitment(data, name, self._terms) == advert.commitment

    def _masks(
        self, uploaders: set[str], secrets: Mapping[_Secret, bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """The keys of the masks that the uploaders added and of those that they subtracted, as far as these do not cancel in their sum."""
        added: list[bytes] = []
        subtracted: list[bytes] = []
        adverts, digest = self._cohort.adverts, self._cohort.digest
        for (name, key), data in secrets.items():
            if not key:
                added.append(keys.self_mask(data, name, digest))
                continue
            private = X25519PrivateKey.from_private_bytes(data)
            for other in self.neighbours[name]:
                if other in uploaders:
                    mask = keys.pair_mask(private, name, other, adverts[other].mask, digest)
                    (added if name < other else subtracted).append(mask)
        return added, subtracted


def _run(holders: Sequence[str], turn: int, threshold: int) -> Sequence[str]:
    """The holders of a turn: so many in a row, in a circle."""
    if turn >= (len(holders) if len(holders) > threshold else 1):
        raise SecAggError(
            "damaged",
            f"no {threshold} of {len(holders)} shares in a row give a secret that was advertised",
            remedy="A member shared or answered falsely; the round must be tried again",
        )
    return [holders[(turn + step) % len(holders)] for step in range(threshold)]
