import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haina.errors import RunError
from haina.monitoring.explain import explain_client, explain_round
from haina.monitoring.story import explain_run
from haina.strategy.record import ClientRecord, Outcome, RoundRecord, Verdict


def one_round(*clients, **more):
    return RoundRecord(4, Outcome.STEPPED, clients, **more)


def test_the_sentence_about_a_quarantined_client():
    seven = ClientRecord(
        "client-007",
        Verdict.QUARANTINED,
        0.012,
        0.031,
        factors={"trust": 0.4},
        evidence={"cosine": -0.83, "trust": 0.31},
    )
    assert explain_client(seven, one_round(seven), since=4) == (
        "client-007 counts 1.2% (prior 3.1%): its update points away from the others (cosine -0.83); "
        "trust 0.31, quarantined from this round on"
    )
    later = replace(one_round(seven), round=9)
    assert explain_client(seven, later, since=4).endswith("trust 0.31, quarantined since round 4")


def test_a_round_is_explained_word_for_word(by_hand):
    assert explain_round(by_hand, 3).split("\n")[:-1] == [
        "Round 3 made a new model: accuracy 85.0% (-7.0 points), loss 0.333.",
        "2 of 6 invited clients shaped it, worth 2.0 equal clients.",
        "Largest shares",
        "  anna counts 60.0% (prior 50.0%): 500 examples; trust 0.90",
        "  boris counts 40.0% (prior 25.0%): 250 examples; trust 0.80",
        "In quarantine (1)",
        "  mallory counts 0% (prior 25.0%): its update points away from the others (cosine -0.83), and those "
        "before were longer than trusted ones (deviation 2.50); consistency 0.20; trust 0.20, quarantined from this round on",
        "Left out (3)",
        "  emil: refused, coordinate 3 of the update is not a finite number",
        "  dora: failed, out of memory",
        "  clara: absent, no update arrived",
        "Decided: arbiter: robust.",
    ]


def test_words_that_are_used_are_explained_and_no_others(by_hand):
    words = explain_round(by_hand, 3).split("\n")[-1]
    assert words.startswith("Words: prior: the share before trust and the combining rule; ")
    assert all(
        f"{word}: " in words for word in ("cosine", "deviation", "consistency", "trust", "quarantined")
    )
    assert "Krum" not in words
    assert "probation" not in words


def test_a_kept_round_says_why_and_since_when(by_hand):
    lines = explain_round(by_hand, 4).split("\n")
    assert lines[:2] == [
        "Round 4 kept the old model: the server's step gave a model that is not finite.",
        "3 of 6 invited clients sent a usable update.",
    ]
    assert "trust 0.10, quarantined since round 3" in lines[3]


def test_accuracy_is_compared_with_the_last_evaluated_round(by_hand):
    first = explain_round(by_hand).split("\n")[0]
    assert first == "Round 5 made a new model: accuracy 95.0% (+10.0 points), loss 0.2."


def test_a_real_round_of_multikrum_names_the_outlier(by_strategy):
    told = explain_round(by_strategy("multikrum"))
    (outlier,) = [line for line in told.split("\n") if line.startswith("  c6 counts")]
    assert outlier.startswith(
        "  c6 counts 0% (prior 25.0%): the combining rule chose other updates; its update lies "
    )
    assert "times as far off as is usual" in outlier
    assert "times as long as is usual (norm 7.31)" in outlier


def test_clients_whom_the_rule_leaves_little_are_weighed_down_though_admitted(by_strategy):
    records = by_strategy("nnm")
    six = next(client for client in records[-1].clients if client.client == "c6")
    assert six.verdict is Verdict.ADMITTED
    assert "  c6 counts 0.1% (prior 25.0%): the combining rule left it little" in explain_round(records)


def test_rules_without_shares_say_so(by_strategy):
    told = explain_round(by_strategy("median"))
    assert "7 of 10 invited clients shaped it" in told
    assert "no client has one share in it" in told
    assert "Largest shares" not in told


def test_equal_shares_are_one_line():
    clients = [ClientRecord(f"c{i}", Verdict.ADMITTED, 0.1, 0.1, factors={"uniform": 1.0}) for i in range(10)]
    assert "10 clients count the same: 10.0% each." in explain_round([one_round(*clients)])


def test_factors_are_said_in_words_and_unknown_evidence_is_shown():
    admitted = ClientRecord(
        "c1",
        Verdict.ADMITTED,
        0.6,
        0.6,
        factors={"samples": 12345.0, "accuracy": 1.25, "link": 1.0, "zeal": 2.0},
    )
    damped = ClientRecord("c2", Verdict.DAMPED, 0.4, 0.4, evidence={"novelty": 3.14159, "lost": None})
    told = explain_round([one_round(admitted, damped)])
    assert "  c1 counts 60.0% (prior 60.0%): 12,345 examples; accuracy ×1.25; zeal ×2" in told
    assert "  c2 counts 40.0% (prior 40.0%): novelty = 3.14; damped" in told
    assert "lost" not in told


def test_a_record_read_from_disk_is_explained_alike(by_hand, by_strategy):
    for records in (by_hand, by_strategy("multikrum"), by_strategy("median")):
        stored = [RoundRecord.from_json(json.loads(json.dumps(record.to_json()))) for record in records]
        assert explain_round(stored) == explain_round(records)
        assert explain_run(stored) == explain_run(records)


def test_a_round_that_is_not_there(by_hand):
    with pytest.raises(RunError, match=r"round 9 is not in this run. Allowed: 1 to 5"):
        explain_round(by_hand, 9)
    with pytest.raises(RunError, match="no round has closed"):
        explain_round([])


numbers = st.none() | st.floats(allow_nan=True, allow_infinity=True)
clients = st.builds(
    ClientRecord,
    client=st.text(max_size=60),
    verdict=st.sampled_from(Verdict),
    share=st.none() | st.floats(0, 1),
    prior=st.none() | st.floats(0, 1),
    factors=st.dictionaries(st.sampled_from(["samples", "accuracy", "trust", "\x1b[2J"]), numbers),
    evidence=st.dictionaries(
        st.sampled_from(["cosine", "distance", "krum_score", "deviation", "x\n"]), numbers
    ),
    norm=st.none() | st.floats(0, 1e30),
    reason=st.text(max_size=300),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rounds=st.lists(
        st.tuples(
            st.lists(clients, max_size=60, unique_by=lambda client: client.client),
            st.sampled_from(Outcome),
            st.dictionaries(st.text(max_size=5), st.text(max_size=90), max_size=9),
            st.dictionaries(st.sampled_from(["accuracy", "loss"]), st.floats()),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_run_is_told_in_few_printable_lines(rounds):
    records = [
        RoundRecord(i, outcome, tuple(clients), reason="r\x07", decisions=decisions, metrics=metrics)
        for i, (clients, outcome, decisions, metrics) in enumerate(rounds, 1)
    ]
    for told in (explain_round(records), explain_run(records)):
        assert len(told.split("\n")) <= 25
        assert all(line.isprintable() for line in told.split("\n"))
