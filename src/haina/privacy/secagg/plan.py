"""How many neighbours a member needs, how many shares open a secret, and how many must agree: the smallest numbers that keep the promises.

Bell, Bonawitz, Gascon, Lepoint & Raykova 2020, "Secure Single-Server Aggregation with (Poly)Logarithmic Overhead". Members stand on a ring in an
order that nobody chose, each a neighbour of the k/2 before and after it. With c of n members corrupt and d dropping out, chance may do this much:

* privacy: some member has t corrupt neighbours, 2^-40. They could open both its secrets.
* connection: two stretches of k/2 members are all corrupt or gone, 2^-40. The honest members between them would be a sum of their own.
* correctness: some member keeps fewer than t neighbours, 2^-30. Its secret would be lost, and the sum with it.

A ring of `WHOLE` members or fewer is not worth it: there everybody is everybody's neighbour, and t is two thirds and one, as in Bonawitz 2017.

A coordinator may lie. Two rules need no chance. *More than half agree*: an honest member agrees to one set of uploaders, and opens nothing before
`least` > (n + c) / 2 have agreed to the same, more than half of the honest ones, so no two sets can be opened. (That t neighbours agree, as is often
done, does not suffice: on a ring, two halves can each be told that the other is gone, and where they meet a member's seed is opened by one half and
its key by the other.) *No stretch may be missing* (`together`): a coordinator sees the ring before it says who uploaded, so it could name two
stretches as gone and cut the sum. Members know the ring too, and open nothing unless any two stretches of k/2 have more uploaders in them than there
can be corrupt members.

Tails are exact integers, so no two machines disagree. The trap: the order comes from a hash of all adverts. Who commands the coordinator and members
that choose their keys last can try orders, 2^40 of them at n hashes each; but where t > c (up to 170 members at 10 %, 84 at 33 %) none helps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import comb, perm

from haina.errors import PrivacyError
from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.setting import Setting

#: A group of so many members or fewer is a complete graph.
WHOLE = 16
#: Bits of the chances that are taken with secrecy, and with the success of a round.
SECRECY, SUCCESS = 40, 30
#: A sum of two tells each of the two what the other sent.
FEWEST = 3


@dataclass(frozen=True)
class Plan:
    """Numbers of a `Setting`: neighbours of each member, shares that open a secret, and the fewest whose sum is opened."""

    degree: int
    threshold: int
    least: int


@lru_cache(maxsize=256)
def plan(members: int, *, corrupt: float = 0.1, dropout: float = 0.1, fewest: int = FEWEST) -> Plan:
    """The cheapest numbers for a group.

    Args:
        members: n, how many have advertised.
        corrupt: share of them, in [0, 0.5), that may work together with the coordinator. At least one member always counts as corrupt.
        dropout: share of them, in [0, 0.5), that may drop out after advertising.
        fewest: the fewest members whose sum may ever be opened, >= 2.

    Raises:
        PrivacyError: no numbers keep the promises. Corrupt members and twice the drop-outs must be fewer than all.
    """
    if not (0 <= corrupt < 0.5 and 0 <= dropout < 0.5 and fewest >= 2):
        raise PrivacyError(
            f"corrupt is {corrupt}, dropout {dropout}, fewest {fewest}",
            allowed="shares in [0, 0.5), and 2 or more members",
        )
    if members < fewest:
        raise PrivacyError(
            f"a secure sum of {members} members is asked for",
            allowed=f"{fewest} or more: of a sum of two, each of the two learns what the other sent",
            remedy="Wait for more members, make the groups larger, or allow fewest = 2 where that is no secret",
        )
    bad, gone = corrupted(members, corrupt), int(dropout * members)
    agreeing = max(fewest, (members + bad) // 2 + 1)
    for degree in _degrees(members) if agreeing <= members - gone else ():
        if degree == members - 1:
            threshold = max(2, min(2 * members // 3 + 1, members - max(1, gone)))
            kept = bad < threshold <= members - gone
        else:
            threshold = safe_threshold(members, degree, corrupt)
            kept = _connected(members, degree, bad + gone) and _recoverable(members, degree, threshold, gone)
        least = max(agreeing, threshold)
        if kept and least <= members - gone:
            return Plan(degree, threshold, least)
    raise PrivacyError(
        f"no secure sum of {members} members stands {gone} drop-outs with {bad} of them corrupt",
        allowed=f"so many that {agreeing} stay to agree on the sum",
        remedy="Make groups larger, or expect fewer corrupt members or drop-outs",
    )


def corrupted(members: int, corrupt: float) -> int:
    """c, how many of so many members may be corrupt: at least one, unless there are two members only."""
    return max(1 if members > 2 else 0, int(corrupt * members))


@lru_cache(maxsize=256)
def safe_threshold(members: int, degree: int, corrupt: float) -> int:
    """The smallest t >= 2 such that no member has t corrupt neighbours, but with chance 2^-40."""
    bad = corrupted(members, corrupt)
    if degree >= members - 1:
        return max(2, bad + 1)
    return max(2, _rare(members - 1, bad, degree, members << SECRECY))


@lru_cache(maxsize=256)
def together(members: int, degree: int, corrupt: float) -> int:
    """How many uploaders two stretches of degree / 2 members must have between them, so that they cannot all be corrupt, but with chance 2^-40.

    0 for a complete graph, which cannot be cut. There are n (n - k + 1) / 2 pairs of stretches that do not overlap.
    """
    if degree >= members - 1:
        return 0
    return _rare(
        members, corrupted(members, corrupt), degree, members * (members - degree + 1) << SECRECY - 1
    )


def check_strength(setting: Setting, members: int, fewest: int) -> None:
    """Refuse a setting that keeps less than `plan` promises for its share of corrupt members; how many drop out is no matter of secrecy.

    Raises:
        SecAggError: "weak".
    """
    agreeing = max(fewest, (members + corrupted(members, setting.corrupt)) // 2 + 1)
    threshold = safe_threshold(members, setting.degree, setting.corrupt)
    if setting.threshold < threshold or setting.least < agreeing:
        raise SecAggError(
            "weak",
            f"{setting.threshold} shares open a secret and {setting.least} of {members} members a sum",
            allowed=f"{threshold} and {agreeing} or more, for {setting.corrupt:.0%} corrupt members",
            remedy="The coordinator must plan with the terms that the members know",
        )


def _degrees(members: int) -> Iterator[int]:
    """Degrees to try, ascending; the complete graph last."""
    if members > WHOLE:
        yield from range(4, members - 1, 2)
    yield members - 1


def _rare(population: int, marked: int, drawn: int, odds: int) -> int:
    """The smallest s such that `odds` * P(at least s of `drawn` are marked) <= 1."""
    ways, all_ways = 0, comb(population, drawn)
    for s in range(min(marked, drawn), -1, -1):
        ways += comb(marked, s) * comb(population - marked, drawn - s)
        if ways * odds > all_ways:
            return s + 1
    return 0


def _connected(members: int, degree: int, removed: int) -> bool:
    """n^2 / 2 P(k given members are all removed) <= 2^-40."""
    return perm(removed, degree) * members * members << SECRECY - 1 <= perm(members, degree)


def _recoverable(members: int, degree: int, threshold: int, gone: int) -> bool:
    """n P(fewer than t of k neighbours stay) <= 2^-30."""
    stay, others = members - 1 - gone, members - 1
    ways = sum(comb(stay, s) * comb(gone, degree - s) for s in range(threshold))
    return ways * members << SUCCESS <= comb(others, degree)
