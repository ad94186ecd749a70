import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.errors import RoundError
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
from haina.update import BLOCK, Cohort

N, F, D = 12, 2, 5

EQUIVARIANT = [
    Krum(F),
    MultiKrum(F),
    MultiKrum(F, keep=4, left_out=1, weighting="equal"),
    GeometricMedian(),
    CAF(F),
    MDA(F),
    MoNNA(F, reference="c5"),
    Median(),
    TrimmedMean(F),
    Meamed(F),
    Bulyan(F),
    Bulyan(F, selection="one_shot"),
    NNM(F),
    NNM(F, then=TrimmedMean(F)),
    NNM(F, then=MultiKrum(F, weighting="equal")),  # mixed rows coincide, so shares would decide ties
    CentredClipping(start=GeometricMedian()),
    CentredClipping(start=NNM(F, then=Krum(F))),
]
FROM_THE_ORIGIN = [CentredClipping(), ARC(F), ARC(F, then=NNM(F, then=Median())), ClipNorm(2.0, then=Krum(F))]
ALL = EQUIVARIANT + FROM_THE_ORIGIN

rules = st.sampled_from(ALL)
seeds = st.integers(0, 100_000)


def cohort_of(rows, names=None):
    names = names or tuple(f"c{i}" for i in range(len(rows)))
    return Cohort(tuple(names), (Report(examples=1.0),) * len(rows), rows)


def draw(seed, n=N, d=D):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + rng.normal(size=d), rng.uniform(0.2, 1, n)


# Bulyan's choice one by one ends with single distances, whose two ends tie.
@settings(deadline=None)
@given(rules.filter(lambda rule: rule != Bulyan(F)), seeds)
def test_the_order_of_clients_plays_no_part(rule, seed):
    rows, shares = draw(seed)
    order = np.random.default_rng(seed + 1).permutation(N)
    here = rule.combine(cohort_of(rows), shares)
    there = rule.combine(cohort_of(rows[order], [f"c{i}" for i in order]), shares[order])
    np.testing.assert_allclose(there.vector, here.vector, atol=1e-9)
    for name, values in here.evidence.items():
        np.testing.assert_allclose(there.evidence[name], values[order], atol=1e-6)


@settings(deadline=None)
@given(st.sampled_from(EQUIVARIANT), seeds, st.floats(-10, 10), st.floats(0.1, 10))
def test_a_new_origin_and_unit_move_the_answer_with_them(rule, seed, shift, unit):
    rows, shares = draw(seed)
    vector = rule.combine(cohort_of(rows), shares).vector
    moved = rule.combine(cohort_of(unit * rows + shift), shares).vector
    np.testing.assert_allclose(moved, unit * vector + shift, atol=1e-7)


@settings(deadline=None)
@given(rules, seeds)
def test_clients_without_a_share_are_as_if_they_had_not_come(rule, seed):
    rows, shares = draw(seed, N + 3)
    absent = np.random.default_rng(seed).choice(np.setdiff1d(np.arange(N + 3), 5), 3, replace=False)
    shares[absent] = 0.0
    present = np.setdiff1d(np.arange(N + 3), absent)
    cohort = cohort_of(rows)
    whole, part = rule.combine(cohort, shares), rule.combine(cohort.take(present), shares[present])
    np.testing.assert_allclose(whole.vector, part.vector, atol=1e-12)
    assert all(np.isnan(values[absent]).all() for values in whole.evidence.values())
    if whole.coefficients is not None:
        assert not whole.coefficients[absent].any()
        np.testing.assert_allclose(whole.coefficients[present], part.coefficients, atol=1e-12)


