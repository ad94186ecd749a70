"""Local training of torch modules; the one room where torch is imported."""

from haina.errors import LearnerError

try:
    import torch as _torch  # noqa: F401 (asked for here, so that its absence is told in words)
except ImportError as error:
    raise LearnerError(
        "the torch learner needs torch, which is not installed", remedy="Run: pip install 'haina[torch]'"
    ) from error

from haina.learners.torch.learner import TorchLearner
from haina.learners.torch.models import learner

__all__ = ["TorchLearner", "learner"]
