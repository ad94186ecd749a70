"""The `rscript` learner against live R: what a script may do wrong, and what becomes of it."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import suppress

import numpy as np
import psutil
import pytest
from rlang import require_r

from haina.errors import LearnerError
from haina.learners.learner import Training, Work
from haina.learners.r.coefficients import Coefficients
from haina.learners.r.home import Columns
from haina.learners.r.learner import RLearner
from haina.learners.r.script import RScript
from haina.shards import Shards
from haina.update import Failure, Update

MODEL = Coefficients(("(Intercept)", "age", "stay"))
RNG = np.random.default_rng(5)
X = RNG.normal(size=(90, 2))
Y = RNG.integers(0, 2, 90)


@pytest.fixture
def home(tmp_path):
    """Make the home of a script, and end its process."""
    require_r("jsonlite")
    made = []

    def make(text, **options):
        (tmp_path / "train.R").write_text(textwrap.dedent(text), encoding="utf-8")
        options = {"model": MODEL, "columns": Columns(("age", "stay"), ("no", "yes")), **options}
        made.append(RScript(tmp_path, "train.R", **options))
        return made[-1]

    yield make
    for one in made:
        one.process.close()


def shards(*sizes, x=X, y=Y):
    ends = np.cumsum(sizes)
    names = tuple("ABCDEFGH"[: len(sizes)])
    return Shards(names, x, y, np.column_stack([ends - sizes, ends]))


def work(some=None, model=None, round=1, **training):
    model = np.zeros(3) if model is None else model
    return Work(model, round, shards(90) if some is None else some, Training(**training), 0.1, seed=7)


def trained(home, *args, **training):
    return list(RLearner("rscript", home, home.model, 2).train(work(*args, **training)))


def failed(home, *args):
    (result,) = trained(home, *args)
    assert isinstance(result, Failure), result
    return result.reason


#: Does what `config$settings$do` says on client A, and answers 1, 2, 3 for others.
DOES = """
train <- function(params, data, config) {
  if (config$client == "A") %s
  list(params = c(1, 2, 3))
}
"""
TWO = shards(50, 40)


def test_a_round_trip_is_exact(home):
    some = home("""
        train <- function(params, data, config) list(params = params)
        predict <- function(params, x, config) x[, 1]
    """)
    odd = np.array([0.1 + 0.2, 5e-324, -1.7976931348623157e308])
    answer = some.train(odd, X, Y, {"seed": 1})
    np.testing.assert_array_equal(answer.params, odd)
    np.testing.assert_array_equal(some.predict(odd, X, {}), X[:, 0])


def test_what_a_script_is_given(home):
    """Rows as a matrix with names, class numbers and names, and the round in words."""
    some = home("""
        train <- function(params, data, config) {
          stopifnot(identical(colnames(data$x), c("age", "stay")), identical(dim(data$x), c(90L, 2L)))
          stopifnot(identical(data$classes, c("no", "yes")), identical(names(params), config$names))
          stopifnot(config$client == "A", config$round == 3, config$learning_rate == 0.1, config$steps == 6)
          stopifnot(config$settings$lambda == 0.25, config$settings$words == c("a", "b"))
          list(params = c(sum(data$y), data$x[90, 2], params[["age"]]), n = 80, metrics = list(auc = 1/3, accuracy = 0.9))
        }
    """)
    learner = RLearner("rscript", some, MODEL, 2, {"lambda": 0.25, "words": ["a", "b"]})
    (result,) = learner.train(work(model=np.array([0.0, 4.0, 0.0]), round=3, epochs=2))
    assert isinstance(result, Update), result
    np.testing.assert_array_equal(result.vector, [Y.sum(), X[89, 1] - 4.0, 4.0])
    assert (result.report.examples, dict(result.report.extra)) == (80, {"auc": 1 / 3})
    assert result.report.accuracy is None


def test_measured_numbers_go_up_when_asked_for(home):
    some = home(
        "train <- function(params, data, config) list(params = params, metrics = list(loss_after = 0.25))"
    )
    (result,) = trained(some, measure=frozenset({"loss_after", "label_counts"}))
    assert (result.report.loss_after, result.report.label_counts) == (0.25, tuple(np.bincount(Y)))


def test_printing_is_harmless(home, capfd):
    some = home(
        DOES % '{ print(1:3); cat("cat\\n"); message("msg"); warning("beware"); system("echo shell") }'
    )
    results = trained(some, TWO)
    assert [result.vector.tolist() for result in results] == [[1, 2, 3], [1, 2, 3]]
    out, err = capfd.readouterr()
    assert out == ""
    for words in ("[1] 1 2 3", "cat\n", "msg", "beware", "shell"):
        assert words in err


@pytest.mark.parametrize(
    ("does", "reason"),
    [
        (
            'stop("the table of ward 7 is locked")',
            "its R script stopped (train): the table of ward 7 is locked",
        ),
        (
            'sapply(1, function(i) stop("in a loop", call. = FALSE))',
            "its R script stopped (train): in a loop",
        ),
        ("return(list(params = c(1, NA, 3)))", "params[2] (age) is NA, and every number must be finite"),
        ("return(list(params = c(1, 2, -Inf)))", "params[3] (stay) is infinite, and"),
        ("return(list(params = c(NaN, 2, 3)))", "params[1] ((Intercept)) is NaN, and"),
        ("return(list(params = c(1, 2)))", "params has 2 numbers, and the model has 3"),
        ('return(list(params = c("1", "2", "3")))', "params is of type character, and must be numeric"),
        (
            "return(c(1, 2, 3))",
            "train() returned numeric without params; allowed: list(params = , n = , metrics = )",
        ),
        (
            "return(list(params = c(stay = 1, age = 2, `(Intercept)` = 3)))",
            "the names of the model in another order",
        ),
        ("return(list(params = 1:3, n = 0))", "n must be one number > 0"),
        ('return(list(params = 1:3, metrics = list(auc = "high")))', "metrics must be named single numbers"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words_and_the_process_lives(does, reason, home):
    some = home(DOES % does)
    failure, update = trained(some, TWO)
    assert isinstance(failure, Failure)
    assert reason in failure.reason
    assert update.vector.tolist() == [1, 2, 3]
    before = some.process.pid
    trained(some, TWO)
    assert some.process.pid == before


def test_what_r_says_of_data_stays_at_home(home, capfd):
    """A package's message may hold a cell; it goes to the log and not to the coordinator."""
    some = home(DOES % '{ f <- factor("x", levels = "y"); match.arg("Zhang Wei", c("ward", "bed")) }')
    reason = failed(some, shards(90))
    assert (
        reason == "its R script stopped (train) in match.arg(); what R said is in the log of its own machine"
    )
    capfd.readouterr()
    some = home(DOES % 'as.Date("Zhang Wei")')
    assert "Zhang" not in failed(some, shards(90))
    some = home(DOES % 'get("Zhang Wei")')
    assert "Zhang" not in failed(some, shards(90))
    assert "object 'Zhang Wei' not found" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("does", "how"),
    [
        ('quit("no", 3L)', "its R process ended (exit status 3, 2 times on the same call)"),
        ("tools::pskill(Sys.getpid(), 9)", "its R process ended (signal 9, 2 times on the same call)"),
        (
            '{ system("sleep 60 &"); quit("no", 3L) }',
            "its R process ended (exit status 3, 2 times on the same call)",
        ),
    ],
)
def test_a_process_that_ends_is_started_again(does, how, home):
    some = home(DOES % does)
    begun = time.monotonic()
    failure, update = trained(some, TWO)
    assert time.monotonic() - begun < 5
    assert failure.reason == how
    assert update.vector.tolist() == [1, 2, 3]


