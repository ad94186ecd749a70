"""A whole secure sum in one process: real members and a real aggregator, for simulations and tests.

The steps and messages are those of a federation, in memory. Who drops out before which step is said beforehand.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haina.privacy.secagg.aggregator import Aggregator
from haina.privacy.secagg.keys import check_advert
from haina.privacy.secagg.masks import Words
from haina.privacy.secagg.members import Member
from haina.privacy.secagg.plan import FEWEST, Plan, plan
from haina.privacy.secagg.setting import Terms

Step = Literal["advertise", "share", "upload", "consent", "unmask"]


@dataclass(frozen=True)
class Rehearsed:
    """What came of a secure sum.

    Args:
        words: `[length]`, the sum of the uploaders' words.
        uploaders: whose words are in it, ascending.
    """

    words: Words = field(repr=False)
    uploaders: tuple[str, ...]


def secure_sum(
    vectors: Mapping[str, Words],
    terms: Terms,
    entropy: Callable[[int], bytes],
    *,
    group: int = 0,
    numbers: Plan | None = None,
    dropout: float = 0.1,
    fewest: int = FEWEST,
    dropping: Mapping[Step, Collection[str]] | None = None,
) -> Rehearsed:
    """The sum of some vectors, by all steps of the protocol.

    Args:
        vectors: each member's `[length]` words; left as they are.
        terms: of the round; they give length and word.
        entropy: random bytes for everyone. The same bytes give the same messages.
        group: number of the group.
        numbers: degree, threshold and least; planned for those who advertise if None.
        dropout: expected share of drop-outs, for the plan.
        fewest: the fewest members whose sum may be opened.
        dropping: for each step, who drops out before it.

    Returns:
        The sum, and whose it is.

    Raises:
        SecAggError: too many dropped out.
        PrivacyError: no plan for so few.
    """
    gone: set[str] = set()

    def stay(step: Step, names: Collection[str]) -> list[str]:
        gone.update((dropping or {}).get(step, ()))
        return [name for name in names if name not in gone]

    members = {
        name: Member(name, Ed25519PrivateKey.from_private_bytes(entropy(32)), terms, entropy, fewest=fewest)
        for name in sorted(vectors)
    }
    adverts = {name: members[name].advertise() for name in stay("advertise", members)}
    for advert in adverts.values():
        check_advert(advert, terms)
    chosen = numbers or plan(len(adverts), corrupt=terms.corrupt, dropout=dropout, fewest=fewest)
    setting = terms.setting(group, chosen.degree, chosen.threshold, chosen.least)
    aggregator = Aggregator(setting, tuple(adverts.values()))
    pinned = {name: advert.identity for name, advert in adverts.items()}
    shared = {
        name: members[name].share(setting, tuple(adverts.values()), pinned.get)
        for name in stay("share", adverts)
    }
    total: Words = np.zeros(terms.length, f"u{terms.word // 8}")
    uploaders = stay("upload", shared)
    for name in uploaders:
        total += members[name].upload(aggregator.inbox(shared, name), vectors[name].copy())
    consents = {name: members[name].consent(uploaders) for name in stay("consent", uploaders)}
    answers = {
        name: members[name].unmask(uploaders, aggregator.consents(consents, name))
        for name in stay("unmask", consents)
    }
    aggregator.open(total, shared, uploaders, answers)
    return Rehearsed(total, tuple(uploaders))
