"""Groups: trust in clients of whom only sums with others are seen.

Each round divides the clients afresh into random groups, and a client inherits what its group shows. One round tells little, for a group of ten with
one attacker looks nearly like one without; over rounds the attackers are those whose groups agree least (measured: after five rounds groups of five
tell them with AUC 0.98, after ten groups of ten with 0.97). So the standing of a client is learnt from its groups by the very rule that is used where
updates are seen (`standing`), and a group counts for what it shows now, times the mean trust of those in it.

The trap is the size: with half of the groups holding an attacker no rule over groups can tell who is right. Small groups, bounded updates and samples
of the server's own (`evidence = "server"`) move that point; nothing removes it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from haina.strategy.members import Members
from haina.strategy.parts import Assessment, Combined, GroupAssessment, Judge, State
from haina.strategy.record import Verdict
from haina.strategy.trust.agreement import robust_centre, with_peers, with_witnesses
from haina.strategy.trust.standing import Standing, weighted_median
from haina.update import Cohort, Vector


def agreement_of_groups(cohort: Cohort, judge: Judge | None, gate: Vector, hostile: float) -> Vector:
    """`[m]` agreement of the groups' means with the server's witnesses, or with each other where it has none."""
    if judge is None:
        return with_peers(cohort.gram, gate, hostile)
    m, witnesses = len(cohort), judge.witnesses()
    gram = cohort.extended([*witnesses]).gram
    return with_witnesses(gram[m:, m:], gram[:m, m:], np.sqrt(np.diag(gram)[:m]))


def assess(
    rules: Standing,
    cohort: Cohort,
    judge: Judge | None,
    members: Members,
    clients: tuple[str, ...],
    group: NDArray[np.intp],
    state: State,
    *,
    hostile: float,
    clip: float,
) -> GroupAssessment:
    """Score clients by their groups.

    Args:
        rules: how trust is gained and lost.
        cohort: the m groups' means.
        judge: the server's samples, if they bear witness.
        members: the table before the round.
        clients: n names.
        group: `[n]` the group of each, from 0.
        state: trust's own memory (`usual`).
        hostile: largest share of hostile clients to stand.
        clip: a group's mean is shortened to so many median lengths of the admitted.
    """
    m = len(cohort)
    sizes = np.bincount(group, minlength=m).astype(np.float64)

    def of_groups(values: Vector) -> Vector:
        return np.asarray(np.bincount(group, values, minlength=m) / sizes)

    before = of_groups(rules.gate(members.get("trust", clients), members.get("quarantined", clients)))
    agreement, norms = agreement_of_groups(cohort, judge, before, hostile), np.maximum(cohort.norms, 1e-12)
    table, acceptable, usual_now = rules.learn(
        members, clients, agreement[group], norms[group], float(state["usual"])
    )
    halved = np.where(table.get("probation", clients) > 0, 0.5, 1.0)
    each = rules.gate(table.get("trust", clients), table.get("quarantined", clients)) * acceptable * halved
    # What a group shows now, beside the best that any shows: one that points backwards counts nothing, whoever is in it.
    shown = np.clip(agreement / max(float(agreement.max()), 1e-12), 0.0, 1.0)
    gate = shown * of_groups(each)
    admitted = gate if float(gate.sum()) > 0 else np.ones(m)
    told = {name: table.get(name, clients) for name in ("consistency", "deviation", "trust")}
    centre = robust_centre(cohort.gram, np.ones(m), int(hostile * m))
    assessment = Assessment(
        gate=gate[group],
        members=table,
        state={
            **state,
            "usual": np.array(usual_now if not state["usual"] else 0.9 * state["usual"] + 0.1 * usual_now),
        },
        evidence={"agreement": agreement[group], **told},
        verdicts=_verdicts(rules, table, clients, gate[group], acceptable),
        notes={"agreement": usual_now, "groups": float(m)},
        decisions={}
        if float(gate.sum()) > 0
        else {"trusted": "no group, so the robust centre of all was taken"},
    )
    shorten = np.minimum(1.0, clip * weighted_median(norms, admitted) / norms)
    return GroupAssessment(assessment, gate, shorten, Combined(cohort.combine(centre), centre))


def _verdicts(
    rules: Standing, table: Members, clients: tuple[str, ...], gate: Vector, acceptable: Vector
) -> tuple[tuple[Verdict, str], ...]:
    """As for single clients, and for those whose group holds them back, that."""
    own = rules.verdicts(table, clients, acceptable)
    return tuple(
        (Verdict.DAMPED, f"its group agreed little, so it counts {part:.0%} this round")
        if verdict is Verdict.ADMITTED and part < 0.5
        else (verdict, reason)
        for (verdict, reason), part in zip(own, gate, strict=True)
    )
