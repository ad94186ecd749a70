# The owner's own ledger, and the guard that asks it.

charge_of <- function(round, epsilon = 0.001, rho = 0, delta = 0, federation = "trial") {
  list(id = paste0(federation, "/", round, "/a"), owner = "a", dataset = "d", federation = federation,
       round = round, mechanism = "noise",
       epsilon = epsilon, delta = delta, rho = rho)
}

opened <- function(path = tempfile(fileext = ".jsonl"), epsilon = 4, delta = 0, composition = "pure") {
  ledger <- open_ledger(path)
  ledger_open_budget(ledger, made_budget("a", "d", epsilon, delta, composition))
  ledger
}

test_that("decimals are those that people write, and sums are exact", {
  units <- function(value) as.character(decimal_units(value))
  expect_identical(units(0.1), paste0("1", strrep("0", 29)))
  expect_identical(units(1e-30), "1")
  expect_identical(units(1.5e-31), "1")
  expect_identical(units(12345.678), paste0("12345678", strrep("0", 27)))
  expect_identical(units(0), "0")
  # Ten times 0.1 is 1, and not a unit more: in doubles it is less.
  ledger <- opened(epsilon = 1)
  for (round in 1:10) expect_null(ledger_reserve(ledger, charge_of(round, 0.1)))
  expect_match(ledger_reserve(ledger, charge_of(11, 1e-9)), "overspent")
})

test_that("rhos add up to what epsilon and delta allow, and pure epsilons count as their half squares", {
  ledger <- opened(epsilon = 8, delta = 1e-5, composition = "zcdp")
  rho <- rho_of_epsilon(8, 1e-5)
  for (round in 1:3) expect_null(ledger_reserve(ledger, charge_of(round, NULL, rho / 4)))
  # epsilon^2 / 2 = rho / 5 fits into the last quarter, and then rho / 4 does not.
  expect_null(ledger_reserve(ledger, charge_of(4, sqrt(2 * rho / 5))))
  expect_match(ledger_reserve(ledger, charge_of(5, NULL, rho / 4)), "rho .* is spent")
  expect_match(ledger_reserve(opened(), charge_of(1, NULL, 0.1)), "counts epsilon")
})

test_that("what was written stays, whatever became of the process", {
  path <- tempfile(fileext = ".jsonl")
  ledger <- opened(path)
  ledger_reserve(ledger, charge_of(1, 3))
  ledger_released(ledger, "trial/1/a")
  expect_true(ledger_use_round(ledger, "trial", 1))
  again <- open_ledger(path)
  expect_true(again$charges[["trial/1/a"]]$released)
  expect_identical(ledger_used_round(again, "trial"), 1)
  expect_false(ledger_use_round(again, "trial", 1))
  expect_match(ledger_refusal(again, charge_of(1, 3)), "released already")
  expect_match(ledger_refusal(again, charge_of(2, 2)), "3 of 4 is spent")
  # A line that a kill cut short was not acted on.
  cat('{"charge":{"id":"trial/2/a","own', file = path, append = TRUE)
  torn <- open_ledger(path)
  expect_length(torn$charges, 1)
  expect_null(ledger_reserve(torn, charge_of(2, 1)))
  expect_length(open_ledger(path)$charges, 2)
  # Whole lines that make no sense are damage, and nothing may leave.
  cat("nonsense\n", file = path, append = TRUE)
  expect_error(open_ledger(path), class = "haina_privacy_error")
  if (.Platform$OS.type == "unix") expect_identical(as.integer(file.mode(path)) %% 64L, 0L)
})

test_that("a charge whose release follows a kill is written before it", {
  dir.create(home <- tempfile("home"))
  policy <- list(
    noise = "local", mechanism = noise_mechanism("laplace", 0.5),
    allowance = list(epsilon = 1, delta = 0, composition = "pure")
  )
  guard <- privacy_guard(policy, "trial", "a", home)
  guard_begin(guard, 1)
  # No `guard_left`: the process died while it sent.
  after <- privacy_guard(policy, "trial", "a", home)
  expect_s3_class(guard_refusal(after, 1), "haina_secagg_error")
  expect_identical(guard_refusal(after, 1)$code, "replayed")
  expect_null(guard_refusal(after, 2))
  guard_begin(after, 2)
  guard_left(after, 2)
  spent <- guard_refusal(after, 3)
  expect_match(conditionMessage(spent), "privacy budget of this site is spent")
  expect_error(guard_begin(after, 3), class = "haina_privacy_error")
  # Nobody but this site is told how much.
  expect_identical(refusal_words(spent), "the privacy budget of this site is spent")
})

test_that("an owner's budget holds over all federations of a folder", {
  home <- tempfile("home")
  dir.create(home)
  policy <- function(z) list(
    noise = "distributed", mechanism = noise_mechanism("discrete_gaussian", z), allowance = NULL,
    hidden = list()
  )
  budget <- c(epsilon = 2, delta = 1e-5)
  rho <- rho_of_epsilon(2, 1e-5)
  half <- sqrt(0.5 / (rho / 2)) * (1 + 1e-9)
  first <- privacy_guard(policy(half), "one", "a", home, budget)
  guard_begin(first, 1)
  second <- privacy_guard(policy(half), "two", "a", home, budget)
  guard_begin(second, 1)
  expect_error(guard_begin(privacy_guard(policy(half), "three", "a", home, budget), 1), "spent")
  expect_error(
    privacy_guard(policy(half), "one", "a", home, c(epsilon = 3, delta = 1e-5)), class = "haina_config_error"
  )
  # What has no epsilon cannot be counted.
  silent <- list(noise = "none", mechanism = NULL, allowance = NULL)
  expect_error(privacy_guard(silent, "four", "a", home, budget), "promises no epsilon")
  expect_error(privacy_guard(policy(1), "five", "a", tempfile("x"), 3), "without a delta")
  expect_error(privacy_guard(policy(1), "six", "a", tempfile("x"), -1), class = "haina_config_error")
})

test_that("noise that the coordinator promises is charged where the owner has a budget", {
  policy <- list(
    noise = "central", mechanism = noise_mechanism("gaussian", 1),
    allowance = list(epsilon = 8, delta = 1e-5, composition = "zcdp")
  )
  trusting <- privacy_guard(policy, "trial", "a", tempfile("x"))
  guard_begin(trusting, 1)
  expect_length(trusting$ledger$charges, 0)
  owner <- privacy_guard(policy, "trial", "a", tempfile("x"), c(epsilon = 100, delta = 1e-5))
  guard_begin(owner, 1)
  expect_length(owner$ledger$charges, 1)
  # The owner may allow more than this federation promises to take: rho of (8, 1e-5) is 1.2297, and a round costs 0.5.
  guard_begin(owner, 2)
  expect_error(guard_begin(owner, 3), "spent")
  expect_length(owner$ledger$charges, 2)
})

test_that("without promises and budgets there is no ledger", {
  home <- tempfile("x")
  guard <- privacy_guard(NULL, "trial", "a", home)
  expect_silent(guard_begin(guard, 1))
  expect_false(file.exists(file.path(home, ledger_file)))
})
