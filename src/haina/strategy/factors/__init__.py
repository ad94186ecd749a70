"""Factors: the reasons to weigh one client more than another, each a number a client.

Samples is FedAvg's (McMahan et al. 2017). The rest are the dynamic weights of the field: accuracy, speed of convergence, link quality,
participation, effective samples, FedDisco, staleness. `haina.strategy.weigh` puts them together and bounds what each can do.

The trap: nearly all of these numbers are said by the client about itself. Measured: no dynamic weight beat the sample share by more than a point
among honest clients, and three liars out of thirty with an unbounded statistic took accuracy from 0.95 to 0.31-0.56; with the bounds of `Weigh`
they leave it at 0.90. Prefer numbers that the server sees itself (`Accuracy(checked=True)`, `Link`, `Participation`).
"""

from haina.strategy.factors.amounts import Disco, EffectiveSamples, Samples, Uniform
from haina.strategy.factors.history import Link, Participation, Staleness, StalenessHinge
from haina.strategy.factors.quality import Accuracy, Convergence

__all__ = [
    "Accuracy",
    "Convergence",
    "Disco",
    "EffectiveSamples",
    "Link",
    "Participation",
    "Samples",
    "Staleness",
    "StalenessHinge",
    "Uniform",
]
