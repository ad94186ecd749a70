"""A group that has come together: who is in it, in which order, and who is whose neighbour.

The cohort's digest covers the setting and every advert, sorted by name; it goes into every key and every consent. Members stand on a ring in the
order of SHA-256(digest, name), and each is a neighbour of the `degree / 2` before and after it: a Harary graph, the cheapest one of its connectivity.
Everyone finds the order alone, so the coordinator cannot choose it; and it is not known before the last advert is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import cached_property
from hashlib import sha256

import numpy as np

from haina.privacy.secagg.messages import Advert
from haina.privacy.secagg.plan import together
from haina.privacy.secagg.refusal import SecAggError
from haina.privacy.secagg.setting import DOMAIN, LARGEST, Setting, name_bytes


class Cohort:
    """The members of a group.

    Args:
        setting: of the group.
        adverts: of all its members, in any order.

    Raises:
        SecAggError: "malformed": a name or an identity appears twice, or the degree does not fit their number.
    """

    def __init__(self, setting: Setting, adverts: Sequence[Advert]) -> None:
        self.setting = setting
        self.adverts = {advert.name: advert for advert in sorted(adverts, key=lambda advert: advert.name)}
        #: Ascending.
        self.names = tuple(self.adverts)
        if len(self.names) < len(adverts) or len({advert.identity for advert in adverts}) < len(adverts):
            raise SecAggError(
                "malformed",
                f"{len(adverts)} adverts have {len(self.names)} names",
                allowed="each name and each identity once",
            )
        whole, degree = len(self.names) - 1, setting.degree
        if not (degree == whole or (degree < whole and degree % 2 == 0)) or len(self.names) > LARGEST:
            raise SecAggError(
                "malformed", f"the degree is {degree}", allowed=f"{whole}, or a smaller even number"
            )
        body = b"".join(advert.body() for advert in self.adverts.values())
        self.digest = sha256(DOMAIN + b"cohort\0" + setting.context() + body).digest()

    @cached_property
    def points(self) -> dict[str, int]:
        """Where each member's shares are taken: 1, 2, ... by name."""
        return {name: place for place, name in enumerate(self.names, start=1)}

    @cached_property
    def ring(self) -> tuple[str, ...]:
        """The order in which the members stand."""
        start = sha256(DOMAIN + b"ring\0" + self.digest)

        def place(name: str) -> bytes:
            hashed = start.copy()
            hashed.update(name.encode())
            return hashed.digest()

        return tuple(sorted(self.names, key=place))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.ring)}

    def neighbours(self, name: str) -> tuple[str, ...]:
        """Of one member, ascending."""
        if self.setting.degree == len(self.names) - 1:
            return tuple(other for other in self.names if other != name)
        place, half, size = self._places[name], self.setting.degree // 2, len(self.names)
        return tuple(sorted(self.ring[(place + step) % size] for step in range(-half, half + 1) if step))

    def view(self, sharers: Sequence[str], uploaders: Sequence[str]) -> bytes:
        """32 bytes for who shared and who uploaded: what a consent is given to. Both ascending."""
        hashed = sha256(DOMAIN + b"view\0" + self.digest)
        for names in (sharers, uploaders):
            hashed.update(len(names).to_bytes(4, "big") + b"".join(map(name_bytes, names)))
        return hashed.digest()

    def check_names(self, names: Sequence[str], what: str) -> tuple[str, ...]:
        """Names of this group, each once, in ascending order.

        Raises:
            SecAggError: "unknown" or "malformed".
        """
        for name in names:
            if name not in self.adverts:
                raise SecAggError("unknown", f"{name[:80]!r} {what}", allowed="the members of the group")
        out = tuple(sorted(set(names)))
        if len(out) < len(names):
            raise SecAggError("malformed", f"{len(names) - len(out)} members {what} twice")
        return out

    def check_together(self, uploaders: Collection[str]) -> None:
        """Refuse a set of uploaders whose sum could fall into sums of parts (see `plan`).

        Two stretches of the ring cut it when nobody in them is honest and there. So any two must have more uploaders than there can be corrupt
        members.

        Raises:
            SecAggError: "apart".
        """
        size, width = len(self.names), self.setting.degree // 2
        needed = together(size, self.setting.degree, self.setting.corrupt)
        if not needed:
            return
        there = np.array([name in uploaders for name in self.ring], np.int64)
        sums = np.concatenate([[0], np.cumsum(np.concatenate([there, there[: width - 1]]))])
        stretches = sums[width:] - sums[:-width]
        fewest = _two_apart(stretches, width)
        if fewest < needed:
            raise SecAggError(
                "apart",
                f"two stretches of {width} neighbours have {fewest} uploaders",
                allowed=f"{needed} or more: as it is, the sum of a part could be opened",
                remedy="Try the round again; if this repeats, plan for more drop-outs",
            )


def _two_apart(stretches: np.ndarray[tuple[int], np.dtype[np.int64]], width: int) -> int:
    """The smallest sum of two stretches (each begins at its index of a ring) that do not overlap."""
    size = len(stretches)
    order = np.argsort(stretches, kind="stable").tolist()
    best = 2 * size
    for place, one in enumerate(order):
        if 2 * stretches[one] >= best:
            break
        for other in order[place:]:
            if width <= (other - one) % size <= size - width:
                best = min(best, int(stretches[one] + stretches[other]))
                break
    return best
