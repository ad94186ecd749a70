"""R sites and Python nodes in federations of real processes whose updates are only ever seen as sums."""

import json

import numpy as np
import pytest
from processes import Ledger, wait
from rsite import RSite, evaluate, needs_r
from served import GLM, Served

from haina.artifact import load

pytestmark = pytest.mark.slow

R, PYTHON = ("r1", "r2", "r3"), ("p1", "p2", "p3")
#: A site that is killed when it is asked for a step of a round.
DIES = """\
local({{
  kept <- haina:::take_step
  utils::assignInNamespace("take_step", function(site, step) {{
    if (step$round == {round} && step$stage == "{stage}") tools::pskill(Sys.getpid(), 9L)
    kept(site, step)
  }}, "haina")
}})
"""
NET = """\
name = "noisy"
seed = 7
[model]
learner = "jax"
kind = "logistic"
[data]
shape = [2]
classes = ["no", "yes"]
[train]
rounds = 2
learning_rate = 0.1
[serve]
nodes = 3
deadline = "60s"
[privacy]
secure_aggregation = {{ dropout = 0.0, patience = "20s" }}
{privacy}
"""
#: A vector that is always the same, as an increment.
STEP = "function(params, config) list(params = params + seq_along(params) / 100, n = 50)"


class House(Served):
    """A coordinator, and R sites beside its Python nodes."""

    def __init__(self, *args, **more):
        needs_r()
        super().__init__(*args, **more)
        self.ledger, self.sites = Ledger(self.folder / "state" / "coordinator.sqlite"), {}

    def r(self, name, train=None, **options):
        self.sites[name] = RSite(name, train or f'train_glm(read.csv("{name}.csv"))', self.folder, **options)
        return self.sites[name].start()

    def close(self):
        for site in self.sites.values():
            site.kill()
        super().close()

    def model(self, version="DESC"):
        ((sha256,),) = self.ledger.rows(f"SELECT sha256 FROM model ORDER BY version {version} LIMIT 1")
        data = next((self.folder / "state" / "blobs").rglob(sha256)).read_bytes()
        return np.concatenate([tensor.ravel() for tensor in load(data)[0].values()])

    def logs(self):
        return "\n".join(f"--- {name}\n{site.text()[-1500:]}" for name, site in self.sites.items())


@pytest.fixture
def house(tmp_path):
    made = []

    def make(text, **more):
        made.append(House(tmp_path, text, **more))
        return made[-1]

    yield make
    for one in made:
        print(one.log[-2000:], one.logs())
        one.close()


def pooled(folder, names):
    files = ", ".join(f'"{name}.csv"' for name in names)
    said = evaluate(
        f"d <- do.call(rbind, lapply(c({files}), read.csv)); "
        'fit <- glm(readmitted == "yes" ~ age + stay, binomial, d, control = glm.control(epsilon = 1e-14)); '
        'cat(sprintf("%.17g", coef(fit)), sep = "\\n")',
        folder,
    )
    return np.array([float(word) for word in said.split()])


def test_a_regression_of_six_hospitals_sees_none_of_them(house):
    """Three R sites and three Python nodes; in round 2 an R site is killed when its keys were taken, and started again. Only sums are seen."""
    text = GLM.format(rounds=25, nodes=6) + (
        'quorum = 4\ndeadline = "30s"\n[privacy]\nsecure_aggregation = { dropout = 0.34, patience = "5s" }\n'
    )
    trial = house(text)
    trial.invited(*R, *PYTHON)
    for name in R:
        trial.r(name, before=DIES.format(round=2, stage="share") if name == "r2" else "")
    nodes = [trial.join(f"{name}.invite", "--data", f"{name}.csv") for name in PYTHON]
    assert trial.sites["r2"].ends(60) == -9
    wait(lambda: trial.ledger.closed >= 2, "round 2 is over without it", 60)
    trial.sites["r2"].start()
    assert [site.ends(100) for site in trial.sites.values()] == [0] * 3, trial.logs()
    assert [node.wait(30) for node in nodes] == [0] * 3
    rounds = trial.ledger.rows(
        "SELECT number, state, reason, record, opened, closed FROM round ORDER BY number"
    )
    assert all(row[1] == "closed" for row in rounds), [row[:3] for row in rounds]
    verdicts = [
        {client["client"]: client["verdict"] for client in json.loads(row[3])["clients"]} for row in rounds
    ]
    assert set(verdicts[0]) == {*R, *PYTHON}
    assert set(verdicts[0].values()) == {"admitted"}
    assert {name for name, verdict in verdicts[1].items() if verdict != "admitted"} == {"r2"}
    print("seconds of rounds:", [round(row[5] - row[4], 2) for row in rounds])
    assert set(verdicts[-1].values()) == {"admitted"}
    assert np.abs(trial.model() - pooled(trial.folder, (*R, *PYTHON))).max() < 1e-8
    # Nothing was uploaded that could be read: words of 64 bits, and a report that says nothing.
    sent = trial.ledger.rows("SELECT node, codec, report FROM contribution WHERE status = 'accepted'")
    assert {node for node, *_ in sent} == {*R, *PYTHON}
    assert {codec for _, codec, _ in sent} == {"masked64"}
    assert {(report["examples"], report["steps"]) for report in (json.loads(row[2]) for row in sent)} == {
        (1, 1)
    }
    examples = dict(trial.ledger.rows("SELECT name, examples FROM node WHERE role = 'node'"))
    assert set(examples.values()) == {1}
    # Each site wrote down, before anything left, for which round that was.
    used = [
        json.loads(line)
        for line in (trial.folder / "haina-node-r1" / "privacy.jsonl").read_text().splitlines()
    ]
    assert [line["used"]["round"] for line in used] == list(range(1, len(rounds) + 1))
    assert not trial.ledger.rows("SELECT 1 FROM sealed")


