from dataclasses import replace

from haina.monitoring.history import Quarantine, quarantines
from haina.monitoring.story import explain_run
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict


def conduct(*verdicts):
    return [
        RoundRecord(i, Outcome.STEPPED, (ClientRecord("m", verdict, 0.0),))
        for i, verdict in enumerate(verdicts, 1)
    ]


def test_a_run_is_told_word_for_word(by_hand):
    assert explain_run(by_hand).split("\n")[:-1] == [
        "5 rounds with 6 clients in 2.5 s.",
        "Accuracy went from 50.0% (round 1) to 95.0% (round 5).",
        "It reached 90% in round 2, and was below it in 1 later round.",
        "Loss went from 1 (round 1) to 0.2 (round 5).",
        "1 round kept the old model: 4 (the server's step gave a model that is not finite).",
        "On average 2.75 of 6 invited clients shaped a round, worth 2.0 equal clients.",
        "Quarantined: 1 client, 0 to the end",
        "  mallory: from round 3, released in round 5",
        "Damped, 1 time in all: mallory (1×).",
        "On probation, 1 time in all: mallory (1×).",
        "Refused, 5 times in all: emil (5×); because coordinate 3 of the update is not a finite number.",
        "Failed, 5 times in all: dora (5×); because out of memory.",
        "Absent, 5 times in all: clara (5×).",
        "Decided, arbiter: robust (3×) and mean (2×).",
    ]


def test_absence_is_no_release():
    q, a, away, refused = Verdict.QUARANTINED, Verdict.ADMITTED, Verdict.ABSENT, Verdict.REFUSED
    assert quarantines(conduct(a, q, away, refused, q, a, a, q, away)) == [
        Quarantine("m", 2, 6),
        Quarantine("m", 8, None),
    ]


def test_a_second_stay_is_told():
    told = explain_run(conduct(Verdict.QUARANTINED, Verdict.ADMITTED, Verdict.QUARANTINED))
    assert "  m: from round 1, released in round 2, again from round 3, not released" in told


def test_clients_with_the_same_fate_share_a_line():
    clients = tuple(ClientRecord(f"m{i}", Verdict.QUARANTINED, 0.0) for i in range(6))
    told = explain_run([RoundRecord(1, Outcome.STEPPED, clients)])
    assert (
        "Quarantined: 6 clients, 6 to the end\n  m0, m1, m2, m3 and 2 more: from round 1, not released"
        in told
    )


def test_a_run_with_trust_and_no_quarantine_says_so(by_hand, by_strategy):
    assert "Nobody was put in quarantine." in explain_run(by_hand[:2])
    assert "quarantine" not in explain_run(by_strategy())


def test_a_threshold_that_is_not_reached(by_hand):
    assert "It did not reach 99%." in explain_run(by_hand, threshold=0.99)


def test_runs_that_are_not_evaluated_say_so(by_hand):
    assert "No round was evaluated." in explain_run([replace(record, metrics={}) for record in by_hand])


def test_the_commonest_reason_of_failure_is_given():
    rounds = [
        RoundRecord(i, Outcome.KEPT, (ClientRecord("m", Verdict.FAILED, 0.0, reason=reason),))
        for i, reason in enumerate(("no disk", "no memory", "no memory"), 1)
    ]
    assert "Failed, 3 times in all: m (3×); most often because no memory." in explain_run(rounds)
