config <- function(family, names) list(learner = list(kind = "glm", family = family, coefficients = as.list(names)), names = names)
set.seed(3)
rows <- data.frame(x = rnorm(300), w = factor(sample(c("a", "b", "c"), 300, TRUE)))
rows$y <- rpois(300, exp(0.3 + 0.4 * rows$x + 0.5 * (rows$w == "b")))
names <- c("(Intercept)", "x", "wb", "wc")

test_that("sums of two halves and Newton's steps give R's own glm", {
  halves <- lapply(split(rows, rep(1:2, c(90, 210))), train_glm, y ~ x + w, "poisson")
  beta <- c(log(mean(rows$y)), 0, 0, 0)
  for (step in 1:12) {
    sums <- Reduce(`+`, lapply(halves, function(half) half(beta, config("poisson", names))$params))
    hessian <- matrix(0, 4, 4)
    hessian[lower.tri(hessian, TRUE)] <- sums[5:14]
    hessian <- hessian + t(hessian) - diag(diag(hessian))
    beta <- beta + solve(hessian, sums[1:4])
  }
  fit <- glm(y ~ x + w, poisson, rows, control = glm.control(epsilon = 1e-14))
  expect_equal(beta, unname(coef(fit)), tolerance = 1e-10)
  expect_equal(sqrt(diag(solve(hessian))), unname(sqrt(diag(vcov(fit)))), tolerance = 1e-8)
  expect_equal(sums[[15]], deviance(fit), tolerance = 1e-10)
  expect_identical(sums[16:17], c(300, sum(rows$y)))
})

test_that("the family and the coefficients must be the federation's", {
  expect_error(train_glm(rows, y ~ x, "gamma"), "family is gamma")
  expect_error(train_glm(rows, y ~ x + w, binomial())(1:4, config("poisson", names)), "poisson, as the federation says")
  expect_error(train_glm(rows, y ~ x)(1:4, config("poisson", names)), "or others than the federation's")
  expect_error(train_glm(rows, y ~ x)(1:2, list(learner = list(kind = "forest"))), "does not add sums")
})

test_that("a column that read.csv took for logical has the level that was meant", {
  expect_identical(as.character(agreed_factor(c(FALSE, FALSE, NA), c("F", "M"), "sex")), c("F", "F", NA))
  expect_identical(as.character(agreed_factor(c(TRUE, FALSE), c("False", "True"), "smokes")), c("True", "False"))
  expect_error(agreed_factor(c(TRUE, FALSE), c("F", "M"), "sex"), "something else\\. .*in 1 rows here")
  expect_identical(as.character(agreed_factor(TRUE, c("T", "TRUE"), "odd")), "TRUE")
})

test_that("the mark of a few persons keeps a site silent", {
  mark <- function(ones, learner = list(min_cell = 5)) refuse_rare(cbind(1, seq_len(100) <= ones, stats::rnorm(100)), learner)
  for (ones in c(0, 5, 50, 95, 100)) expect_silent(mark(ones))
  for (ones in c(1, 4, 96, 99)) {
    expect_error(mark(ones), "a level of its factors or outcomes has fewer than 5 rows, which its sums would give away")
    expect_silent(mark(ones, list(min_cell = 1)))
  }
})

test_that("a formula of the network is arithmetic of columns, and counted before it is spelt out", {
  for (text in c("y ~ x", "log(y + 1) ~ I(x^2) + factor(z):x + offset(log(t))", "y ~ (a + b)^2 - 1", "y ~ sex * bmi + .")) {
    expect_s3_class(safe_formula(text), "formula")
  }
  for (text in c("y ~ I((1:1500000000) + 0)", "y ~ I(x ~ z)", "y ~ I(offset(x))", "y ~ log(factor(x))", "y ~ sqrt()", "y ~ log(1, 2, 3)",
                 "y ~ system('id')", "y ~ factor(x + 1)", "1:1e9 ~ x", "~ x", "y ~ I(x) ~ z")) {
    expect_error(safe_formula(text), "may not stand in one", info = text)
  }
  many <- paste("y ~", paste(sprintf("I(a^%d)", 1:40), collapse = " * "))
  expect_lt(system.time(expect_error(safe_formula(many), "too many terms"))[["elapsed"]], 1)
  expect_error(safe_formula("y ~ (a + b + c + d)^20"), "too many terms")
})
