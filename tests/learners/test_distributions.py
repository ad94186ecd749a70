import math

import pytest
from scipy import stats

from haina.learners.distributions import chi_squared_tail, normal_quantile, normal_tails, student_tails


@pytest.mark.parametrize("freedom", [1, 2, 3, 7.5, 30, 99, 101, 1e4])
@pytest.mark.parametrize("t", [0.1, 0.5, 1, 1.96, 3, 8, 37])
def test_students_t(t, freedom):
    assert student_tails(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-11)
    assert student_tails(-t, freedom) == student_tails(t, freedom)


def test_students_t_in_closed_form():
    # One degree of freedom is Cauchy's; with two, P(|T| > t) = 1 - t / sqrt(2 + t^2).
    assert student_tails(1.0, 1) == pytest.approx(0.5, rel=1e-14)
    assert student_tails(1e-6, 1) == pytest.approx(1 - 2 / math.pi * math.atan(1e-6), rel=1e-15)
    assert student_tails(3.0, 2) == pytest.approx(1 - 3 / math.sqrt(11), rel=1e-13)
    assert student_tails(0.0, 5) == 1
    assert student_tails(math.inf, 5) == 0
    assert math.isnan(student_tails(1.0, 0))


@pytest.mark.parametrize("freedom", [1, 2, 5, 30, 300])
@pytest.mark.parametrize("x", [0.1, 1, 5, 20, 100, 300, 900])
def test_chi_squared(x, freedom):
    assert chi_squared_tail(x, freedom) == pytest.approx(stats.chi2.sf(x, freedom), rel=1e-10)
    assert chi_squared_tail(x, 2) == pytest.approx(math.exp(-x / 2), rel=1e-12)


def test_normal():
    assert normal_tails(1.959963984540054) == pytest.approx(0.05, rel=1e-12)
    assert normal_tails(-3.0) == normal_tails(3.0)
    assert normal_quantile(0.975) == pytest.approx(1.959963984540054, rel=1e-14)
