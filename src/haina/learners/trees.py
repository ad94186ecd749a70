"""Trees as JSON: a forest that any language can write, read and vote with.

A document is one or more forests with the same features and outcomes, each tree as parallel lists over its nodes, root first:

    {"format":"haina-forest","version":1,"kind":"classification","classes":C,"features":p,"forests":[
      {"source":"scikit-learn","rule":"float32(x)<=thr","soft":true,"examples":n,"importance":[p numbers],"trees":[
        {"l":[left child or -1],"r":[right child or -1],"f":[feature],"thr":[threshold],"v":[vote]}]}]}

A leaf votes a class number ("soft": false), shares of the classes that sum to 1 ("soft": true), or a value (regression, "classes": 0). A row
goes left when the rule holds: scikit-learn compares the feature rounded to float32, R compares it as it is. Numbers may be written as
hexadecimal text ("0x1.8p+1"), since not every writer prints doubles exactly; they are read exactly and written again in the shortest form that
reads back as the same double.

Merging keeps forests apart in a list, and votes are summed forest by forest in that order. So the votes of a merged document are *exactly* the
sums of its parts' votes, although floating-point sums depend on their order.

The trap is what a document from the network may hold. Children must come after their parent and have one parent each, so there are no cycles
to walk in; every index, number and length is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import LayoutError
from haina.update import Vector

FORMAT, VERSION = "haina-forest", 1
#: Largest document, trees of a document, nodes of a tree and steps from root to leaf; 100 trees on 1,000 rows take about 1 MB.
MAX_BYTES, MAX_TREES, MAX_NODES, MAX_DEPTH = 1 << 28, 100_000, 10_000_000, 1_000
RULES = ("float32(x)<=thr", "x<=thr")

Index = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Tree:
    """One tree of m nodes, node 0 the root.

    Args:
        left, right: `[m]` children, -1 at leaves.
        feature: `[m]` feature that an inner node asks for; 0 at leaves.
        threshold: `[m]` bound of the rule; 0 at leaves.
        votes: `[m, outcomes]` what a leaf votes; zeros at inner nodes.
        depth: steps from the root to the farthest leaf.
    """

    left: Index
    right: Index
    feature: Index
    threshold: Vector
    votes: Vector
    depth: int

    def leaves(self, x: Vector) -> Index:
        """`[N]` node in which each row of `x` `[N, p]` ends."""
        node = np.zeros(len(x), np.int64)
        rows = np.arange(len(x))
        for _ in range(self.depth):
            inner = self.left[node] >= 0
            below = x[rows, self.feature[node]] <= self.threshold[node]
            node = np.where(inner, np.where(below, self.left[node], self.right[node]), node)
        return node


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees that were grown together.

    Args:
        source: the program that grew them.
        rule: one of `RULES`.
        soft: True when leaves vote shares and not one class.
        examples: rows they were grown on.
        importance: `[p]` mean decrease of impurity, summing to 1 (all 0 if nothing was split).
        trees: at least one.
    """

    source: str
    rule: str
    soft: bool
    examples: int
    importance: Vector
    trees: tuple[Tree, ...]

    def votes(self, x: Array) -> Vector:
        """`[N, outcomes]` votes of all trees, summed in order."""
        cells = np.asarray(x, np.float32 if self.rule == RULES[0] else np.float64).astype(np.float64)
        total = np.zeros((len(x), self.trees[0].votes.shape[1]))
        for tree in self.trees:
            total += tree.votes[tree.leaves(cells)]
        return total


