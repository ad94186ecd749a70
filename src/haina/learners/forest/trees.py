"""Trees that vote: a forest as arrays, grown in any language, and what it says of rows.

A row goes left where a number keeps to the rule (scikit-learn compares the feature rounded to float32, R compares it as it is), or where a factor's
level is among those that go left. A leaf votes one class, shares of classes, or a value.

Merging keeps forests apart in a list, and votes are summed forest by forest in that order. So the votes of a merged document are *exactly* the
sums of its parts' votes, although floating-point sums depend on their order.

The trap is a tie. R draws lots; here, and in Haina's R package, the first class wins.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import LayoutError
from haina.learners.forest.columns import Names
from haina.update import Vector

#: Most steps from root to leaf.
MAX_DEPTH = 1_000
RULES = ("float32(x)<=thr", "x<=thr")

Index = NDArray[np.int64]
Sides = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree of m nodes, node 0 the root.

    Args:
        left, right: `[m]` children, -1 at leaves.
        feature: `[m]` feature that an inner node asks for, the first one of a factor; 0 at leaves.
        threshold: `[m]` bound of the rule; 0 at leaves, and where a factor is split.
        votes: `[m, outcomes]` what a leaf votes; zeros at inner nodes.
        depth: steps from the root to the farthest leaf.
        start: `[m]` where a factor's levels begin in `goes`; -1 where no factor is split.
        goes: of all split factors one after the other, True for each level that goes left.
    """

    left: Index
    right: Index
    feature: Index
    threshold: Vector
    votes: Vector
    depth: int
    start: Index
    goes: Sides

    def leaves(self, x: Vector, codes: Index | None) -> Index:
        """`[N]` node in which each row ends.

        Args:
            x: `[N, p]` features, rounded where the rule rounds.
            codes: `[N, p]` level numbers (`Names.codes`); None will do where no factor is split.
        """
        node = np.zeros(len(x), np.int64)
        rows = np.arange(len(x))
        for _ in range(self.depth):
            asked = self.feature[node]
            below = x[rows, asked] <= self.threshold[node]
            if codes is not None and len(self.goes):
                start = self.start[node]
                place = np.where(start >= 0, start + codes[rows, asked], 0)
                below = np.where(start >= 0, self.goes[place], below)
            node = np.where(self.left[node] >= 0, np.where(below, self.left[node], self.right[node]), node)
        return node


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees that were grown together.

    Args:
        source: the program that grew them.
        rule: one of `RULES`.
        soft: True when leaves vote shares and not one class.
        examples: rows they were grown on.
        importance: `[p]` mean decrease of impurity, summing to 1 (all 0 if nothing was split); a factor's is spread over its features.
        trees: at least one.
    """

    source: str
    rule: str
    soft: bool
    examples: int
    importance: Vector
    trees: tuple[Tree, ...]

    @property
    def asks_factors(self) -> bool:
        """True when a tree splits a factor."""
        return any(len(tree.goes) > 0 for tree in self.trees)

    def votes(self, x: Array, codes: Index | None = None) -> Vector:
        """`[N, outcomes]` votes of all trees, summed in order."""
        cells = np.asarray(x, np.float32 if self.rule == RULES[0] else np.float64).astype(np.float64)
        total = np.zeros((len(x), self.trees[0].votes.shape[1]))
        for tree in self.trees:
            total += tree.votes[tree.leaves(cells, codes)]
        return total


@dataclass(frozen=True, eq=False)
class Forests:
    """Forests with the same features and outcomes.

    Args:
        classes: number of classes; 0 for regression.
        features: p.
        forests: in the order in which they were merged; none before the first round.
        names: of columns and classes, where they are known.
    """

    classes: int
    features: int
    forests: tuple[Forest, ...] = ()
    names: Names = field(default_factory=Names)

    @property
    def outcomes(self) -> int:
        """Width of a vote: the classes, or 1."""
        return self.classes or 1

    @property
    def trees(self) -> int:
        """Number of trees in all forests."""
        return sum(len(forest.trees) for forest in self.forests)

    @property
    def importance(self) -> Vector:
        """`[p]` mean decrease of impurity over all trees: each forest counts by its trees, as its votes do."""
        total = np.zeros(self.features)
        for forest in self.forests:
            total += len(forest.trees) * forest.importance
        return total / max(1, self.trees)

    def votes(self, x: Array) -> Vector:
        """`[N, outcomes]` summed votes, forest by forest.

        Raises:
            LayoutError: `x` does not have p columns, or a factor that trees split is not one-hot in it.
        """
        if x.ndim != 2 or x.shape[1] != self.features:
            raise LayoutError(f"the features have shape {x.shape}", allowed=f"(N, {self.features})")
        factors = any(forest.asks_factors for forest in self.forests)
        codes = self.names.codes(np.asarray(x, np.float64)) if factors else None
        total = np.zeros((len(x), self.outcomes))
        for forest in self.forests:
            total += forest.votes(x, codes)
        return total


def grown(
    left: Array,
    right: Array,
    feature: Array,
    threshold: Array,
    votes: Array,
    start: Index | None = None,
    goes: Sides | None = None,
) -> Tree:
    """A checked tree from arrays over its nodes (see `Tree`); what leaves do not use is set to 0.

    Raises:
        LayoutError: the nodes do not make a tree.
    """
    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    leaf = left < 0
    inner = np.flatnonzero(~leaf)
    children = np.sort(np.concatenate([left[inner], right[inner]]))
    if (
        not (leaf == (right < 0)).all()
        or not (left[inner] > inner).all()
        or not (right[inner] > inner).all()
        or not np.array_equal(children, np.arange(1, len(left)))
    ):
        raise LayoutError(
            "the nodes do not make a tree",
            allowed="two children or none, each after its parent and with one parent",
        )
    level = np.zeros(len(left), np.int64)
    for i in inner:
        level[left[i]] = level[right[i]] = level[i] + 1
    depth = int(level.max())
    if depth > MAX_DEPTH:
        raise LayoutError(f"a tree is {depth} levels deep", allowed=f"at most {MAX_DEPTH}")
    return Tree(
        left,
        right,
        np.where(leaf, 0, feature).astype(np.int64),
        np.where(leaf, 0.0, threshold),
        np.where(leaf[:, None], votes, 0.0),
        depth,
        np.full(len(left), -1, np.int64) if start is None else start,
        np.zeros(0, np.bool_) if goes is None else goes,
    )
