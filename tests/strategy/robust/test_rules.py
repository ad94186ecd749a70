import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from haina.errors import RoundError, StrategyError
from haina.report import Report
from haina.strategy.robust import (
    ARC,
    CAF,
    MDA,
    NNM,
    Bulyan,
    CentredClipping,
    ClipNorm,
    GeometricMedian,
    Krum,
    Meamed,
    Median,
    MoNNA,
    MultiKrum,
    TrimmedMean,
)
from haina.strategy.robust.mda import least_diameter
from haina.update import Cohort

seeds = st.integers(0, 100_000)


def cohort_of(rows):
    return Cohort(tuple(f"c{i}" for i in range(len(rows))), (Report(examples=1.0),) * len(rows), rows)


def combine(rule, rows, shares=None):
    rows = np.asarray(rows, dtype=np.float64)
    return rule.combine(cohort_of(rows), np.ones(len(rows)) if shares is None else np.asarray(shares, float))


def squared_distances(rows):
    return ((rows[:, None] - rows[None]) ** 2).sum(-1)


@given(seeds, st.integers(1, 14))
def test_median_is_numpys(seed, n):
    rows = np.random.default_rng(seed).normal(size=(n, 9))
    np.testing.assert_allclose(combine(Median(), rows).vector, np.median(rows, axis=0), atol=1e-15)


@given(seeds, st.integers(1, 14), st.floats(0, 0.49))
def test_trimmed_mean_is_scipys(seed, n, fraction):
    rows = np.random.default_rng(seed).normal(size=(n, 9))
    np.testing.assert_allclose(
        combine(TrimmedMean(fraction), rows).vector, trim_mean(rows, fraction), atol=1e-14
    )


def test_trimmed_values_leave_no_rounding_behind():
    rows = np.array([[1e30], [-1e30], [1.0], [2.0], [3.0]])
    assert combine(TrimmedMean(1), rows).vector[0] == 2.0
    assert combine(Meamed(2), rows).vector[0] == 2.0


@given(seeds, st.integers(1, 14), st.floats(0, 0.49))
def test_mean_around_the_median_takes_the_closest_values(seed, n, fraction):
    rows = np.random.default_rng(seed).normal(size=(n, 9))
    keep = n - int(fraction * n + 1e-9)
    away = np.abs(rows - np.median(rows, axis=0))
    closest = np.take_along_axis(rows, np.argsort(away, axis=0, kind="stable")[:keep], axis=0)
    # Of two values equally far from the median (always so for an even n and one place left) the lower one counts.
    lower = np.sort(rows, axis=0)
    middle = np.median(rows, axis=0)
    tie = np.isclose(np.sort(away, axis=0)[keep - 1], np.sort(away, axis=0)[min(keep, n - 1)], rtol=1e-12) & (
        keep < n
    )
    vector = combine(Meamed(fraction), rows).vector
    np.testing.assert_allclose(vector[~tie], closest.mean(0)[~tie], atol=1e-14)
    assert (
        (vector >= lower[0] - 1e-14) & (vector <= lower[-1] + 1e-14) & (np.abs(vector - middle) < 10)
    ).all()


@given(seeds, st.sampled_from([1, 2]))
def test_krum_scores_are_sums_over_the_nearest_others(seed, left_out):
    rows = np.random.default_rng(seed).normal(size=(9, 4))
    squared = squared_distances(rows)
    scores = [sum(sorted(np.delete(squared[i], i))[: 9 - 2 - left_out]) for i in range(9)]
    combined = combine(Krum(2, left_out=left_out), rows)
    np.testing.assert_allclose(combined.evidence["krum_score"], scores, atol=1e-12)
    np.testing.assert_array_equal(combined.vector, rows[int(np.argmin(scores))])
    np.testing.assert_array_equal(
        combined.vector, combine(MultiKrum(2, left_out=left_out, keep=1), rows).vector
    )


def test_multi_krum_weighs_survivors_by_share_or_equally():
    rows, shares = np.random.default_rng(5).normal(size=(7, 3)), np.arange(1.0, 8.0)
    by_share = combine(MultiKrum(2), rows, shares).coefficients
    equal = combine(MultiKrum(2, weighting="equal"), rows, shares).coefficients
    kept = equal > 0
    np.testing.assert_allclose(equal[kept], 1 / 5)
    np.testing.assert_allclose(by_share, shares * kept / shares[kept].sum())


