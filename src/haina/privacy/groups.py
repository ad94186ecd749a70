"""Groups: the clients of a round divided at random into sets of whom only the sum is seen.

Groups are as even as can be, and none is smaller than a sum may be. Who was shut out by trust is put together with others who were, so that they
are still scored, and hurt nobody's group while they are. The trap is a server that divides as it likes: the seed must come from what all members sent
before the division was known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from itertools import pairwise


def divide(
    names: Collection[str], size: int | None, least: int, seed: bytes, shut: Collection[str] = frozenset()
) -> tuple[tuple[str, ...], ...]:
    """Random groups of about `size`.

    Args:
        names: whom to divide.
        size: wanted members of a group; None for one group of all.
        least: fewest members of a group, >= 2.
        seed: decides who goes with whom; the same seed gives the same groups, whatever the order of the names.
        shut: those who go only with each other; too few of them for a group sit out, where groups are asked for.

    Returns:
        The groups, each sorted, in a fixed order; none where there are fewer than `least` names.
    """
    if size is None:
        return (tuple(sorted(names)),) if len(names) >= least else ()
    groups: list[tuple[str, ...]] = []
    for crowd in (set(names) - set(shut), set(names) & set(shut)):
        groups += _even(_shuffled(crowd, seed), size, least)
    return tuple(sorted(groups))


def _shuffled(names: Collection[str], seed: bytes) -> list[str]:
    return sorted(names, key=lambda name: (hashlib.sha256(seed + name.encode()).digest(), name))


def _even(names: Sequence[str], size: int, least: int) -> list[tuple[str, ...]]:
    count = max(1, min(round(len(names) / size), len(names) // max(least, 1)))
    if len(names) < least:
        return []
    bounds = [len(names) * g // count for g in range(count + 1)]
    return [tuple(sorted(names[a:b])) for a, b in pairwise(bounds)]
