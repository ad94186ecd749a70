"""Generalised linear models, exact: sums from the clients, Newton or an elastic-net path on the server."""

from haina.learners.glm.design import Design, Term
from haina.learners.glm.formula import Formula
from haina.learners.glm.learner import GlmLearner
from haina.learners.glm.model_matrix import ModelMatrix
from haina.learners.glm.path import PathResult
from haina.learners.glm.result import GlmResult

__all__ = ["Design", "Formula", "GlmLearner", "GlmResult", "ModelMatrix", "PathResult", "Term"]
