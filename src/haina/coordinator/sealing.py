"""Sealing: where a secure sum stands, as a pure function of what lies in the store.

    advertise -> share -> upload -> consent -> unmask -> (closing)

A round trains first: who has trained advertises. When everybody has, or time is up, those who are ready are divided into groups at random, and each
group goes through the protocol (`haina.privacy.secagg`). A stage ends when all it waits for have answered, or at its own short deadline; who has not
answered by then has left the sum. The row of the round says which stage it is, until when, and who is in which group; everything else are rows of
their own (messages, contributions), which no stage that is over takes any more. So any replica can go on from any moment, and the next stage is a
compare-and-set.

The trap is to decide from what was read before a stage ended: one more answer may have come. Here the answers of a stage that is over are always
read after it, and one more of them only makes a sum better.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from haina.coordinator.store import ContributionRow, RoundRow, Store
from haina.errors import PrivacyError
from haina.federation.sealed import setting_of, terms_of
from haina.privacy.groups import divide
from haina.privacy.policy import Policy
from haina.privacy.secagg import FEWEST, Advert, Setting, Terms
from haina.wire.messages import Task

Name = Literal["advertise", "share", "upload", "consent", "unmask"]

#: In their order.
STAGES: tuple[Name, ...] = ("advertise", "share", "upload", "consent", "unmask")
#: Bytes a second that a member's line must carry, or its upload is not waited for.
_SLOW = 250_000


@dataclass(frozen=True)
class Stage:
    """What the row of a round says of its secure sum.

    Args:
        name: what is waited for.
        until: seconds since 1970 when it ends at the latest.
        groups: who is summed with whom; empty while members advertise.
    """

    name: Name
    until: float
    groups: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def of(cls, row: RoundRow) -> Stage | None:
        """The stage of a round; None where it has no secure sum."""
        said = row.stage
        if said is None:
            return None
        return cls(said["name"], float(said["until"]), tuple(map(tuple, said["groups"])))

    def to_json(self) -> dict[str, Any]:
        """As the row keeps it."""
        return {"name": self.name, "until": self.until, "groups": [list(group) for group in self.groups]}

    def past(self, name: Name) -> bool:
        """True when a stage is over."""
        return STAGES.index(self.name) > STAGES.index(name)


@dataclass(frozen=True)
class Group:
    """One group as it stands.

    Args:
        number: of the group within the round.
        members: who is in it; sorted.
        setting: what they share; None where so many cannot be a secure sum.
        sharers, uploaders, consenters: who got as far; as far as is known while the stage lasts.
        lost: why its sum cannot be opened any more; empty while it can.
    """

    number: int
    members: tuple[str, ...]
    setting: Setting | None
    sharers: tuple[str, ...] = ()
    uploaders: tuple[str, ...] = ()
    consenters: tuple[str, ...] = ()
    lost: str = ""

    @property
    def last(self) -> tuple[str, ...]:
        """Those of whom most is to be hoped: who would be in the sum if it went on so."""
        return self.uploaders or self.sharers or self.members


@dataclass(frozen=True)
class Sums:
    """The secure sums of one round, as they stand.

    Args:
        policy: with secure aggregation.
        row: the round, with a stage.
        dimension: d, the length of an update.
        sent: by stage, whose answer counts; an upload is the answer to "upload".
        left: who failed, was refused or declined to go on: nothing more comes of them.
        ended: True when the stage is over, so that who has not answered by now never will have.
    """

    policy: Policy
    row: RoundRow
    dimension: int
    sent: Mapping[str, frozenset[str]]
    left: frozenset[str] = field(default=frozenset())
    ended: bool = False

    @classmethod
    def read(
        cls, policy: Policy, row: RoundRow, dimension: int, store: Store, heard: Sequence[ContributionRow]
    ) -> Sums:
        """From the store, without reading what is long.

        Args:
            policy: with secure aggregation.
            row: the round, with a stage, read before this.
            dimension: d.
            store: what is remembered.
            heard: the round's contributions, read after the row.
        """
        stage = Stage.of(row)
        assert stage is not None
        sent: dict[str, frozenset[str]] = {}
        declined: set[str] = set()
        for name in STAGES[: STAGES.index(stage.name) + 1]:
            if name == "upload":
                sent[name] = frozenset(row.node for row in heard if row.status == "accepted")
            else:
                # Nothing in a message: its sender goes no further.
                sizes = store.sizes(row.federation, row.number, name)
                sent[name] = frozenset(node for node, size in sizes.items() if size)
                declined |= sizes.keys() - sent[name]
        gone = {row.node for row in heard if row.status != "accepted"}
        return cls(policy, row, dimension, sent, frozenset(gone | declined), ended=row.state != "open")

    @cached_property
    def stage(self) -> Stage:
        """Where it stands."""
        stage = Stage.of(self.row)
        assert stage is not None
        return stage

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All groups, the lost ones too."""
        return tuple(self._group(number, members) for number, members in enumerate(self.stage.groups))

    def group_of(self, node: str) -> Group | None:
        """The group that a node is in."""
        return self._place.get(node)

    @cached_property
    def _place(self) -> dict[str, Group]:
        return {node: group for group in self.groups for node in group.members}

    @cached_property
    def alive(self) -> tuple[Group, ...]:
        """The groups whose sums may still be opened."""
        return tuple(group for group in self.groups if not group.lost)

    @cached_property
    def wanted(self) -> frozenset[str]:
        """Who is asked in this stage."""
        which = {"share": "members", "upload": "sharers", "consent": "uploaders", "unmask": "consenters"}
        if self.stage.name == "advertise":
            return frozenset(self.row.roster)
        return frozenset(node for group in self.alive for node in getattr(group, which[self.stage.name]))

    @property
    def missing(self) -> frozenset[str]:
        """Who is asked, and has not answered, nor left."""
        return self.wanted - self.sent.get(self.stage.name, frozenset()) - self.left

    @property
    def ready(self) -> frozenset[str]:
        """Who has trained and advertised, and has not left."""
        return self.sent["advertise"] - self.left

    def over(self, now: float, began: float) -> bool:
        """True when the stage has all it waits for, or its time is up.

        Args:
            now: seconds since 1970.
            began: when this process came up: members who could reach nobody before have as long as they would have had.
        """
        assert self.policy.hidden is not None
        until = self.stage.until
        if self.stage.name != "advertise":
            until = max(until, began + self.policy.hidden.patience)
        if now >= until or not self.missing:
            return True
        # With over-selection the first to be ready are enough.
        return self.stage.name == "advertise" and len(self.ready) >= self.row.target

    def hopeless(self) -> str:
        """Why no model can come of the round any more; empty while one can."""
        if self.stage.name == "advertise":
            least = max(self.row.quorum, FEWEST)
            return (
                f"{len(self.ready)} of the {least} nodes needed were ready" if len(self.ready) < least else ""
            )
        left = sum(len(group.last) for group in self.alive)
        if left >= self.row.quorum:
            return ""
        lost = "; ".join(sorted({group.lost for group in self.groups if group.lost}))
        return f"{left} of the {self.row.quorum} updates needed can be summed" + (
            f" ({lost})" if lost else ""
        )

    def next(self, now: float, adverts: Mapping[str, bytes], shut: frozenset[str]) -> Stage | None:
        """The stage after this one; None when the sums can be opened, or never will be.

        Args:
            now: seconds since 1970.
            adverts: what members advertised, for "advertise"; nobody knows the groups before all of them are here.
            shut: nodes that may only be summed with each other.
        """
        hidden, name = self.policy.hidden, self.stage.name
        assert hidden is not None
        if name == "unmask":
            return None
        if name == "advertise":
            ready = _once({node: data for node, data in adverts.items() if node in self.ready})
            groups = divide(ready, hidden.group, FEWEST, _seed(self.row, ready), shut)
            return Stage("share", now + hidden.patience, groups) if groups else None
        if self.hopeless():
            return None
        patience = hidden.patience
        if name == "share":
            patience += self.policy.size(self.dimension) * self.policy.word / 8 / _SLOW
        return Stage(STAGES[STAGES.index(name) + 1], now + patience, self.stage.groups)

    def refusal(self, node: str, name: Name) -> str | None:
        """Why a node's answer for a stage is not taken; None where it is asked."""
        if self.stage.past(name):
            return f"round {self.row.number} goes on without it: {name} is over"
        if name != self.stage.name:
            return f"round {self.row.number} is at {self.stage.name}"
        if node in self.wanted and node not in self.left:
            return None
        if name == "advertise":
            return f"{node} was not invited to round {self.row.number}"
        group = self.group_of(node)
        lost = "" if group is None else group.lost
        return f"{node} is not asked in round {self.row.number}" + (f": {lost}" if lost else "")

    def fates(self) -> Iterator[tuple[str, str]]:
        """Of those whose update is in no sum, and who said nothing of it themselves: (node, what became of it)."""
        for node in sorted(self.sent["advertise"] - self._place.keys()):
            yield node, "it was ready too late for a sum, or had nobody to be summed with"
        for group in self.groups:
            for node in group.members:
                if node not in group.uploaders:
                    yield node, group.lost or "it was ready, and left before its update came"

    def _group(self, number: int, members: tuple[str, ...]) -> Group:
        try:
            setting = setting_of(self.policy, self.terms, number, len(members))
        except PrivacyError as error:
            return Group(number, members, None, lost=str(error))

        def among(nodes: Sequence[str], name: str) -> tuple[str, ...]:
            answered = self.sent.get(name, frozenset())
            return tuple(node for node in nodes if node in answered)

        sharers = among(members, "share")
        uploaders = among(sharers, "upload")
        consenters = among(uploaders, "consent")
        lost = ""
        for name, done, what in (
            ("share", sharers, "shared their keys"),
            ("upload", uploaders, "sent their updates"),
            ("consent", consenters, "agreed on whose updates came"),
        ):
            over = self.stage.past(cast(Name, name)) or (self.ended and self.stage.name == name)
            if over and len(done) < setting.least and not lost:
                lost = f"of a group of {len(members)}, {len(done)} {what}, and {setting.least} are needed"
        return Group(number, members, setting, sharers, uploaders, consenters, lost)

    @cached_property
    def terms(self) -> Terms:
        """What members sign their keys over."""
        return terms_of(self.policy, Task.model_validate(self.row.task), self.dimension)


def _once(adverts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Adverts by name, without those whose identity another has already: two members of one key are one."""
    seen: set[bytes] = set()
    kept = {}
    for node in sorted(adverts):
        identity = Advert.from_bytes(adverts[node]).identity
        if identity not in seen:
            kept[node] = adverts[node]
        seen.add(identity)
    return kept


def _seed(row: RoundRow, adverts: Mapping[str, bytes]) -> bytes:
    """Decides who is summed with whom; it depends on every key, so nobody can choose the company before choosing its own."""
    digest = hashlib.sha256(b"haina groups\0")
    for part in (row.federation, str(row.number), str(row.task["model"])):
        digest.update(part.encode() + b"\0")
    for node in sorted(adverts):
        digest.update(hashlib.sha256(node.encode() + b"\0" + adverts[node]).digest())
    return digest.digest()
