import json

from haina.monitoring.history import best
from haina.monitoring.summary import summary
from haina.monitoring.table import COLUMNS, round_row
from haina.strategy.record import Outcome, RoundRecord


def test_summary_of_a_run(by_hand):
    assert summary(by_hand) == {
        "rounds": 5,
        "kept": 1,
        "accuracy": 0.95,
        "best_accuracy": 0.95,
        "best_round": 5,
        "loss": 0.2,
        "model_sha256": f"{5:064x}",
        "seconds": 2.5,
        "effective_clients": 2.0,
        "verdicts": {
            "admitted": 11,
            "damped": 1,
            "probation": 1,
            "quarantined": 2,
            "refused": 5,
            "failed": 5,
            "absent": 5,
        },
        "quarantined": [],
    }
    assert summary(by_hand[:4])["quarantined"] == ["mallory"]


def test_summary_is_plain_json_also_before_the_first_round(by_strategy):
    assert json.loads(json.dumps(summary([])))["rounds"] == 0
    told = summary(by_strategy())
    assert json.loads(json.dumps(told)) == told
    assert told["verdicts"] == {"admitted": 28, "refused": 4, "failed": 4, "absent": 4}


def test_the_best_round_is_the_earliest_of_the_most_accurate_or_least_loss():
    def rounds(name, *values):
        return [RoundRecord(i, Outcome.STEPPED, (), metrics={name: v}) for i, v in enumerate(values, 1)]

    assert best(rounds("accuracy", 0.5, 0.9, 0.9)) == (2, 0.9)
    assert best(rounds("loss", 3.0, 1.0, 1.0, 2.0)) == (2, 1.0)
    assert best([]) is None


def test_rows_of_the_table(by_hand):
    assert len(COLUMNS) == len(round_row(by_hand[0]).cells())
    assert round_row(by_hand[1]).cells() == (
        "2", "92.0%", "0.5", "3/6", "1", "", "1", "1", "1", "2.0", "0.50 s",
    )  # fmt: skip
    assert round_row(by_hand[3]).cells() == (
        "4 (kept)", "–", "–", "0/6", "", "1", "1", "1", "1", "2.0", "0.50 s",
    )  # fmt: skip


def test_rows_count_who_shaped_the_model(by_strategy):
    assert round_row(by_strategy("krum")[-1]).shaped == 1
    assert round_row(by_strategy("median")[-1]).shaped == 7
