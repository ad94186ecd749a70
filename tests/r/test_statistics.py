"""Cox's model, summaries and elastic nets from R: the answers are Python's, and federations of both find what one table would say."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from pooled_in_r import off
from processes import Ledger
from rsite import RSite, evaluate, needs_r
from served import Served

from haina.artifact import load
from haina.federation.envelope import Envelope
from haina.federation.federation import Federation
from haina.learners.glm.cross_validation import folds_of
from haina.learners.learner import Training, Work
from haina.learners.summary.ladder import ladder
from haina.shards import Shards
from haina.strategy.parts import Aggregate
from haina.update import Failure

FILE = """\
name = "trial"
seed = 7
[model]
{model}
[data]
target = "died"
task = "regression"
features = ["time", "age", "dose", "sex", "ward"]
categorical = {{sex = ["F", "M"], ward = ["a", "b", "c", "d"]}}
missing = "drop"
test = 0
{more}
"""
COX = 'learner = "cox"\nformula = "Surv(time, died) ~ {terms}"\nties = "{ties}"'
NET = 'learner = "glm"\nfamily = "{family}"\nformula = "{outcome} ~ age + dose + sex * ward"\nalpha = 0.5\nn_lambda = 8\nfolds = 4'
SUMMARY = 'learner = "summary"\nkind = "{kind}"\n{more}'

MODELS = {
    "cox efron": COX.format(terms="age + sex * dose", ties="efron"),
    "cox breslow": COX.format(terms="age + I(dose^2)", ties="breslow"),
    "cox strata": COX.format(terms="strata(sex) + log(dose) + ward - 1", ties="efron"),
    "cox two strata": COX.format(terms="age + strata(sex, ward)", ties="breslow"),
    "cox order": COX.format(terms="dose:sex + sex + strata(ward)", ties="efron"),
    "describe": SUMMARY.format(kind="describe", more='columns = ["age", "time", "died"]'),
    "moments": SUMMARY.format(kind="describe", more="probabilities = []"),
    "quantiles": SUMMARY.format(kind="quantiles", more='columns = ["dose"]\nprobabilities = [0.0, 0.33, 1.0]\nmin_cell = 1'),
    "table": SUMMARY.format(kind="table", more='columns = ["ward"]'),
    "cross-table": SUMMARY.format(kind="table", more='columns = ["ward", "sex"]\nmin_cell = 3'),
    "histogram": SUMMARY.format(kind="histogram", more='columns = ["age"]\nbins = 5\nmin_cell = 1'),
    "breaks": SUMMARY.format(kind="histogram", more='columns = ["time"]\nbreaks = [0.5, 1.0, 2.5, 6]\nmin_cell = 1'),
    "correlation": SUMMARY.format(kind="correlation", more='columns = ["age", "dose", "died"]'),
    "auc": SUMMARY.format(kind="auc", more='columns = ["age"]\nbins = 40\nmin_cell = 1'),
    "auc of a factor": SUMMARY.format(kind="auc", more='columns = ["dose"]\noutcome = "sex"\nmin_cell = 1'),
    "cv binomial": NET.format(family="binomial", outcome="died"),
    "cv gaussian": NET.format(family="gaussian", outcome="time"),
}  # fmt: skip


def site(path, seed=3, rows=300, wards="abc"):
    """A table with tied times, missing cells and a level that it lacks."""
    rng = np.random.default_rng(seed)
    age, dose = rng.normal(55 + seed, 12, rows).round(1), rng.gamma(2, 2, rows).round(2) + 0.1
    sex, ward = rng.choice(list("FM"), rows), rng.choice(list(wards), rows)
    risk = np.exp(0.03 * (age - 60) + 0.4 * (sex == "M") - 0.3 * (ward == "b"))
    ends, left = rng.exponential(2 / risk), rng.exponential(4, rows)
    time, died = np.minimum(ends, left).round(1) + 0.1, (ends <= left).astype(int)
    lost = np.where(rng.random(rows) < 0.02, "NA", dose.astype(str))
    lines = [",".join(map(str, row)) for row in zip(time, died, age, lost, sex, ward, strict=True)]
    path.write_text("\n".join(["time,died,age,dose,sex,ward", *lines]) + "\n")
    return path


def told(folder, federation):
    """What a coordinator tells R: the brief and the columns."""
    envelope = Envelope.of(federation.learner.to_bytes(federation.learner.initial(0)))
    (folder / "brief.json").write_text(federation.brief(envelope))
    (folder / "columns.json").write_text(federation.schema.to_json())


# Where sex is F in all rows, read.csv takes it for FALSE.
CONFIG = (
    'b <- haina:::from_json(paste(readLines("brief.json", warn = FALSE), collapse = ""), "b"); '
    'config <- list(learner = b$learner, names = unlist(b$learner$coefficients), site = "a", seed = b$task$seed, '
    'columns = haina:::from_json(readLines("columns.json", warn = FALSE), "c")); d <- read.csv("rows.csv", colClasses = c(sex = "character")); '
    "train <- list(cox = haina::train_cox, summary = haina::train_summary, glm = haina::train_glm)[[b$learner$kind]]; "
)


def answered(federation, model, path, name="a"):
    """What Python's learner answers from the rows of a file."""
    x, y = federation.schema.read(str(path))
    shards = Shards((name,), x, y, np.array([[0, len(x)]]))
    (result,) = federation.learner.train(Work(model, 1, shards, Training(), 1.0, seed=federation.seed))
    return result


