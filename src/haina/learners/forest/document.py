"""Document: forests as JSON, which any language can write, read and vote with.

A document is one or more forests with the same features and outcomes, each tree as parallel lists over its nodes, root first:

    {"format":"haina-forest","version":2,"kind":"classification","classes":C,"features":p,
     "columns":[{"name":"age"},{"name":"sex","levels":["F","M"]}],"labels":["no","yes"],
     "forests":[
      {"source":"R randomForest 4.7-1.1","rule":"x<=thr","soft":false,"examples":n,"importance":[p numbers],"trees":[
        {"l":[left child or -1],"r":[right child or -1],"f":[feature],"thr":[threshold],"set":[text],"v":[vote]}]}]}

A leaf votes a class number ("soft": false), shares of the classes that sum to 1 ("soft": true), or a value (regression, "classes": 0). Numbers may
be hexadecimal text ("0x1.8p+1"), since not every writer prints doubles exactly; they are read exactly and written again in the shortest form that
reads back as the same double.

Features are counted as Python encodes them, a factor taking one for each level (`haina.learners.forest.columns`). A node that splits a factor names
its first feature, and in "set" one digit for each level: "10" sends the first level left and the second right. "set" is left out by trees that
split no factor, "columns" and "labels" where nobody has said. Version 1 has none of the three, and is read too.

The trap is what a document from the network may hold. Children must come after their parent and have one parent each, so there are no cycles
to walk in; every index, number, set and length is checked before it is used.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from haina.errors import LayoutError
from haina.learners.forest.columns import Names
from haina.learners.forest.fields import entries, natural, numbers, whole
from haina.learners.forest.trees import RULES, Forest, Forests, Index, Sides, Tree, grown

FORMAT, VERSION = "haina-forest", 2
#: Largest document, trees of a document and nodes of a tree; 100 trees on 1,000 rows take about 1 MB.
MAX_BYTES, MAX_TREES, MAX_NODES = 1 << 28, 100_000, 10_000_000


def write(forests: Forests) -> bytes:
    """Canonical compact JSON: the same forests always give the same bytes."""
    classes = forests.classes
    document = {
        "format": FORMAT,
        "version": VERSION,
        "kind": "classification" if classes else "regression",
        "classes": classes,
        "features": forests.features,
        **forests.names.to_json(),
        "forests": [
            {
                "source": forest.source,
                "rule": forest.rule,
                "soft": forest.soft,
                "examples": forest.examples,
                "importance": forest.importance.tolist(),
                "trees": [_plain(tree, forest.soft, classes, forests.names) for tree in forest.trees],
            }
            for forest in forests.forests
        ],
    }
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def read(data: bytes, expected: tuple[int, int] | None = None, names: Names | None = None) -> Forests:
    """Read a document and check all of it.

    Args:
        data: canonical bytes or any JSON of this format.
        expected: classes and features that it must have; checked before any tree is read, for votes take memory by the class.
        names: what columns and classes are called; the document must agree, or say nothing of them.

    Raises:
        LayoutError: too large, no JSON of this format, other names, or any index, number, set or length that cannot be.
    """
    if len(data) > MAX_BYTES:
        raise LayoutError(f"a forest of {len(data)} bytes", allowed=f"at most {MAX_BYTES}")
    try:
        document = json.loads(data)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise LayoutError("the forest is not JSON", remedy="The upload or file is damaged") from error
    version = document.get("version") if isinstance(document, dict) else None
    if version not in range(1, VERSION + 1) or type(version) is not int or document.get("format") != FORMAT:
        raise LayoutError("this JSON is no forest", allowed=f"format {FORMAT!r}, version 1 or {VERSION}")
    kind = document.get("kind")
    classes, features = natural(document, "classes", 1 << 20), natural(document, "features", 1 << 24)
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
    said = Names.from_json(document) if version > 1 else Names()
    said.check(classes, features)
    agreed = said if names is None else names.agreed(said)
    forests = tuple(
        _forest(entry, classes, features, agreed) for entry in entries(document, "forests", MAX_TREES)
    )
    whole = Forests(classes, features, forests, agreed)
    if whole.trees > MAX_TREES:
        raise LayoutError(f"a forest of {whole.trees} trees", allowed=f"at most {MAX_TREES}")
    return whole


def merge(
    documents: Sequence[bytes],
    expected: tuple[int, int] | None = None,
    most: int = MAX_TREES,
    names: Names | None = None,
) -> bytes:
    """Several documents as one, their forests in order.

    Args:
        documents: of the clients.
        expected: classes and features that each must have.
        most: trees that one document may hold: a document with more would outvote the others.
        names: what columns and classes must be called, where a document says it; what the first says of them, if not given.

    Raises:
        LayoutError: no document, one that cannot be read, or one with other features, classes or names than the first.
    """
    parts = []
    for document in documents:
        part = read(document, expected, names)
        if part.trees > most:
            raise LayoutError(f"a forest of {part.trees} trees", allowed=f"at most {most} from one client")
        expected, names = (part.classes, part.features), part.names
        parts.append(part)
    if not parts:
        raise LayoutError("there is no forest to merge", allowed="at least one")
    last = parts[-1]
    together = tuple(forest for part in parts for forest in part.forests)
    return write(Forests(last.classes, last.features, together, last.names))


def _plain(tree: Tree, soft: bool, classes: int, names: Names) -> dict[str, list[Any]]:
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
    unused = leaf | (tree.start >= 0)
    bounds = [
        0 if idle else value for value, idle in zip(tree.threshold.tolist(), unused.tolist(), strict=True)
    ]
    sets: dict[str, list[Any]] = {}
    if len(tree.goes):
        digits = "".join("1" if left else "0" for left in tree.goes.tolist())
        sets["set"] = [
            digits[at : at + names.factors[f]] if at >= 0 else ""
            for at, f in zip(tree.start.tolist(), tree.feature.tolist(), strict=True)
        ]
    return {
        "l": tree.left.tolist(),
        "r": tree.right.tolist(),
        "f": tree.feature.tolist(),
        "thr": bounds,
        **sets,
        "v": votes,
    }


def _forest(entry: object, classes: int, features: int, names: Names) -> Forest:
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
    importance = numbers(entries(entry, "importance", features, exact=True))
    trees = tuple(_tree(tree, soft, classes, features, names) for tree in entries(entry, "trees", MAX_TREES))
    if not trees or (importance < 0).any():
        raise LayoutError("a forest without trees, or with negative importance", allowed="at least one tree")
    return Forest(source, rule, soft, natural(entry, "examples", 1 << 48), importance, trees)


def _tree(entry: object, soft: bool, classes: int, features: int, names: Names) -> Tree:
    if not isinstance(entry, dict):
        raise LayoutError("a tree is no JSON object")
    left = whole(entries(entry, "l", MAX_NODES), -1, MAX_NODES)
    count = len(left)
    if not count:
        raise LayoutError("a tree without nodes", allowed="at least one node")
    right = whole(entries(entry, "r", count, exact=True), -1, MAX_NODES)
    leaf = left < 0
    feature = entries(entry, "f", count, exact=True)
    # What a writer leaves at the fields that a leaf does not use (R writes -1 and 0) is nobody's business.
    asked = whole([0 if end else f for f, end in zip(feature, leaf, strict=True)], 0, features - 1)
    start, goes = _sets(entry, asked, leaf, names)
    bounds = entries(entry, "thr", count, exact=True)
    unused = leaf | (start >= 0)
    threshold = numbers([0 if idle else bound for bound, idle in zip(bounds, unused, strict=True)])
    cells = entries(entry, "v", count, exact=True)
    if not classes:
        votes = numbers([v if end else 0 for v, end in zip(cells, leaf, strict=True)])[:, None]
    elif not soft:
        named = whole([v if end else 0 for v, end in zip(cells, leaf, strict=True)], 0, classes - 1)
        votes = np.zeros((count, classes))
        votes[np.arange(count), named] = 1.0
    else:
        votes = np.zeros((count, classes))
        for i in np.flatnonzero(leaf):
            if not isinstance(cells[i], list) or len(cells[i]) != classes:
                raise LayoutError(f"a leaf votes {str(cells[i])[:80]}", allowed=f"{classes} shares")
            votes[i] = numbers(cells[i])
        if (votes < 0).any() or (np.abs(votes[leaf].sum(axis=1) - 1.0) > 1e-9).any():
            raise LayoutError("the shares of a leaf do not sum to 1", allowed="numbers >= 0 with sum 1")
    return grown(left, right, asked, threshold, votes, start, goes)


def _sets(entry: dict[str, Any], asked: Index, leaf: Sides, names: Names) -> tuple[Index, Sides]:
    """`Tree.start` and `Tree.goes`."""
    start, texts, filled = np.full(len(asked), -1, np.int64), [], 0
    if "set" in entry:
        for i, text in enumerate(entries(entry, "set", len(asked), exact=True)):
            if leaf[i] or text == "":
                continue
            levels = names.factors.get(int(asked[i]))
            if levels is None or not isinstance(text, str) or len(text) != levels or text.strip("01"):
                raise LayoutError(
                    f"the set of levels at feature {asked[i]} is {str(text)[:80]!r}",
                    allowed="no set, as no factor begins there"
                    if levels is None
                    else f"{levels} digits 0 or 1, one for each level",
                )
            start[i], filled = filled, filled + levels
            texts.append(text)
    return start, np.frombuffer("".join(texts).encode(), np.uint8) == ord("1")
