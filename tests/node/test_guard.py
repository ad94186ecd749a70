"""What a site counts for itself, where single rows are protected: the coordinator does not know how many there are."""

import itertools

import pytest

from haina.errors import ConfigError, PrivacyError
from haina.learners.dpsgd import spent
from haina.learners.learner import Training
from haina.node.guard import Guard, Wishes
from haina.privacy.policy import Allowance, Policy, Rows

TRAINING = Training(epochs=2, batch_size=16, example_clip=1.0, example_noise=1.1)


def guard(folder, epsilon, wishes=None):
    policy = Policy(allowance=Allowance(epsilon, 1e-5, "zcdp"), rounds=5, rows=Rows(1.0, 1.1))
    clock = itertools.count(1).__next__
    made = Guard(policy, "wards", "site-a", folder, wishes or Wishes(), clock, training=TRAINING)
    made.rows = 200
    return made


def test_all_rounds_are_one_charge_of_what_they_cost_a_row(tmp_path):
    site = guard(tmp_path, 20.0)
    for number in (1, 2, 3):
        assert site.refusal(number) is None
        site.begin(number)
        site.left(number)
    (charge,) = site._ledger.charges("site-a", "")
    assert charge.epsilon == pytest.approx(spent(200, 16, TRAINING.steps_of(200), 5, 1.1, 1e-5))
    assert charge.state == "reserved"
    assert "beyond the 5 that were paid for" in str(site.refusal(6))
    with pytest.raises(PrivacyError, match="already"):
        site.begin(3)
    site.close()


def test_an_owners_own_budget_counts_rows_too(tmp_path):
    site = guard(tmp_path, 20.0, Wishes(15.0, 1e-5))
    assert site.refusal(1) is None
    site.begin(1)
    (charge,) = site._ledger.charges()
    assert charge.epsilon == pytest.approx(spent(200, 16, TRAINING.steps_of(200), 5, 1.1, 1e-5))
    site.close()
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(ConfigError, match="has no delta") as refused:
        guard(other, 20.0, Wishes(0.001))
    assert "--delta" in refused.value.remedy


def test_a_site_takes_no_part_where_that_is_too_much(tmp_path):
    site = guard(tmp_path, 0.5)
    assert "the privacy budget of this site is spent" in str(site.refusal(1))
    with pytest.raises(PrivacyError, match="spent"):
        site.begin(1)
    site.close()
