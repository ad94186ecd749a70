import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from haina.errors import PrivacyError
from haina.privacy.mechanisms import DiscreteGaussian, Gaussian, Laplace
from haina.privacy.policy import Allowance, Covering, Hidden, Policy
from haina.privacy.stream import Stream

D = 7


def stream(k=0):
    return Stream.derived(bytes(32), f"test {k}")


def summed(policy, vectors, *, examples=None, limit=1.0, seed=0):
    n, names = len(vectors), [f"c{k}" for k in range(len(vectors))]
    examples = examples or [1.0] * n
    total = sum(
        (
            policy.seal(v, e, limit, n, stream(seed + k))
            for k, (v, e) in enumerate(zip(vectors, examples, strict=True))
        ),
        start=np.zeros(policy.size(len(vectors[0])), np.uint32 if policy.word == 32 else np.uint64),
    )
    return policy.unseal(total, len(vectors[0]), names, limit, n, stream(99))


def vectors_of(n, seed=0, size=0.5):
    rng = np.random.default_rng(seed)
    out = rng.normal(size=(n, D))
    return size * out / np.linalg.norm(out, axis=1, keepdims=True)


def test_a_fellow_of_few_is_covered_by_the_others_noise_alone():
    """Whoever takes part knows its own part of the noise, and takes it away from the sum."""
    policy = Policy(
        noise="distributed",
        mechanism=DiscreteGaussian(2.0),
        hidden=Hidden(),
        allowance=Allowance(8.0, 1e-5),
    )
    for clients in (4, 5, 9, 12, 30):
        terms = policy.terms(D, 1.0, clients)
        assert terms.parties == terms.least - max(1, clients // 10)
    assert "no more than one of them" in policy.promises[0]


def test_the_mean_of_a_hidden_sum():
    vectors = vectors_of(12)
    pool = summed(Policy(hidden=Hidden()), vectors, limit=None)
    np.testing.assert_allclose(pool.vector, vectors.mean(axis=0), atol=1e-6)
    assert (pool.weight, pool.equal, pool.unclipped) == (12.0, True, None)


def test_clients_weigh_themselves_inside_the_sum():
    vectors, examples = vectors_of(10, 1), [5, 50, 100, 500, 1000, 2000, 20, 30, 40, 60]
    pool = summed(Policy(hidden=Hidden(), most=1000.0), vectors, examples=examples, limit=None)
    weights = np.minimum(examples, 1000)
    np.testing.assert_allclose(pool.vector, weights @ vectors / weights.sum(), atol=1e-6)
    assert pool.weight * 1000 == pytest.approx(weights.sum(), rel=1e-6)
    assert not pool.equal


def test_the_bit_of_adaptive_clipping_is_counted_in_the_sum():
    vectors = [v * (3 if k < 3 else 1) for k, v in enumerate(vectors_of(12, 2))]
    policy = Policy("central", Gaussian(0.01), Hidden(), adaptive=True)
    pool = summed(policy, vectors, limit=1.0)
    assert pool.unclipped == pytest.approx(9 / 12, abs=0.05)
    clipped = [v / max(1, np.linalg.norm(v)) for v in vectors]
    np.testing.assert_allclose(pool.vector, np.mean(clipped, axis=0), atol=0.02)


def test_exact_statistics_are_summed_in_wide_words():
    rng = np.random.default_rng(0)
    rows = [rng.normal(size=D) * 10.0 ** rng.integers(-3, 7, D) for _ in range(9)]
    policy = Policy(hidden=Hidden(range=2.0**40), summed=True)
    pool = summed(policy, rows, limit=None)
    np.testing.assert_allclose(pool.vector, np.sum(rows, axis=0), rtol=1e-15, atol=1e-12)
    with pytest.raises(PrivacyError, match="too large"):
        summed(policy, [np.full(D, 2.0**41)] * 9, limit=None)


NOISY = [
    Policy("distributed", DiscreteGaussian(1.1), Hidden()),
    Policy("distributed", DiscreteGaussian(1.1), Hidden(), most=100.0, adaptive=True),
    Policy("central", Gaussian(1.1), Hidden(), most=100.0),
    Policy("central", Laplace(0.7), Hidden(), adaptive=True),
    Policy("central", Laplace(0.7), Hidden(), most=50.0),
]


class Silent:
    """A mechanism without noise, that remembers the sensitivity that it was told."""

    def __init__(self, inner):
        self.inner, self.norm, self.told = inner, inner.norm, []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def noise(self, size, sensitivity, stream, parties=1):
        self.told.append(sensitivity)
        return np.zeros(size, np.int64)


@pytest.mark.parametrize("policy", NOISY, ids=lambda p: f"{p.noise} {p.mechanism} {p.most} {p.adaptive}")
@given(
    vector=arrays(np.float64, D, elements=st.floats(-1e3, 1e3, allow_subnormal=False)),
    examples=st.floats(0.0, 1e6),
    limit=st.floats(1e-3, 1e3),
    n=st.integers(3, 400),
    k=st.integers(0, 1000),
)
@settings(max_examples=80, deadline=None)
def test_no_client_moves_the_sum_by_more_than_the_stated_sensitivity(policy, vector, examples, limit, n, k):
    from dataclasses import replace

    silent = Silent(policy.mechanism)
    quiet = replace(policy, mechanism=silent)
    terms = quiet.terms(D, limit, n)
    words = quiet.seal(vector, examples, limit, n, stream(k))
    sent = terms.grid.integers(words).astype(float)
    norm = np.abs(sent).sum() if policy.mechanism.norm == 1 else math.sqrt(float(sent @ sent))
    assert norm <= terms.sensitivity
    # What a client that sends nothing (zeros) adds is nothing.
    assert np.abs(sent[quiet.slots :]).max() * terms.grid.step <= limit * (1 + 1e-9) + terms.grid.step
    # Whatever n clients send, with the largest noise there is, stays inside a word.
    noise = policy.mechanism.tail(terms.sensitivity, terms.parties)
    each = int(np.abs(sent).max()) + (noise if policy.noise == "distributed" else 0)
    assert n * each + (noise if policy.noise == "central" else 0) <= 2**31 - 1


def test_distributed_noise_covers_the_sum_when_only_the_fewest_come():
    policy = Policy("distributed", DiscreteGaussian(1.0), Hidden(corrupt=0.1, dropout=0.2))
    n = 40
    terms = policy.terms(D, 1.0, n)
    assert terms.least == 32
    assert terms.parties == 28
    zeros = [np.zeros(D)] * terms.parties
    rng_sums = []
    for run in range(300):
        total = sum(
            (policy.seal(v, 1.0, 1.0, n, stream(10_000 + 50 * run + k)) for k, v in enumerate(zeros)),
            start=np.zeros(D, np.uint32),
        )
        rng_sums.append(terms.grid.integers(total))
    std = float(np.std(np.array(rng_sums)))
    assert std == pytest.approx(terms.sensitivity, rel=0.06)
    with pytest.raises(PrivacyError, match="31 of a group of 40"):
        policy.unseal(np.zeros(D, np.uint32), D, [f"c{k}" for k in range(31)], 1.0, n)


def test_local_noise_is_whole_and_on_a_grid():
    policy = Policy("local", Gaussian(2.0))
    rows = np.array([policy.privatise(np.zeros(1000), 0.5, stream(k)) for k in range(20)])
    assert rows.dtype == np.float32
    assert float(rows.std()) == pytest.approx(1.0, rel=0.03)
    long = policy.privatise(np.full(1000, 3.0), 0.5, stream(3))
    assert float(long.mean()) == pytest.approx(0.5 / math.sqrt(1000), abs=0.1)


def test_central_noise_is_measured_by_the_largest_share():
    cover = Covering(Policy("central", Gaussian(2.0)), 0.5, stream(1))
    assert float(cover.cover(np.zeros(100_000), 0.1).std()) == pytest.approx(0.1, rel=0.02)
    adaptive = Policy("central", Gaussian(2.0), adaptive=True)
    shares = [Covering(adaptive, 0.5, stream(k)).cover_share(0.4, 100) for k in range(2000)]
    assert np.mean(shares) == pytest.approx(0.4, abs=0.01)
    # Two units of noise on the count of a hundred, over a quarter, as the slot is worth that much of the limit.
    assert np.std(shares) == pytest.approx(2 / 100 / 0.25, rel=0.1)


@pytest.mark.parametrize(
    ("allowance", "mechanism", "rounds", "spent"),
    [
        (Allowance(4.0, 0.0, "pure"), Laplace(1e-3), 4000, 4.0),
        (Allowance(8.0, 1e-3, "zcdp"), DiscreteGaussian(2.4), 21, 7.93),
        (Allowance(1.0, 0.0, "pure"), Laplace(0.3), 3, 0.9),
        (Allowance(1.0, 0.0, "pure"), Laplace(1.1), 0, 0.0),
    ],
)
def test_how_many_rounds_a_budget_lasts(allowance, mechanism, rounds, spent):
    policy = Policy("central", mechanism, allowance=allowance)
    assert policy.affordable == rounds
    assert policy.spent(rounds) == pytest.approx(spent, rel=1e-3)
    budget = policy.budget("a", "rows")
    assert budget.composition == allowance.composition


def test_a_schedule_is_one_charge():
    policy = Policy("central", Gaussian(4.0), allowance=Allowance(8.0, 1e-5, "pld"), rounds=30)
    one, other = (policy.charge("f", number, "a", "") for number in (1, 2))
    assert one == other
    assert one.epsilon == pytest.approx(policy.spent(1))
    assert policy.budget("a", "").composition == "pure"
    assert policy.affordable == 30


@pytest.mark.parametrize(
    ("made", "way"),
    [
        (lambda: Policy("distributed", DiscreteGaussian(1.0)), "secure_aggregation"),
        (lambda: Policy("distributed", Laplace(1.0), Hidden()), "discrete_gaussian"),
        (lambda: Policy("central"), "mechanism"),
        (lambda: Allowance(1e-5), "0.0001 or more"),
        (lambda: Allowance(1.0, 0.0, "zcdp"), "Laplace"),
        (lambda: Allowance(math.nan), "0.0001 or more"),
        (lambda: Allowance(1.0, 1.0), "[0, 1)"),
        (lambda: Hidden(group=2), "3 or more"),
        (lambda: Hidden(corrupt=0.6), "[0, 0.5)"),
    ],
)
def test_refusals_name_the_way_out(made, way):
    with pytest.raises(PrivacyError) as refused:
        made()
    assert way in str(refused.value)


def test_a_sum_that_could_wrap_is_refused_before_anything_is_sent():
    policy = Policy("distributed", DiscreteGaussian(1e4), Hidden())
    with pytest.raises(PrivacyError, match="do not fit"):
        policy.terms(10**6, 1.0, 5000)


def test_promises_are_sentences():
    policy = Policy(
        "distributed", DiscreteGaussian(2.4), Hidden(group=10), Allowance(8.0, 1e-3, "zcdp"), rounds=20
    )
    text = " ".join(policy.promises)
    assert "groups of about 10 clients" in text
    assert "no single update" in text
    assert "21 rounds" in text
    assert "sees each update" in " ".join(Policy("central", Gaussian(1.0)).promises)
