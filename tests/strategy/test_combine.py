import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import LayoutError, RoundError, StrategyError
from haina.report import Report
from haina.strategy.combine import Collect, Mean, Nova, QFair, Sum, split
from haina.update import Cohort


def cohort_of(rows, reports=None):
    names = tuple(f"c{i}" for i in range(len(rows)))
    return Cohort(names, tuple(reports or [Report(examples=1.0)] * len(rows)), rows)


def varied(seed, n, d=7):
    rng = np.random.default_rng(seed)
    reports = [
        Report(examples=1.0, steps=int(t), normalizer=float(t) * 1.5, loss_before=float(f))
        for t, f in zip(rng.integers(1, 20, n), rng.uniform(0, 3, n), strict=True)
    ]
    return cohort_of(rng.normal(size=(n, d)), reports), rng.uniform(0, 1, n)


LINEAR = [Mean(), Nova(), Nova(effective_steps="steps"), QFair(q=2.0, learning_rate=0.3), Sum()]


@given(st.sampled_from(LINEAR), st.integers(0, 10_000), st.integers(1, 12))
def test_a_stream_of_single_clients_gives_what_the_whole_cohort_gives(rule, seed, n):
    cohort, shares = varied(seed, n)
    whole = rule.terms(shares, cohort.reports, cohort.norms**2)
    each = [rule.terms(shares[[k]], cohort.reports[k : k + 1], cohort.norms[[k]] ** 2) for k in range(n)]
    for name in ("numerator", "denominator", "boost"):
        parts = [getattr(terms, name) for terms in each]
        if getattr(whole, name) is None:
            assert parts == [None] * n
        else:
            np.testing.assert_array_equal(np.concatenate(parts), getattr(whole, name))
    combined = rule.combine(cohort, shares)
    np.testing.assert_allclose(combined.vector, whole.scale() * (whole.numerator @ cohort.rows), atol=1e-12)
    np.testing.assert_allclose(combined.coefficients @ cohort.rows, combined.vector, atol=1e-12)


@given(st.sampled_from(LINEAR), st.integers(0, 10_000), st.floats(0.01, 100))
def test_the_unit_of_the_shares_and_clients_without_a_share_play_no_part(rule, seed, unit):
    cohort, shares = varied(seed, 6)
    shares[2] = 0.0
    others = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(
        rule.combine(cohort, unit * shares).vector,
        rule.combine(cohort.take(others), shares[others]).vector,
        atol=1e-10,
    )


@given(st.integers(0, 10_000))
def test_fedavg_is_fednova_with_equal_steps_and_q_fedavg_without_fairness(seed):
    cohort, shares = varied(seed, 5)
    mean = Mean().combine(cohort, shares).coefficients
    np.testing.assert_allclose(QFair(q=0.0, learning_rate=0.05).combine(cohort, shares).coefficients, mean)
    equal = cohort_of(cohort.rows, [Report(examples=1.0, steps=4)] * 5)
    np.testing.assert_allclose(Nova().combine(equal, shares).coefficients, mean)


def test_fednova_has_the_fixed_point_of_its_closed_form():
    # F_k = (x - e_k)^2 / 2, tau_k steps of rate eta: delta_k = s_k (e_k - x), s = 1 - (1 - eta)^tau; fixed point sum p s e / tau / sum p s / tau.
    e, p, tau, eta = np.array([-1.0, 0.0, 3.0]), np.array([0.2, 0.3, 0.5]), np.array([2, 5, 20]), 0.1
    s = 1 - (1 - eta) ** tau
    reports = [Report(examples=1.0, steps=int(t)) for t in tau]
    x = np.zeros(1)
    for _ in range(400):
        x = x + Nova().combine(cohort_of((s * (e - x))[:, None], reports), p).vector
    assert x[0] == pytest.approx((p * s * e / tau).sum() / (p * s / tau).sum(), abs=1e-12)
    assert x[0] == pytest.approx(0.715411, abs=1e-6)


def test_q_fedavg_leans_to_the_high_loss_and_leaves_out_clients_without_one():
    losses = [0.5, 2.0, None, -1.0, 0.0]
    reports = [Report(examples=1.0, loss_before=loss) for loss in losses]
    coefficients = QFair(q=3.0).combine(cohort_of(np.eye(5), reports), np.full(5, 0.2)).coefficients
    assert coefficients[1] > 10 * coefficients[0] > 0
    assert coefficients[2] == coefficients[3] == 0
    assert np.isfinite(coefficients).all()


def test_sum_counts_every_admitted_client_once():
    rows = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]])
    np.testing.assert_array_equal(
        Sum().combine(cohort_of(rows), np.array([0.7, 0.0, 0.1])).vector, [101.0, 202.0]
    )


def test_weights_that_sum_to_nothing_move_nothing():
    for rule in LINEAR:
        np.testing.assert_array_equal(rule.combine(varied(1, 3)[0], np.zeros(3)).vector, np.zeros(7))


def test_collected_bytes_come_apart_again():
    blobs = [np.frombuffer(text, np.uint8) for text in (b"oak", b"", b"a long birch", b"never seen")]
    combined = Collect().combine(cohort_of(blobs), np.array([0.5, 1.0, 0.2, 0.0]))
    assert [part.tobytes() for part in split(combined.vector)] == [b"oak", b"", b"a long birch"]
    np.testing.assert_array_equal(combined.evidence["bytes"], [3, 0, 12, np.nan])
    assert split(Collect().combine(cohort_of(blobs), np.zeros(4)).vector) == []


@given(st.binary(min_size=1, max_size=40))
def test_a_damaged_collection_is_refused_or_read_to_its_last_byte(data):
    try:
        parts = split(np.frombuffer(data, np.uint8))
    except LayoutError:
        return
    assert sum(8 + len(part) for part in parts) == len(data)


def test_only_bytes_are_collected():
    with pytest.raises(RoundError, match="'c0' sent float64"):
        Collect().combine(cohort_of([np.zeros(3)]), np.ones(1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: QFair(q=-1.0),
        lambda: QFair(q=float("nan")),
        lambda: QFair(learning_rate=0.0),
        lambda: Nova(effective_steps="median"),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(StrategyError):
        make()
