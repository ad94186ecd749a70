"""`haina budget` and `haina audit` as they are typed."""

import json
import time

import pytest
from command import haina as called

from haina.node.ledger import NodeLedger
from haina.privacy.budget import Budget, Charge

FILE = """
name = "private"
[model]
learner = "jax"
kind = "logistic"
[data]
source = "sklearn:iris"
partition = {iid = {clients = 10}}
[train]
rounds = 3
[strategy]
weigh = ["uniform"]
[privacy]
noise = "central"
clip = 0.5
mechanism = {laplace = {epsilon = 0.5}}
budget = {epsilon = 1.0}
"""


@pytest.fixture
def haina(capsys, monkeypatch, tmp_path):
    """The command line, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        return called(capsys, monkeypatch, *args)

    return call


@pytest.fixture
def run(haina, tmp_path):
    (tmp_path / "federation.toml").write_text(FILE)
    assert haina("run", "--quiet").code == 0
    return tmp_path


def test_what_a_run_has_spent(haina, run):
    shown = haina("budget", "runs/private")
    assert shown.code == 0, shown.err
    assert "client-000" in shown.out
    assert "100.0%" in shown.out
    assert "Laplace noise (epsilon 0.5)" in shown.err
    told = json.loads(haina("budget", "show", "runs/private", "--json").out)
    assert len(told["budgets"]) == 10
    assert {budget["spent_epsilon"] for budget in told["budgets"]} == {1.0}
    assert len(told["charges"]) == 20
    assert {charge["round"] for charge in told["charges"]} == {1, 2}
    assert len((run / "runs/private/rounds.jsonl").read_text().splitlines()) == 2


def test_the_page_for_the_privacy_officer(haina, run):
    audit = haina("audit", "--canaries", "30", "--inversion", "--out", "runs/private/audit.json")
    assert audit.code == 3, audit.err  # a model of 15 parameters has room for 15 canaries in L1
    assert "claimed epsilon" in audit.out
    assert "measured lower bound" in audit.out
    assert "verdict" in audit.out
    done = haina("budget", "export", "runs/private", "--out", "privacy.html")
    assert done.out.strip() == "privacy.html"
    page = (run / "privacy.html").read_text()
    assert "canaries" in page
    assert "client-009" in page
    assert haina("budget", "export", "runs/private", "--out", "p.json").code == 0
    assert json.loads((run / "p.json").read_text())["audits"][0]["canaries"] == 15
    refused = haina("budget", "export", "runs/private", "--out", "p.pdf")
    assert refused.code == 2
    assert ".html or .json" in refused.err


def test_an_audit_that_cannot_tell_is_no_success(haina, tmp_path):
    (tmp_path / "federation.toml").write_text(FILE)
    few = haina("audit", "--canaries", "8", "--json")
    assert few.code == 3
    assert json.loads(few.out)["verdict"] == "not enough canaries to tell"
    assert f"--seed {json.loads(few.out)['seed']}" in few.err
    (tmp_path / "open.toml").write_text(FILE.split("[privacy]")[0])
    unpromised = haina("audit", "open.toml", "--canaries", "8")
    assert unpromised.code == 3
    assert "nothing is promised" in unpromised.out


def test_a_finding_of_another_federation_is_no_finding_of_this_one(haina, run):
    (run / "other.json").write_text('{"federation": "other", "verdict": "holds"}')
    refused = haina("budget", "export", "runs/private", "--out", "p.html", "--audit", "other.json")
    assert refused.code != 0
    assert "of the federation other" in refused.err
    assert "Allowed: private" in refused.err


def test_a_plan(haina):
    plan = haina("budget", "plan", "--epsilon", "8", "--rounds", "200", "--sampling", "0.05", "--json")
    told = json.loads(plan.out)
    assert told["noise_multiplier"] == pytest.approx(0.787, abs=2e-3)
    assert told["epsilon_by_pld"] <= 8.0
    laplace = haina(
        "budget",
        "plan",
        "--epsilon",
        "4",
        "--rounds",
        "8",
        "--mechanism",
        "laplace",
        "--composition",
        "pure",
        "--json",
    )
    assert json.loads(laplace.out)["epsilon"] == 4.0
    assert json.loads(laplace.out)["epsilon_of_one_round"] == 0.5
    for words, way in (
        (("--epsilon", "8", "--rounds", "2", "--mechanism", "salt"), "discrete_laplace"),
        (("--epsilon", "8", "--rounds", "2", "--composition", "zcdp", "--sampling", "0.1"), "pld"),
        (("--epsilon", "8", "--rounds", "2", "--composition", "pure"), "laplace"),
        (("--epsilon", "-1", "--rounds", "2"), "0.0001 or more"),
    ):
        refused = haina("budget", "plan", *words)
        assert refused.code in (1, 2), refused.out
        assert way in refused.err


def test_a_sites_own_ledger(haina, tmp_path):
    with NodeLedger(tmp_path / "privacy.sqlite", time.time) as ledger:
        ledger.open(Budget("hospital-a", "patients", 4.0, 1e-6, "zcdp"))
        ledger.reserve(
            [Charge("f/1/x", "hospital-a", "patients", "*", "f", 1, "Gaussian noise", None, 0.0, 0.01)]
        )
    shown = haina("budget", str(tmp_path))
    assert "hospital-a" in shown.out
    assert "patients" in shown.out
    assert json.loads(haina("budget", str(tmp_path), "--json").out)["charges"][0]["state"] == "reserved"


def test_no_folder_and_no_coordinator(haina):
    missing = haina("budget")
    assert missing.code == 3
    assert haina("budget", "nowhere").code == 4


def test_what_cannot_be_audited_says_so(haina, tmp_path):
    (tmp_path / "federation.toml").write_text(
        FILE[: FILE.index("[strategy]")].replace('learner = "jax"\nkind = "logistic"', 'learner = "forest"')
    )
    refused = haina("audit")
    assert refused.code == 2
    assert "--shadows" in refused.err


def test_whatever_was_sent_is_on_the_page_also_where_the_rule_passed_over_it(haina, tmp_path):
    """Krum makes its model of one update; the others had left their clients all the same."""
    noisy = FILE.replace('"central"', '"local"').replace(
        "budget = {epsilon = 1.0}", "budget = {epsilon = 8.0}"
    )
    (tmp_path / "federation.toml").write_text(noisy.replace("[privacy]", 'combine = "krum"\n[privacy]'))
    assert haina("run", "--quiet").code == 0
    told = json.loads(haina("budget", "show", "runs/private", "--json").out)
    assert len(told["charges"]) == 30
    assert {budget["spent_epsilon"] for budget in told["budgets"]} == {1.5}
