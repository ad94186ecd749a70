"""Disclosure: what a client may say of its rows, and when it must say nothing.

The trap is the reason for saying nothing: a message that helps at home ("level 'hiv ward' in row 17") is data of the client when it travels.
So a failure carries what is allowed, which everybody knows, and never what was found.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from haina.errors import DataError
from haina.update import Failure, Vector

#: Fewer rows than this are described too closely by any statistic.
FEWEST = 10
#: Fewer events than this are described too closely by sums over events.
FEWEST_EVENTS = 5
#: Fewer rows than this in a cell of a table, or beyond a quantile, are single persons to who knows a little more.
MIN_CELL = 5


class Withheld(DataError):  # noqa: N818 -- it is said of an answer
    """A site keeps its answer to itself, because it would show single persons. The message holds what is allowed and nothing that was found."""


def refuse_rare(blocks: Iterable[Vector], min_cell: int) -> None:
    """Keep regression sums at the site where a column of zeros and ones is the mark of a few persons: the products of such a column with the others,
    and with the outcome, are sums over them alone.

    Args:
        blocks: `[n, columns]` rows of the design matrix, and of an outcome of zeros and ones, one after the other.
        min_cell: rows that must be on each side of such a column, if any is; 1 for no such rule.

    Raises:
        Withheld: a column has 1 to `min_cell` - 1 ones, or as many zeros.
    """
    if min_cell <= 1:
        return
    ones, zeros, n = np.zeros(0), np.zeros(0), 0
    for block in blocks:
        ones = (ones if n else 0.0) + (block == 1).sum(axis=0)
        zeros = (zeros if n else 0.0) + (block == 0).sum(axis=0)
        n += len(block)
    fewest = np.minimum(ones, zeros)
    if ((ones + zeros == n) & (fewest > 0) & (fewest < min_cell)).any():
        raise Withheld(
            f"a level of its factors or outcomes has fewer than {min_cell} rows, which its sums would give away",
            allowed=f"levels of 0 or at least {min_cell} rows",
            remedy='Merge levels; or hide single sites by [privacy] secure_aggregation and write check = "sum"',
        )


def too_few(client: str, rows: int, needed: int) -> Failure | None:
    """The failure of a client with fewer rows than `needed`; None for enough."""
    if rows >= needed:
        return None
    if not rows:
        return Failure(client, "it has no rows")
    return Failure(client, f"it has fewer than {needed} rows, which its answer would give away")


def unusable(client: str, error: DataError) -> Failure:
    """The failure of a client whose rows a learner cannot take, or who keeps its answer to itself."""
    if isinstance(error, Withheld):
        return Failure(client, str(error))
    return Failure(client, f"some of its rows cannot be used (allowed: {error.allowed})")
