"""Steps: what each member of a secure sum is told in a stage, and whether what it answers can be an answer at all.

Everything here follows from what was committed before the stage began, so it is made once a stage and is the same on every replica.

The trap: a message of one member reaches the others. What no correct program sends (keys without a signature, shares for strangers, tables without
end) is refused here, at the door, so that one hostile node costs the others nothing. What is sealed cannot be looked into, and nobody trusts it.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cached_property

from haina.coordinator.contract import Refusal
from haina.coordinator.sealing import Group, Sums
from haina.coordinator.store import Store
from haina.privacy.secagg import (
    Advert,
    Aggregator,
    Answer,
    Consent,
    SecAggError,
    check_advert,
    pack,
    unpack,
)
from haina.privacy.secagg.messages import MARK, SEALED
from haina.wire.messages import SealedTask

#: Longest advert: a name of 63 letters, four keys and a signature, with room for a later version.
_ADVERT = 1024


class Steps:
    """One stage of a round's secure sums.

    Args:
        sums: as they stood when the stage began.
        messages: by stage and node, what members sent in the stages before, as far as this stage passes it on.
    """

    def __init__(self, sums: Sums, messages: Mapping[str, Mapping[str, bytes]]) -> None:
        self.sums, self._messages = sums, messages
        self._ready: dict[int, str] = {}

    @classmethod
    def read(cls, sums: Sums, store: Store) -> Steps:
        """Read what the stage passes on."""
        row, name = sums.row, sums.stage.name
        needed: dict[str, tuple[str, ...]] = {
            "advertise": (),
            "share": ("advertise",),
            "upload": ("advertise", "share"),
            "consent": ("advertise",),
            "unmask": ("advertise", "consent"),
        }
        told = {before: store.sealed(row.federation, row.number, before) for before in needed[name]}
        return cls(sums, told)

    @property
    def key(self) -> tuple[int, str]:
        """Which stage of which round."""
        return self.sums.row.number, self.sums.stage.name

    def task(self, node: str, now: float) -> SealedTask | None:
        """What a member is told; None where it is asked nothing."""
        stage, group = self.sums.stage, self.sums.group_of(node)
        if stage.name == "advertise" or group is None or group.lost or node not in self.sums.wanted:
            return None
        return SealedTask(
            federation=self.sums.row.federation,
            round=self.sums.row.number,
            stage=stage.name,
            group=group.number,
            seconds=max(0.0, stage.until - now),
            data=self._data(node, group),
            uploaders=group.uploaders if stage.past("upload") else (),
        )

    def check(self, node: str, identity: str | None, stage: str, data: bytes) -> None:
        """Whether bytes can be an answer.

        Args:
            node: who sends it.
            identity: the key that it announced, in hexadecimal.
            stage: in which the node is asked.
            data: the answer.

        Raises:
            Refusal: "invalid": it cannot be one.
        """
        try:
            if stage == "advertise":
                self._check_advert(node, identity, data)
            else:
                self._check(node, stage, data)
        except SecAggError as error:
            raise Refusal("invalid", f"the {stage} of {node} is no such message: {error.what}") from error

    def _check_advert(self, node: str, identity: str | None, data: bytes) -> None:
        if len(data) > _ADVERT:
            raise SecAggError("malformed", f"an advert has {len(data)} bytes", allowed=f"at most {_ADVERT}")
        advert = Advert.from_bytes(data)
        if advert.name != node:
            raise SecAggError("malformed", f"it names {advert.name[:80]!r}")
        if advert.identity.hex() != identity:
            raise SecAggError("substituted", "its identity is not the one that the node announced")
        check_advert(advert, self.sums.terms)

    def _check(self, node: str, stage: str, data: bytes) -> None:
        group = self.sums.group_of(node)
        assert group is not None
        near = frozenset(self.aggregator(group).neighbours[node])
        if stage == "share":
            shares = unpack(data)
            if shares.keys() != near:
                raise SecAggError(
                    "unknown", f"it is for {len(shares)} members", allowed=f"its {len(near)} neighbours"
                )
            if any(len(share) != SEALED for share in shares.values()):
                raise SecAggError(
                    "malformed", "a sealed share is too short or too long", allowed=f"{SEALED} bytes"
                )
        elif stage == "consent":
            marks = len(Consent.from_bytes(data).marks) // MARK
            if marks != len(near):
                raise SecAggError(
                    "unknown", f"it has marks for {marks} members", allowed=f"its {len(near)} neighbours"
                )
        else:
            answer, gone = Answer.from_bytes(data), frozenset(group.sharers) - frozenset(group.uploaders)
            if not (answer.seeds.keys() <= frozenset(group.uploaders) & (near | {node})):
                raise SecAggError("unknown", "it has seeds of members that did not upload")
            if not answer.keys.keys() <= gone & near:
                raise SecAggError("unknown", "it has keys of members that are not gone")

    def aggregator(self, group: Group) -> Aggregator:
        """The coordinator's side of one group."""
        if group.number not in self._aggregators:
            self._aggregators[group.number] = aggregator_of(group, self._messages["advertise"])
        return self._aggregators[group.number]

    @cached_property
    def _aggregators(self) -> dict[int, Aggregator]:
        return {}

    @cached_property
    def _shared(self) -> dict[str, dict[str, bytes]]:
        return {node: unpack(data) for node, data in self._messages["share"].items() if data}

    def _data(self, node: str, group: Group) -> str:
        stage = self.sums.stage.name
        if stage == "share":
            if group.number not in self._ready:
                adverts = self._messages["advertise"]
                self._ready[group.number] = _text(pack({member: adverts[member] for member in group.members}))
            return self._ready[group.number]
        if stage == "upload":
            shared = {member: self._shared[member] for member in group.sharers}
            return _text(self.aggregator(group).inbox(shared, node).to_bytes())
        if stage == "unmask":
            consents = {member: self._messages["consent"][member] for member in group.consenters}
            return _text(pack(self.aggregator(group).consents(consents, node)))
        return ""


def aggregator_of(group: Group, adverts: Mapping[str, bytes]) -> Aggregator:
    """The coordinator's side of a group, from what its members advertised."""
    assert group.setting is not None
    return Aggregator(group.setting, [Advert.from_bytes(adverts[member]) for member in group.members])


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
