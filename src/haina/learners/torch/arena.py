"""Arena: arrays of a round on a device at addresses that last, so that what was captured over them can be replayed on the next round's values.

An array is as long as the longest of its name so far, rounded up to a power of two, with zeros behind its values. When one has to move, all that was
captured is forgotten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import torch

from haina.artifact import Array

#: What a step reads, by name, and how many clients it trains.
Key = tuple[frozenset[str], int]


class Arena:
    """Named arrays on a device.

    Args:
        device: where they lie.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._arrays: dict[str, torch.Tensor] = {}
        #: The names that the present round has.
        self.names: frozenset[str] = frozenset()
        #: The steps that were captured, and how often each ran before.
        self.graphs: dict[Key, torch.cuda.CUDAGraph] = {}
        self.ran: Counter[Key] = Counter()

    def lay(self, values: Mapping[str, Array | torch.Tensor]) -> None:
        """Put a round's arrays `[n, ...]` in their places, n >= 1."""
        self.names = frozenset(values)
        for name, value in values.items():
            source = value if isinstance(value, torch.Tensor) else torch.from_numpy(value)
            kept = self._arrays.get(name)
            if kept is None or not _fits(source, kept):
                self.graphs.clear()
                self.ran.clear()
                shape = (1 << (len(source) - 1).bit_length(), *source.shape[1:])
                kept = self._arrays[name] = torch.empty(shape, dtype=source.dtype, device=self._device)
            kept[: len(source)].copy_(source)
            kept[len(source) :].zero_()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._arrays[name]

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """The present arrays called `prefix.NAME`, by NAME."""
        return {
            name.removeprefix(f"{prefix}."): self._arrays[name]
            for name in sorted(self.names)
            if name.startswith(f"{prefix}.")
        }


def _fits(source: torch.Tensor, kept: torch.Tensor) -> bool:
    same = (kept.shape[1:], kept.dtype) == (source.shape[1:], source.dtype)
    return same and len(kept) >= len(source)
