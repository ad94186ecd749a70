"""What a privacy budget is, and what a charge to it: values, and which of them can be kept. How they add up is `haina.privacy.ledger`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from haina.errors import PrivacyError

Composition = Literal["pure", "zcdp"]
ChargeState = Literal["reserved", "released", "void"]

#: Owner and data set.
Key = tuple[str, str]

#: The part that is the whole data set.
WHOLE = "*"

#: No epsilon or rho is larger: a budget of a million promises nothing, and exact sums stay short.
MOST = 1e6

#: Letters in a name of an owner, a part or a federation; and of a data set, a charge or a mechanism.
_NAME, _TEXT = 63, 200


@dataclass(frozen=True)
class Budget:
    """What may be learnt about an owner's data set, in all federations together: (epsilon, delta)-differential privacy.

    Args:
        owner: the node, or whoever's data it is; 1 to 63 letters.
        dataset: the owner's name for it; at most 200 letters.
        epsilon: above 0, at most `MOST`.
        delta: 0 <= delta < 1; above 0 with "zcdp".
        composition: how charges add up.
        opened: seconds since 1970.
        parts: names of disjoint parts of the data set: no row lies, or will ever lie, in two. Only the owner can know that.

    Raises:
        PrivacyError: a value is none of these.
    """

    owner: str
    dataset: str
    epsilon: float
    delta: float
    composition: Composition
    opened: float = 0.0
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        fault = self._fault()
        if fault is not None:
            what, allowed = fault
            raise PrivacyError(f"a budget has {what}", allowed=allowed)

    @property
    def key(self) -> Key:
        """Whose data, and which."""
        return self.owner, self.dataset

    def __str__(self) -> str:
        parts = f" in the parts {', '.join(self.parts)}" if self.parts else ""
        terms = f"{self.composition}, epsilon {self.epsilon:g}, delta {self.delta:g}"
        return f"{self.owner}'s budget for {self.dataset!r} ({terms}{parts})"

    def _fault(self) -> tuple[str, str] | None:
        if not _sayable(self.owner, _NAME):
            return f"the owner {self.owner!r:.300}", f"1 to {_NAME} printable letters"
        if not _sayable(self.dataset, _TEXT, least=0):
            return f"the data set {self.dataset!r:.300}", f"at most {_TEXT} printable letters"
        if self.composition not in ("pure", "zcdp"):
            return f"the composition {self.composition!r:.300}", "'pure' or 'zcdp'"
        if not 0 < self.epsilon <= MOST:
            return f"epsilon {self.epsilon}", f"above 0, at most {MOST:g}"
        if not 0 <= self.delta < 1:
            return f"delta {self.delta}", "0 <= delta < 1"
        if self.composition == "zcdp" and self.delta == 0:
            return "delta 0 and the composition 'zcdp'", "a delta above 0, or 'pure'"
        good = all(_sayable(part, _NAME) and part != WHOLE for part in self.parts)
        if not good or len(set(self.parts)) < len(self.parts):
            named = f"different names of 1 to {_NAME} printable letters, none of them {WHOLE!r}"
            return f"the parts {list(self.parts)!r:.300}", named
        return None


@dataclass(frozen=True)
class Charge:
    """One release of one owner's data. What is wrong with it is said when it is to be reserved, so that it cannot stop others of its batch.

    `epsilon` with `delta`, and `rho`, are two statements about the same release, each true by itself; a budget counts the one that it composes by.

    Args:
        id: names it for ever, 1 to 200 letters: the same id again is the same charge, and is counted once.
        owner, dataset: name the budget.
        part: one that the budget declares, or `WHOLE`.
        federation, round: where the release is made; round >= 0.
        mechanism: what hides the data, for people.
        epsilon, delta: the release is (epsilon, delta)-differentially private; None where only rho is known.
        rho: the release is rho-zero-concentrated differentially private; 0 where only epsilon is known.
        state: where it stands.
        at: when it was reserved, seconds since 1970.
        why: why it is void.
    """

    id: str
    owner: str
    dataset: str
    part: str
    federation: str
    round: int
    mechanism: str
    epsilon: float | None
    delta: float
    rho: float
    state: ChargeState = "reserved"
    at: float = 0.0
    why: str = ""

    @property
    def key(self) -> Key:
        """The budget that it is counted against."""
        return self.owner, self.dataset

    def asked(self) -> Charge:
        """The charge as it was asked for, whenever that was and whatever became of it."""
        return replace(self, state="reserved", at=0.0, why="")

    def fault(self) -> str | None:
        """What is wrong with it, whatever its budget."""
        for name in ("id", "owner", "dataset", "part", "federation", "mechanism"):
            least = 0 if name in ("dataset", "mechanism") else 1
            most = _TEXT if name in ("id", "dataset", "mechanism") else _NAME
            if not _sayable(getattr(self, name), most, least):
                return f"its {name} is {getattr(self, name)!r:.300}; allowed: {least} to {most} printable letters"
        if not 0 <= self.round < 2**63:
            return f"its round is {self.round}; allowed: a whole number of 0 or more"
        for name, value in (("epsilon", self.epsilon), ("rho", self.rho)):
            if value is not None and not 0 <= value <= MOST:
                return f"its {name} is {value}; allowed: a number from 0 to {MOST:g}"
        if not 0 <= self.delta < 1:
            return f"its delta is {self.delta}; allowed: 0 <= delta < 1"
        return None


def _sayable(text: str, most: int, least: int = 1) -> bool:
    """Whether every store can keep a text, and every page show it."""
    return least <= len(text) <= most and text.isprintable()
