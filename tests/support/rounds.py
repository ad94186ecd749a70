"""Rounds without learners: updates in, a closed round out."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from haina.report import Report
from haina.strategy.parts import Needs
from haina.strategy.presets import PRESETS
from haina.strategy.robust import ARC, CentredClipping, ClipNorm, Krum, Meamed
from haina.strategy.server import SGD, Adam
from haina.strategy.strategy import Strategy
from haina.strategy.validate import AdaptiveClip, FixedClip, MedianClip
from haina.strategy.weigh import Accuracy, Convergence, Disco, Link, Participation, Samples, Uniform, Weigh
from haina.update import Update

#: What can be tried without a learner; presets that judge updates on the server's own samples cannot.
EVERY = {name: make() for name, make in PRESETS.items() if not make().needs_judge} | {
    "clipped": Strategy(clip=FixedClip(0.5)),
    "adaptively clipped": Strategy(clip=AdaptiveClip(start=0.5), server=SGD(0.5, 0.9)),
    "median clipped": Strategy(clip=MedianClip(1.0), weigh=Weigh((Samples(), Accuracy()))),
    "all factors": Strategy(weigh=Weigh((Samples(), Accuracy(), Convergence(), Link(), Participation()))),
    "disco": Strategy(weigh=Weigh((Disco(),)), server=Adam()),
    "arc over meamed": Strategy(combine=ARC(0.2, Meamed(0.2)), weigh=Weigh((Uniform(),))),
    "clip norm over centred clipping": Strategy(combine=ClipNorm(1.0, CentredClipping(start=Krum(0.2)))),
}


@dataclass(frozen=True)
class Whole:
    """Forces the whole-cohort path, and clips as `inner` does."""

    inner: Any = None
    needs: ClassVar[Needs] = Needs.VECTORS

    def init(self):
        return {} if self.inner is None else self.inner.init()

    def scales(self, norms, state):
        return np.ones(len(norms)) if self.inner is None else self.inner.scales(norms, state)

    def update(self, norms, state):
        return state if self.inner is None else self.inner.update(norms, state)


def whole(strategy):
    """The same strategy, seeing the whole cohort before it combines."""
    return replace(strategy, clip=Whole(strategy.clip))


def updates_of(seed, n=8, d=5, dtype=np.float32, size=1.0):
    """n honest updates that agree more or less, with full reports."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=d)
    return [
        Update(
            f"client-{k}",
            (size * (centre + 0.5 * rng.normal(size=d))).astype(dtype),
            Report(
                examples=int(rng.integers(1, 500)),
                steps=int(rng.integers(1, 20)),
                normalizer=float(rng.uniform(1, 40)),
                learning_rate=float(rng.uniform(0.01, 0.5)),
                loss_before=float(rng.uniform(0.5, 3)),
                loss_after=float(rng.uniform(0.1, 0.5)),
                accuracy=float(rng.uniform(0, 1)),
                label_counts=tuple(int(c) for c in rng.integers(0, 50, 4)),
                seconds=float(rng.uniform(0.1, 9)),
            ),
        )
        for k in range(n)
    ]


def play(strategy, updates, model, *, state=None, arrivals=None, absent=(), registered=None):
    """One round in which everybody announces what they later report."""
    state = strategy.init(model) if state is None else state
    roster = {update.client: update.report for update in updates} | dict.fromkeys(absent)
    opened = strategy.open(state, model, roster, dimension=len(model), registered=registered)
    for update in updates if arrivals is None else arrivals:
        opened.add(update)
    return opened.close()