@given(seeds, st.integers(3, 9), st.integers(0, 4))
def test_the_least_diameter_is_that_of_all_subsets(seed, n, f):
    f = min(f, (n - 1) // 2)
    squared = squared_distances(np.random.default_rng(seed).normal(size=(n, 3)))

    def measure(rows):
        inside = squared[np.ix_(rows, rows)]
        return inside.max(), inside.sum()

    chosen = least_diameter(squared, f)
    assert len(chosen) == n - f
    assert measure(chosen)[0] == min(
        measure(list(rows))[0] for rows in itertools.combinations(range(n), n - f)
    )


def test_least_diameter_of_fifty_clients_takes_no_search_of_ten_thousand_million_subsets():
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(size=(40, 6)), rng.normal(4, 1, size=(10, 6))])
    np.testing.assert_array_equal(least_diameter(squared_distances(rows), 10), np.arange(40))
    with pytest.raises(RoundError, match=r"up to 2\^20 sets"):
        combine(MDA(0.4), rng.normal(size=(50, 2)))
    with pytest.raises(StrategyError, match="at most 16"):
        MDA(17)


def test_geometric_medians_known_in_closed_form():
    triangle = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    np.testing.assert_allclose(combine(GeometricMedian(), triangle).vector, triangle.mean(0), atol=1e-12)
    # An angle of more than 120 degrees: its corner. A convex quadrilateral: where the diagonals meet.
    np.testing.assert_allclose(
        combine(GeometricMedian(), [[0, 0], [1, 0.1], [-1, 0.1]]).vector, [0, 0], atol=1e-13
    )
    np.testing.assert_allclose(
        combine(GeometricMedian(), [[0, 0], [4, 2], [3, -1], [1, 3]]).vector, [2, 1], atol=1e-9
    )
    # On a line: the weighted median, even where the mean, which is the start, falls on another vector.
    np.testing.assert_array_equal(combine(GeometricMedian(), [[-9], [0], [1], [2], [6]]).vector, [1])
    np.testing.assert_allclose(
        combine(GeometricMedian(), [[-9], [0], [1], [2], [6]], [1, 1, 1, 1, 5]).vector, [6]
    )


@pytest.mark.parametrize("gap", [10.0**-k for k in range(18)])
def test_geometric_median_of_two_nearly_equal_clients_is_between_them(gap):
    # Every point between them is a median.
    vector = combine(GeometricMedian(), [[1.0, 1.0], [1.0, 1.0 + gap]]).vector
    np.testing.assert_allclose(vector, [1.0, 1.0 + gap / 2], rtol=1e-15, atol=0.51 * gap)


@given(seeds)
def test_no_pull_is_left_at_the_geometric_median(seed):
    rng = np.random.default_rng(seed)
    rows, shares = rng.normal(size=(9, 4)), rng.uniform(0.1, 1, 9)
    shares /= shares.sum()
    away = rows - combine(GeometricMedian(), rows, shares).vector
    length = np.linalg.norm(away, axis=1)
    met = length < 1e-6
    pull = np.linalg.norm((shares[~met] / length[~met]) @ away[~met])
    assert pull <= shares[met].sum() + 1e-8


def test_centred_clipping_from_the_origin_is_clipping_and_a_mean():
    rng = np.random.default_rng(2)
    rows, shares = rng.normal(size=(8, 5)), rng.uniform(0.1, 1, 8)
    norms = np.linalg.norm(rows, axis=1)
    for radius in (1.5, None):
        tau = np.median(norms) if radius is None else radius
        expected = shares @ (rows * np.minimum(1, tau / norms)[:, None]) / shares.sum()
        np.testing.assert_allclose(
            combine(CentredClipping(radius, iterations=1), rows, shares).vector, expected
        )
    np.testing.assert_allclose(
        combine(CentredClipping(1e9, iterations=1), rows, shares).vector, np.average(rows, 0, shares)
    )


def test_caf_filters_along_the_top_eigenvector_of_the_covariance():
    rng = np.random.default_rng(3)
    rows = np.vstack([rng.normal(size=(16, 3)), rng.normal(3, 0.3, size=(4, 3))])
    weights, best, least = np.full(20, 1 / 20), rows.mean(0), np.inf
    while weights.sum() > 1 - 2 * 4 / 20 + 1e-12:
        mean = weights @ rows / weights.sum()
        values, vectors = np.linalg.eigh(np.cov(rows.T, aweights=weights, ddof=0))
        if values[-1] < least:
            least, best = values[-1], mean
        spread = ((rows - mean) @ vectors[:, -1]) ** 2 * (weights > 0)
        weights = weights * (1 - spread / spread.max())
    combined = combine(CAF(4), rows)
    np.testing.assert_allclose(combined.vector, best, atol=1e-9)
    assert combined.coefficients[16:].sum() < 0.05
    assert np.linalg.norm(best - rows[:16].mean(0)) < 0.35 * np.linalg.norm(rows.mean(0) - rows[:16].mean(0))


