import json

import pytest

from haina.monitoring.privacy import Statement, page, told
from haina.wire.messages import BudgetInfo, ChargeInfo

BUDGETS = [
    BudgetInfo(owner="a", epsilon=8, delta=1e-5, composition="zcdp", spent_epsilon=2, fraction=0.1),
    BudgetInfo(
        owner="b", dataset="<b>patients</b>", epsilon=1, composition="pure", spent_epsilon=0.9, fraction=0.9
    ),
]
CHARGES = [
    ChargeInfo(
        id=f"f/{k}/a",
        owner="a",
        federation="f",
        round=k,
        mechanism="Gaussian noise",
        rho=0.01,
        state="released",
        at=1e9,
    )
    for k in range(1, 4)
] + [
    ChargeInfo(
        id="f/4/a",
        owner="a",
        federation="f",
        round=4,
        mechanism="m",
        rho=0.01,
        state="void",
        why="never <sent>",
    )
]
FINDING = {
    "claimed": 1.7, "delta": 1e-5, "estimate": 7.1, "estimate_low": 5.0, "estimate_high": 9.0, "lower_bound": 2.3, "reach": 4.0,
    "confidence": 0.95, "canaries": 500, "canaries_in": 250, "alarm": True, "verdict": "violated", "rounds": 50, "clients": 30, "mechanism": "x",
    "membership": {"LiRA": {"auc": 0.61, "tpr_at_1_percent": 0.05}}, "inversion": {"likeness_plain": 1.0},
}  # fmt: skip


def test_the_page_says_whose_what_and_how_much():
    text = page(Statement("wards", ["No update is seen."], BUDGETS, CHARGES, [FINDING], 1e9))
    for words in (
        "No update is seen.",
        "Gaussian noise",
        "90.0%",
        "The promise is broken",
        "2001-09-09",
        "likeness 1.00",
        "AUC 0.610",
    ):
        assert words in text
    # What others wrote is text, and the most spent comes first.
    assert "<b>patients" not in text
    assert "&lt;b&gt;patients" in text
    assert "never &lt;sent&gt;" in text
    assert text.index("&lt;b&gt;patients") < text.index("zcdp")
    assert "<script" not in text
    assert "Content-Security-Policy" in text


def test_an_empty_page_says_that_nothing_is_promised():
    text = page(Statement("wards", [], [], []))
    assert "Nothing: updates are sent as they are" in text
    assert "No budget was opened" in text
    assert "haina audit" in text


def test_the_same_as_json():
    statement = Statement("wards", ["p"], BUDGETS, CHARGES, [FINDING], 1.0)
    again = json.loads(json.dumps(statement.to_json()))
    assert again["budgets"][1]["fraction"] == 0.9
    assert len(again["charges"]) == 4
    assert again["audits"] == [FINDING]


@pytest.mark.parametrize(
    "verdict", ["holds", "violated", "nothing is promised", "not enough canaries to tell"]
)
def test_every_verdict_has_a_sentence(verdict):
    text = page(Statement("w", [], [], [], [{"verdict": verdict}]))
    assert f"<strong>{verdict}" not in text


def test_findings_are_sentences():
    lines = told({**FINDING, "claimed": None, "estimate": None})
    assert any("nothing is promised" in line for line in lines)
    assert all(line.endswith(".") for line in lines)
