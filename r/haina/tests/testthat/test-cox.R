set.seed(11)
rows <- data.frame(age = round(rnorm(240, 60, 10), 1), sex = sample(c("F", "M"), 240, TRUE), ward = sample(c("a", "b", "c"), 240, TRUE))
# Times of few digits, so that many are tied.
rows$time <- round(rexp(240, exp(0.03 * (rows$age - 60) + 0.4 * (rows$sex == "M"))), 1) + 0.1
rows$died <- rbinom(240, 1, 0.7)
rows$site <- rep(c("north", "south"), c(90, 150))

cox_config <- function(names, formula = NULL, ties = "efron") {
  levels <- list(sex = list("F", "M"), ward = list("a", "b", "c"))
  list(names = names, learner = list(kind = "cox", formula = formula, ties = ties, coefficients = as.list(names), levels = levels))
}

# Newton's steps on the sums of two sites.
cox_fit <- function(config, ...) {
  sites <- lapply(split(rows, rows$site), train_cox, ...)
  p <- length(config$names)
  beta <- numeric(p)
  for (step in 1:12) {
    sums <- Reduce(`+`, lapply(sites, function(site) site(beta, config)$params))
    hessian <- matrix(0, p, p)
    hessian[lower.tri(hessian, TRUE)] <- sums[p + seq_len(p * (p + 1) / 2)]
    hessian <- hessian + t(hessian) - diag(diag(hessian), p)
    beta <- beta + solve(hessian, sums[seq_len(p)])
  }
  list(beta = beta, se = sqrt(diag(solve(hessian))), loglik = -sums[[length(sums) - 3]] / 2, rows = sums[[length(sums) - 2]])
}

for (ties in c("efron", "breslow")) {
  test_that(paste("sums of two sites give coxph with strata(site), ties by", ties), {
    skip_if_not_installed("survival")
    tight <- survival::coxph.control(eps = 1e-14, iter.max = 50, toler.chol = 1e-15)
    fitted <- function(formula) survival::coxph(formula, rows, ties = ties, control = tight)
    surv <- survival::Surv
    strata <- survival::strata
    ours <- cox_fit(cox_config(c("age", "sexM", "age:sexM"), "Surv(time, died) ~ age * sex", ties))
    theirs <- fitted(surv(time, died) ~ age * sex + strata(site))
    expect_equal(ours$beta, unname(coef(theirs)), tolerance = 1e-10)
    expect_equal(ours$se, unname(sqrt(diag(vcov(theirs)))), tolerance = 1e-10)
    expect_equal(ours$loglik, theirs$loglik[[2]], tolerance = 1e-12)
    expect_identical(ours$rows, 240)
    # Strata within the site, by the federation's formula and by one's own.
    theirs <- fitted(surv(time, died) ~ log(age) + strata(site, sex, ward))
    for (formula in list(NULL, Surv(time, died) ~ log(age) + strata(ward) + strata(sex))) {
      ours <- cox_fit(cox_config("log(age)", "Surv(time, died) ~ strata(sex, ward) + log(age) - 1", ties), formula = formula)
      expect_equal(ours$beta, unname(coef(theirs)), tolerance = 1e-10)
    }
  })
}

test_that("two of three persons: the likelihood by hand", {
  x <- matrix(c(1, 0, 2))
  sums <- partial_likelihood(x, c(1, 2, 3), c(1, 1, 0), log(2), "efron")
  # Risk sets {2, 1, 4} and {1, 4}: weights 2^x.
  expect_equal(sums[[3]], -2 * log(2 / 7 * 1 / 5), tolerance = 1e-14)
  expect_equal(sums[[1]], (1 - (2 * 1 + 4 * 2) / 7) + (0 - 4 * 2 / 5), tolerance = 1e-14)
  # Times that differ by rounding only are tied.
  expect_identical(time_ranks(c(0.3, 0.1 + 0.2, 0.1)), c(1L, 1L, 2L))
  expect_identical(partial_likelihood(x, 1:3, c(0, 0, 0), 1, "efron"), c(0, 0, 0, 3, 0, 0))
})

test_that("what would show single persons stays, and so do impossible rows", {
  config <- cox_config("age", "Surv(time, died) ~ age")
  says <- function(rows, words) expect_error(train_cox(rows)(0, config), words, fixed = TRUE)
  says(rows[1:9, ], "it has fewer than 10 rows, which its answer would give away")
  says(transform(rows, died = rep(1:0, c(4, 236))), "it has fewer than 5 events, which its answer would give away")
  says(transform(rows, time = -time), "allowed: finite times >= 0")
  says(transform(rows, died = 2), "allowed: events that are 0 (censored) or 1")
  says(transform(rows, age = Inf), "allowed: finite numbers")
  says(rows["age"], "the data lack the columns died")
  expect_error(train_cox(rows)(0, list(learner = list(kind = "glm"))), "does not add sums of Cox's model")
  expect_error(train_cox(rows, time ~ age)(0, config), "no Surv(time, event)", fixed = TRUE)
  expect_error(train_cox(rows, Surv(time, died) ~ sex)(0, config), "or others than the federation's")
  # `.` is every column that the left side does not name.
  expect_length(train_cox(rows[c("time", "died", "age")], Surv(time, died) ~ .)(0, config)$params, 6)
})

test_that("a formula of the network is read and not run", {
  bad <- c("Surv(time, died) ~ system('touch owned')", "Surv(system('x'), died) ~ age", "Surv(time, died) ~ strata(get('x'))",
           "Surv(time, died) ~ strata(a, b = (function() 1)())", "Surv(time, died) ~ base::stop()", "Surv(time, died) ~ strata()", "time", "(((")
  for (text in bad) expect_error(safe_survival(text), "may not stand", class = "haina_error")
  expect_error(safe_survival(NULL), class = "haina_error")
  expect_s3_class(safe_survival("Surv(time, died) ~ log(age) + strata(sex, ward) - 1"), "formula")
  expect_false(exists("system", environment(safe_survival("Surv(a, b) ~ c"))))
})
