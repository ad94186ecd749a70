"""What a member holds against what it is told, before it does anything. Each check passes, or refuses with a typed reason."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from haina.privacy.secagg.cohort import Cohort
from haina.privacy.secagg.masks import Words
from haina.privacy.secagg.messages import Advert
from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.setting import Terms


def check_terms(setting: Terms, agreed: Terms) -> None:
    """A setting is on the terms that were advertised for ("changed")."""
    if setting.terms != agreed:
        raise SecAggError(
            "changed",
            f"the setting is for round {setting.round} of {setting.federation!r} and task {setting.task[:12]}",
            allowed=f"what was advertised for: round {agreed.round} of {agreed.federation!r} and task {agreed.task[:12]}",
            remedy="Length, word and the share of corrupt members must be the same too",
        )


def check_identities(cohort: Cohort, own: Advert, known: Callable[[str], bytes | None]) -> None:
    """The member's own keys are in the cohort ("missing"), and everybody has the identity that is known ("substituted")."""
    mine = cohort.adverts.get(own.name)
    if mine is None:
        raise SecAggError("missing", f"{own.name!r} is not in the group")
    if mine != own:
        raise SecAggError("substituted", f"the keys of {own.name!r} are not its own")
    for name, advert in cohort.adverts.items():
        pinned = known(name)
        if pinned is not None and pinned != advert.identity:
            raise SecAggError(
                "substituted",
                f"{name!r} has the identity {advert.identity.hex()[:16]}",
                allowed=f"{pinned.hex()[:16]}, as before",
                remedy="If it was set up anew, its operator can confirm the new key; until then somebody may be listening",
            )


def check_words(words: Words, terms: Terms) -> None:
    """A vector is `[length]` words of the right kind that can be written to in one piece ("malformed")."""
    length, bits = terms.length, terms.word
    if words.dtype != np.dtype(f"u{bits // 8}") or words.shape != (length,):
        raise SecAggError(
            "malformed",
            f"the vector is {words.dtype} of shape {words.shape}",
            allowed=f"uint{bits} of shape ({length},)",
        )
    if not (words.flags.c_contiguous and words.flags.writeable):
        raise SecAggError("malformed", "the vector cannot be written to in one piece")


def check_sharers(
    cohort: Cohort, name: str, sharers: Sequence[str], near: Collection[str], sealed: Mapping[str, bytes]
) -> None:
    """So many shared that the sum can be opened ("too_few"), the member among them ("missing"), and shares are theirs ("unknown").

    Args:
        cohort: the group.
        name: of the member.
        sharers: who is said to have shared.
        near: those of them who are its neighbours.
        sealed: what came for it, by sender.
    """
    _check_in(name, sharers, "shared")
    setting = cohort.setting
    if len(near) + 1 < setting.threshold or len(sharers) < setting.least:
        raise SecAggError(
            "too_few",
            f"{len(sharers)} members shared, {len(near)} of them neighbours",
            allowed=f"{setting.least} or more, {setting.threshold - 1} of them neighbours",
            remedy="Fewer could not open the sum; the round must be tried again",
        )
    strangers = sealed.keys() - near
    if strangers:
        raise SecAggError(
            "unknown",
            f"{min(strangers)[:80]!r} sealed shares",
            allowed="neighbours who are said to have shared",
        )


def check_uploaders(cohort: Cohort, name: str, sharers: Sequence[str], uploaders: Sequence[str]) -> None:
    """So many uploaded that their sum may be opened ("too_few", "apart"), all of them sharers ("changed"), the member among them ("missing")."""
    _check_in(name, uploaders, "uploaded")
    strangers = set(uploaders) - set(sharers)
    if strangers:
        raise SecAggError(
            "changed",
            f"{min(strangers)!r} uploaded and did not share",
            allowed="uploaders among the sharers",
        )
    least = cohort.setting.least
    if len(uploaders) < least:
        raise SecAggError(
            "too_few",
            f"the sum is of {len(uploaders)} members",
            allowed=f"{least} or more",
            remedy="The fewer, the more it tells of each; the round must be tried again",
        )
    cohort.check_together(set(uploaders))


def _check_in(name: str, names: Sequence[str], what: str) -> None:
    if name not in names:
        raise SecAggError("missing", f"{name!r} is not among those who {what}, and it did")
