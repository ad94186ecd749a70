set.seed(5)
rows <- data.frame(age = rnorm(200, 60, 12), stay = rexp(200), ward = sample(c("a", "b"), 200, TRUE), died = rep(0:1, 100))
# Tables have agreed columns. Numbers are asked for as of rows without a table, in which values may be missing.
ask <- function(asks, columns, ...) {
  learner <- list(kind = "summary", asks = asks, columns = as.list(columns), ...)
  table <- list(target = "died", features = as.list(columns), categorical = learner$levels, missing = "refuse")
  list(learner = learner, columns = list(columns = if (asks == "table") table))
}
answer <- function(data, known, ...) train_summary(data)(known, ask(...))$params

test_that("moments and the ladder of a description are counts and sums of the rows", {
  gaps <- rows
  gaps$stay[1:30] <- NA
  # Stage, rows; count, mean and sd of two columns; then low and high of two ranks of one probability for each.
  known <- c(2, 200, 200, 170, 60, 1, 12, 1, c(40, 41, 0, 1), c(80, 81, 4, 5))
  said <- answer(gaps, known, "describe", c("age", "stay"), probabilities = list(0.5), rungs = 3)
  there <- gaps$stay[31:200]
  expect_equal(said[1:7], c(200, 200, 170, sum(rows$age - 60), sum(there - 1), sum((rows$age - 60)^2), sum((there - 1)^2)), tolerance = 1e-12)
  below <- function(values, low, high) vapply(as.vector(ladder(low, high, 3)), function(rung) sum(values <= rung), 0)
  counts <- c(below(rows$age, 40, 80), below(rows$age, 41, 81), below(there, 0, 4), below(there, 1, 5))
  expect_identical(said[-(1:7)], counts)
  # In the first round there are no bounds yet.
  known[[1]] <- 0
  expect_identical(answer(gaps, known, "describe", c("age", "stay"), probabilities = list(0.5), rungs = 3)[-(1:7)], numeric(12))
})

test_that("rungs are even in the order of doubles", {
  largest <- .Machine$double.xmax
  smallest <- 2^-1074
  # Doubles of one binade are even as numbers; those around zero, by their bits. Zeros are one.
  low <- c(1, -2, -smallest * 2, -0, -largest, 1)
  high <- c(2, -1, smallest * 2, 0, largest, 1 + 2^-52)
  expect_identical(ladder(low, high, 3), rbind(1 + 1:3 / 4, -2 + 1:3 / 4, -1:1 * smallest, 0, c(-1.5, 0, 1.5 - 2^-52), 1))
  # One on each side of every bit, and back.
  some <- c(0, smallest, 2^-1022, 1, pi, largest, -smallest, -2^-1022, -1, -pi, -largest)
  expect_identical(double_at(place_of(some)), some)
})

test_that("tables, bins and products are R's", {
  levels <- list(ward = list("a", "b", "c"), site = list("n", "s"))
  data <- cbind(rows, site = rep(c("n", "s"), each = 100))
  said <- answer(data, 0, "table", c("ward", "site"), levels = levels, min_cell = 5, check = "site")
  expect_equal(said, c(200, as.vector(t(table(factor(data$ward, c("a", "b", "c")), data$site)))))

  bins <- c(30, 50, 60, 80)
  rounded <- transform(rows, age = round(age, -1))
  said <- answer(rounded, c(2, 200, 60, bins, numeric(5)), "histogram", "age", edges = 4, min_cell = 1, check = "site")
  inside <- rounded$age[rounded$age >= 30 & rounded$age <= 80]
  counts <- hist(inside, bins, plot = FALSE)$counts
  expect_equal(said[5:9], c(sum(rounded$age < 30), counts, sum(rounded$age > 80)))

  said <- answer(rows, c(0, 0, mean(rows$age), mean(rows$stay), 0, 0, 0), "correlation", c("age", "stay"))
  upper <- cov(rows[c("age", "stay")])[c(1, 2, 4)]
  expect_equal(said[4:6] / 199, upper, tolerance = 1e-12)

  known <- c(2, 200, mean(rows$age), sd(rows$age), numeric(45))
  said <- answer(rows, known, "auc", "age", outcome = "died", bins = 5000, min_cell = 5, check = "sum")
  cases <- said[4 + 1:5000]
  controls <- said[5004 + 1:5000]
  area <- sum(cases * (cumsum(controls) - controls / 2)) / (100 * 100)
  ranks <- rank(rows$age)
  expect_equal(area, (sum(ranks[rows$died == 1]) - 100 * 101 / 2) / 1e4, tolerance = 1e-3)
})

