"""Suppression: which cells of a table may not be shown, so that none tells of a few persons, also not by subtraction.

A cell with 1 to `min_cell` - 1 rows is hidden (primary suppression). Totals of all lines (rows, columns, and so on for each way) count as shown, so
one hidden cell in a line could be had by subtraction, and two that hold three persons together say as much; so in every line with hidden cells the
smallest others are hidden too until the hidden ones are at least two and hold `min_cell` rows or more (complementary suppression; Willenborg & de
Waal 2001, "Elements of Statistical Disclosure Control", ch. 6). Zeros are shown, unless nothing else is left to hide.

Lines one at a time are not enough: a hidden cell that alone joins two cycles of hidden cells follows from all totals together. So the totals are
solved. A hidden cell is determined if and only if all tables that are zero where cells are shown and in every total are zero in it too, that is, if
its leverage in the equations is 1. The same holds for the sum of two hidden cells where these tables are opposite in both; it must not be below
`min_cell` either, unless it would follow with all cells hidden too. While there is such a cell or pair, another cell in one of its lines is hidden.

Not covered: sums of three cells or more that follow from several lines, and bounds that follow from counts being at least 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from haina.update import Vector

#: Random tables that the audit draws; a cell is zero in all of them by chance with a probability of about 1e-11.
_DRAWN = 4
#: A leverage this near to 1 is 1.
_NEAR = 1e-9


def hidden_cells(counts: Vector, min_cell: int) -> NDArray[np.bool_]:
    """Which cells of a table with any number of ways are not shown, True; `counts` and the answer have one shape."""
    hidden: NDArray[np.bool_] = (counts > 0) & (counts < min_cell)
    if min_cell <= 1 or not hidden.any():
        return hidden
    _cover_lines(counts, hidden, min_cell)
    while not hidden.all() and (told := _determined(counts, hidden, min_cell)):
        _hide_beside(counts, hidden, told)
        _cover_lines(counts, hidden, min_cell)
    return hidden


def _cover_lines(counts: Vector, hidden: NDArray[np.bool_], min_cell: int) -> None:
    """Hide more cells, in place, until each line hides none, or enough."""
    changed = True
    while changed:
        changed = False
        for axis in range(counts.ndim):
            cells, veil = np.moveaxis(counts, axis, -1), np.moveaxis(hidden, axis, -1)
            number, held = veil.sum(axis=-1), np.where(veil, cells, 0.0).sum(axis=-1)
            for place in np.argwhere((number > 0) & ((number < 2) | (held < min_cell)) & ~veil.all(axis=-1)):
                _cover(cells[tuple(place)], veil[tuple(place)], min_cell)
                changed = True


def _cover(cells: Vector, veil: NDArray[np.bool_], min_cell: int) -> None:
    """Hide more cells of one line, in place."""
    while not veil.all() and (veil.sum() < 2 or cells[veil].sum() < min_cell):
        _hide(cells, veil, np.flatnonzero(~veil))


def _hide(cells: Vector, veil: NDArray[np.bool_], shown: NDArray[np.int64]) -> None:
    """Hide the smallest of some shown cells that holds anybody, in place; zeros last. All are flat."""
    order = np.lexsort([cells[shown], cells[shown] == 0])
    veil[shown[order[0]]] = True


def _hide_beside(counts: Vector, hidden: NDArray[np.bool_], told: list[tuple[int, ...]]) -> None:
    """Hide one more cell in a line of each group `told` of cells, in place; any, where these lines are hidden altogether."""
    touched = np.zeros(counts.shape, bool)
    for cells in told:
        beside = np.zeros(counts.shape, bool)
        for place in zip(*np.unravel_index(cells, counts.shape), strict=True):
            for axis in range(counts.ndim):
                beside[(*place[:axis], slice(None), *place[axis + 1 :])] = True
        # What was just hidden in one of these lines may be enough; the next audit says.
        if (beside & touched).any():
            continue
        veil, shown = hidden.copy().ravel(), np.flatnonzero(beside & ~hidden)
        _hide(counts.ravel(), veil, shown if len(shown) else np.flatnonzero(~veil))
        touched |= veil.reshape(hidden.shape) & ~hidden
        hidden |= touched
        if hidden.all():
            return


def _determined(counts: Vector, hidden: NDArray[np.bool_], min_cell: int) -> list[tuple[int, ...]]:
    """Flat places of hidden cells that follow from the totals; where there are none, of pairs of which too small a sum does."""
    places, free, held = np.flatnonzero(hidden), _free_tables(hidden), counts.ravel()
    told = places[(free**2).mean(axis=1) <= _NEAR]
    if len(told):
        return [(int(one),) for one in told]
    # Two cells with a sum below `min_cell` are each below it. Cells that are opposite are neighbours by the absolute value in the first table.
    few = np.flatnonzero(held[places] < min_cell)
    few = few[np.argsort(np.abs(free[few, 0]))]
    places, free = places[few], free[few]
    held, where = held[places], np.stack(np.unravel_index(places, counts.shape), axis=1)
    ends = np.searchsorted(np.abs(free[:, 0]), np.abs(free[:, 0]) + np.sqrt(_NEAR * _DRAWN), side="right")
    pairs: list[tuple[int, ...]] = []
    for i, end in enumerate(ends):
        others = np.arange(i + 1, end)
        sums = held[i] + held[others]
        others = others[(sums > 0) & (sums < min_cell)]
        others = others[((free[i] + free[others]) ** 2).mean(axis=1) <= _NEAR]
        pairs += [
            (int(places[i]), int(places[j]))
            for j in others
            if not _inseparable(where[i], where[j], counts.shape)
        ]
    return pairs


def _inseparable(one: NDArray[np.int64], other: NDArray[np.int64], shape: tuple[int, ...]) -> bool:
    """Whether the sum of two cells follows from the totals even where all cells are hidden, as of both cells of a line of two."""
    apart = one != other
    return bool((np.array(shape)[apart] == 2).all() and apart.sum() % 2)


def _free_tables(hidden: NDArray[np.bool_]) -> Vector:
    """`[hidden cells, _DRAWN]` random tables that are zero where cells are shown and in every total: what the hidden cells may differ by.

    Normal deviates are projected onto all such tables by conjugate gradients (Hestenes & Stiefel 1952) on A'A v = 0, where A adds up lines. Each
    value has the variance 1 - leverage. Sums of lines are the only products, so it is quick, however many ways there are.
    """
    where, number = np.nonzero(hidden), int(hidden.sum())
    lines = []
    for axis, levels in enumerate(hidden.shape):
        # The only cell of a line would be its own total, which is no more shown than it.
        if levels > 1:
            others = [w * (k != axis) for k, w in enumerate(where)]
            line = np.unique(np.ravel_multi_index(others, hidden.shape), return_inverse=True)[1].ravel()
            lines.append((line[:, None] * _DRAWN + np.arange(_DRAWN)).ravel())

    def totals(tables: Vector) -> Vector:
        every = np.zeros(tables.size)
        for line in lines:
            every += np.bincount(line, tables.ravel())[line]
        return every.reshape(tables.shape)

    free: Vector = np.random.default_rng(0).standard_normal((number, _DRAWN))
    left = -totals(free)
    step, size = left, (left**2).sum(axis=0)
    settled = 1e-22 * size
    for _ in range(4 * number):
        if (size <= settled).all():
            break
        moved = totals(step)
        length = size / np.maximum((step * moved).sum(axis=0), 1e-300)
        free, left = free + length * step, left - length * moved
        before, size = size, (left**2).sum(axis=0)
        step = left + size / np.maximum(before, 1e-300) * step
    return free


def small(counts: Vector, min_cell: int) -> bool:
    """True if some cell holds 1 to `min_cell` - 1 rows."""
    return bool(((counts > 0) & (counts < min_cell)).any())
