"""The order statistics of every coordinate, which median, trimmed mean and mean around the median are made of.

The block is transposed so that the n values of a coordinate lie side by side, and sorted there. Measured on 50 x 1,000,000 float32 and one thread of
a processor with AVX-512: 0.10 s, of which the transpose takes 0.02; `numpy.median` takes 0.66 s and `numpy.partition` of the transpose 0.55.

The trap: NaN would sort behind infinity and be trimmed like a number. Validation refuses it before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

#: Columns of one block: 50 rows of float32 and their transpose fill 1.6 MB, which stays in a second-level cache.
WIDTH = 1 << 12


def ordered(block: Any) -> Any:
    """`[n, width]` -> `[width, n]` with each coordinate's values in rising order, in the library of the block."""
    if not isinstance(block, np.ndarray):
        return namespace(block).sort(block.T, axis=-1)
    columns = block.T.copy(order="C")
    columns.sort(axis=1)
    return columns


def namespace(block: Any) -> Any:
    """The array-API namespace of a block."""
    from array_api_compat import array_namespace

    return array_namespace(block)


def central_mean(values: Any, trim: int) -> Any:
    """Mean `[width]` of sorted `values` `[width, n]` without the `trim` least and the `trim` greatest.

    The kept values are added, never the trimmed ones taken from the total: an attacker's 1e30 would leave nothing but rounding.
    """
    kept = values[:, trim : values.shape[1] - trim]
    count = kept.shape[1]
    if isinstance(kept, np.ndarray):
        return kept @ np.full(count, 1 / count, kept.dtype)
    return namespace(kept).mean(kept, axis=-1)
