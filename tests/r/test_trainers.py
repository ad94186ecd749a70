"""The sums that R sends are the sums that Python sends, row for row; and what an R site must not send it does not."""

import json

import numpy as np
import pytest
from rsite import evaluate, needs_r

from haina.federation.envelope import Envelope
from haina.federation.federation import Federation

FILE = """\
name = "trial"
[model]
learner = "glm"
family = "{family}"
{model}
[data]
target = "y"
task = "regression"
features = ["age", "sex", "dose"]
categorical = {{sex = ["f", "m", "x"]}}
test = 0
"""
LEVELS = np.array(["f", "m", "x"])


def rows(folder, family, count=400):
    """A table with a level that this site lacks, and what Python reads of it."""
    rng = np.random.default_rng(7)
    age, dose, sex = rng.normal(50, 15, count), rng.gamma(2, 2, count), LEVELS[rng.integers(0, 2, count)]
    eta = 0.3 + 0.01 * (age - 50) - 0.1 * dose + 0.5 * (sex == "m")
    y = {
        "gaussian": lambda: eta + rng.normal(size=count),
        "binomial": lambda: (rng.random(count) < 1 / (1 + np.exp(-eta))).astype(float),
        "poisson": lambda: rng.poisson(np.exp(eta)).astype(float),
    }[family]()
    lines = [
        f"{v!r},{a!r},{s},{d!r}"
        for v, a, s, d in zip(y.tolist(), age.tolist(), sex, dose.tolist(), strict=True)
    ]
    (folder / "rows.csv").write_text("\n".join(["y,age,sex,dose", *lines]) + "\n")


def told(folder, federation):
    """What a coordinator tells R: the brief and the columns."""
    envelope = Envelope.of(federation.learner.to_bytes(federation.learner.initial(0)))
    (folder / "brief.json").write_text(federation.brief(envelope))
    (folder / "columns.json").write_text(federation.schema.to_json())


CONFIG = (
    'b <- haina:::from_json(paste(readLines("brief.json", warn = FALSE), collapse = ""), "b"); '
    "config <- list(learner = b$learner, names = unlist(b$learner$coefficients), "
    'columns = haina:::from_json(readLines("columns.json", warn = FALSE), "c")); '
    'd <- read.csv("rows.csv", colClasses = c("numeric", "numeric", "character", "numeric")); '
)


@pytest.mark.parametrize("family", ["gaussian", "binomial", "poisson"])
@pytest.mark.parametrize(
    "model", ["", "intercept = false", 'formula = "y ~ sex * log(dose) + I(age^2) + offset(dose)"']
)
def test_sums_are_pythons(tmp_path, family, model):
    needs_r()
    if "offset" in model and family == "binomial":
        model = model.replace(" + offset(dose)", "")
    rows(tmp_path, family)
    federation = Federation.of(FILE.format(family=family, model=model))
    told(tmp_path, federation)
    learner = federation.learner
    x, y = federation.schema.read(str(tmp_path / "rows.csv"))
    beta = np.linspace(0.01, -0.02, len(learner.initial(0)))
    beta.tofile(tmp_path / "beta")
    evaluate(
        CONFIG + f'fit <- train_glm(d, family = "{family}"); r <- fit(read_vector("beta"), config); '
        'stopifnot(r$n == 400, attr(fit, "examples") == 400); write_vector(r$params, "sums")',
        tmp_path,
    )
    sums = learner.sums(beta, x, y)
    wanted, found = sums.pack(), np.fromfile(tmp_path / "sums")
    assert found.shape == wanted.shape
    assert np.allclose(found, wanted, rtol=1e-11, atol=1e-11 * np.abs(wanted).max())


def test_a_formula_of_the_network_is_read_and_not_run(tmp_path):
    needs_r()
    said = evaluate(
        'bad <- c("y ~ system(\\"touch owned\\")", "y ~ x + get(\\"T\\")", "y ~ (function() 1)()", "y ~ base::system(1)", "y ~ x$y", "~ x", '
        '"y ~ x; 1", "y ~ `system`(1)", "y ~ I({x})", "y ~ x[1]", "y ~ \\"x\\"", strrep("(", 3000)); '
        'for (text in bad) { r <- tryCatch(haina:::safe_formula(text), haina_error = function(e) "refused"); cat(identical(r, "refused"), "") }; '
        'f <- haina:::safe_formula("log(y + 1) ~ a + factor(b):c + I(a^2) + offset(a) - 1"); cat(class(f), "")',
        tmp_path,
    )
    assert said.split() == ["TRUE"] * 12 + ["formula"]
    assert not (tmp_path / "owned").exists()


