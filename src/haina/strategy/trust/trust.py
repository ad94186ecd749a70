"""Trust: the part of a strategy that scores clients and gates their shares.

Two sources of evidence, one rule after it (`agreement`, `standing`):

* `evidence = "peers"`: the other clients. No data on the server, the number of attackers not told. Good at moderate skew. The trap: with severe label
  skew (Dirichlet 0.1) and 40 % attackers it can turn against the honest; use server evidence there.
* `evidence = "server"`: a short training on each class of the samples that the server holds. Every class must be among them: holders of a class that
  the server lacks are judged wrongly. The server also takes part as one more client, and an `Arbiter` compares candidates.

Admitted updates are shortened to `clip` median lengths of the admitted, then combined by the strategy's own combiner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import StrategyError
from haina.strategy.members import Members
from haina.strategy.parts import Assessment, Combined, Combiner, GroupAssessment, Judge, State, View
from haina.strategy.trust.agreement import robust_centre, with_peers, with_witnesses
from haina.strategy.trust.arbiter import CANDIDATES, Arbiter
from haina.strategy.trust.groups import assess
from haina.strategy.trust.standing import Standing, weighted_median
from haina.strategy.weigh import cap_shares
from haina.update import Cohort, Vector

#: One sample of the server counts as so many of a client, and the server's part of the step is at most so much.
SERVER_WEIGHT, SERVER_CAP = 3.0, 0.2


@dataclass(frozen=True)
class Trust:
    """Scores clients and gates their shares.

    Args:
        evidence: who bears witness: `"peers"` or `"server"`.
        standing: how trust is gained and lost; for server evidence, which judges clients one by one, with more benefit of the doubt
            (tolerance 0.25, prior 0.65) if not given.
        arbiter: compares candidates on the server's samples; only with server evidence.
        hostile: largest share of hostile clients to stand, in [0, 0.5).
        clip: admitted updates are shortened to this many median lengths, > 0.
    """

    evidence: Literal["peers", "server"] = "peers"
    standing: Standing | None = None
    arbiter: Arbiter = field(default_factory=Arbiter)
    hostile: float = 0.4
    clip: float = 1.5

    def __post_init__(self) -> None:
        allowed = (
            ("evidence", self.evidence in ("peers", "server"), "peers or server"),
            ("hostile", 0 <= self.hostile < 0.5, "a number in [0, 0.5)"),
            ("clip", 0 < self.clip < np.inf, "a finite number > 0"),
        )
        for name, holds, words in allowed:
            if not holds:
                raise StrategyError(f"{name} is {getattr(self, name)!r}", allowed=words)

    @property
    def needs_judge(self) -> bool:
        """True when the server's samples bear witness."""
        return self.evidence == "server"

    @property
    def rules(self) -> Standing:
        """The standing in force."""
        if self.standing is not None:
            return self.standing
        return Standing(tolerance=0.25, prior=0.65) if self.needs_judge else Standing()

    @property
    def columns(self) -> Mapping[str, float]:
        """What is remembered of each client."""
        return self.rules.newcomer

    def init(self) -> State:
        """The run's usual agreement, and the arbiter's memory."""
        return {"usual": np.array(0.0), **(self.arbiter.init() if self.needs_judge else {})}

    def assess(
        self, view: View, prior: Vector, cap: float | None, state: State, combine: Combiner
    ) -> Assessment:
        """Score the round's clients, and say what may count.

        Raises:
            StrategyError: the strategy streams, so there is no cohort to look at.
        """
        if view.cohort is None:
            raise StrategyError("trust compares the vectors of a cohort, and there is none to look at")
        # Lengths are judged as they came, before any other part clips them.
        cohort = replace(view.cohort, scale=None)
        if self.needs_judge and view.judge is not None:
            return self._with_server(view, cohort, view.judge, prior, cap, state, combine)
        gate = self._gate(view.members, view.clients)
        agreement = with_peers(cohort.gram, gate, self.hostile)
        assessment, shares, _ = self._score(view, cohort, agreement, prior, cap, state)
        if shares.sum() > 0:
            return assessment
        # Nobody is trusted: the robust centre of all is the best that is left.
        centre = robust_centre(cohort.gram, np.ones(len(cohort)), int(self.hostile * len(cohort)))
        combined = Combined(cohort.combine(centre), centre)
        return replace(
            assessment,
            combined=combined,
            decisions={"trusted": "nobody, so the robust centre of all was taken"},
        )

    def assess_groups(
        self, view: View, clients: tuple[str, ...], group: NDArray[np.intp], state: State
    ) -> GroupAssessment:
        """Score clients of whom only the sums of groups are seen: `view` is of the groups, `group` `[n]` says in which each client was."""
        assert view.cohort is not None
        judge = view.judge if self.needs_judge else None
        return assess(
            self.rules,
            view.cohort,
            judge,
            view.members,
            clients,
            group,
            state,
            hostile=self.hostile,
            clip=self.clip,
        )

    def _with_server(
        self,
        view: View,
        cohort: Cohort,
        judge: Judge,
        prior: Vector,
        cap: float | None,
        state: State,
        combine: Combiner,
    ) -> Assessment:
        n = len(cohort)
        own, witnesses = judge.direction(), judge.witnesses()
        wide = cohort.extended([own, *witnesses])
        gram, cohort = wide.gram, wide.take(range(n))
        agreement = with_witnesses(gram[n + 1 :, n + 1 :], gram[:n, n + 1 :], np.sqrt(np.diag(gram)[:n]))
        assessment, shares, clip = self._score(view, cohort, agreement, prior, cap, state)
        length = float(np.sqrt(gram[n, n])) + 1e-12
        middle = weighted_median(cohort.norms, shares if shares.sum() > 0 else prior)
        server = own * min(1.0, middle / length)
        examples = np.array([report.examples for report in view.reports])
        admitted = float(examples[self._gate(assessment.members, view.clients) > 0.5].sum())
        everyone = float(examples.sum())
        norms = np.maximum(cohort.norms, 1e-12)
        centre = robust_centre(gram[:n, :n], np.maximum(prior, 1e-12), int(self.hostile * n))
        shortened = prior * np.minimum(1.0, float(np.median(norms)) / norms)
        cosine = np.maximum(gram[:n, n] / (norms * length), 0.0)
        towards = cosine / norms * float(np.median(norms)) / max(float(cosine.sum()), 1e-12)
        candidates = [
            _joined(Combined(cohort.combine(centre), centre), server, _server_part(judge.examples, everyone)),
            _joined(
                Combined(cohort.combine(shortened), shortened), server, _server_part(judge.examples, everyone)
            ),
            _joined(Combined(cohort.combine(towards), towards), server, 0.0),
        ]
        losses = np.full(len(CANDIDATES), np.inf)
        losses[1:] = judge.losses(np.stack([candidate.vector for candidate in candidates]))
        part = _server_part(judge.examples, admitted)
        if shares.sum() > 0:
            combined = combine.combine(cohort.scaled(clip), shares)
            if combined.coefficients is not None:
                combined = replace(combined, coefficients=combined.coefficients * clip)
            candidates.insert(0, _joined(combined, server, part))
            losses[0] = judge.losses(candidates[0].vector[None])[0]
        else:
            # Nobody is trusted: the robust centre stands in, and the arbiter sees that trust has nothing to offer.
            candidates.insert(0, candidates[0])
        return self._arbitrate(view, assessment, candidates, losses, part, state)

    def _arbitrate(
        self,
        view: View,
        assessment: Assessment,
        candidates: list[Combined],
        losses: Vector,
        part: float,
        state: State,
    ) -> Assessment:
        chosen, memory = self.arbiter.decide(losses, state)
        assessment = replace(
            assessment,
            state={**assessment.state, **memory},
            notes={**assessment.notes, "server_share": part},
            decisions={"arbiter": f"took {CANDIDATES[chosen]}"},
            combined=candidates[chosen],
        )
        if not chosen:
            return assessment
        if float(memory["lost"]) < self.arbiter.patience:
            # A losing round teaches nothing.
            return replace(assessment, members=view.members, state={**state, **memory})
        why = f"starts over after {self.arbiter.patience} rounds in which it made the worse model"
        members = view.members.put(view.members.ids, **self.columns)
        decisions = {**assessment.decisions, "trust": why}
        return replace(assessment, members=members, state=self.init(), decisions=decisions)

    def _gate(self, members: Members, clients: tuple[str, ...]) -> Vector:
        return self.rules.gate(members.get("trust", clients), members.get("quarantined", clients))

    def _score(
        self, view: View, cohort: Cohort, agreement: Vector, prior: Vector, cap: float | None, state: State
    ) -> tuple[Assessment, Vector, Vector]:
        """The assessment without candidates, the gated shares, and the clipping of the admitted."""
        rules, clients = self.rules, view.clients
        norms = np.maximum(cohort.norms, 1e-12)
        usual = float(state["usual"])
        members, acceptable, m = rules.learn(view.members, clients, agreement, norms, usual)
        halved = np.where(members.get("probation", clients) > 0, 0.5, 1.0)
        gate = self._gate(members, clients) * acceptable * halved
        shares = cap_shares(prior * gate, cap)
        clip = np.ones(len(clients))
        if shares.sum() > 0:
            clip = np.minimum(1.0, self.clip * weighted_median(norms, shares) / norms)
        told = {name: members.get(name, clients) for name in ("consistency", "deviation", "trust")}
        assessment = Assessment(
            gate=gate,
            members=members,
            state={**state, "usual": np.array(m if usual == 0 else 0.9 * usual + 0.1 * m)},
            evidence={"agreement": agreement, **told},
            verdicts=rules.verdicts(members, clients, acceptable),
            notes={"agreement": m},
            clip=clip,
        )
        return assessment, shares, clip


def _server_part(server: int, admitted: float) -> float:
    weight = SERVER_WEIGHT * server
    return min(weight / (weight + max(admitted, 1e-9)), SERVER_CAP)


def _joined(combined: Combined, server: Array, part: float) -> Combined:
    """The clients' aggregate with the server as one more client."""
    vector = ((1 - part) * combined.vector + part * server).astype(combined.vector.dtype)
    mine = combined.coefficients
    return Combined(vector, None if mine is None else (1 - part) * mine, combined.evidence)
