"""Local training of pure JAX models; the one room where jax is imported."""

from haina.learners.jax.learner import JaxLearner
from haina.learners.jax.models import learner

__all__ = ["JaxLearner", "learner"]
