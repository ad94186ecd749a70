"""Suppression: which cells of a table may not be shown, so that none tells of a few persons, also not by subtraction.

A cell with 1 to `min_cell` - 1 rows is hidden (primary suppression). Totals of rows and columns are shown, so one hidden cell in a line could be
had by subtraction, and two that hold three persons together say as much; so in every line with hidden cells the smallest others are hidden too
until the hidden ones are at least two and hold `min_cell` rows or more (complementary suppression; Willenborg & de Waal 2001, "Elements of
Statistical Disclosure Control", ch. 6). Zeros are shown, unless nothing else is left to hide.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from haina.update import Vector


def hidden_cells(counts: Vector, min_cell: int) -> NDArray[np.bool_]:
    """Which cells of a table with any number of ways are not shown, True; `counts` and the answer have one shape."""
    hidden = (counts > 0) & (counts < min_cell)
    if min_cell <= 1 or not hidden.any():
        return hidden
    changed = True
    while changed:
        changed = False
        for axis in range(counts.ndim):
            cells, veil = np.moveaxis(counts, axis, -1), np.moveaxis(hidden, axis, -1)
            for place in np.ndindex(cells.shape[:-1]):
                changed |= _cover(cells[place], veil[place], min_cell)
    return hidden


def _cover(cells: Vector, veil: NDArray[np.bool_], min_cell: int) -> bool:
    """Hide more cells of one line, in place; True if any was."""
    changed = False
    while veil.any() and (veil.sum() < 2 or cells[veil].sum() < min_cell):
        shown = np.flatnonzero(~veil)
        if not len(shown):
            break
        # The smallest that holds anybody; zeros last.
        order = np.lexsort([cells[shown], cells[shown] == 0])
        veil[shown[order[0]]] = True
        changed = True
    return changed


def small(counts: Vector, min_cell: int) -> bool:
    """True if some cell holds 1 to `min_cell` - 1 rows."""
    return bool(((counts > 0) & (counts < min_cell)).any())
