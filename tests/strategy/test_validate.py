import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import StrategyError
from haina.report import Report
from haina.strategy.parts import Payload
from haina.strategy.validate import AdaptiveClip, FixedClip, MedianClip, refusal, squared_norm
from haina.update import BLOCK, Update

NORMS = st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=9).map(np.array)


def refused(vector, payload=Payload.AVERAGE, dimension=3, **report):
    return refusal(Update("a", np.asarray(vector), Report(**{"examples": 10, **report})), dimension, payload)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4"])
def test_finite_vectors_of_the_right_length_take_part(dtype):
    assert refused(np.array([1, 0, -2], dtype)) is None


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        (np.zeros(2), r"shape \(2,\) where \(3,\)"),
        (np.zeros(0), r"shape \(0,\)"),
        (np.zeros((3, 1)), r"shape \(3, 1\)"),
        (np.float32(1), r"shape \(\)"),
        (np.zeros(3, int), "dtype int64"),
        (np.zeros(3, bool), "dtype bool"),
        (np.zeros(3, complex), "dtype complex128"),
        (np.array(["a", "b", "c"]), "dtype <U1"),
        (np.array([None, 1.0, 2.0]), "dtype object"),
        ([1.0, np.nan, np.inf], "coordinate 1 "),
        ([1.0, 2.0, -np.inf], "coordinate 2 "),
    ],
)
def test_what_is_no_usable_vector_is_named(vector, words):
    reason = refused(vector)
    assert reason is not None
    assert words.replace("\\", "") in reason


@pytest.mark.parametrize("bad", [0, BLOCK - 1, BLOCK, 2 * BLOCK + 3])
def test_one_bad_number_is_found_wherever_it_lies(bad):
    vector = np.zeros(2 * BLOCK + 5, np.float32)
    vector[bad] = np.nan
    assert refused(vector, dimension=len(vector)) == f"coordinate {bad} of the update is not a finite number"


def test_an_impossible_report_is_refused_before_the_vector_is_looked_at():
    assert refused([np.nan] * 3, examples=-1).startswith("the report is impossible: examples is -1")
    assert refused([0.0] * 3, accuracy=np.nan) == "the report is impossible: accuracy is not a finite number"


def test_collected_documents_are_bytes_of_any_length():
    assert refused(np.zeros(99, np.uint8), Payload.COLLECT) is None
    assert "bytes" in refused(np.zeros(3), Payload.COLLECT)
    assert "bytes" in refused(np.zeros(0, np.uint8), Payload.COLLECT)
    assert "shape" in refused(np.zeros((2, 2), np.uint8), Payload.COLLECT)


@pytest.mark.parametrize("d", [1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_norms_are_measured_in_float64(d):
    vector = np.random.default_rng(d).normal(size=d).astype(np.float32)
    assert squared_norm(vector) == pytest.approx(float((vector.astype(np.float64) ** 2).sum()), rel=1e-12)
    # 1e30 squared is beyond float32.
    assert squared_norm(np.full(d, 1e30, np.float32)) == pytest.approx(d * 1e60, rel=1e-6)


@given(NORMS, st.floats(0.01, 1e3))
def test_a_fixed_limit_is_never_exceeded_and_short_updates_are_left_alone(norms, limit):
    clip = FixedClip(limit)
    scales = clip.scales(norms, clip.init())
    assert ((scales > 0) & (scales <= 1)).all()
    assert (norms * scales <= limit * (1 + 1e-12)).all()
    assert (scales[norms <= limit] == 1).all()
    np.testing.assert_allclose((norms * scales)[norms > limit], limit, rtol=1e-12)


@given(NORMS)
def test_the_median_limit_follows_the_cohort(norms):
    clip = MedianClip(1.5)
    scales = clip.scales(norms, clip.init())
    median = np.median(norms)
    assert ((scales > 0) & (scales <= 1)).all()
    if median > 0:
        np.testing.assert_allclose(norms * scales, np.minimum(norms, 1.5 * median), rtol=1e-12)
    else:
        assert (scales == 1).all()


def test_the_adaptive_limit_moves_as_published():
    clip = AdaptiveClip(quantile=0.5, start=1.0, rate=0.2)
    state = clip.init()
    # All three are longer than C: b = 0, so C <- C exp(-0.2 (0 - 0.5)) = e^0.1 (Andrew et al. 2021, sec. 2).
    state = clip.update(np.array([2.0, 3.0, 4.0]), state)
    assert float(state["limit"]) == pytest.approx(np.exp(0.1))
    state = clip.update(np.array([0.1, 0.2, 0.3]), state)
    assert float(state["limit"]) == pytest.approx(1.0)
    np.testing.assert_allclose(clip.scales(np.array([0.5, 4.0]), state), [1.0, 0.25])
    assert clip.update(np.array([]), state) is state


@pytest.mark.parametrize("quantile", [0.3, 0.8])
def test_the_adaptive_limit_settles_at_the_quantile(quantile):
    rng, clip = np.random.default_rng(0), AdaptiveClip(quantile, start=100.0)
    state = clip.init()
    limits = []
    for _ in range(600):
        state = clip.update(rng.uniform(0, 10, 50), state)
        limits.append(float(state["limit"]))
    assert np.mean(limits[-300:]) == pytest.approx(10 * quantile, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (FixedClip, {"max_norm": 0.0}),
        (FixedClip, {"max_norm": -1.0}),
        (FixedClip, {"max_norm": np.nan}),
        (FixedClip, {"max_norm": np.inf}),
        (MedianClip, {"multiple": 0.0}),
        (AdaptiveClip, {"start": 0.0}),
        (AdaptiveClip, {"rate": -0.2}),
        (AdaptiveClip, {"quantile": 0.0}),
        (AdaptiveClip, {"quantile": 1.0}),
        (AdaptiveClip, {"quantile": np.nan}),
    ],
)
def test_impossible_limits_are_refused(kind, settings):
    (name, value) = next(iter(settings.items()))
    with pytest.raises(StrategyError, match=f"{name} is {value}"):
        kind(**settings)
