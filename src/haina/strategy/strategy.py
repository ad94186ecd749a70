"""Strategy: five pure steps composed.

    validate -> weigh -> trust -> combine -> step

A `Strategy` is settings only. What it remembers is a `StrategyState` of arrays, so a resumed run is bit-identical. `Strategy.open` starts a round
(`haina.strategy.round`); the same calls serve a simulation and a coordinator.

FedAvg, FedProx, FedNova, FedAdam, Krum ... are not classes: each is a line in `haina.strategy.presets`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np

from haina.artifact import Array
from haina.errors import RoundError, StrategyError
from haina.report import MEASURED, Report
from haina.strategy.combine import Mean
from haina.strategy.compose import check
from haina.strategy.local import Local
from haina.strategy.members import Members
from haina.strategy.parts import Combiner, Cover, Judge, Needs, Release, Seen, Server, State, Trust
from haina.strategy.schedule import Constant, Schedule
from haina.strategy.select import Selector, Uniform
from haina.strategy.server import SGD
from haina.strategy.spacing import Spacing
from haina.strategy.validate import Bound, Clip
from haina.strategy.weigh import Weigh

if TYPE_CHECKING:
    from haina.strategy.round import Round


#: Column of the members table: rounds in which something of a client was released under noise.
SPENT = "released"


@dataclass(frozen=True)
class StrategyState:
    """Everything a strategy remembers between rounds.

    Args:
        round: rounds closed so far.
        members: what is remembered of each client met.
        parts: what each part remembers: part name -> name -> array.
    """

    round: int
    members: Members
    parts: Mapping[str, State]

    def to_arrays(self) -> dict[str, Array]:
        """Flat named arrays that restore the state exactly (`Strategy.restore`)."""
        arrays: dict[str, Array] = {"round": np.array(self.round, dtype=np.int64)}
        arrays |= {f"members/{name}": array for name, array in self.members.to_arrays().items()}
        for part, state in self.parts.items():
            arrays |= {f"{part}/{name}": array for name, array in state.items()}
        return arrays


@dataclass(frozen=True)
class Instructions:
    """What the server tells every client of a round, beside the model.

    Args:
        round: number of the round, from 1.
        learning_rate: eta of this round.
        proximal: mu of the proximal term.
        control: `[d]` vector for the local correction (SCAFFOLD), or None.
        limit: the longest update that counts in full, where clients keep to it themselves (`Strategy.private`); else None.
    """

    round: int
    learning_rate: float
    proximal: float = 0.0
    control: Array | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Strategy:
    """A composition of parts. Any screen goes with any weighting, any combiner and any server step; what cannot hold together is refused here.

    Args:
        clip: a bound on the length of updates, or None.
        trust: scores clients over rounds and gates their shares, or None.
        weigh: shares from reports and history.
        combine: many vectors into one.
        server: the aggregate into the next model.
        local: what clients add to their gradients.
        rate: schedule of the clients' learning rate.
        select: who is invited.
        seen: what of an update the server sees.
        cover: where noise is added.
        spacing: how often clients may take part, where noise is correlated over rounds; else None. The noise's secret is then part of the state.
        name: what the composition is called, for people.

    Raises:
        StrategyError: the parts cannot hold together; the message names the way out.
    """

    clip: Clip | None = None
    trust: Trust | None = None
    weigh: Weigh = field(default_factory=Weigh)
    combine: Combiner = field(default_factory=Mean)
    server: Server = field(default_factory=SGD)
    local: Local = field(default_factory=Local)
    rate: Schedule = field(default_factory=Constant)
    select: Selector = field(default_factory=Uniform)
    seen: Seen = Seen.UPDATE
    cover: Cover = Cover.NONE
    spacing: Spacing | None = None
    name: str = "custom"

    def __post_init__(self) -> None:
        check(self)

    @cached_property
    def needs(self) -> Needs:
        """What must be known before a vector can be folded: the most that any part needs."""
        needs = [self.combine.needs, *(factor.needs for factor in self.weigh.factors)]
        if self.clip is not None and self.clips:
            needs.append(self.clip.needs)
        if self.trust is not None:
            needs.append(Needs.VECTORS)
        return max(needs)

    @property
    def streams(self) -> bool:
        """True when each vector can be folded as it arrives, by any process (`Round.partial`).

        With `Needs.REPORTS` processes can share the folding too, once the roster holds all reports; with `Needs.VECTORS` one must see them all.
        """
        return self.needs is Needs.COUNTS and self.seen is Seen.UPDATE

    @property
    def private(self) -> bool:
        """True when clients bound, hide or cover what they send."""
        return self.seen is not Seen.UPDATE or self.cover is not Cover.NONE

    @property
    def clips(self) -> bool:
        """True when the server shortens updates: not where it sees sums only, nor where noise has made them as long as they are."""
        return self.clip is not None and self.seen is Seen.UPDATE and self.cover is not Cover.CLIENT

    @cached_property
    def needs_judge(self) -> bool:
        """True when a part asks for samples held by the server."""
        return bool(self.trust and self.trust.needs_judge) or any(f.needs_judge for f in self.weigh.factors)

    @cached_property
    def measure(self) -> frozenset[str]:
        """Fields of the report that clients must take the trouble to measure for this strategy."""
        parts = (*self.weigh.factors, self.combine, self.select, self.rate)
        return MEASURED & {name for part in parts for name in getattr(part, "reads", ())}

    def init(self, model: Array, secret: bytes = bytes(32)) -> StrategyState:
        """The state before the first round, for a model `[d]`; `secret` is what correlated noise is drawn from, looked at with `spacing` only."""
        parts: dict[str, State] = {"server": self.server.init(model), "rate": self.rate.init()}
        if self.clip is not None:
            parts["clip"] = self.clip.init()
        if self.trust is not None:
            parts["trust"] = self.trust.init()
        if self.spacing is not None:
            parts["release"] = {"secret": np.frombuffer(secret, np.uint8)}
        return StrategyState(0, Members.empty(self.columns), parts)

    def restore(self, arrays: Mapping[str, Array]) -> StrategyState:
        """The inverse of `StrategyState.to_arrays`.

        Raises:
            StrategyError: the arrays were written by another strategy.
        """
        fresh = self.init(np.zeros(1, np.float32))
        expected = fresh.to_arrays()
        # Trust may come to remember more than it began with.
        differing = {
            name for name in arrays.keys() ^ expected.keys() if not (self.trust and name.startswith("trust/"))
        }
        if differing:
            raise StrategyError(
                f"the saved state holds {', '.join(sorted(arrays)) or 'nothing'}",
                allowed=", ".join(sorted(expected)),
                remedy="Resume with the federation file that the run was started with",
            )
        parts: dict[str, dict[str, Array]] = {part: {} for part in ("members", *fresh.parts)}
        for name, array in arrays.items():
            part, _, rest = name.partition("/")
            if rest:
                parts[part][rest] = np.array(array)
        members = Members.from_arrays(parts.pop("members"), self.columns)
        return StrategyState(int(arrays["round"]), members, parts)

    @property
    def columns(self) -> Mapping[str, float]:
        """Columns of the members table beside `members.HISTORY`, with a newcomer's value."""
        counted = {SPENT: 0.0} if self.cover is not Cover.NONE else {}
        return {**({} if self.trust is None else self.trust.columns), **counted}

    def instructions(self, state: StrategyState) -> Instructions:
        """What clients of the next round are told."""
        limit = None
        if self.private and self.clip is not None:
            limit = cast(Bound, self.clip).limit(state.parts["clip"])
        return Instructions(
            round=state.round + 1,
            learning_rate=self.rate.rate(state.round + 1, state.parts["rate"]),
            proximal=self.local.proximal,
            control=self.server.control(state.parts["server"]),
            limit=limit,
        )

    def open(
        self,
        state: StrategyState,
        model: Array,
        roster: Mapping[str, Report | None],
        *,
        dimension: int | None = None,
        registered: int | None = None,
        judge: Judge | None = None,
        release: Release | None = None,
    ) -> Round:
        """Start a round.

        Args:
            state: from `init` or the last `Closed`.
            model: `[d]` current model.
            roster: every invited client, in the order of the record. The report is what shares are made from: counts known before training for
                `Needs.COUNTS`, the real report for `Needs.REPORTS`; for `Needs.VECTORS` it is not looked at. None: the client is absent.
            dimension: length of an update's vector; that of the model if not given.
            registered: clients in the federation (SCAFFOLD, FedDyn); the size of the roster if not given.
            judge: server-held samples.
            release: noise for the aggregate, where the server adds it to updates that it sees; with sums of groups it comes with them.

        Raises:
            RoundError: a part needs server-held samples and there are none, noise is needed and there is none, or more clients are invited than a
                sum can hold.
        """
        from haina.strategy.round import Round

        if self.cover is Cover.SERVER and self.seen is Seen.UPDATE and release is None:
            raise RoundError(
                "the aggregate is to be covered by noise, and there is none",
                remedy="Hand `release` to `open`",
            )

        if self.needs_judge and judge is None:
            raise RoundError(
                f"strategy {self.name!r} judges updates on samples held by the server, and there are none",
                remedy='Give the server some ([data] held = 50), or choose preset = "robust", which needs none',
            )
        size = dimension or len(model)
        return Round(self, state, model, roster, size, registered or len(roster), judge, release)
