"""Unsealing: the sums of a round whose members have answered, from what lies in the store.

A body is words that say nothing by themselves; all of a group are added up, block by block, and the masks come out of the sum. Seeds and keys that
members hand out for that are put together here, are in memory while this runs, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from haina.coordinator.sealing import Group, Sums
from haina.coordinator.steps import aggregator_of
from haina.coordinator.store import ContributionRow, Store
from haina.coordinator.vault import Vault
from haina.errors import PrivacyError
from haina.privacy.policy import Words
from haina.privacy.secagg import Answer, SecAggError
from haina.privacy.stream import Stream
from haina.update import Pool
from haina.wire.codecs import blocks


def answered(sums: Sums, store: Store) -> bool:
    """True when every sum that may still be opened can be opened already, whoever has not answered."""
    if sums.stage.name != "unmask" or not sums.alive:
        return False
    adverts = store.sealed(sums.row.federation, sums.row.number, "advertise")
    answers = answers_of(sums, store)
    return all(
        aggregator_of(group, adverts).opens(group.sharers, group.uploaders, _of(group, answers))
        for group in sums.alive
    )


def unsealed(
    sums: Sums,
    store: Store,
    vault: Vault,
    heard: Mapping[str, ContributionRow],
    limit: float | None,
    entropy: Callable[[int], bytes],
) -> tuple[list[Pool], dict[str, str]]:
    """The sums that can be opened.

    Args:
        sums: as they stand, with the stage over.
        store: has the messages.
        vault: has the bodies.
        heard: the round's contributions, by node.
        limit: the longest update of the round, or None.
        entropy: random bytes, for noise that covers a sum.

    Returns:
        The means of the groups, and by node why others are in none of them.
    """
    row = sums.row
    lost = dict(sums.fates())
    pools: list[Pool] = []
    if sums.stage.name != "unmask":
        return pools, lost
    adverts = store.sealed(row.federation, row.number, "advertise")
    answers = answers_of(sums, store)
    for group in sums.groups:
        reason = group.lost
        if not reason:
            try:
                total = _total(group, vault, heard)
                members = aggregator_of(group, adverts)
                members.open(total, group.sharers, group.uploaders, _of(group, answers))
                fresh = Stream.fresh(entropy)
                unseal = partial(sums.policy.unseal, total, sums.dimension, group.uploaders, limit)
                pools.append(unseal(len(group.members), fresh))
            except PrivacyError as error:
                reason = f"its group's sum could not be opened: {error}"
        if reason:
            lost |= dict.fromkeys(group.uploaders, reason)
    return pools, lost


def answers_of(sums: Sums, store: Store) -> dict[str, Answer]:
    """What members handed out; what cannot be read is left out."""
    answers = {}
    for node, data in store.sealed(sums.row.federation, sums.row.number, "unmask").items():
        try:
            answers[node] = Answer.from_bytes(data)
        except SecAggError:
            continue
    return answers


def _of(group: Group, answers: Mapping[str, Answer]) -> dict[str, Answer]:
    return {node: answers[node] for node in group.consenters if node in answers}


def _total(group: Group, vault: Vault, heard: Mapping[str, ContributionRow]) -> Words:
    """The sum of a group's words, in the order of their names (any order gives the same)."""
    assert group.setting is not None
    total: Words = np.zeros(group.setting.length, f"<u{group.setting.word // 8}")
    for node in group.uploaders:
        _add(total, vault, heard[node])
    return total


def _add(total: Words, vault: Vault, row: ContributionRow) -> None:
    parts: Iterable[tuple[slice, Words]] = blocks(row.codec, vault.path(row), row.length)
    for columns, words in parts:
        np.add(total[columns], words, out=total[columns])
