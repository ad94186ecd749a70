"""Server steps: the aggregate into the next model, one method family a file.

Every step is a frozen dataclass with `init(model) -> state`, `control(state)` and a pure `step(model, aggregate, state)`. States hold arrays of
the model's dtype. The aggregate is an increment, so steps add: w <- w + lr * delta, where the papers write w - lr * gradient.
"""

from haina.strategy.server.adaptive import Adagrad, Adam, Yogi
from haina.strategy.server.cross_validation import CrossValidation
from haina.strategy.server.elastic_net import ElasticNetPath
from haina.strategy.server.feddyn import FedDyn
from haina.strategy.server.fedexp import FedExP
from haina.strategy.server.inquiry import Inquiry
from haina.strategy.server.merge import Merge
from haina.strategy.server.newton import Newton
from haina.strategy.server.scaffold import Scaffold
from haina.strategy.server.sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "CrossValidation",
    "ElasticNetPath",
    "FedDyn",
    "FedExP",
    "Inquiry",
    "Merge",
    "Newton",
    "Scaffold",
    "Yogi",
]
