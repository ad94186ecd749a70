"""Sealed: what members and coordinator of a secure sum must agree on, made by each for itself from the federation file and the task.

Nothing of it travels, so nothing of it can be weakened on the way: how many neighbours a member has, how many shares open a secret and how few may
be in a sum follow from the policy and from how many keys a member is shown.
"""

from __future__ import annotations

import math

from haina.federation.federation import Federation
from haina.privacy.policy import Policy
from haina.privacy.secagg import FEWEST, Setting, Terms, plan
from haina.strategy.select import Poisson
from haina.wire.messages import Task


def terms_of(policy: Policy, task: Task, dimension: int) -> Terms:
    """What the members of a round sign their keys over.

    Args:
        policy: with secure aggregation.
        task: what each of them was told to do. All of it is signed: whoever is told to take no step sends nothing, and the sum of the others is then
            that of one.
        dimension: d, the length of an update.
    """
    assert policy.hidden is not None
    length, corrupt = policy.size(dimension), policy.hidden.corrupt
    return Terms(
        federation=task.federation,
        round=task.round,
        task=task.agreed,
        length=length,
        word=policy.word,
        corrupt=corrupt,
    )


def setting_of(policy: Policy, terms: Terms, group: int, members: int) -> Setting:
    """One group of so many members.

    Raises:
        PrivacyError: no sum of so few hides them, or none stands so many drop-outs.
    """
    assert policy.hidden is not None
    chosen = plan(members, corrupt=policy.hidden.corrupt, dropout=policy.hidden.dropout)
    return terms.setting(group, chosen.degree, chosen.threshold, policy.least(members))


def fewest(federation: Federation) -> int:
    """The fewest members of a group in which a site takes part: what the file says of how many nodes a round has, and how large groups are.

    A coordinator could otherwise put a site into a group of three, whose sum tells more than that of all. Where trust puts those whom it has shut
    out by themselves, their groups may be that small.
    """
    policy, serve, strategy = federation.privacy, federation.settings.serve, federation.strategy
    assert policy is not None
    assert policy.hidden is not None
    wanted = min(serve.nodes, federation.settings.train.clients_per_round or serve.nodes)
    enough = (
        min(serve.quorum, wanted)
        if isinstance(serve.quorum, int)
        else math.ceil(serve.quorum * wanted - 1e-9)
    )
    if policy.hidden.group is not None:
        enough = min(enough, 2 * policy.hidden.group // 3)
    lonely = strategy.trust is not None or isinstance(strategy.select, Poisson)
    return FEWEST if lonely else max(FEWEST, enough)