@pytest.mark.parametrize("case", MODELS)
def test_answers_are_pythons_in_every_round(tmp_path, case):
    needs_r()
    path, other = site(tmp_path / "rows.csv"), site(tmp_path / "other.csv", seed=4, wards="abcd")
    federation = Federation.of(FILE.format(model=MODELS[case], more=""))
    told(tmp_path, federation)
    server, model = federation.strategy.server, federation.learner.initial(0)
    state, finished, models, answers = server.init(model), False, [], []
    while not finished:
        own, others = answered(federation, model, path), answered(federation, model, other, "b")
        assert not isinstance(own, Failure), own.reason
        models.append(np.array(model, np.float64))
        answers.append(own)
        step = server.step(model, Aggregate(own.vector + others.vector, len(models)), state)
        model, state, finished = step.model, dict(step.state), step.finished
        assert len(models) < 60
    np.concatenate(models).tofile(tmp_path / "models")
    evaluate(
        f'{CONFIG} known <- matrix(read_vector("models"), ncol = {len(models)}); answer <- train(d); '
        "all <- lapply(seq_len(ncol(known)), function(k) { r <- answer(known[, k], config); c(r$n, r$params) }); "
        'write_vector(unlist(all), "answers")',
        tmp_path,
    )
    found = np.fromfile(tmp_path / "answers").reshape(len(models), -1)
    for row, answer in zip(found, answers, strict=True):
        assert row[0] == answer.report.examples
        assert row[1:].shape == answer.vector.shape
        assert np.allclose(row[1:], answer.vector, rtol=1e-12, atol=1e-12 * np.abs(answer.vector).max())


def test_rungs_are_pythons_bit_for_bit(tmp_path):
    needs_r()
    rng, most = np.random.default_rng(0), np.finfo(np.float64).max
    pairs = rng.integers(0, 2**64, (20_000, 2), dtype=np.uint64).view(np.float64)
    near = rng.normal(size=(5_000, 1)) * [1, 1 + 1e-14]
    ends = [
        [-0.0, 0.0],
        [0.0, -0.0],
        [-5e-324, 5e-324],
        [-most, most],
        [1.0, 1.0],
        [0.0, most],
        [-most, -0.0],
    ]
    pairs = np.sort(np.vstack([pairs[np.isfinite(pairs).all(axis=1)], near, ends]), axis=1)
    pairs.T.tofile(tmp_path / "pairs")
    evaluate(
        'b <- matrix(read_vector("pairs"), ncol = 2); write_vector(as.vector(haina:::ladder(b[, 1], b[, 2], 127)), "rungs")',
        tmp_path,
    )
    ours = ladder(pairs[:, 0], pairs[:, 1])
    assert (tmp_path / "rungs").read_bytes() == ours.T.tobytes()