@pytest.mark.parametrize("does", ["repeat {}", "Sys.sleep(60)", 'system("sleep 60")'])
def test_an_endless_script_is_ended_with_all_that_it_started(does, home):
    some = home(DOES % does, timeout=1.0)
    some.process.start()
    group = some.process.pid
    begun = time.monotonic()
    failure, update = trained(some, TWO)
    assert time.monotonic() - begun < 5
    assert failure.reason == "its R script did not answer within 1 s and was ended"
    assert update.vector.tolist() == [1, 2, 3]
    assert some.process.pid != group
    assert members(group) == []


def members(group):
    """Processes of a group that are alive."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_a_kill_between_rounds_is_not_noticed(home):
    some = home(DOES % "1")
    trained(some)
    os.kill(some.process.pid, signal.SIGKILL)
    (update,) = trained(some)
    assert update.vector.tolist() == [1, 2, 3]


def test_an_impossible_allocation_is_an_error_of_one_round(home):
    some = home(DOES % "numeric(5e11)")
    failure, update = trained(some, TWO)
    assert "its R script stopped (train)" in failure.reason
    assert update.vector.tolist() == [1, 2, 3]


def test_rows_are_handed_over_once(home):
    """The second round's message is small, however many rows there are; and the process holds no more than its room."""
    sums = "train <- function(params, data, config) list(params = c(sum(data$x), sum(data$y), nrow(data$x)))"
    some, three = home(sums), shards(40, 30, 20)
    sent = []
    exchange = some.process.exchange
    some.process.exchange = lambda header, *rest: (sent.append(header["call"]), exchange(header, *rest))[1]
    for _ in range(3):
        for k, result in enumerate(trained(some, three)):
            x, y = three.of(k)
            np.testing.assert_allclose(result.vector, [x.sum(), y.sum(), len(x)], rtol=1e-12)
    assert [call for call in sent if call != "begin"] == ["rows", "train"] * 3 + ["train"] * 6
    small = home(sums, room=8 * 3 * 70)
    for _ in range(2):
        for k, result in enumerate(trained(small, three)):
            np.testing.assert_allclose(result.vector[0], three.of(k)[0].sum(), rtol=1e-12)
    assert sum(small.process.held.values()) <= 8 * 3 * 70


