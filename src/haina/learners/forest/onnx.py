"""Forests as ONNX, for every runtime that has the operator `TreeEnsemble` (ai.onnx.ml 5, 2024; onnxruntime 1.20 and newer).

The graph takes `x`, `[N, columns]` doubles: numbers as they are, factors as the numbers of their levels from 0. For classes it gives `shares`
`[N, classes]` of the votes and `label` `[N]`, the class number with the largest share, the first of several; for regression `value` `[N, 1]`.
Thresholds, leaves and sums are doubles, and levels that go left are members of a set, so nothing is rounded. What columns, levels and classes
are called stands in the model's metadata, as JSON under `columns` and `labels`.

An operator sums the trees of one forest, and the forests are added in their order. A leaf of this operator votes for one class only, so a tree with
shares at its leaves is written once for each class; so is a tree that splits factors, as one runtime needs it.

The trap is a runtime that sums trees in parallel: shares of soft trees may then differ in the last bit. Hard votes are whole numbers and never do.
"""

from __future__ import annotations

import json
import math
from typing import Any

from haina.errors import LayoutError, LearnerError
from haina.learners.forest.coded import Coded, CodedTree
from haina.learners.forest.trees import Forests

_LEQ, _MEMBER = 0, 6
_OPSETS = (("", 18), ("ai.onnx.ml", 5))
#: Of the file format; what onnx 1.16 wrote, and readers of today take.
_IR_VERSION = 10


