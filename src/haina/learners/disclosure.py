"""Disclosure: what a client may say of its rows, and when it must say nothing.

The trap is the reason for saying nothing: a message that helps at home ("level 'hiv ward' in row 17") is data of the client when it travels.
So a failure carries what is allowed, which everybody knows, and never what was found.
"""

from __future__ import annotations

from haina.errors import DataError
from haina.update import Failure

#: Fewer rows than this are described too closely by any statistic.
FEWEST = 10
#: Fewer events than this are described too closely by sums over events.
FEWEST_EVENTS = 5
#: Fewer rows than this in a cell of a table, or beyond a quantile, are single persons to who knows a little more.
MIN_CELL = 5


class Withheld(DataError):  # noqa: N818 -- it is said of an answer
    """A site keeps its answer to itself, because it would show single persons. The message holds what is allowed and nothing that was found."""


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
