"""Faults planted in a federated average that is made of the real parts, and the audit that has to find them.

50 clients learn a logistic regression for 50 rounds: clip, round to a grid, add up, cover with discrete Gaussian noise. Canaries join them. The
auditor is given the released increments and nothing else. `pytest -s` prints the table that docs/privacy-audit.md shows.
"""

from math import sqrt

import numpy as np
import pytest

from haina.privacy.audit import finding, gaussian
from haina.privacy.audit.canary import Canaries
from haina.privacy.clipping import clip_l2
from haina.privacy.grid import Grid
from haina.privacy.mechanisms import DiscreteGaussian
from haina.privacy.stream import Stream

DIMENSION, CLIENTS, ROUNDS, LIMIT, DELTA, CANARIES = 4000, 50, 50, 1.0, 1e-5, 500
MULTIPLIER = 16.0
CLAIMED = gaussian.epsilon_of(sqrt(ROUNDS) / MULTIPLIER, DELTA)
FAULTS = ("noise 4x too small", "clip off", "noise used again")


def key(seed):
    return seed.to_bytes(32, "big")


def rows(rng):
    """`[clients, 20, d]` inputs and `[clients, 20, 1]` labels of one true direction."""
    truth = rng.standard_normal((DIMENSION, 1), np.float32) / np.float32(sqrt(DIMENSION))
    x = rng.standard_normal((CLIENTS, 20, DIMENSION), np.float32)
    return x, (x @ truth + 0.3 * rng.standard_normal((CLIENTS, 20, 1)) > 0).astype(np.float32)


def released(seed, canaries, fault):
    """The increments of a run."""
    x, y = rows(np.random.default_rng(seed))
    inside = np.flatnonzero(canaries.included)
    grid = Grid.for_sum(LIMIT, CLIENTS + len(inside), bits=16, word=64)
    mechanism = DiscreteGaussian(MULTIPLIER / 4 if fault == "noise 4x too small" else MULTIPLIER)
    vectors = np.stack([canaries.vector(i) for i in inside]) * np.float32(canaries.length * LIMIT)
    model, increments = np.zeros((DIMENSION, 1), np.float32), []
    for number in range(ROUNDS):
        wrong = y - 1 / (1 + np.exp(-np.clip(x @ model, -30, 30)))
        learnt = (wrong.transpose(0, 2, 1) @ x)[:, 0] / 20
        sent = [*learnt, *(vectors * canaries.signs(number)[inside, None])]
        if fault != "clip off":
            sent = [clip_l2(vector, LIMIT) for vector in sent]
        rounding = Stream.derived(key(seed), f"rounding {number}")
        total = grid.quantise(np.concatenate(sent), rounding).reshape(-1, DIMENSION).sum(axis=0)
        noise = Stream.derived(key(seed), "noise" if fault == "noise used again" else f"noise {number}")
        total += mechanism.noise(DIMENSION, grid.sensitivity(LIMIT, DIMENSION), noise)
        increments.append(grid.values(total) / CLIENTS)
        model += increments[-1][:, None].astype(np.float32)
    return increments


def audited(seed, fault):
    """The findings of one search, for the claim as a point and as the curve of Gaussian noise."""
    canaries = Canaries(CANARIES, DIMENSION, key(1000 + seed))
    scores = canaries.search(released(seed, canaries, fault))
    return [finding.judge(scores, canaries.included, CLAIMED, DELTA, claim) for claim in ("any", "gaussian")]


@pytest.fixture(scope="module")
def table():
    lines = []
    yield lines.append
    print(
        f"\n| implementation | seed | claimed | estimate (low) | lower bound, point and curve | verdict | alarm |\n{'|---' * 7}|"
    )
    print("\n".join(lines))


def row(fault, seed, point, curve):
    estimate = f"{point.estimate.epsilon:.2f} ({point.estimate.low:.2f})"
    numbers = f"{point.claimed:.2f} | {estimate} | {point.lower_bound:.2f}, {curve.lower_bound:.2f}"
    return (
        f"| {fault or 'correct'} | {seed} | {numbers} | {point.verdict} | {'yes' if point.alarm else 'no'} |"
    )


@pytest.mark.parametrize("seed", range(5))
def test_a_correct_implementation_raises_no_alarm(seed, table):
    point, curve = audited(seed, None)
    table(row(None, seed, point, curve))
    assert (point.verdict, curve.verdict, point.alarm) == ("holds", "holds", False)
    # It is a search that finds something: half of what is promised at least, and the promise lies within what it holds possible.
    assert point.estimate.epsilon > CLAIMED / 2
    assert point.estimate.low < CLAIMED < point.estimate.high


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault, seed, table):
    point, curve = audited(seed, fault)
    table(row(fault, seed, point, curve))
    assert (point.verdict, curve.verdict, point.alarm) == ("violated", "violated", True)


def test_noise_that_is_used_again_hides_in_the_final_model():
    """Why canaries turn round: those that do not are lost in what lasts, and nothing looks wrong."""
    canaries = Canaries(CANARIES, DIMENSION, key(1000), turning=False)
    change = np.sum(released(0, canaries, "noise used again"), axis=0)
    found = finding.audit(canaries, [change], CLAIMED, DELTA)
    assert (found.verdict, found.alarm) == ("holds", False)
    assert found.estimate.epsilon < CLAIMED / 2