def to_onnx(forests: Forests) -> bytes:
    """The bytes of an ONNX model that votes as the forests do.

    Raises:
        LayoutError: there are no trees, or the model is beyond the 2 GiB that a protobuf file holds.
        LearnerError: onnx is not installed.
    """
    try:
        from onnx import TensorProto, checker, helper
    except ImportError as error:
        raise LearnerError("onnx is not installed", remedy="Run: pip install 'haina[onnx]'") from error
    coded = Coded.of(forests)
    outcomes = coded.classes or 1
    nodes = [helper.make_node("Add", ["x", "first"], ["from_one"])]
    nodes += [
        helper.make_node(
            "TreeEnsemble",
            ["from_one"],
            [f"votes{k}"],
            domain="ai.onnx.ml",
            **_ensemble(trees, outcomes, soft, helper),
        )
        for k, (trees, soft) in enumerate(zip(coded.forests, coded.soft, strict=True))
    ]
    total = "votes0"
    for k in range(1, len(coded.forests)):
        nodes.append(helper.make_node("Add", [total, f"votes{k}"], [f"total{k}"]))
        total = f"total{k}"
    means = "shares" if coded.classes else "value"
    nodes.append(helper.make_node("Div", [total, "trees"], [means]))
    outputs = [helper.make_tensor_value_info(means, TensorProto.DOUBLE, ["N", outcomes])]
    if coded.classes:
        nodes.append(helper.make_node("ArgMax", [means], ["label"], axis=1, keepdims=0, select_last_index=0))
        outputs.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    graph = helper.make_graph(
        nodes,
        "haina-forest",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N", len(coded.columns)])],
        outputs,
        [
            helper.make_tensor("trees", TensorProto.DOUBLE, [1], [float(coded.trees)]),
            helper.make_tensor("first", TensorProto.DOUBLE, [len(coded.columns)], _firsts(coded)),
        ],
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
    model = helper.make_model(graph, producer_name="haina", opset_imports=opsets, ir_version=_IR_VERSION)
    helper.set_model_props(model, {name: json.dumps(said) for name, said in forests.names.to_json().items()})
    try:
        checker.check_model(model)
        return bytes(model.SerializeToString())
    except ValueError as error:
        raise LayoutError(
            f"a forest of {coded.trees} trees is too large for ONNX",
            allowed="2 GiB",
            remedy="Export to treelite",
        ) from error


def _firsts(coded: Coded) -> list[float]:
    """1 for factors, whose levels count from 1 inside: onnx's own reference (1.23) ends a set at a zero. Adding 0 changes no other number."""
    return [float(bool(column.levels)) for column in coded.columns]


def _ensemble(trees: tuple[CodedTree, ...], outcomes: int, soft: bool, helper: Any) -> dict[str, Any]:
    """Attributes of a `TreeEnsemble`: all trees in one list of inner nodes and one of leaves."""
    table = _Table()
    for tree in trees:
        votes = tree.votes
        # Two questions to one factor, leaves of equal weight below: onnxruntime 1.32 takes them for one, also where the leaves vote for different
        # classes. Where all leaves of a tree vote for the same class, that changes nothing.
        if soft or any(tree.levels):
            for target in range(outcomes):
                table.add(tree, votes[:, target].tolist(), [target] * len(votes))
        else:
            chosen = votes.argmax(axis=1).tolist()
            table.add(tree, votes[range(len(votes)), chosen].tolist(), chosen)
    return table.attributes(outcomes, helper)


class _Table:
    """The flat lists of a `TreeEnsemble`, as they grow."""

    def __init__(self) -> None:
        self.roots: list[int] = []
        self.column: list[int] = []
        self.mode: list[int] = []
        self.bound: list[float] = []
        self.members: list[float] = []
        self.children: tuple[list[int], list[int]] = ([], [])
        self.ends: tuple[list[int], list[int]] = ([], [])
        self.target: list[int] = []
        self.weight: list[float] = []

    def add(self, tree: CodedTree, weights: list[float], targets: list[int]) -> None:
        """One more tree, a vote for one target at each leaf."""
        inner = _preorder(tree)
        base = len(self.column)
        place = {node: base + k for k, node in enumerate(inner)}
        self.roots.append(base)
        if not inner:
            # A tree that is a leaf asks something, and does the same whatever the answer is.
            self._node(0, 0.0, (), (0, 0), place, weights, targets)
        for i in inner:
            self._node(
                tree.column[i],
                tree.threshold[i],
                tree.levels[i],
                (tree.left[i], tree.right[i]),
                place,
                weights,
                targets,
            )

    def _node(
        self,
        column: int,
        bound: float,
        levels: tuple[int, ...],
        children: tuple[int, int],
        place: dict[int, int],
        weights: list[float],
        targets: list[int],
    ) -> None:
        self.column.append(column)
        self.mode.append(_MEMBER if levels else _LEQ)
        self.bound.append(0.0 if levels else bound)
        if levels:
            self.members += [*(level + 1.0 for level in levels), math.nan]
        for child, numbers, ends in zip(children, self.children, self.ends, strict=True):
            ends.append(int(child not in place))
            numbers.append(place.get(child, len(self.weight)))
            if child not in place:
                self.weight.append(weights[child])
                self.target.append(targets[child])

    def attributes(self, outcomes: int, helper: Any) -> dict[str, Any]:
        """By the operator's names."""
        from onnx import TensorProto

        def tensor(name: str, kind: int, values: list[Any]) -> Any:
            return helper.make_tensor(name, kind, [len(values)], values)

        return {
            "n_targets": outcomes,
            "aggregate_function": 1,
            "post_transform": 0,
            "tree_roots": self.roots,
            "nodes_featureids": self.column,
            "nodes_modes": tensor("modes", TensorProto.UINT8, self.mode),
            "nodes_splits": tensor("splits", TensorProto.DOUBLE, self.bound),
            "nodes_truenodeids": self.children[0],
            "nodes_falsenodeids": self.children[1],
            "nodes_trueleafs": self.ends[0],
            "nodes_falseleafs": self.ends[1],
            "leaf_targetids": self.target,
            "leaf_weights": tensor("weights", TensorProto.DOUBLE, self.weight),
        } | (
            {"membership_values": tensor("members", TensorProto.DOUBLE, self.members)} if self.members else {}
        )


def _preorder(tree: CodedTree) -> list[int]:
    """The inner nodes, each before those below it and left before right: readers take sets either by node or as they walk, and so find the same."""
    waiting, found = [0], []
    while waiting:
        i = waiting.pop()
        if tree.left[i] >= 0:
            found.append(i)
            waiting += [tree.right[i], tree.left[i]]
    return found