def test_what_would_show_single_rows_stays(tmp_path):
    """Few rows, strange levels, missing values, impossible outcomes: refused, and no message shows a cell."""
    rows(tmp_path, "binomial")
    told(tmp_path, Federation.of(FILE.format(family="binomial", model="")))
    said = evaluate(
        CONFIG + "p <- numeric(length(config$names)); "
        "try_on <- function(d, ...) cat(tryCatch(train_glm(d, ...)(p, config), error = function(e) haina:::reason_of(e)), '\\n'); "
        "try_on(d[1:9, ]); e <- d; e$sex[3] <- 'hiv ward'; try_on(e); e <- d; e$age[5] <- NA; try_on(e); e <- d; e$y[7] <- 77; try_on(e); "
        "e <- d; e$age <- NULL; try_on(e); e <- d; e$dose[2] <- Inf; try_on(e); try_on(d, y ~ age); "
        "try_on(d, family = 'poisson'); e <- d; e$dose <- paste('Mueller', e$dose); try_on(e)",
        tmp_path,
    )
    assert said.splitlines() == [
        "it has fewer than 10 rows, which its answer would give away ",
        "column sex holds something else ",
        "values are missing ",
        "some of its rows cannot be used (allowed: 0 and 1) ",
        "the data lack the columns age ",
        "some of its rows cannot be used (allowed: finite numbers) ",
        "the formula makes 2 coefficients, or others than the federation's ",
        "family is poisson ",
        "column dose holds something else than numbers ",
    ]


def test_caret_hands_in_the_coefficients_of_linear_methods(tmp_path):
    needs_r("caret")
    rows(tmp_path, "gaussian")
    said = evaluate(
        'd <- read.csv("rows.csv"); t <- train_caret(d, y ~ age + dose, "lm", trControl = caret::trainControl(method = "none")); '
        "r <- t(NULL, list()); cat(all.equal(r$params, coef(lm(y ~ age + dose, d))), r$n, names(r), '\\n'); "
        "t <- train_caret(d, y ~ age + dose, 'lm', extract = function(fit) c(a = 1), trControl = caret::trainControl(method = 'none')); "
        "cat(t(NULL, list())$params, '\\n')",
        tmp_path,
    )
    assert said.splitlines() == ["TRUE 400 params n ", "1 "]


def test_laplace_noise_has_the_variance_that_was_asked_for(tmp_path):
    """The article's example: a coefficient of 2.5, epsilon 0.5: scale 2, variance 2 b^2 = 8, within 3 %."""
    needs_r()
    said = evaluate(
        "x <- laplace(rep(2.5, 4e5), sensitivity = 1, epsilon = 0.5); y <- laplace(c(a = 1, b = -3), scale = 1e-6); "
        "cat(jsonlite::toJSON(list(mean = mean(x), variance = var(x), mad = mean(abs(x - 2.5)), median = median(x), near = max(abs(y - c(1, -3))), "
        "names = names(y), kurtosis = mean((x - 2.5)^4) / var(x)^2), digits = NA, auto_unbox = TRUE))",
        tmp_path,
    )
    found = json.loads(said)
    assert abs(found["mean"] - 2.5) < 0.03
    assert abs(found["variance"] / 8 - 1) < 0.03
    # Mean absolute deviation is the scale, and kurtosis is 6: no other distribution with this variance.
    assert abs(found["mad"] / 2 - 1) < 0.02
    assert abs(found["kurtosis"] - 6) < 0.7
    assert found["near"] < 1e-4
    assert found["names"] == ["a", "b"]


def test_a_budget_is_written_before_anything_leaves_and_refuses_when_it_is_spent(tmp_path):
    needs_r()
    evaluate(
        'b <- privacy_budget(1, "budget.json"); t <- haina:::coefficient_trainer(function(p, c) c(a = 1), 400, 0.4, 1, b); '
        "t(NULL, list(federation = 'trial', round = 1))",
        tmp_path,
    )
    assert [entry["what"] for entry in json.loads((tmp_path / "budget.json").read_text())["entries"]] == [
        "trial/1"
    ]
    said = evaluate(
        'b <- privacy_budget(1, "budget.json"); t <- haina:::coefficient_trainer(function(p, c) c(a = 1), 400, 0.4, 1, b); '
        "invisible(t(NULL, list(federation = 'trial', round = 2))); cat(b$left(), nrow(b$entries()), ''); "
        "cat(tryCatch(t(NULL, list(federation = 'trial', round = 3)), error = conditionMessage)); cat('', b$spent(), ''); "
        'cat(tryCatch(privacy_budget(5, "budget.json"), error = conditionMessage))',
        tmp_path,
    )
    assert said.startswith("0.2 2 the privacy budget of this site is spent.")
    assert " 0.8 the budget in budget.json is epsilon 1, and 5 is given" in said
    (tmp_path / "budget.json").write_text("{}")
    damaged = evaluate('cat(tryCatch(privacy_budget(1, "budget.json"), error = conditionMessage))', tmp_path)
    assert "damaged" in damaged
