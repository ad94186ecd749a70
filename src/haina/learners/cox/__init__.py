"""Cox's proportional hazards, exact and stratified by site: sums from the clients, Newton on the server."""

from haina.learners.cox.learner import CoxLearner
from haina.learners.cox.likelihood import partial_likelihood
from haina.learners.cox.result import CoxResult

__all__ = ["CoxLearner", "CoxResult", "partial_likelihood"]
