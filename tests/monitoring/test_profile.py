import json

import pytest

from haina.monitoring.profile import COLUMNS, LAPS, Profile
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict

CLIENTS = (
    ClientRecord("a", Verdict.ADMITTED),
    ClientRecord("b", Verdict.REFUSED),
    ClientRecord("c", Verdict.ABSENT),
    ClientRecord("d", Verdict.FAILED),
)


def record(number, train, **cost):
    timing = {"select": 0.01, "train": train, "combine": 0.02, "evaluate": 0.0, "save": 0.01}
    timing["total"] = sum(timing.values())
    return RoundRecord(number, Outcome.STEPPED, CLIENTS, timing=timing, cost=cost)


def test_the_first_round_stands_apart_and_one_slow_round_does_not_move_the_median():
    trains = [9.0, 0.16, 0.16, 0.16, 2.0, 0.16]
    records = [
        record(k, train, cpu_seconds=2 * train, peak_memory_mb=100.0 + k, workers=2, busy_seconds=1.5 * train)
        for k, train in enumerate(trains, 1)
    ]
    profile = Profile.of(records)
    train = profile.laps["train"]
    assert (profile.rounds, profile.workers, profile.memory) == (6, 2, 106.0)
    assert (train.first, train.median, train.low) == pytest.approx((9.0, 0.16, 0.16))
    assert 0.16 < train.high < 2.0
    assert train.share == pytest.approx(2.64 / 2.84)
    assert sum(profile.laps[name].share for name in LAPS) == pytest.approx(1)
    assert profile.cpu.median == pytest.approx(0.32)
    # Two of the four were trained: one was refused after it had been.
    assert profile.updates.median == pytest.approx(2 / 0.2)
    assert profile.waiting.median == pytest.approx(0.25)
    rows = profile.rows()
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert rows[1][1:3] == ("9.0 s", "160 ms")
    assert rows[-1][0] == "waiting of 2 workers"
    assert json.loads(json.dumps(profile.to_json())) == profile.to_json()


def test_one_round_and_records_without_costs_are_told_as_far_as_they_go():
    one = Profile.of([record(1, 0.5)])
    assert one.total.first == pytest.approx(0.54)
    assert (one.total.median, one.laps["train"].share, one.memory, one.workers) == (None, None, None, 1)
    bare = Profile.of([RoundRecord(k, Outcome.KEPT, ()) for k in (1, 2, 3)])
    assert bare.cpu.median is None
    assert all("–" in row[2] for row in bare.rows())
