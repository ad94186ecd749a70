from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from haina.learners.glm import GlmLearner
from haina.learners.learner import Training, Work
from haina.shards import Shards
from haina.strategy.parts import Aggregate, Server, State, Stepped


@dataclass(frozen=True)
class Fitted:
    model: np.ndarray
    state: State
    last: Stepped
    rounds: int
    halved: int


def fit(learner: GlmLearner, server: Server, shards: Shards, limit: int = 3000) -> Fitted:
    model = learner.initial(0)
    state, halved = server.init(model), 0
    for number in range(1, limit + 1):
        updates = list(learner.train(Work(model, number, shards, Training(), 1.0)))
        total = np.zeros(learner.update_size)
        for update in updates:
            total += update.vector
        stepped = server.step(model, Aggregate(total, number), state)
        # What is remembered goes through bytes between rounds.
        model, state = stepped.model, {name: np.array(array) for name, array in stepped.state.items()}
        halved += int(state["halvings"] > 0)
        if stepped.finished:
            return Fitted(model, state, stepped, number, halved)
    raise AssertionError("the fit never finished")


def cut(x: np.ndarray, y: np.ndarray, sizes: Sequence[int]) -> Shards:
    ends = np.cumsum(sizes)
    assert ends[-1] == len(x)
    offsets = np.stack([ends - sizes, ends], axis=1)
    return Shards(tuple(f"site{k}" for k in range(len(sizes))), x, y, offsets)


def outcomes(family: str, eta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if family == "gaussian":
        return eta + rng.normal(0, 1.5, len(eta))
    if family == "binomial":
        return (rng.random(len(eta)) < 1 / (1 + np.exp(-eta))).astype(float)
    return rng.poisson(np.exp(eta)).astype(float)


def simulate(
    family: str, sizes: Sequence[int], features: int = 5, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Sites with means of their own, correlated columns, one column on another scale."""
    rng = np.random.default_rng(seed)
    site = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(site), features)) + 0.5 * np.sin(site)[:, None]
    x[:, 1] += 0.6 * x[:, 0]
    beta = np.r_[0.6, -0.4, 0.0, 0.3, np.zeros(features)][:features]
    y = outcomes(family, 0.4 + x @ beta, rng)
    x[:, -1] = 100 + 20 * x[:, -1]
    return x, y
