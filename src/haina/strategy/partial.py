"""Partial: what a round has heard so far, as a value.

A round that folds knows no more of its updates than sums and, for each client, its report and the length of its vector. So any number of processes
may each fold some of the clients; their partials, merged in any order, are the partial of one process that folded them all, byte for byte.

The trap is a client in two partials. Sums cannot tell, so names do: `merge` refuses it before it changes anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from haina.artifact import Array, dump, load
from haina.errors import HainaError, LayoutError, RoundError
from haina.exact import ExactSum
from haina.report import Report


@dataclass
class Partial:
    """Updates folded, refused and missing. An open round goes on with its own; to others it hands a `snapshot`.

    Args:
        key: SHA-256 of what must be the same for partials to add up: round, roster, shares.
        sums: name -> exact sum: `vector`, and `drift` where the server's step wants it.
        reports: client -> its report, for the updates that take part.
        squares: client -> squared L2 norm of its vector as it came.
        refused: client -> why its update cannot be used.
        failed: client -> why it could not train.
    """

    key: str
    sums: dict[str, ExactSum]
    reports: dict[str, Report] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def heard(self, clients: Iterable[str]) -> list[str]:
        """Those of `clients` that sent an update, used or refused."""
        return [client for client in clients if client in self.reports or client in self.refused]

    def merge(self, other: Partial) -> None:
        """Take in what another process has heard.

        Raises:
            RoundError: a client is in both, or they belong to different rounds; nothing is changed.
        """
        if other.key != self.key:
            raise RoundError(
                "the partial belongs to another round, or to other shares of this one",
                remedy="Open every copy of a round with the same state and the same roster",
            )
        twice = self.heard([*other.reports, *other.refused])
        if twice:
            raise RoundError(f"client {min(twice)!r} was heard already, so it would count twice")
        for name, total in self.sums.items():
            total.merge(other.sums[name])
        self.reports |= other.reports
        self.squares |= other.squares
        self.refused |= other.refused
        self.failed |= other.failed

    def snapshot(self) -> Partial:
        """The partial as it is now; sums are copied only when one of the two goes on."""
        sums = {name: total.snapshot() for name, total in self.sums.items()}
        return Partial(
            self.key, sums, dict(self.reports), dict(self.squares), dict(self.refused), dict(self.failed)
        )

    def to_bytes(self) -> bytes:
        """Canonical bytes: the same for the same clients, whatever the order."""
        return dump(*self.to_arrays())

    def to_arrays(self) -> tuple[dict[str, Array], dict[str, str]]:
        """What `to_bytes` writes, before it is written: arrays (the sums themselves, not copies) and words."""
        words = {
            "key": self.key,
            "sums": {name: [total.dimension, total.lossless] for name, total in self.sums.items()},
            "reports": {client: report.to_json() for client, report in self.reports.items()},
            "squares": self.squares,
            "refused": self.refused,
            "failed": self.failed,
        }
        arrays = {
            f"{name}/{digit}": array
            for name, total in sorted(self.sums.items())
            for digit, array in total.to_arrays().items()
        }
        return arrays, {"partial": json.dumps(words, sort_keys=True, separators=(",", ":"))}

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> Partial:
        """The inverse of `to_bytes`. The sums are views of `data` until they are added to.

        Raises:
            LayoutError: the bytes are no partial.
        """
        return cls.from_arrays(*load(data))

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> Partial:
        """The inverse of `to_arrays`; errors as for `from_bytes`."""
        try:
            words = json.loads(metadata["partial"])
            sums = {}
            for name, (dimension, lossless) in words["sums"].items():
                start = f"{name}/"
                digits = {key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)}
                sums[name] = ExactSum.from_arrays(digits, dimension, lossless=lossless)
            reports = {client: Report.read(said) for client, said in words["reports"].items()}
            squares = {client: float(words["squares"][client]) for client in reports}
            return cls(words["key"], sums, reports, squares, dict(words["refused"]), dict(words["failed"]))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, HainaError) as error:
            raise LayoutError(
                f"the bytes are no partial of a round ({type(error).__name__})",
                remedy="The bytes are damaged, or were written by another version",
            ) from error