def test_noise_of_all_hides_the_sum_and_is_charged_before_it_leaves(house):
    """Distributed noise: three R sites cover their sum together, and R's own ledger says the same as the coordinator's."""
    privacy = (
        'noise = "distributed"\nclip = 1.0\nbudget = { epsilon = 8.0, delta = 1e-3 }\nmax_examples = 100'
    )
    trial = house(NET.format(privacy=privacy))
    trial.invited(*R)
    for name in R:
        trial.r(name, STEP, join=", examples = 50")
    assert [site.ends(100) for site in trial.sites.values()] == [0] * 3, trial.logs()
    rounds = trial.ledger.rows("SELECT number, state, reason FROM round ORDER BY number")
    assert [row[:2] for row in rounds] == [(1, "closed"), (2, "closed")], (rounds, trial.logs())
    own = [
        json.loads(line)
        for line in (trial.folder / "haina-node-r1" / "privacy.jsonl").read_text().splitlines()
    ]
    once = ["charge", "used", "released"]
    assert [next(iter(line)) for line in own] == ["budget", *once, *once]
    charged = sum(line["charge"]["rho"] for line in own if "charge" in line)
    ((spent,),) = trial.ledger.rows("SELECT rho FROM budget_part WHERE owner = 'r1'")
    assert charged == pytest.approx(float(spent), rel=1e-12)
    # The sum of three vectors, each weighing 50 / 100, has noise of a standard deviation of about z; the mean of a round is that over 1.5, or
    # over a weight that noise blurs too, and that is at least 0.15.
    moved = trial.model() - trial.model("ASC")
    noise = np.abs(moved - 2 * np.arange(1, len(moved) + 1) / 100)
    z = 1 / np.sqrt(charged)
    assert (noise > 1e-6).all()
    assert noise.max() < 2 * 6 * z / 0.15


def test_a_site_whose_owner_allows_less_stops_when_that_is_spent(house):
    """Local noise on updates in the clear, and an owner's budget for one round of two."""
    text = NET.format(privacy='noise = "local"\nmechanism = {laplace = 2.0}\nclip = 1.0')
    text = text.replace('secure_aggregation = { dropout = 0.0, patience = "20s" }\n', "").replace(
        "nodes = 3", "nodes = 2\nquorum = 1"
    )
    text = text.replace('deadline = "60s"', 'deadline = "8s"')
    trial = house(text)
    trial.invited("r1", "r2")
    trial.r("r1", STEP, join=", budget = 3, examples = 50")
    trial.r("r2", STEP, join=", examples = 50")
    assert trial.sites["r2"].ends(120) == 0, trial.logs()
    assert trial.sites["r1"].ends(30) == 0, trial.logs()
    refused = trial.ledger.rows("SELECT round, node, reason FROM contribution WHERE status = 'failed'")
    assert refused == [(2, "r1", "the privacy budget of this site is spent")]


def test_a_person_of_r_is_told_what_its_key_is_and_keeps_those_of_others(house):
    trial = house(GLM.format(rounds=25, nodes=3) + "[privacy]\nsecure_aggregation = true\n")
    trial.invited("r1", "p1", "p2")
    site = trial.r("r1")
    nodes = [trial.join(f"{name}.invite", "--data", f"{name}.csv") for name in ("p1", "p2")]
    assert site.ends(120) == 0, trial.logs()
    assert [node.wait(30) for node in nodes] == [0, 0]
    pins = json.loads((trial.folder / "haina-node-r1" / "peers.json").read_text())
    assert set(pins) == {"r1", "p1", "p2"}
    assert f"the key of this site in secure sums, for the other sites: {pins['r1']}" in site.text()
    for name in ("p1", "p2"):
        seen = json.loads((trial.folder / f"haina-node-{name}" / "peers.json").read_text())
        assert seen == pins
    wait(lambda: trial.ledger.state == "finished", "the federation has ended", 10)
