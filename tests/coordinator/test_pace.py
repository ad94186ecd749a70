import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.coordinator.pace import ENOUGH, Pace


def test_everybody_is_invited_and_needed_unless_said_otherwise():
    pace = Pace()
    assert (pace.wanted(8), pace.invited(8), pace.enough(8)) == (8, 8, 8)


@pytest.mark.parametrize(
    ("quorum", "wanted", "enough"),
    [(0.7, 10, 7), (0.75, 5, 4), (1.0, 3, 3), (0.01, 3, 1), (2, 5, 2), (9, 5, 5), (0, 5, 1)],
)
def test_a_quorum_is_a_number_or_a_share(quorum, wanted, enough):
    assert Pace(quorum=quorum).enough(wanted) == enough


def test_over_selection_invites_more_and_waits_for_the_first():
    pace = Pace(cohort=10, over_selection=1.3)
    assert (pace.wanted(100), pace.invited(100)) == (10, 13)
    assert (pace.wanted(11), pace.invited(11)) == (10, 11)
    assert (pace.wanted(4), pace.invited(4)) == (4, 4)


def test_a_buffer_wants_its_size_however_few_are_there():
    assert Pace(buffered=True, cohort=10).wanted(3) == 10


@given(st.lists(st.floats(0, 1e5), max_size=30), st.floats(1, 100), st.floats(100, 1e4))
def test_an_adaptive_deadline_stays_within_its_bounds(durations, shortest, longest):
    pace = Pace(deadline=None, shortest=shortest, longest=longest)
    seconds = pace.seconds(durations)
    assert shortest <= seconds <= longest
    if len(durations) < ENOUGH:
        assert seconds == longest


def test_an_adaptive_deadline_follows_the_cohort():
    slow = Pace(deadline=None, shortest=1, longest=1e4)
    assert slow.seconds([30.0] * 9) == pytest.approx(60.0)
    assert slow.seconds([3.0] * 9) == pytest.approx(6.0)
    assert Pace(deadline=45.0).seconds([3.0] * 9) == 45.0


def test_rounds_by_schedule_keep_to_it():
    pace = Pace(every=300)
    assert pace.due(opened=0, closed=0, now=0, first=True)
    assert not pace.due(opened=1000, closed=1010, now=1299, first=False)
    assert pace.due(opened=1000, closed=1010, now=1300, first=False)
    assert Pace().due(opened=1000, closed=1010, now=1010, first=False)