@dataclass(frozen=True, eq=False)
class Forests:
    """A document: forests with the same features and outcomes.

    Args:
        classes: number of classes; 0 for regression.
        features: p.
        forests: in the order in which they were merged; none before the first round.
    """

    classes: int
    features: int
    forests: tuple[Forest, ...] = ()

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
            LayoutError: `x` does not have p columns.
        """
        if x.ndim != 2 or x.shape[1] != self.features:
            raise LayoutError(f"the features have shape {x.shape}", allowed=f"(N, {self.features})")
        total = np.zeros((len(x), self.outcomes))
        for forest in self.forests:
            total += forest.votes(x)
        return total

    def to_bytes(self) -> bytes:
        """Canonical compact JSON: the same forests always give the same bytes."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "kind": "classification" if self.classes else "regression",
            "classes": self.classes,
            "features": self.features,
            "forests": [
                {
                    "source": forest.source,
                    "rule": forest.rule,
                    "soft": forest.soft,
                    "examples": forest.examples,
                    "importance": forest.importance.tolist(),
                    "trees": [_plain(tree, forest.soft, self.classes) for tree in forest.trees],
                }
                for forest in self.forests
            ],
        }
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes, expected: tuple[int, int] | None = None) -> Forests:
        """Read a document and check all of it.

        Args:
            data: canonical bytes or any JSON of this format.
            expected: classes and features that it must have; checked before any tree is read, for votes take memory by the class.

        Raises:
            LayoutError: too large, no JSON of this format, or any index, number or length that cannot be.
        """
        if len(data) > MAX_BYTES:
            raise LayoutError(f"a forest of {len(data)} bytes", allowed=f"at most {MAX_BYTES}")
        try:
            document = json.loads(data)
        except (UnicodeDecodeError, ValueError, RecursionError) as error:
            raise LayoutError("the forest is not JSON", remedy="The upload or file is damaged") from error
        if (
            not isinstance(document, dict)
            or document.get("format") != FORMAT
            or document.get("version") != VERSION
        ):
            raise LayoutError("this JSON is no forest", allowed=f"format {FORMAT!r}, version {VERSION}")
        kind = document.get("kind")
        classes, features = _natural(document, "classes", 1 << 20), _natural(document, "features", 1 << 24)
        if kind != ("classification" if classes else "regression") or classes == 1 or features == 0:
            raise LayoutError(
                f"a forest of kind {kind!r} with {classes} classes and {features} features",
                allowed="classification with at least 2 classes, or regression with 0; at least 1 feature",
            )
        if expected is not None and (classes, features) != expected:
            raise LayoutError(
                f"a forest with {classes} classes and {features} features",
                allowed=f"{expected[0]} classes and {expected[1]} features",
            )
        forests = tuple(_forest(entry, classes, features) for entry in _list(document, "forests", MAX_TREES))
        whole = cls(classes, features, forests)
        if whole.trees > MAX_TREES:
            raise LayoutError(f"a forest of {whole.trees} trees", allowed=f"at most {MAX_TREES}")
        return whole


def merge(
    documents: Sequence[bytes], expected: tuple[int, int] | None = None, most: int = MAX_TREES
) -> bytes:
    """Several documents as one, their forests in order.

    Args:
        documents: of the clients.
        expected: classes and features that each must have.
        most: trees that one document may hold: a document with more would outvote the others.

    Raises:
        LayoutError: no document, one that cannot be read, or one with other features or classes than the first.
    """
    parts = [Forests.from_bytes(document, expected) for document in documents]
    if not parts:
        raise LayoutError("there is no forest to merge", allowed="at least one")
    first = parts[0]
    for part in parts:
        if part.trees > most:
            raise LayoutError(f"a forest of {part.trees} trees", allowed=f"at most {most} from one client")
        if (part.classes, part.features) != (first.classes, first.features):
            raise LayoutError(
                f"a forest with {part.classes} classes and {part.features} features",
                allowed=f"{first.classes} classes and {first.features} features, like the first",
            )
    return Forests(first.classes, first.features, tuple(f for part in parts for f in part.forests)).to_bytes()


def grown(left: Array, right: Array, feature: Array, threshold: Array, votes: Array) -> Tree:
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
    )


def _plain(tree: Tree, soft: bool, classes: int) -> dict[str, list[Any]]:
    leaf = tree.left < 0
    if classes and soft:
        votes: list[Any] = [
            row if end else 0 for row, end in zip(tree.votes.tolist(), leaf.tolist(), strict=True)
        ]
    elif classes:
        votes = tree.votes.argmax(axis=1).tolist()
    else:
        votes = [
            value if end else 0 for value, end in zip(tree.votes[:, 0].tolist(), leaf.tolist(), strict=True)
        ]
    bounds = [0 if end else value for value, end in zip(tree.threshold.tolist(), leaf.tolist(), strict=True)]
    return {
        "l": tree.left.tolist(),
        "r": tree.right.tolist(),
        "f": tree.feature.tolist(),
        "thr": bounds,
        "v": votes,
    }


