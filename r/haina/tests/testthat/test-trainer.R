model <- model_bytes(c(1, 2, 3))

test_that("what goes up is trained minus received", {
  site <- toy_site(function(params, config) list(params = params + config$round, n = 10, metrics = list(loss_after = 0.5, auc = 0.7)))
  sent <- trained(site, toy_task(round = 4), model)
  expect_identical(readBin(sent$body, "double", 3), c(4, 4, 4))
  expect_identical(sent$length, 3L)
  expect_identical(sent$report, list(examples = 10, steps = 1, loss_after = 0.5, extra = list(auc = 0.7)))
})

test_that("sums go up as they are, and documents too", {
  sums <- trained(toy_site(function(params, config) list(params = 1:5, n = 10), "sum", 5), toy_task(), model)
  expect_identical(readBin(sums$body, "double", 5), as.double(1:5))
  document <- trained(toy_site(function(params, config) list(document = "{\"a\":1}", n = 10), "collect", 0), toy_task(), charToRaw("{}"))
  expect_identical(rawToChar(document$body), "{\"a\":1}")
  expect_identical(document$length, 0)
})

test_that("a trainer's wrong answers are refused in words", {
  says <- function(answer, words, ...) {
    expect_error(trained(toy_site(function(params, config) answer, ...), toy_task(), model), words, class = "haina_error")
  }
  says(list(params = c(1, NA, 3), n = 10), "1 params that are NA")
  says(list(params = c(1, Inf, -Inf), n = 10), "2 params that are NA, NaN or infinite")
  says(list(params = 1:2, n = 10), "returned 2 params")
  says(list(params = "a", n = 10), "of type character")
  says(list(params = 1:3), "on how many rows")
  says(list(params = 1:3, n = 0), "on how many rows")
  says(NULL, "returned NULL")
  says(list(params = 1:3, n = 5, metrics = list("a")), "metrics that are not named numbers")
  says(list(params = 1:3, n = 5), "returned no document", payload = "collect")
})

test_that("names must be the federation's, in any order", {
  expect_identical(checked_params(c(b = 2, a = 1), 2, c("a", "b")), c(1, 2))
  expect_error(checked_params(c(b = 2, c = 1), 2, c("a", "b")), "other names")
  expect_identical(checked_params(c(2, 1), 2, c("a", "b")), c(2, 1))
})

test_that("a metric that the round asks for must be there", {
  site <- toy_site(function(params, config) list(params = params, n = 5))
  expect_error(trained(site, toy_task(measure = list("loss_before")), model), "asks for loss_before")
})

test_that("control vectors are refused", {
  expect_error(trained(toy_site(identity), toy_task(control = strrep("0", 64)), model), "control vector")
})

test_that("an endless trainer is stopped", {
  expect_error(with_time_limit(repeat Sys.sleep(0.01), 0.2), "time limit")
  # And the limit is gone afterwards.
  Sys.sleep(0.3)
  expect_identical(with_time_limit(1, 5), 1)
})

test_that("a task that departs from the promise is refused, where one was given", {
  site <- toy_site(function(params, config) list(params = params, n = 5), policy = list(hidden = NULL, mechanism = NULL))
  expect_error(trained(site, toy_task(epochs = 2), model), "epochs is 2, and the federation file says 1")
  expect_silent(trained(site, toy_task(), model))
})

test_that("updates are bounded in the norm of the mechanism, and reports bare", {
  far <- function(params, config) list(params = params + c(3, 4, 0), n = 10, metrics = list(loss_before = 1, secret = 2))
  site <- toy_site(far, policy = list(noise = "central", mechanism = list(norm = 2L), adaptive = FALSE))
  sent <- trained(site, toy_task(limit = 1), model)
  expect_equal(readBin(sent$body, "double", 3), c(0.6, 0.8, 0))
  expect_lte(sum(readBin(sent$body, "double", 3)^2), 1)
  expect_identical(sent$report, list(examples = 10, steps = 1))
  expect_error(trained(site, toy_task(), model), "names no limit", class = "haina_privacy_error")
  expect_lte(sum(abs(bound_vector(c(3, -4), 1, 1))), 1)
})

test_that("R's message travels, cut to what a message may hold", {
  expect_identical(nchar(reason_of(simpleError(strrep("x", 5000)))), 1000L)
  expect_identical(reason_of(tryCatch(haina_stop("what", "allowed", "remedy"), error = identity)), "what")
})