def test_the_seed_makes_random_numbers_repeatable(home):
    text = "train <- function(params, data, config) list(params = c(rnorm(1), runif(1), sample(1000, 1)))"
    first, second = (trained(home(text), TWO) for _ in range(2))
    assert [r.vector.tolist() for r in first] == [r.vector.tolist() for r in second]
    assert first[0].vector.tolist() != first[1].vector.tolist()
    # Nor does it matter who trained before.
    alone = trained(home(text), TWO.take([1]))
    assert alone[0].vector.tolist() == first[1].vector.tolist()


def test_a_million_coefficients_go_and_come_in_half_a_second(home):
    some = home(
        "train <- function(params, data, config) list(params = params + 1)",
        model=Coefficients(size=1_000_000),
    )
    params, taken = RNG.normal(size=1_000_000), []
    for _ in range(6):
        begun = time.monotonic()
        answer = some.train(params, X, Y, {"seed": 1})
        taken.append(time.monotonic() - begun)
        np.testing.assert_array_equal(answer.params, params + 1)
    print(f"a round of 1e6 coefficients: {sorted(taken[1:])[2] * 1e3:.0f} ms")
    assert sorted(taken[1:])[2] < 0.5


def test_evaluation_is_the_scripts_own_or_from_its_predictions(home):
    base = "train <- function(params, data, config) list(params = params)\n"
    some = home(base + "predict <- function(params, x, config) plogis(drop(cbind(1, x) %*% params))")
    learner, beta = RLearner("rscript", some, MODEL, 2), np.array([0.1, 1.0, -0.5])
    p = 1 / (1 + np.exp(-(beta[0] + X @ beta[1:])))
    metrics = learner.evaluate(beta, X, Y)
    assert metrics.loss == pytest.approx(-np.mean(np.log(np.where(Y, p, 1 - p))), abs=1e-14)
    assert metrics.accuracy == np.mean((p > 0.5) == Y)
    np.testing.assert_allclose(learner.predict(beta, X)[:, 1], p, atol=1e-15)
    own = home(base + "evaluate <- function(params, data, config) list(loss = mean(data$y), auc = 0.5)")
    metrics = RLearner("rscript", own, MODEL, 2).evaluate(beta, X, Y)
    assert (metrics.loss, metrics.accuracy, metrics.extra) == (Y.mean(), None, {"auc": 0.5})
    none = RLearner("rscript", home(base), MODEL, 2)
    assert none.evaluate(beta, X, Y) is None
    with pytest.raises(LearnerError, match="nothing here predicts"):
        none.predict(beta, X)


