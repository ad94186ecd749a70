"""Coded forests: trees over the columns of a table, for libraries that split factors themselves.

A row is one number for each column: a number as it is, a factor as its level's number from 0. Trees of R ask just that. Trees of Python ask
one-hot columns, "is this level's column <= 0.5?", which is a set of levels too. So both become one kind of split, and a row needs no one-hot columns.

scikit-learn compares float32(x) <= thr. Rounding to float32 never changes the order of two numbers, so the doubles that keep to this rule are those
up to a largest one, and comparing with that one is the same rule in double precision, for every double (`in_doubles`).

The trap is a set that holds no level, or all of them: libraries disagree about it, so it becomes a number that no code, or every code, keeps to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from haina.errors import LayoutError
from haina.learners.forest.columns import Column
from haina.learners.forest.trees import RULES, Forest, Forests, Tree
from haina.update import Vector


@dataclass(frozen=True, eq=False)
class CodedTree:
    """One tree of m nodes, node 0 the root; children come after their parent.

    Args:
        left, right: `[m]` children, -1 at leaves.
        column: `[m]` column that an inner node asks for.
        threshold: `[m]` a row goes left if its number, as a double, is not above this; not used where `levels` says something.
        levels: `[m]` numbers of the levels that go left, neither none nor all; empty where numbers are compared.
        votes: `[m, outcomes]` what a leaf votes.
    """

    left: list[int]
    right: list[int]
    column: list[int]
    threshold: list[float]
    levels: list[tuple[int, ...]]
    votes: Vector


@dataclass(frozen=True, eq=False)
class Coded:
    """Forests over the columns of a table.

    Args:
        columns: what a row's numbers are.
        labels: names of the classes; empty where they have none, and for regression.
        classes: number of classes; 0 for regression.
        soft: for each forest, whether leaves vote shares.
        forests: the trees of each forest, in the order in which votes are summed.
    """

    columns: tuple[Column, ...]
    labels: tuple[str, ...]
    classes: int
    soft: tuple[bool, ...]
    forests: tuple[tuple[CodedTree, ...], ...]

    @property
    def trees(self) -> int:
        """Number of trees in all forests."""
        return sum(map(len, self.forests))

    @classmethod
    def of(cls, forests: Forests) -> Coded:
        """The same votes from coded rows.

        Raises:
            LayoutError: there are no trees yet.
        """
        if not forests.trees:
            raise LayoutError(
                "the forest has no trees yet",
                allowed="a forest after its round",
                remedy="Fetch a later version",
            )
        names = forests.names
        columns = names.columns or tuple(Column(f"x{j}") for j in range(forests.features))
        places = [(c, k) for c, column in enumerate(columns) for k in range(column.width)]
        return cls(
            columns,
            names.labels,
            forests.classes,
            tuple(forest.soft for forest in forests.forests),
            tuple(
                tuple(_coded(tree, forest, columns, places) for tree in forest.trees)
                for forest in forests.forests
            ),
        )


def in_doubles(threshold: Vector) -> Vector:
    """The largest double t' for each threshold t such that float32(x) <= t if and only if x <= t', for every double x."""
    with np.errstate(over="ignore"):
        below = threshold.astype(np.float32)
    below = np.where(below > threshold, np.nextafter(below, np.float32(-np.inf)), below)
    with np.errstate(over="ignore"):
        above = np.nextafter(below, np.float32(np.inf)).astype(np.float64)
    # Beyond float32's largest number, rounding goes on as if there were one more: 2^128.
    above = np.where(np.isposinf(above), 2.0**128, above)
    least = np.where(np.isneginf(below), -(2.0**128), below.astype(np.float64))
    middle = least + (above - least) / 2
    # A number halfway between two neighbours is rounded to the even one, for which infinity counts.
    even = np.asarray(below, np.float32).view(np.uint32) % 2 == 0
    return np.where(even, middle, np.nextafter(middle, -np.inf))


def _coded(
    tree: Tree, forest: Forest, columns: tuple[Column, ...], places: list[tuple[int, int]]
) -> CodedTree:
    bounds: NDArray[np.float64] = in_doubles(tree.threshold) if forest.rule == RULES[0] else tree.threshold
    asked, threshold, levels = [], bounds.tolist(), []
    inner = (tree.left >= 0).tolist()
    for i, (feature, start) in enumerate(zip(tree.feature.tolist(), tree.start.tolist(), strict=True)):
        column, level = places[feature]
        width = len(columns[column].levels)
        goes: tuple[int, ...] = ()
        if inner[i] and width:
            left = (
                tree.goes[start : start + width].tolist()
                if start >= 0
                else [float(k == level) <= threshold[i] for k in range(width)]
            )
            goes = tuple(k for k in range(width) if left[k])
            threshold[i] = -1.0 if not goes else float(width)
            goes = goes if len(goes) < width else ()
        asked.append(column)
        levels.append(goes)
    return CodedTree(tree.left.tolist(), tree.right.tolist(), asked, threshold, levels, tree.votes)
