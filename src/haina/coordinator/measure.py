"""How long is the vector in a body, and can it be used at all? One pass by blocks, before an update counts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from haina.artifact import Array
from haina.strategy.validate import squared_norm
from haina.wire.codecs import WORDS, CodecError, blocks, decode


def measure(codec: str, body: Path | bytes | bytearray, length: int) -> float:
    """Squared L2 norm of the vector in a body, in one pass by blocks: the same products and sums as `strategy.validate`; 0 for documents, and for the
    words of a secure sum, of which any are as good as any other.

    Raises:
        CodecError: the body is no vector of this length, holds a number that is not finite, or is too long to measure.
    """
    if codec in WORDS:
        decode(codec, body, length)
        return 0.0
    total = 0.0
    for columns, block in blocks(codec, body, length):
        if not length:
            return 0.0
        with np.errstate(over="ignore", invalid="ignore"):
            total += squared_norm(block)
        if not math.isfinite(total):
            raise CodecError(_unusable(block, columns.start), allowed="finite numbers")
    return total


def _unusable(block: Array, start: int) -> str:
    finite = np.isfinite(block)
    if finite.all():
        return "the vector is too long to measure"
    place = int(np.argmin(finite))
    return f"coordinate {start + place} is {block[place]}"