def test_without_the_script_or_r_there_is_no_evaluation(tmp_path, monkeypatch):
    home = RScript(tmp_path, "train.R", MODEL, Columns(("age", "stay")))
    learner = RLearner("rscript", home, MODEL)
    assert learner.evaluate(np.zeros(3), X, Y) is None
    with pytest.raises(LearnerError, match=r"there is no file .*train\.R"):
        list(learner.train(work()))
    (tmp_path / "train.R").write_text("train <- function(params, data, config) list(params = params)")
    monkeypatch.setenv("PATH", "/nowhere")
    assert learner.evaluate(np.zeros(3), X, Y) is None
    with pytest.raises(LearnerError, match="Rscript is not on the PATH"):
        list(learner.train(work()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train <- function(", "unexpected end of input"),
        ("train <- 3", "defines no function train"),
        ('stop("no key file here")', "no key file here"),
        ("quit('no', 5L)", "exit status 5"),
    ],
)
def test_a_script_that_cannot_begin_says_why(text, words, home):
    with pytest.raises(LearnerError, match=words):
        trained(home(text))


@pytest.mark.parametrize(
    "name", ["../train.R", "/etc/train.R", "a/b.R", "train.py", "", "https://evil/x.R", ".R", "-e.R"]
)
def test_a_file_cannot_name_a_script_elsewhere(name, tmp_path):
    with pytest.raises(LearnerError, match="script is"):
        RScript(tmp_path, name, MODEL, Columns(()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "neither names nor size"),
        ({"names": ("a", "a")}, "occurs twice"),
        ({"names": ("a",), "size": 2}, "size is 2, and there are 1 names"),
        ({"size": -1}, "-1 coefficients"),
        ({"size": 2, "start": (1.0,)}, "initial has 1 numbers"),
        ({"size": 1, "start": (float("inf"),)}, "not finite"),
    ],
)
def test_a_model_that_contradicts_itself_is_refused(options, words):
    with pytest.raises(LearnerError, match=words):
        Coefficients(**options)


def test_without_jsonlite_r_says_what_to_install(home, monkeypatch):
    some = home("train <- function(params, data, config) list(params = params)")
    for name in ("R_LIBS", "R_LIBS_SITE", "R_LIBS_USER"):
        monkeypatch.setenv(name, "/nowhere")
    with pytest.raises(LearnerError, match="the R package jsonlite is not installed"):
        trained(some)


OWNER = """
import sys, time, numpy as np
sys.path[:0] = {path!r}
from pathlib import Path
from haina.learners.r.coefficients import Coefficients
from haina.learners.r.home import Columns
from haina.learners.r.script import RScript
home = RScript(Path({folder!r}), "train.R", Coefficients(size=1), Columns(("a",)))
home.process.start()
print(home.process.pid, flush=True)
home.train(np.zeros(1), np.zeros((2, 1)), np.zeros(2), {{"seed": 1}})
"""


def test_r_dies_with_its_parent_even_in_an_endless_loop(tmp_path):
    require_r("jsonlite")
    (tmp_path / "train.R").write_text("train <- function(...) repeat {}")
    code = OWNER.format(path=sys.path, folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as owner:
        group = int(owner.stdout.readline())
        time.sleep(0.3)
        assert members(group)
        owner.kill()
    deadline = time.monotonic() + 5
    while members(group):
        assert time.monotonic() < deadline
        time.sleep(0.02)
