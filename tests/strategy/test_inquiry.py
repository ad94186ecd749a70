import numpy as np

from haina.strategy.parts import Aggregate
from haina.strategy.server import Inquiry


def test_what_is_learnt_is_the_model():
    server = Inquiry(lambda known, sums: (known + sums, bool(known[0] >= 1)))
    state = server.init(np.zeros(2))
    first = server.step(np.zeros(2), Aggregate(np.array([1.0, 5.0]), 1), state)
    assert (first.model.tolist(), first.finished, first.notes) == ([1, 5], False, {})
    second = server.step(first.model, Aggregate(np.array([1.0, 5.0]), 2), first.state)
    assert (second.model.tolist(), second.finished, second.notes) == ([2, 10], True, {"converged": 1.0})