def test_clipping_scales_the_longest_and_only_them():
    rows = np.diag([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    np.testing.assert_allclose(
        np.diag(ClipNorm(3.5).matrix(rows @ rows.T) @ rows), [1, 2, 3, 3.5, 3.5, 3.5, 3.5]
    )
    # f = 2 of 7: floor(2 * 2 * 5 / 7) = 2 are clipped to the third longest.
    np.testing.assert_allclose(np.diag(ARC(2).matrix(rows @ rows.T) @ rows), [1, 2, 3, 4, 5, 5, 5])


def test_mixings_chain_and_their_coefficients_are_the_clients_own():
    rows = np.random.default_rng(6).normal(size=(9, 4))
    rows[0] *= 50
    clipped = ARC(2).matrix(rows @ rows.T) @ rows
    mixed = NNM(2).matrix(clipped @ clipped.T) @ clipped
    chain = combine(ARC(2, then=NNM(2, then=MultiKrum(2))), rows)
    np.testing.assert_allclose(chain.vector, combine(MultiKrum(2), mixed).vector, atol=1e-12)
    np.testing.assert_allclose(chain.coefficients @ rows, chain.vector, atol=1e-12)
    np.testing.assert_allclose(
        combine(ARC(2, then=NNM(2, then=Median())), rows).vector, np.median(mixed, 0), atol=1e-12
    )


def test_monna_needs_its_reference():
    rows = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    np.testing.assert_allclose(combine(MoNNA(2, reference="c4"), rows).vector, [(2 + 10 + 11 + 12) / 4])
    with pytest.raises(RoundError, match="'c9' has no admitted update"):
        combine(MoNNA(2, reference="c9"), rows)
    with pytest.raises(RoundError, match="'c4' has no admitted update"):
        combine(MoNNA(1, reference="c4"), rows, [1, 1, 1, 1, 0, 1])


def test_bulyan_says_whom_krum_chose():
    rows = np.vstack([np.random.default_rng(7).normal(size=(9, 3)), [[40, 40, 40], [-40, 40, 40]]])
    for selection in ("recursive", "one_shot"):
        selected = combine(Bulyan(2, selection=selection), rows).evidence["selected"]
        assert selected.sum() == 7
        assert selected[9:].sum() == 0


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        (Krum(2), 7),
        (MultiKrum(2), 7),
        (Bulyan(2), 11),
        (TrimmedMean(2), 5),
        (Meamed(2), 5),
        (MDA(2), 5),
        (CAF(2), 5),
        (NNM(2), 5),
        (ARC(2), 5),
        (MoNNA(2, reference="c0"), 5),
    ],
    ids=repr,
)
def test_a_cohort_too_small_for_the_rule_is_refused_with_what_it_needs(rule, least):
    rows = np.random.default_rng(1).normal(size=(least, 3))
    assert np.isfinite(combine(rule, rows).vector).all()
    with pytest.raises(RoundError, match=rf"got {least - 1} clients.*= {least} clients"):
        combine(rule, rows[1:] if not isinstance(rule, MoNNA) else rows[:-1])


@settings(max_examples=60)
@given(st.floats(0, 0.49), st.integers(1, 200))
def test_a_fraction_tolerates_that_part_of_the_cohort(fraction, n):
    f = TrimmedMean(fraction).tolerated(n)
    assert f <= fraction * n + 1e-9 < f + 1


def test_a_fraction_written_in_decimals_is_not_cut_short():
    assert TrimmedMean(0.3).tolerated(10) == 3
    assert TrimmedMean(0.29).tolerated(100) == 29


@pytest.mark.parametrize("value", [-1, 0.5, -0.1, 1.0, float("nan"), True, "0.2"])
def test_an_impossible_number_of_hostile_clients_is_refused(value):
    with pytest.raises(StrategyError, match="byzantine is"):
        Krum(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Bulyan(0.25),
        lambda: Bulyan(2, selection="twice"),
        lambda: Krum(2, left_out=0),
        lambda: MultiKrum(2, keep=0),
        lambda: MultiKrum(2, weighting="loss"),
        lambda: GeometricMedian(iterations=0),
        lambda: GeometricMedian(floor=0.0),
        lambda: GeometricMedian(tolerance=float("nan")),
        lambda: GeometricMedian(start="median"),
        lambda: CentredClipping(radius=0.0),
        lambda: CentredClipping(iterations=0),
        lambda: CentredClipping(start=Median()),
        lambda: CentredClipping(start=NNM(0.2, then=Median())),
        lambda: ClipNorm(float("inf")),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(StrategyError):
        make()


def test_rules_without_coefficients_say_so():
    for rule in (Median(), Bulyan(1), NNM(0.2, then=Median())):
        with pytest.raises(StrategyError, match="needs the vectors themselves"):
            rule.coefficients(np.eye(8), np.ones(8))
