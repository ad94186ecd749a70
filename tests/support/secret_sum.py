"""A secure sum step by step, so that a test can come between any two of them as a malicious coordinator or member would."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from haina.privacy.secagg import Aggregator, Answer, Inbox, Member, Plan, SecAggError, Terms, plan

TERMS = Terms(federation="hospitals", round=7, task="ab" * 32, length=50)


def stream(seed: int) -> Callable[[int], bytes]:
    """Entropy that is the same every time, and as random as any."""
    key = seed.to_bytes(32, "big")
    encryptor = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return lambda size: encryptor.update(bytes(size))


def attempt(call: Callable[..., Any], *arguments: Any, **more: Any) -> tuple[Any, str]:
    """What a call returns and "", or None and the code of its refusal."""
    try:
        return call(*arguments, **more), ""
    except SecAggError as refused:
        return None, refused.code


def names(n: int) -> list[str]:
    """`n` names in ascending order."""
    return [f"site-{i:03}" for i in range(n)]


class Room:
    """Members and a coordinator in one place. Each step is a method; what it made lies in an attribute of the same name."""

    def __init__(
        self,
        n: int,
        *,
        terms: Terms = TERMS,
        seed: int = 1,
        numbers: Plan | None = None,
        fewest: int = 3,
        group: int = 0,
    ) -> None:
        self.terms = terms
        self.entropy = stream(seed)
        self.names = names(n)
        self.identities = {
            name: Ed25519PrivateKey.from_private_bytes(self.entropy(32)) for name in self.names
        }
        self.members = {
            name: Member(name, self.identities[name], terms, self.entropy, fewest=fewest)
            for name in self.names
        }
        chosen = numbers or plan(n, corrupt=terms.corrupt, fewest=min(fewest, n))
        self.setting = terms.setting(group, chosen.degree, chosen.threshold, chosen.least)
        rng = np.random.default_rng(seed)
        dtype = f"u{terms.word // 8}"
        self.vectors = {
            name: rng.integers(0, 2**terms.word, terms.length, dtype=dtype) for name in self.names
        }
        self.adverts = {name: self.members[name].advertise() for name in self.names}
        self.pins = {name: advert.identity for name, advert in self.adverts.items()}
        self.aggregator = Aggregator(self.setting, list(self.adverts.values()))
        self.shared: dict[str, dict[str, bytes]] = {}
        self.uploaded: dict[str, np.ndarray] = {}
        self.consents: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}

    def share(self, who: Iterable[str] | None = None) -> Room:
        for name in self.names if who is None else who:
            self.shared[name] = self.members[name].share(
                self.setting, list(self.adverts.values()), self.pins.get
            )
        return self

    def inbox(self, name: str, **changes) -> Inbox:
        return replace(self.aggregator.inbox(self.shared, name), **changes)

    def upload(self, who: Iterable[str] | None = None) -> Room:
        for name in list(self.shared) if who is None else who:
            self.uploaded[name] = self.members[name].upload(self.inbox(name), self.vectors[name].copy())
        return self

    def consent(self, who: Iterable[str] | None = None) -> Room:
        for name in list(self.uploaded) if who is None else who:
            self.consents[name] = self.members[name].consent(list(self.uploaded))
        return self

    def unmask(self, who: Iterable[str] | None = None) -> Room:
        for name in list(self.consents) if who is None else who:
            shown = self.aggregator.consents(self.consents, name)
            self.answers[name] = self.members[name].unmask(list(self.uploaded), shown)
        return self

    def total(self) -> np.ndarray:
        """The sum of what was uploaded, masks and all."""
        return np.sum(list(self.uploaded.values()), axis=0, dtype=f"u{self.terms.word // 8}")

    def open(self) -> np.ndarray:
        total = self.total()
        self.aggregator.open(total, self.shared, list(self.uploaded), self.answers)
        return total

    def truth(self) -> np.ndarray:
        """The sum of what the uploaders put in."""
        rows = [self.vectors[name] for name in self.uploaded]
        return np.sum(rows, axis=0, dtype=f"u{self.terms.word // 8}")
