"""Forests: each client grows trees in its own language, and the trees become one forest that votes."""

from haina.learners.forest.columns import Column, Names
from haina.learners.forest.document import merge, read, write
from haina.learners.forest.learner import ForestLearner
from haina.learners.forest.trees import Forest, Forests, Tree

__all__ = ["Column", "Forest", "ForestLearner", "Forests", "Names", "Tree", "merge", "read", "write"]
