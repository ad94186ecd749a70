"""Forests as treelite models, which its own predictor, compilers of trees and GPUs read (Cho and Li 2018, "Treelite").

A row is what `haina.learners.forest.coded` says: one double for each column, factors as the numbers of their levels from 0. Thresholds and leaves are
doubles, so every row ends in the same leaf. For classes the model gives `[N, classes]` shares of the votes, for regression the mean value.

The trap is the order of a sum: treelite adds the trees of all forests one after the other, and Haina forest by forest. Shares of soft trees may so
differ in the last bits; hard votes never do.
"""

from __future__ import annotations

from typing import Any

from haina.errors import LearnerError
from haina.learners.forest.coded import Coded, CodedTree
from haina.learners.forest.trees import Forests


def to_treelite(forests: Forests) -> bytes:
    """The bytes of a treelite checkpoint (`treelite.Model.deserialize_bytes`) that votes as the forests do.

    Raises:
        LayoutError: there are no trees.
        LearnerError: treelite is not installed.
    """
    try:
        from treelite import model_builder
    except ImportError as error:
        raise LearnerError(
            "treelite is not installed", remedy="Run: pip install 'haina[treelite]'"
        ) from error
    coded = Coded.of(forests)
    outcomes = coded.classes or 1
    builder = model_builder.ModelBuilder(
        threshold_type="float64",
        leaf_output_type="float64",
        metadata=model_builder.Metadata(
            num_feature=len(coded.columns),
            task_type="kMultiClf" if coded.classes else "kRegressor",
            average_tree_output=True,
            num_target=1,
            num_class=[outcomes],
            leaf_vector_shape=(1, outcomes),
        ),
        tree_annotation=model_builder.TreeAnnotation(
            num_tree=coded.trees,
            target_id=[0] * coded.trees,
            class_id=[-1 if coded.classes else 0] * coded.trees,
        ),
        postprocessor=model_builder.PostProcessorFunc(
            name="identity_multiclass" if coded.classes else "identity"
        ),
        base_scores=[0.0] * outcomes,
    )
    for trees in coded.forests:
        for tree in trees:
            _add(builder, tree)
    return bytes(builder.commit().serialize_bytes())


def _add(builder: Any, tree: CodedTree) -> None:
    builder.start_tree()
    for i, (left, right) in enumerate(zip(tree.left, tree.right, strict=True)):
        builder.start_node(i)
        children = {"left_child_key": left, "right_child_key": right}
        if left < 0:
            votes = tree.votes[i].tolist()
            builder.leaf(votes if len(votes) > 1 else votes[0])
        elif tree.levels[i]:
            builder.categorical_test(
                feature_id=tree.column[i],
                category_list=list(tree.levels[i]),
                default_left=False,
                category_list_right_child=False,
                **children,
            )
        else:
            builder.numerical_test(
                feature_id=tree.column[i],
                threshold=tree.threshold[i],
                default_left=True,
                opname="<=",
                **children,
            )
        builder.end_node()
    builder.end_tree()
