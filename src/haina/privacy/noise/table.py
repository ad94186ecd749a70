"""Table: draws from any distribution on a run of integers, by inverting its distribution function.

The thresholds T[i] = floor(2^128 * P(X <= i)) are compared with a uniform integer of 128 bits, of which the first 64 decide unless they equal those
of a threshold; the other 64 are drawn only then, about once in 2^64 / size draws. The distance of what is drawn from what is meant is at
most size * 2^-128 a draw in total variation: for 30,000 entries and 10^15 draws below 10^-19, nothing beside any delta.

Most draws need no search: the first 16 bits lead to a cell of [0, 1), and most cells hold no threshold, so one look gives the answer
(a guide table; Chen & Asau 1974, "On Generating Random Variates from an Empirical Distribution"). Only the rest are searched.

The trap: which cells were looked at shows in the processor's cache. Whoever runs programmes on the same machine may learn about the noise from it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from haina.privacy.stream import Stream

#: Bits of a threshold, and of a word of it.
_BITS, _WORD = 128, 64
#: Bits that lead to a cell of the guide.
_CELL = 16


class Table:
    """A distribution on `first`, `first + 1`, ...

    Args:
        weights: of each integer in turn, >= 0 and in proportion to its probability, at least two and fewer than 2^15. Their sum has many more than
            128 bits, so that the thresholds are right to the last bit or two.
        first: the integer of the first weight.
    """

    def __init__(self, weights: Sequence[int], first: int) -> None:
        total, below = sum(weights), 0
        thresholds = []
        for weight in weights[:-1]:
            below += weight
            # The last integers may weigh too little to be told from certainty.
            thresholds.append(min((below << _BITS) // total, (1 << _BITS) - 1))
        self._high = np.array([one >> _WORD for one in thresholds], np.uint64)
        self._low = np.array([one & ((1 << _WORD) - 1) for one in thresholds], np.uint64)
        self._first = first
        # What a cell without a threshold in it stands for; -1 where it must be searched.
        cells = (self._high >> np.uint64(_WORD - _CELL)).astype(np.int64)
        self._guide = np.searchsorted(cells, np.arange(1 << _CELL), side="left").astype(np.int16)
        self._guide[cells] = -1

    def draw(self, count: int, stream: Stream) -> NDArray[np.int64]:
        """So many independent draws, `[count]`; 8 bytes of the stream for each."""
        words = stream.uint64(count)
        out = self._guide.take((words >> np.uint64(_WORD - _CELL)).view(np.int64))
        rest = np.flatnonzero(out < 0)
        if len(rest):
            out[rest] = self._searched(words[rest], stream)
        return out.astype(np.int64) + self._first

    def _searched(self, words: NDArray[np.uint64], stream: Stream) -> NDArray[np.int64]:
        """The number of thresholds that are not above a uniform number with these first bits."""
        found = np.searchsorted(self._high, words, side="left")
        for tie in np.flatnonzero(self._high.take(found, mode="clip") == words):
            second = stream.uint64(1)[0]
            run = slice(found[tie], np.searchsorted(self._high, words[tie], side="right"))
            found[tie] += np.searchsorted(self._low[run], second, side="right")
        return found