@settings(deadline=None)
@given(rules, seeds)
def test_coefficients_explain_the_vector_and_the_distances(rule, seed):
    rows, shares = draw(seed)
    combined = rule.combine(cohort_of(rows), shares)
    assert (combined.coefficients is not None) is rule.gives_coefficients
    if combined.coefficients is None:
        return
    np.testing.assert_allclose(combined.coefficients @ rows, combined.vector, atol=1e-12)
    np.testing.assert_allclose(
        combined.evidence["distance"], np.linalg.norm(rows - combined.vector, axis=1), atol=1e-6
    )
    if rule in EQUIVARIANT:
        assert combined.coefficients.sum() == pytest.approx(1)
        assert combined.coefficients.min() >= 0
    if not isinstance(rule, MoNNA):
        np.testing.assert_allclose(
            rule.coefficients(rows @ rows.T, 3 * shares), combined.coefficients, atol=1e-7
        )


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_shares_matter_to_the_rules_that_say_so_and_to_no_others(rule):
    moved = 0.0
    for seed in range(10):
        rows, shares = draw(seed)
        vector, equal = (rule.combine(cohort_of(rows), s).vector for s in (shares, np.ones(N)))
        moved = max(moved, np.abs(vector - equal).max())
    assert bool(moved > 1e-3) is rule.uses_shares


@settings(deadline=None)
@given(rules, seeds, st.floats(1, 4))
def test_two_of_twelve_cannot_carry_the_answer_off(rule, seed, decades):
    rows, _ = draw(seed)
    hostile = np.random.default_rng(seed).choice(np.setdiff1d(np.arange(N), 5), F, replace=False)
    rows[hostile] = 10**decades * np.random.default_rng(seed + 1).normal(size=(F, D))
    vector = rule.combine(cohort_of(rows), np.ones(N)).vector
    honest = np.delete(rows, hostile, axis=0)
    reach = np.linalg.norm(honest - honest.mean(0), axis=1).max()
    # The mean would be about 10^decades * 0.4 away.
    bound = (4 if rule in EQUIVARIANT else 6) * reach
    assert np.linalg.norm(vector - honest.mean(0)) < bound


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_unanimous_clients_get_what_they_say(rule):
    said = np.array([0.3, -0.2, 0.1, 0.7, -0.5])
    vector = rule.combine(cohort_of(np.tile(said, (N, 1))), np.ones(N)).vector
    np.testing.assert_allclose(vector, said, atol=1e-12)


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_blocks_lists_of_vectors_and_row_scales_change_nothing(rule):
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(N, 2 * BLOCK + 17)).astype(np.float32)
    scale = rng.uniform(0.5, 1, N)
    plain = rule.combine(cohort_of((rows * scale[:, None]).astype(np.float32)), np.ones(N)).vector
    scaled = rule.combine(cohort_of(list(rows)).scaled(scale), np.ones(N)).vector
    assert plain.dtype == scaled.dtype == np.float32
    assert np.linalg.norm(plain - scaled) < 1e-5 * np.linalg.norm(plain)


@pytest.mark.parametrize("rule", ALL, ids=repr)
@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries_give_the_same(rule, library):
    rows = draw(8)[0].astype(np.float32)
    module = pytest.importorskip(library)
    theirs = module.from_numpy(rows) if library == "torch" else module.numpy.asarray(rows)
    vector = rule.combine(cohort_of(theirs), np.ones(N)).vector
    assert type(vector) is np.ndarray
    np.testing.assert_allclose(vector, rule.combine(cohort_of(rows), np.ones(N)).vector, atol=2e-6)


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_a_vector_too_long_to_measure_is_refused_and_not_chosen(rule):
    rows = np.ones((N, D), np.float32)
    rows[3] = 1e30
    if not rule.gives_coefficients and not hasattr(rule, "then") and not isinstance(rule, Bulyan):
        assert np.isfinite(rule.combine(cohort_of(rows), np.ones(N)).vector).all()
        return
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(RoundError, match="1 of 12 vectors are too long"),
    ):
        rule.combine(cohort_of(rows), np.ones(N))


@pytest.mark.parametrize("rule", ALL, ids=repr)
def test_a_round_without_shares_is_refused(rule):
    with pytest.raises(RoundError, match="no client has a positive share"):
        rule.combine(cohort_of(draw(1)[0]), np.zeros(N))
