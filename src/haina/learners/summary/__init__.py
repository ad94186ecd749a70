"""Summaries, exact: descriptions, quantiles, tables, histograms, correlations and ROC curves of all sites' rows together, from sums alone."""

from haina.learners.summary.correlation import Correlation
from haina.learners.summary.distribution import Distribution
from haina.learners.summary.histogram import Histogram
from haina.learners.summary.learner import SummaryLearner
from haina.learners.summary.question import Question
from haina.learners.summary.roc import Roc
from haina.learners.summary.tables import Check, Table

__all__ = ["Check", "Correlation", "Distribution", "Histogram", "Question", "Roc", "SummaryLearner", "Table"]