test_that("answers that would show single persons stay, in words that tell what is allowed", {
  says <- function(words, data, ...) {
    error <- tryCatch(answer(data, ...), haina_error = identity)
    expect_identical(reason_of(error), words)
    # At home it reads the same, and may say more.
    expect_match(conditionMessage(error), sub("\\.$", "", words), fixed = TRUE)
  }
  few <- rows
  few$stay[-(1:9)] <- NA
  none <- transform(rows, stay = NA_real_)
  values <- "column 'stay' has fewer than 10 values here, which a summary would give away. Allowed: no values, or at least 10. Leave the column out."
  says(values, few, numeric(8), "describe", c("age", "stay"), probabilities = list(), rungs = 127)
  complete <- paste("fewer than 10 of its rows are complete, which their products would give away. Allowed: no complete rows, or at least 10.",
                    "Name fewer columns.")
  says(complete, few, numeric(7), "correlation", c("age", "stay"))
  # Nothing at all tells nothing of anybody.
  expect_identical(answer(none, numeric(8), "describe", c("age", "stay"), probabilities = list(), rungs = 127)[2:3], c(200, 0))
  expect_identical(answer(none, numeric(7), "correlation", c("age", "stay")), numeric(6))
  small <- transform(rows, ward = rep(c("a", "b"), c(196, 4)))
  levels <- list(ward = list("a", "b"))
  cells <- paste("a cell of its table has fewer than 5 rows, which it would give away. Allowed: cells of 0 or at least 5 rows.",
                 "Merge levels or widen bins; or hide single sites by [privacy] secure_aggregation and write check = \"sum\".")
  says(cells, small, 0, "table", "ward", levels = levels, min_cell = 5, check = "site")
  expect_equal(answer(small, 0, "table", "ward", levels = levels, min_cell = 5, check = "sum"), c(200, 196, 4))
  says("it has fewer than 10 rows, which its answer would give away", rows[1:9, ], numeric(7), "correlation", c("age", "stay"))
  says("it has no rows", rows[0, ], numeric(7), "correlation", c("age", "stay"))
  says("column ward holds something else than numbers", rows, numeric(7), "correlation", c("age", "ward"))
  says("the data lack the columns dose", rows, numeric(7), "correlation", c("age", "dose"))
  expect_error(answer(rows, 0, "mode", "age"), "does not ask for a summary that is known here")
})

test_that("folds are those of Python sites", {
  # Pinned in tests/learners/glm/test_cross_validation.py too.
  expect_identical(folds_of(7, "north", 20, 3), c(1, 3, 2, 2, 3, 1, 1, 2, 3, 3, 1, 2, 2, 3, 2, 3, 1, 1, 1, 2))
  # A seed beyond 2^53 comes as text.
  expect_identical(folds_of("4611686018427387905", "a", 9, 4), c(4, 1, 2, 1, 1, 2, 3, 4, 3))
  expect_identical(sort(tabulate(folds_of(1, "a", 103, 5))), c(20L, 20L, 21L, 21L, 21L))
})

test_that("fold sums are the sums of their rows", {
  config <- list(learner = list(kind = "glm", family = "binomial", folds = 3), names = c("(Intercept)", "age", "stay"), seed = 7, site = "a")
  points <- rbind(c(-1, 0.01, 0.1), c(-1, 0.01, 0.1), c(90, 0, 0))
  params <- as.vector(t(points[rep(1:3, 4), ]))
  trainer <- train_glm(rows, died ~ age + stay)
  said <- trainer(params, config)
  sums <- array(said$params, c(3 + 6 + 4 + 2, 3, 4))
  fold <- folds_of(7, "a", 200, 3)
  alone <- config
  alone$learner$folds <- NULL
  for (b in 1:3) for (k in 0:3) {
    own <- train_glm(rows[fold != k, ], died ~ age + stay)(points[b, ], alone)$params
    expect_equal(sums[1:13, b, k + 1], own, tolerance = 1e-13)
    expect_identical(sums[15, b, k + 1], sum(fold == k) + 0)
  }
  # Probabilities of rows left out are cut at 1e-5, as in cv.glmnet.
  hidden <- rows$died[fold == 2]
  expect_equal(sums[14, 3, 3], -2 * sum(ifelse(hidden == 1, log(1 - 1e-5), log(1e-5))), tolerance = 1e-9)
  expect_identical(said$n, 200L)
  expect_error(train_glm(rows[1:29, ], died ~ age + stay)(params, config), "fewer than 30 rows, and 3 folds of them would be given away")
})