#: Model, what becomes of a table of 300 rows, and words of the reason.
REFUSALS = {
    "cox of few rows": (MODELS["cox strata"], lambda d: d[:9], "fewer than 10 rows"),
    "cox of few events": (MODELS["cox strata"], lambda d: d.assign(died=[1] * 4 + [0] * 296), "fewer than 5 events"),
    "cox before birth": (MODELS["cox strata"], lambda d: d.assign(time=-1), "allowed: finite times >= 0"),
    "cox of other events": (MODELS["cox strata"], lambda d: d.assign(died=2), "events that are 0 (censored) or 1"),
    "folds": (MODELS["cv binomial"], lambda d: d[:39], "fewer than 44 rows, and 4 folds"),
    "cox of a rare level": (
        MODELS["cox strata"].replace("strata(ward)", "ward"),
        lambda d: d.assign(ward=["b"] * 3 + ["a"] * 297),
        "a level of its factors or outcomes has fewer than 5 rows",
    ),
    "folds of rare outcomes": (
        MODELS["cv binomial"],
        lambda d: d.assign(died=[1] * 19 + [0] * 281),
        'check = "sum"',
    ),
    "describe": (MODELS["describe"], lambda d: d[:9], "fewer than 10 rows"),
    "correlation": (MODELS["correlation"], lambda d: d[:1], "fewer than 10 rows"),
    "table": (MODELS["table"], lambda d: d.assign(ward=["b"] * 4 + ["a"] * 296), "0 or at least 5 rows. Merge levels"),
    "histogram": (
        MODELS["breaks"].replace("min_cell = 1", ""),
        lambda d: d.assign(time=[0.2] * 4 + [2] * 296),
        "a cell of its table has fewer than 5 rows",
    ),
    "auc": (MODELS["auc"], lambda d: d.assign(died=3), "allowed: outcomes 0 and 1"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_python_keeps_to_itself_r_keeps_too_and_in_the_same_words(tmp_path, case):
    needs_r()
    model, changed, words = REFUSALS[case]
    rows = pd.read_csv(site(tmp_path / "rows.csv", rows=350)).dropna()[:300]
    changed(rows).to_csv(tmp_path / "rows.csv", index=False)
    federation = Federation.of(FILE.format(model=model, more=""))
    told(tmp_path, federation)
    known = federation.learner.initial(0)
    known.tofile(tmp_path / "known")
    failure = answered(federation, known, tmp_path / "rows.csv")
    assert isinstance(failure, Failure)
    assert words in failure.reason
    said = evaluate(
        f"{CONFIG} cat(tryCatch({{ train(d)(read_vector('known'), config); 'answered' }}, error = haina:::reason_of))",
        tmp_path,
    )
    assert said == failure.reason


R, PYTHON = ("r1", "r2", "r3", "r4"), ("p1", "p2")
LIVE = {
    "glm": 'learner = "glm"\nfamily = "binomial"\nformula = "died ~ sex * age + dose + ward"',
    "net": 'learner = "glm"\nfamily = "binomial"\nformula = "died ~ age + dose + sex + ward"\nalpha = 0.5\nn_lambda = 25',
    "cox": 'learner = "cox"\nformula = "Surv(time, died) ~ sex * age + ward"',
    "describe": 'learner = "summary"\ncolumns = ["age", "dose", "time"]',
    "cv": 'learner = "glm"\nfamily = "binomial"\nformula = "died ~ age + dose + sex + ward"\nalpha = 0.5\nn_lambda = 25\nfolds = 3',
}
TRAINERS = "list(glm = train_glm(rows), net = train_glm(rows), cox = train_cox(rows), describe = train_summary(rows))"
#: What R says of one table with all rows; `fold` is what each site dealt.
POOLED = """
suppressMessages({ library(glmnet); library(survival) })
d <- do.call(rbind, lapply(c("r1", "r2", "r3", "r4", "p1", "p2"), function(s) cbind(na.omit(read.csv(paste0(s, ".csv"))), site = s)))
say <- function(name, values) write_vector(as.double(values), paste0("pooled-", name))
fit <- glm(died ~ sex * age + dose + ward, binomial, d, control = glm.control(epsilon = 1e-15, maxit = 100))
say("coef", coef(fit)); say("se", sqrt(diag(vcov(fit))))
x <- model.matrix(died ~ age + dose + sex + ward, d)[, -1]
net <- glmnet(x, d$died, family = "binomial", alpha = 0.5, nlambda = 25, thresh = 1e-14, maxit = 1e7)
say("lambda", net$lambda); say("path", rbind(net$a0, as.matrix(net$beta)))
cv <- cv.glmnet(x, d$died, family = "binomial", alpha = 0.5, foldid = read_vector("fold"), lambda = net$lambda, thresh = 1e-14, maxit = 1e7)
say("cvm", cv$cvm); say("chosen", c(cv$lambda.min, cv$lambda.1se))
cox <- coxph(Surv(time, died) ~ sex * age + ward + strata(site), d, control = coxph.control(eps = 1e-14, iter.max = 50, toler.chol = 1e-15))
say("cox", coef(cox)); say("coxse", sqrt(diag(vcov(cox))))
numbers <- d[c("age", "dose", "time")]
say("mean", sapply(numbers, mean)); say("sd", sapply(numbers, sd))
say("quantiles", sapply(numbers, quantile, c(0.05, 0.25, 0.5, 0.75, 0.95)))
"""


class House(Served):
    """One coordinator of several federations, and what each has found."""

    def __init__(self, folder, federations):
        first, *others = federations
        for name in others:
            (folder / f"{name}.toml").write_text(federations[name].text)
        super().__init__(folder, federations[first].text, args=[f"{name}.toml" for name in others])
        self.ledger, self.sites = Ledger(folder / "state" / "coordinator.sqlite"), []

    def found(self, name, federation):
        """The finding of a federation that has ended, from the model and the state that its coordinator keeps."""
        (kept,) = self.ledger.rows(
            "SELECT sha256, state_sha256 FROM model WHERE federation = ? ORDER BY version DESC LIMIT 1", name
        )
        model, state = (
            load(next((self.folder / "state" / "blobs").rglob(sha256)).read_bytes())[0] for sha256 in kept
        )
        server = {
            key.removeprefix("server/"): value for key, value in state.items() if key.startswith("server/")
        }
        (known,) = model.values()
        return federation.found(SimpleNamespace(model=known, state=SimpleNamespace(parts={"server": server})))

    def close(self):
        for site in self.sites:
            site.kill()
        super().close()


@pytest.mark.slow
def test_r_and_python_sites_find_what_one_table_says(tmp_path):
    """Four R processes and two Python nodes, over mutual TLS: a regression, an elastic net, its cross-validation, Cox's model and a description."""
    needs_r("glmnet", "survival")
    more = "[train]\nrounds = 100\n[serve]\nnodes = 6\n"
    federations = {
        name: Federation.of(FILE.format(model=model, more=more).replace('"trial"', f'"{name}"'))
        for name, model in LIVE.items()
    }
    for place, name in enumerate((*R, *PYTHON)):
        site(tmp_path / f"{name}.csv", seed=place, rows=100 + 15 * place, wards="abcd"[: 3 + place % 2])
    house = House(tmp_path, federations)
    try:
        for name in federations:
            for who in (*R, *PYTHON):
                house.haina("invite", f"{name}-{who}", "--federation", name)
        for who in R:
            # One process takes part in one after the other.
            before = (
                f'rows <- read.csv("{who}.csv"); trainers <- {TRAINERS}\n'
                f'for (name in names(trainers)) join(paste0(name, "-{who}.invite"), trainers[[name]])'
            )
            house.sites.append(RSite(f"cv-{who}", "train_glm(rows)", tmp_path, before=before).start())
        nodes = [
            house.join(f"{name}-{who}.invite", "--data", f"{who}.csv")
            for name in federations
            for who in PYTHON
        ]
        assert [one.ends(150) for one in house.sites] == [0] * 4, house.sites[0].text()
        assert [node.wait(30) for node in nodes] == [0] * 10
        found = {name: house.found(name, federation) for name, federation in federations.items()}
        rosters = house.ledger.rows("SELECT record FROM round WHERE state = 'closed'")
    finally:
        house.close()
    assert all(len(json.loads(record)["clients"]) == 6 for (record,) in rosters)

    rows = {who: len(pd.read_csv(tmp_path / f"{who}.csv").dropna()) for who in (*R, *PYTHON)}
    fold = np.concatenate([folds_of(7, f"cv-{who}", count, 3) for who, count in rows.items()])
    fold.astype(float).tofile(tmp_path / "fold")
    (tmp_path / "pooled.R").write_text(POOLED)
    evaluate('source("pooled.R")', tmp_path)

    def theirs(name):
        return np.fromfile(tmp_path / f"pooled-{name}")

    assert found["glm"].converged
    assert off(found["glm"].coefficients, theirs("coef")) < 1e-8
    assert off(found["glm"].standard_errors, theirs("se")) < 1e-6
    assert off(found["net"].lambdas, theirs("lambda")) < 1e-12
    assert off(found["net"].path.ravel(), theirs("path")) < 1e-5
    assert off(found["cv"].choice.mean, theirs("cvm")) < 1e-6
    chosen = found["cv"].lambdas[[found["cv"].choice.least, found["cv"].choice.sparest]]
    assert off(chosen, theirs("chosen")) < 1e-12
    assert off(found["cox"].coefficients, theirs("cox")) < 1e-8
    assert off(found["cox"].standard_errors, theirs("coxse")) < 1e-8
    columns = found["describe"].to_json()["columns"]
    assert off([one["mean"] for one in columns], theirs("mean")) < 1e-12
    assert off([one["sd"] for one in columns], theirs("sd")) < 1e-12
    assert (
        off([list(one["quantiles"].values()) for one in columns], theirs("quantiles").reshape(3, -1)) < 1e-12
    )