def _forest(entry: object, classes: int, features: int) -> Forest:
    if not isinstance(entry, dict):
        raise LayoutError("a forest is no JSON object")
    rule, soft, source = entry.get("rule"), entry.get("soft"), entry.get("source")
    if (
        rule not in RULES
        or not isinstance(soft, bool)
        or not isinstance(source, str)
        or (soft and not classes)
    ):
        raise LayoutError(
            f"a forest with rule {rule!r}, soft {soft!r}, source {source!r}",
            allowed=f"rule {' or '.join(RULES)}; soft true or false (false for regression); source text",
        )
    importance = _numbers(_list(entry, "importance", features, exact=True))
    trees = tuple(_tree(tree, soft, classes, features) for tree in _list(entry, "trees", MAX_TREES))
    if not trees or (importance < 0).any():
        raise LayoutError("a forest without trees, or with negative importance", allowed="at least one tree")
    return Forest(source, rule, soft, _natural(entry, "examples", 1 << 48), importance, trees)


def _tree(entry: object, soft: bool, classes: int, features: int) -> Tree:
    if not isinstance(entry, dict):
        raise LayoutError("a tree is no JSON object")
    left = _whole(_list(entry, "l", MAX_NODES), -1, MAX_NODES)
    count = len(left)
    if not count:
        raise LayoutError("a tree without nodes", allowed="at least one node")
    right = _whole(_list(entry, "r", count, exact=True), -1, MAX_NODES)
    leaf = left < 0
    feature = _list(entry, "f", count, exact=True)
    # What a writer leaves at the fields that a leaf does not use (R writes -1 and 0) is nobody's business.
    asked = _whole([0 if end else f for f, end in zip(feature, leaf, strict=True)], 0, features - 1)
    bounds = _list(entry, "thr", count, exact=True)
    threshold = _numbers([0 if end else bound for bound, end in zip(bounds, leaf, strict=True)])
    cells = _list(entry, "v", count, exact=True)
    if not classes:
        votes = _numbers([v if end else 0 for v, end in zip(cells, leaf, strict=True)])[:, None]
    elif not soft:
        named = _whole([v if end else 0 for v, end in zip(cells, leaf, strict=True)], 0, classes - 1)
        votes = np.zeros((count, classes))
        votes[np.arange(count), named] = 1.0
    else:
        votes = np.zeros((count, classes))
        for i in np.flatnonzero(leaf):
            if not isinstance(cells[i], list) or len(cells[i]) != classes:
                raise LayoutError(f"a leaf votes {str(cells[i])[:80]}", allowed=f"{classes} shares")
            votes[i] = _numbers(cells[i])
        if (votes < 0).any() or (np.abs(votes[leaf].sum(axis=1) - 1.0) > 1e-9).any():
            raise LayoutError("the shares of a leaf do not sum to 1", allowed="numbers >= 0 with sum 1")
    return grown(left, right, asked, threshold, votes)


def _list(entry: dict[str, Any], key: str, limit: int, *, exact: bool = False) -> list[Any]:
    value = entry.get(key)
    if not isinstance(value, list) or len(value) > limit or (exact and len(value) != limit):
        found = f"{len(value)} entries" if isinstance(value, list) else type(value).__name__
        raise LayoutError(f"{key!r} has {found}", allowed=f"a list of {'' if exact else 'at most '}{limit}")
    return value


def _natural(entry: dict[str, Any], key: str, limit: int) -> int:
    value = entry.get(key)
    if type(value) is not int or not 0 <= value <= limit:
        raise LayoutError(f"{key!r} is {str(value)[:80]}", allowed=f"a whole number from 0 to {limit}")
    return value


def _whole(values: list[Any], low: int, high: int) -> Index:
    if not all(type(value) is int and low <= value <= high for value in values):
        wrong = next(value for value in values if type(value) is not int or not low <= value <= high)
        raise LayoutError(f"an index is {str(wrong)[:80]}", allowed=f"a whole number from {low} to {high}")
    return np.array(values, np.int64)


def _numbers(values: list[Any]) -> Vector:
    try:
        numbers = np.array([_double(value) for value in values], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise LayoutError(
            "a threshold or vote is not a number", allowed="a number, or hexadecimal text"
        ) from error
    if not np.isfinite(numbers).all():
        raise LayoutError("a threshold or vote is not finite", allowed="finite numbers")
    return numbers


def _double(value: Any) -> float:
    if isinstance(value, str):
        return float.fromhex(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)
